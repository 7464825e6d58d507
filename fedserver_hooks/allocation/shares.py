"""A share of the machine: what of it is ours, and how much of it was used so far."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fedserver_hooks.allocation.cgroups import Cgroups
from fedserver_hooks.allocation.machine import Machine, Processes

if TYPE_CHECKING:
    from telemetry.domain import Scope

_BYTES_PER_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Use:
    """CPU seconds used so far, ours and of the whole machine, and our share of its memory (0-1)."""

    own_cpu_s: float
    busy_cpu_s: float
    memory_share: float


class Shares(Protocol):
    """What of a machine is ours."""

    scope: Scope
    cpus: int
    """CPUs of the machine."""
    allotted_cpus: float | None
    """CPUs that are ours, whether we use them or not; None where only what is used is ours."""

    def look(self) -> Use:
        """How things stand now. Raises `OSError` or `ValueError` where that cannot be read."""

    def words(self) -> str:
        """The share as a short text."""


class AllocationShares:
    """The control group's limits of CPU and memory, as they are now; without one, the machine's."""

    scope: Scope = "allocation"

    def __init__(self, root: Path = Path("/"), pid: str = "self") -> None:
        self._machine = Machine(root)
        self._cgroups = Cgroups(root, pid)
        self.cpus = self._machine.cpus
        limit = self._cgroups.cpu_limit()
        self.allotted_cpus: float | None = min(limit or self.cpus, self.cpus)
        memory = self._cgroups.memory_limit_bytes()
        self._memory_bytes = min(memory or self._machine.memory_bytes, self._machine.memory_bytes)
        self.look()

    @property
    def is_smaller(self) -> bool:
        """Whether a limit is smaller than the machine."""
        return (
            self.allotted_cpus is not None and self.allotted_cpus < self.cpus
        ) or self._memory_bytes < self._machine.memory_bytes

    def look(self) -> Use:
        """The group's CPU time, the machine's, and the memory limit's share."""
        return Use(
            self._cgroups.cpu_time_s(),
            self._machine.busy_s(),
            self._memory_bytes / self._machine.memory_bytes,
        )

    def words(self) -> str:
        """``1 of 64 CPUs, 1.0 of 251.5 GiB``."""
        return (
            f"{self.allotted_cpus:g} of {self.cpus} CPUs, "
            f"{self._memory_bytes / _BYTES_PER_GIB:.1f} of "
            f"{self._machine.memory_bytes / _BYTES_PER_GIB:.1f} GiB"
        )


class ProcessShares:
    """What a process and its children use, and nothing that stands ready for them."""

    scope: Scope = "process"
    allotted_cpus: float | None = None

    def __init__(self, root: Path = Path("/"), pid: int | None = None) -> None:
        self._machine = Machine(root)
        self._processes = Processes(root, os.getpid() if pid is None else pid)
        self.cpus = self._machine.cpus
        self._used_s = 0.0

    def look(self) -> Use:
        """CPU time so far, and the share of the machine's memory in use now."""
        used_s, memory_bytes = self._processes.look()
        # A child that nobody waits for takes its time along.
        self._used_s = max(self._used_s, used_s)
        return Use(
            self._used_s,
            self._machine.busy_s(),
            min(1.0, memory_bytes / self._machine.memory_bytes),
        )

    def words(self) -> str:
        """``what this process uses of 64 CPUs and 251.5 GiB``."""
        gib = self._machine.memory_bytes / _BYTES_PER_GIB
        return f"what this process uses of {self.cpus} CPUs and {gib:.1f} GiB"
