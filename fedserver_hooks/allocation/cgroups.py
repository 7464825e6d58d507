"""What the kernel lets a process use: its control groups, of version 1, 2, or both at once.

Every path is below ``root``, so that a made-up tree can stand in for ``/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

_UNIFIED: Final = ""
"""How version 2 is called among the controllers: it has one hierarchy for all of them."""
_MICROSECONDS: Final = 1e6
_NANOSECONDS: Final = 1e9

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """One mounted hierarchy: the group that the process is in, and the topmost that can be seen."""

    own: Path
    top: Path

    def upwards(self) -> Iterator[Path]:
        """From the process's own group to the topmost: a limit on any of them holds."""
        yield self.own
        if self.own != self.top:
            for parent in self.own.parents:
                yield parent
                if parent == self.top:
                    return


class Cgroups:
    """The control groups of one process. Raises `OSError` or `ValueError` for what cannot be read.

    Limits above the topmost visible group cannot be seen: in a container with a namespace of its own
    that is the container's group, which has the container's limits.
    """

    def __init__(self, root: Path = Path("/"), pid: str = "self") -> None:
        own = _own_paths((root / "proc" / pid / "cgroup").read_text())
        self._hierarchies: dict[str, _Hierarchy] = {}
        for line in (root / "proc" / pid / "mountinfo").read_text().splitlines():
            for controller, path, mount_root, mount_point in _mounts(line, own):
                top = root / mount_point.lstrip("/")
                self._hierarchies.setdefault(
                    controller, _Hierarchy(_inside(top, path, mount_root), top)
                )

    @property
    def groups(self) -> dict[str, Path]:
        """The process's own group by controller; version 2's under the empty name."""
        return {controller: hierarchy.own for controller, hierarchy in self._hierarchies.items()}

    def cpu_limit(self) -> float | None:
        """CPUs that may be used at once: the least quota on the path, or the CPUs it is pinned to."""
        quotas = [
            *self._limits("cpu", _quota_v1),
            *self._limits(_UNIFIED, lambda group: _quota_v2(group / "cpu.max")),
        ]
        pinned = [
            *self._limits("cpuset", lambda group: _cpus_in(group / "cpuset.effective_cpus")),
            *self._limits(_UNIFIED, lambda group: _cpus_in(group / "cpuset.cpus.effective")),
        ]
        return min((*quotas, *map(float, pinned)), default=None)

    def memory_limit_bytes(self) -> int | None:
        """The least memory limit on the path."""
        limits = [
            *self._limits("memory", lambda group: _bytes_in(group / "memory.limit_in_bytes")),
            *self._limits(_UNIFIED, lambda group: _bytes_in(group / "memory.max")),
        ]
        return min(limits, default=None)

    def cpu_time_s(self) -> float:
        """CPU seconds that the process's own group has used since it was made."""
        if "cpuacct" in self._hierarchies:
            used = (self._hierarchies["cpuacct"].own / "cpuacct.usage").read_text()
            return int(used) / _NANOSECONDS
        if _UNIFIED not in self._hierarchies:
            raise ValueError("no control group counts CPU time")
        for line in (self._hierarchies[_UNIFIED].own / "cpu.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec":
                return int(value) / _MICROSECONDS
        raise ValueError("cpu.stat does not say usage_usec")

    def _limits(self, controller: str, read: Callable[[Path], T | None]) -> Iterator[T]:
        hierarchy = self._hierarchies.get(controller)
        for group in hierarchy.upwards() if hierarchy else ():
            try:
                limit = read(group)
            except (
                FileNotFoundError
            ):  # a topmost group has no limits, nor has one without controller
                continue
            if limit is not None:
                yield limit


def _own_paths(text: str) -> dict[str, str]:
    """Controller → path of the process's group, from ``/proc/<pid>/cgroup``."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _mounts(line: str, own: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Of a line of ``mountinfo``: controller, the process's path, root of the mount, mount point."""
    before, _, after = line.partition(" - ")
    mount_root, mount_point = before.split()[3:5]
    kind, _, options = after.split()[:3]
    if kind == "cgroup2":
        controllers = {_UNIFIED}
    elif kind == "cgroup":
        controllers = set(options.split(",")) - {_UNIFIED}
    else:
        return
    for controller in controllers & own.keys():
        yield controller, own[controller], mount_root, mount_point


def _inside(top: Path, path: str, mount_root: str) -> Path:
    """The group's directory; the mount point itself where the path leads out of what is mounted."""
    posix = PurePosixPath(path)
    if ".." in posix.parts or not posix.is_relative_to(mount_root):
        return top
    group = top / posix.relative_to(mount_root)
    return group if group.is_dir() else top


def _quota_v2(file: Path) -> float | None:
    quota, period = file.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    quota = int((group / "cpu.cfs_quota_us").read_text())
    return None if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())


def _bytes_in(file: Path) -> int | None:
    text = file.read_text().strip()
    return None if text == "max" else int(text)


def _cpus_in(file: Path) -> int | None:
    """How many CPUs a list such as ``0-3,7`` names; None for an empty one."""
    count = 0
    for part in file.read_text().strip().split(","):
        first, _, last = part.partition("-")
        if first:
            count += int(last or first) - int(first) + 1
    return count or None
