"""Of what the server's figure is: what was asked for, and what this machine has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, assert_never

from fedserver_hooks.allocation.shares import AllocationShares, ProcessShares, Shares
from fedserver_hooks.readings import describe
from telemetry.errors import TelemetryError

ServerScope = Literal["auto", "machine", "allocation", "process"]
"""What may be asked for; ``auto`` is allocation where a limit is smaller than the machine."""

_UNREADABLE = (OSError, ValueError, IndexError)


class ScopeUnavailable(TelemetryError):
    """The scope that was asked for cannot be had on this machine."""

    def __init__(self, scope: ServerScope, reason: str) -> None:
        self.scope = scope
        self.reason = reason
        super().__init__(f"{scope} is not available here: {reason}; choices: auto, machine")


def choose(scope: ServerScope, root: Path = Path("/"), pid: int | None = None) -> Shares | None:
    """The share of the machine that is metered; None for the whole machine.

    Raises `ScopeUnavailable` where the kernel does not say what a share that was asked for takes;
    ``auto`` then is the whole machine.
    """
    pid = os.getpid() if pid is None else pid
    try:
        match scope:
            case "machine":
                return None
            case "auto":
                found = AllocationShares(root, str(pid))
                return found if found.is_smaller else None
            case "allocation":
                return AllocationShares(root, str(pid))
            case "process":
                return ProcessShares(root, pid)
            case _:
                assert_never(scope)
    except _UNREADABLE as error:
        if scope == "auto":
            return None
        raise ScopeUnavailable(scope, describe(error)) from error


def in_words(asked: ServerScope, shares: Shares | None) -> str:
    """What was chosen: ``allocation (1 of 64 CPUs, 1.0 of 251.5 GiB)``."""
    if shares is not None:
        return f"{shares.scope} ({shares.words()})"
    whole = "the whole machine"
    return whole if asked == "machine" else f"{whole}, no limit here is smaller"
