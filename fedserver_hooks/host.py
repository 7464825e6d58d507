"""A name for this machine that two processes on it share and that no other run can recognise."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""The kernel's, so the same in every container of a machine, and another after each boot."""
_MACHINE_ID: Final = Path("/etc/machine-id")
"""Copied with container images, so it may name many machines: only where there is no boot id."""
_HEX_DIGITS: Final = 12


def host_id(run_id: str, *, boot_id: Path = _BOOT_ID, machine_id: Path = _MACHINE_ID) -> str | None:
    """First 12 hex digits of SHA-256(run id ‖ boot id); None where the machine has neither id.

    The run's id is part of it, so ids of different runs cannot be linked. Never raises.
    """
    machine = _content(boot_id) or _content(machine_id)
    if machine is None:
        return None
    return hashlib.sha256((run_id + machine).encode()).hexdigest()[:_HEX_DIGITS]


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):  # absent, unreadable, or not text
        return None
