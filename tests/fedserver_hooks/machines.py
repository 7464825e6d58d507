"""Machines made of files, whose time, work and energy move only when told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fedserver_hooks.meter import Reading
from telemetry.domain import Scope, Sensor

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
JOULES_PER_KWH = 3.6e6
GIB = 1024**3
PID = 4242
GROUP = "/kubepods/pod1/server"
STEP_S = 0.1
UNLIMITED_V1 = "9223372036854771712"

Power = Callable[[float], float]


class FakeMachine:
    """``/proc`` and ``/sys`` of a machine below ``root``, and the meter of all of it.

    ``cgroups`` is 2, 1, or 0 for a container of version 2 that sees its own group as ``/``. The
    process's limits stand one group above its own. CPU power in W is ``cpu_w`` of the load (0 to 1);
    the meter calls it a model if ``modelled``, else a sensor's.
    """

    resolution_s = 0.0
    scope: Scope = "machine"
    tracker: str | None = "made up"

    def __init__(
        self,
        root: Path,
        *,
        cpus: int = 8,
        memory_gib: int = 64,
        cgroups: int = 2,
        cpu_limit: float | None = 1.0,
        memory_limit_gib: int | None = 1,
        pinned: str | None = None,
        cpu_w: Power = lambda load: 100 * (0.1 + 0.9 * load**3),
        ram_w: float = 20.0,
        gpu_w: float | None = None,
        modelled: bool = True,
        sensor: Sensor = "model",
    ) -> None:
        self.root = root
        self.cpus = cpus
        self.cpu_w = cpu_w
        self.cpu_model = cpu_w if modelled else None
        self.sensor = sensor
        self.now = 1000.0
        self.rss_gib = 0.5
        self._memory_gib = memory_gib
        self._cgroups = cgroups
        self._ram_w = ram_w
        self._gpu_w = gpu_w
        self._own_s = 50.0
        self._children_s = 5.0
        self._busy_s = 5000.0
        self._joules = [0.0, 0.0, 0.0]
        self._limits(cpu_limit, memory_limit_gib, pinned or f"0-{cpus - 1}")
        self._write()

    # --- the passing of time ---------------------------------------------------------------------

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def run(self, seconds: float, own_cpus: float, neighbour_cpus: float = 0.0) -> None:
        """Let time pass while we, and somebody outside of our group, keep so many CPUs busy."""
        steps = round(seconds / STEP_S)
        load = min(1.0, (own_cpus + neighbour_cpus) / self.cpus)
        for _ in range(steps):
            self._joules[0] += self.cpu_w(load) * STEP_S
            self._joules[1] += (self._gpu_w or 0.0) * STEP_S
            self._joules[2] += self._ram_w * STEP_S
        self.now += steps * STEP_S
        self._own_s += steps * STEP_S * own_cpus
        self._busy_s += steps * STEP_S * (own_cpus + neighbour_cpus)
        self._write()

    def write(self, path: str, text: str) -> None:
        """A file of the tree."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    # --- the meter of the whole machine ------------------------------------------------------------

    def start(self) -> None:
        """Nothing to start."""

    def wait_ready(self, timeout_s: float) -> bool:
        """It always is."""
        return True

    def stop(self) -> None:
        """Nothing to stop."""

    def read(self) -> Reading:
        """The machine's energy so far."""
        cpu, gpu, ram = (joules / JOULES_PER_KWH for joules in self._joules)
        return Reading(cpu + gpu + ram, cpu, None if self._gpu_w is None else gpu, ram)

    # --- files -----------------------------------------------------------------------------------

    def _write(self) -> None:
        busy = int(self._busy_s * TICKS_PER_S)
        idle = int(self.now * self.cpus * TICKS_PER_S)
        work = f"{busy // 2} 0 {busy - busy // 2} {idle} 77 0 0 99 0 0"
        per_cpu = "".join(f"cpu{cpu} 1 1 1 1 1 1 1 1 0 0\n" for cpu in range(self.cpus))
        self.write("proc/stat", f"cpu  {work}\n{per_cpu}intr 5\nctxt 7\n")
        self.write(
            "proc/meminfo", f"MemTotal: {self._memory_gib * GIB // 1024} kB\nMemFree: 1 kB\n"
        )
        own = int((self._own_s - self._children_s) * TICKS_PER_S)
        ended = int(self._children_s * TICKS_PER_S)
        pages = int(self.rss_gib * GIB / PAGE_BYTES)
        self.write(
            f"proc/{PID}/stat",
            f"{PID} (a (b) c) S 1 {PID} {PID} 0 -1 0 9 9 9 9 "
            f"{own} 0 {ended} 0 20 0 1 0 555 999999 {pages} 18446744073709551615 1 1\n",
        )
        match self._cgroups:
            case 0:
                self.write("sys/fs/cgroup/cpu.stat", f"usage_usec {int(self._own_s * 1e6)}\n")
            case 1:
                usage = f"{int(self._own_s * 1e9)}\n"
                self.write(f"sys/fs/cgroup/cpu,cpuacct{GROUP}/cpuacct.usage", usage)
            case _:
                usage = f"usage_usec {int(self._own_s * 1e6)}\nuser_usec 3\n"
                self.write(f"sys/fs/cgroup{GROUP}/cpu.stat", usage)

    def _limits(self, cpus: float | None, memory_gib: int | None, pinned: str) -> None:
        quota = None if cpus is None else int(cpus * 100_000)
        memory = None if memory_gib is None else memory_gib * GIB
        above = GROUP.rpartition("/")[0]
        if self._cgroups == 1:
            self.write(
                f"proc/{PID}/cgroup",
                f"3:cpu,cpuacct:{GROUP}\n2:memory:{GROUP}\n4:cpuset:{GROUP}\n1:name=systemd:/\n",
            )
            self.write(
                f"proc/{PID}/mountinfo",
                "25 23 0:5 / /proc rw - proc proc rw\n"
                "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
                "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
            )
            for group, limit in ((GROUP, -1), (above, -1 if quota is None else quota), ("", -1)):
                self.write(f"sys/fs/cgroup/cpu,cpuacct{group}/cpu.cfs_quota_us", f"{limit}\n")
                self.write(f"sys/fs/cgroup/cpu,cpuacct{group}/cpu.cfs_period_us", "100000\n")
            for group, most in ((GROUP, None), (above, memory), ("", None)):
                path = f"sys/fs/cgroup/memory{group}/memory.limit_in_bytes"
                self.write(path, f"{UNLIMITED_V1 if most is None else most}\n")
            self.write(f"sys/fs/cgroup/cpuset{GROUP}/cpuset.effective_cpus", f"{pinned}\n")
            return
        inside = self._cgroups == 0
        self.write(f"proc/{PID}/cgroup", f"0::{'/' if inside else GROUP}\n")
        self.write(
            f"proc/{PID}/mountinfo",
            "25 23 0:5 / /proc rw - proc proc rw\n"
            "41 31 0:38 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
        )
        limited = "" if inside else above
        own = "" if inside else GROUP
        if not inside:
            self.write(f"sys/fs/cgroup{own}/cpu.max", "max 100000\n")
            self.write(f"sys/fs/cgroup{own}/memory.max", "max\n")
        self.write(
            f"sys/fs/cgroup{limited}/cpu.max", f"{'max' if quota is None else quota} 100000\n"
        )
        self.write(f"sys/fs/cgroup{limited}/memory.max", f"{'max' if memory is None else memory}\n")
        self.write(f"sys/fs/cgroup{own}/cpuset.cpus.effective", f"{pinned}\n")
