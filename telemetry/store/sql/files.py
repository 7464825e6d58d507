"""The companions of a database file: its lock and its secret."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from telemetry.errors import StoreError

SECRET_BYTES: Final = 32
_OWNER_ONLY: Final = 0o600
_RETRY_S: Final = 0.02


@contextmanager
def file_lock(path: Path, url: str, timeout_s: float) -> Iterator[None]:
    """Hold ``<path>.lock`` against other processes (and threads) that open the same database.

    The lock goes with its holder, however that ends; the file stays.
    """
    lock = os.open(_beside(path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY)
    try:
        deadline = monotonic() + timeout_s
        while not _taken(lock):
            if monotonic() > deadline:
                raise StoreError(url, "another process is opening or upgrading it; try again")
            sleep(_RETRY_S)
        yield
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_or_make_secret(path: Path, url: str) -> bytes:
    """The key in ``<path>.secret``, made on first use; called under the database's lock."""
    secret_path = _beside(path, "secret")
    if not secret_path.exists():
        _make_secret(secret_path)
    return _read_secret(secret_path, url)


def _read_secret(secret_path: Path, url: str) -> bytes:
    text = secret_path.read_text(encoding="ascii", errors="replace").strip()
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        # Never replaced: with another key every client would get another pseudonym.
        problem = f"{secret_path.name} beside it is damaged: expected {2 * SECRET_BYTES} hex digits"
        raise StoreError(url, problem)
    return secret


def _make_secret(secret_path: Path) -> None:
    """Write to a new file, then give it its name: nobody ever reads half a secret."""
    unfinished = secret_path.with_name(f"{secret_path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    new = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
    with open(new, "w", encoding="ascii") as file:  # noqa: PTH123  # a descriptor, not a path
        file.write(secrets.token_hex(SECRET_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(secret_path)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")
