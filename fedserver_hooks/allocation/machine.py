"""What the kernel says of the whole machine and of one process in it, below ``root``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final[int] = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_BYTES: Final[int] = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_BYTES_PER_KIB: Final = 1024
_BUSY: Final = (0, 1, 2, 5, 6)
"""user, nice, system, irq, softirq of a line of ``/proc/stat``. Guests are in user already; stolen
time was worked by another machine."""
_AFTER_NAME: Final = {"utime": 11, "cstime": 14, "rss": 21}
"""Places in ``/proc/<pid>/stat`` behind the name, which may hold spaces and brackets."""


class Machine:
    """CPUs, busy time and memory. Raises `OSError` or `ValueError` for what cannot be read."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._stat = root / "proc" / "stat"
        lines = self._stat.read_text().splitlines()
        self.cpus = sum(1 for line in lines if line[:3] == "cpu" and line[3:4].isdigit())
        self.memory_bytes = _memory_bytes(root)
        if not self.cpus or not self.memory_bytes:
            raise ValueError("/proc does not say how many CPUs and how much memory there is")
        self.busy_s()

    def busy_s(self) -> float:
        """Seconds that all CPUs together have worked since the machine started."""
        with self._stat.open(encoding="ascii") as file:
            ticks = file.readline().split()[1:]
        return sum(int(ticks[place]) for place in _BUSY) / _TICKS_PER_S


class Processes:
    """A process and all that it started. Raises `OSError` or `ValueError`."""

    def __init__(self, root: Path, pid: int) -> None:
        self._proc = root / "proc"
        self._pid = pid
        self.look()

    def look(self) -> tuple[float, int]:
        """CPU seconds (of children that have ended, too), and bytes of memory in use now.

        Memory that several processes share counts for each of them.
        """
        own = self._of(self._pid)
        others = [seen for pid in self._children(self._pid) if (seen := self._alive(pid))]
        ticks, pages = zip(own, *others, strict=True)
        return sum(ticks) / _TICKS_PER_S, sum(pages) * _PAGE_BYTES

    def _alive(self, pid: int) -> tuple[int, int] | None:
        try:
            return self._of(pid)
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile: its parent's from now on
            return None

    def _of(self, pid: int) -> tuple[int, int]:
        text = (self._proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        times = fields[_AFTER_NAME["utime"] : _AFTER_NAME["cstime"] + 1]
        return sum(int(time) for time in times), int(fields[_AFTER_NAME["rss"]])

    def _children(self, pid: int) -> Iterator[int]:
        """Descendants, as far as the kernel lists them (``CONFIG_PROC_CHILDREN``)."""
        for file in (self._proc / str(pid) / "task").glob("*/children"):
            try:
                children = [int(child) for child in file.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
                continue
            for child in children:
                yield child
                yield from self._children(child)


def _memory_bytes(root: Path) -> int:
    for line in (root / "proc" / "meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * _BYTES_PER_KIB
    return 0
