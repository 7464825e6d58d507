"""Programs that some tests need, such as promtool."""

from __future__ import annotations

import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

_TOOLS = Path(__file__).parent.parent / ".tools"
_UNPACKED = _TOOLS / "usr" / "bin"


def require_tool(name: str) -> str:
    """Path of a program, from PATH or as ``.ci/debian-tools`` unpacked it.

    Where it is missing the test is skipped; with ``CI=true`` it fails, so that continuous
    integration cannot lose a check unnoticed.
    """
    found = shutil.which(name) or shutil.which(name, path=str(_UNPACKED))
    if found is not None:
        return found
    return missing(f"{name} is not installed; `.ci/debian-tools` fetches it")


def require_npm_file(name: str) -> Path:
    """A file of an npm package that ``.ci/debian-tools`` fetched; as `require_tool` where it is missing."""
    path = _TOOLS / "npm" / name
    if path.exists():
        return path
    return missing(f"{name} is not there; `.ci/debian-tools` fetches it")


def has_ipv6_loopback() -> bool:
    """Whether this machine can listen on ``::1``; asked of the system alone, without our code."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


def require_package(name: str) -> None:
    """An extra that ``make test`` does not install and ``make test-slow`` does."""
    if find_spec(name) is None:
        missing(f"{name} is not installed; `make test-slow` installs it")


def missing(message: str) -> NoReturn:
    """Skip the test for want of something; with ``CI=true`` fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
