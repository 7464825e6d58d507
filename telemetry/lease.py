"""Whose run is it, and is that process still there?

An owner names its machine and boot (`Owner.host`), its pid and its start (`Owner.token`). Only
processes that see each other's pids have the same ``host``; about any other owner nothing can be
known from here, and it counts as alive until its lease expires.
"""

from __future__ import annotations

import os
import secrets
import socket
from hashlib import sha256
from pathlib import Path
from typing import Final

from telemetry.domain import Owner

_PROC: Final = Path("/proc")
_RANDOM: Final = secrets.token_hex(8)
_HOST_DIGITS: Final = 12
_START_FIELD: Final = 22 - 3
"""``starttime`` is the 22nd field of ``/proc/<pid>/stat`` (proc_pid_stat(5)); `_stat` begins at 3."""


def this_process() -> Owner:
    """This process as an owner; the same each time, and another one in a forked child."""
    pid = os.getpid()
    return Owner(host=_host(), pid=pid, token=f"{_start_tick(pid) or 0}.{_RANDOM}")


def is_alive(owner: Owner) -> bool:
    """False only if ``owner`` ran on this machine, in this boot and container, and is gone."""
    if owner.host != _host():
        return True
    if owner.pid == os.getpid():
        return owner == this_process()
    return _exists(owner.pid) and _started_as_said(owner)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs as somebody else
    except OverflowError:
        return False  # no machine has such a pid
    # A killed child stays as a zombie until its parent asks for it; it will write no more.
    return _stat(pid)[:1] not in (["Z"], ["X"])


def _started_as_said(owner: Owner) -> bool:
    """Whether the process of that pid started when the owner did, or cannot tell."""
    tick = _start_tick(owner.pid)
    said = owner.token.partition(".")[0]
    return tick is None or not said.isdigit() or int(said) in (0, tick)


def _start_tick(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None where ``/proc`` does not say."""
    fields = _stat(pid)
    return int(fields[_START_FIELD]) if len(fields) > _START_FIELD else None


def _stat(pid: int) -> list[str]:
    """``/proc/<pid>/stat`` from its third field (state) on; empty where it cannot be read.

    The second field, the program's name in parentheses, may itself hold spaces and parentheses.
    """
    text = _read(_PROC / str(pid) / "stat")
    return text.rpartition(")")[2].split()


def _host() -> str:
    parts = (
        _read(_PROC / "sys/kernel/random/boot_id"),
        socket.gethostname(),
        _pid_namespace(),
    )
    return sha256("\0".join(parts).encode()).hexdigest()[:_HOST_DIGITS]


def _pid_namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
