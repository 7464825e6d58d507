"""The server's share of a machine: what is ours by the kernel's word, and what neighbours do to it."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from codecarbon.external.hardware import CPU
from hypothesis import given
from hypothesis import strategies as st

from fedserver_hooks.allocation import AllocatedMeter, ScopeUnavailable, ServerScope, choose
from fedserver_hooks.allocation.cgroups import Cgroups
from fedserver_hooks.allocation.cpu import IdlePower, Interval, measured_kwh, modelled_kwh
from fedserver_hooks.allocation.machine import Machine
from fedserver_hooks.allocation.scope import in_words
from fedserver_hooks.codecarbon_tracker import cpu_model_of
from fedserver_hooks.meter import CodeCarbonMeter, MeterError, Reading
from tests.fedserver_hooks.machines import GROUP, JOULES_PER_KWH, PID, FakeMachine

MOVES = 0.10
"""How far, at most, a neighbour may move the figure."""


def codecarbon_w(load: float) -> float:
    """codecarbon's model of a CPU of 100 W."""
    return 100 * (0.1 + 0.9 * load**3)


def rapl_w(load: float) -> float:
    """A measured CPU as most are: much power with nothing to do, and a straight line above."""
    return 60 + 140 * load


def constant_w(load: float) -> float:
    """codecarbon's figure where it cannot even see the load."""
    return 50.0


KINDS: dict[str, dict[str, Any]] = {
    "codecarbon's model": {"cpu_w": codecarbon_w},
    "constant": {"cpu_w": constant_w, "sensor": "constant"},
    "sensor": {"cpu_w": rapl_w, "modelled": False, "sensor": "rapl"},
}
MACHINES = {"2 CPUs": (2, 4), "8 CPUs": (8, 64), "64 CPUs": (64, 512)}


def metered(machine: FakeMachine, scope: ServerScope = "auto") -> AllocatedMeter:
    """A meter of our share of a machine."""
    shares = choose(scope, machine.root, PID)
    assert shares is not None
    return AllocatedMeter(machine, shares, clock=machine.clock)


def rounds_j(
    machine: FakeMachine, meter: AllocatedMeter, neighbour_cpus: float, rounds: int = 4
) -> float:
    """Joules of a few rounds: 20 s of waiting for clients, 4 s of work on one CPU."""
    before = meter.read()
    for _ in range(rounds):
        for seconds, own in ((20, 0.05), (4, 1.0)):
            machine.run(seconds, own, neighbour_cpus)
            meter.read()
    return meter.read().minus(before).energy_kwh * JOULES_PER_KWH


# --- a neighbour ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cgroups", [2, 1, 0], ids=["v2", "v1", "v2 namespace"])
@pytest.mark.parametrize("size", MACHINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["auto", "process"])
def test_a_neighbour_does_not_move_the_figure(
    tmp_path: Path, scope: ServerScope, kind: str, size: str, cgroups: int
) -> None:
    """1 CPU and 1 GiB of a machine whose other CPUs stand still, all work, half work, stand still."""
    cpus, memory_gib = MACHINES[size]
    machine = FakeMachine(
        tmp_path, cpus=cpus, memory_gib=memory_gib, cgroups=cgroups, **KINDS[kind]
    )
    meter = metered(machine, scope)
    rounds_j(machine, meter, 0.0, rounds=1)  # set-up: a sensor's readings show its idle power
    figures, machines = [], []
    for neighbour in (0.0, cpus - 1.0, (cpus - 1) / 2, 0.0):
        whole = machine.read().energy_kwh
        figures.append(rounds_j(machine, meter, neighbour))
        machines.append((machine.read().energy_kwh - whole) * JOULES_PER_KWH)
    if kind != "constant":
        assert machines[1] > 1.5 * machines[0]  # it did move the machine's
    assert max(figures) <= min(figures) * (1 + MOVES)
    assert all(0 < ours < whole for ours, whole in zip(figures, machines, strict=True))


@pytest.mark.parametrize("kind", ["codecarbon's model", "constant"])
def test_a_steady_server_is_not_moved_either(tmp_path: Path, kind: str) -> None:
    """A full CPU all the time, and a model from whose readings idling could not be told."""
    machine = FakeMachine(tmp_path, **KINDS[kind])
    meter = metered(machine)
    figures = []
    for neighbour in (0.0, 7.0, 3.0):
        before = meter.read()
        machine.run(30, 1.0, neighbour)
        figures.append(meter.read().minus(before).energy_kwh)
    assert figures == pytest.approx([figures[0]] * 3, rel=1e-9)


def test_alone_and_without_limits_the_share_is_all_of_it(tmp_path: Path) -> None:
    """Allocation on a machine without limits, and nobody else there, is the machine's figure."""
    for kind, facts in KINDS.items():
        machine = FakeMachine(tmp_path / kind, cpu_limit=None, memory_limit_gib=None, **facts)
        meter = metered(machine, "allocation")
        meter.read()
        for own in (2.0, 0.5, 8.0, 0.0):
            machine.run(10, own)
            meter.read()
        reading = meter.read()
        assert reading.energy_kwh == pytest.approx(machine.read().energy_kwh, rel=1e-9), kind
        assert reading.energy_kwh == pytest.approx(reading.machine_kwh, rel=1e-9), kind


# --- by hand ----------------------------------------------------------------------------------------


def test_the_parts_by_hand(tmp_path: Path) -> None:
    """CPU by the model of an eighth of the machine, RAM 1 of 64 GiB, GPUs whole; the machine's beside."""
    machine = FakeMachine(tmp_path, gpu_w=30.0)
    meter = metered(machine)
    assert meter.read() == Reading(0.0, 0.0, 0.0, 0.0, 0.0)
    machine.run(100, 0.5, 3.5)
    used = meter.read()
    # 100 W of 8 CPUs: 12.5 W for ours, at half load 12.5 (0.1 + 0.9 / 8) = 2.65625 W; but all of the
    # machine with half a CPU at work is 100 (0.1 + 0.9 / 16³) = 10.02 W, which is more.
    joules = [None if e is None else e * JOULES_PER_KWH for e in (used.cpu_kwh, used.gpu_kwh)]
    assert joules == pytest.approx([265.625, 3000.0])
    assert (used.ram_kwh or 0) * JOULES_PER_KWH == pytest.approx(20 * 100 / 64)
    assert used.energy_kwh == pytest.approx(
        (used.cpu_kwh or 0) + (used.gpu_kwh or 0) + (used.ram_kwh or 0)
    )
    assert used.machine_kwh == pytest.approx(machine.read().energy_kwh)
    assert (meter.scope, meter.sensor, meter.tracker) == ("allocation", "model", "made up")


def test_never_more_than_the_model_says_of_the_machine_with_us_alone(tmp_path: Path) -> None:
    """One of two CPUs at full load: half a machine at full load is 50 W, the machine itself 21.25."""
    machine = FakeMachine(tmp_path, cpus=2, memory_gib=4)
    meter = metered(machine)
    meter.read()
    machine.run(100, 1.0)
    assert (meter.read().cpu_kwh or 0) * JOULES_PER_KWH == pytest.approx(2125.0)


def test_a_sensors_idle_power_is_split_by_limit_and_the_rest_by_cpu_time(tmp_path: Path) -> None:
    """60 W idle, 17.5 W a busy CPU; by hand: 60 / 8 + 17.5 × ours, whoever else works."""
    machine = FakeMachine(tmp_path, cpu_w=rapl_w, modelled=False, sensor="rapl")
    meter = metered(machine)
    rounds_j(machine, meter, 0.0, rounds=2)
    before = meter.read()
    machine.run(10, 0.5, 4.0)
    used = meter.read().minus(before)
    assert (used.cpu_kwh or 0) * JOULES_PER_KWH == pytest.approx(10 * (60 / 8 + 17.5 * 0.5))


def test_before_a_sensor_showed_its_idle_power_each_cpu_second_counts_the_same(
    tmp_path: Path,
) -> None:
    """Half a CPU of ours and 7.5 idle ones, an eighth of them ours: (0.5 + 7.5 / 8) / 8 of it."""
    machine = FakeMachine(tmp_path, cpu_w=rapl_w, modelled=False, sensor="rapl")
    meter = metered(machine)
    meter.read()
    machine.run(10, 0.5)
    expected = 10 * rapl_w(0.5 / 8) * (0.5 + 7.5 / 8) / 8
    assert (meter.read().cpu_kwh or 0) * JOULES_PER_KWH == pytest.approx(expected)


def test_a_process_has_what_it_uses(tmp_path: Path) -> None:
    """CPU time with that of ended and running children, and memory as it is at the reading."""
    machine = FakeMachine(tmp_path, cpu_w=lambda load: 100 * load)
    machine.write(f"proc/{PID}/task/{PID}/children", "4300 4301 ")
    ticks = os.sysconf("SC_CLK_TCK")
    numbers = f"S 1 1 1 0 -1 0 0 0 0 0 {3 * ticks} {ticks} 0 0 20 0 1 0 5 5 0 0"
    machine.write("proc/4300/stat", f"4300 (child) {numbers}")  # 4301 has ended meanwhile
    shares = choose("process", tmp_path, PID)
    assert shares is not None
    assert shares.look().own_cpu_s == pytest.approx(54.0)
    assert shares.look().memory_share == pytest.approx(0.5 / 64, rel=1e-3)
    (tmp_path / "proc/4300/stat").unlink()  # and nobody waited for it: its time is not told twice
    assert shares.look().own_cpu_s == pytest.approx(54.0)
    meter = metered(machine, "process")
    meter.read()
    machine.rss_gib = 2
    machine.run(10, 0.8, 4.0)
    used = meter.read()
    assert (used.cpu_kwh or 0) * JOULES_PER_KWH == pytest.approx(100.0)
    assert (used.ram_kwh or 0) * JOULES_PER_KWH == pytest.approx(200 * 2 / 64)
    assert meter.scope == "process"


def test_our_own_process_is_seen_with_its_children() -> None:
    """The real /proc: what this process worked, within ticks, and the memory that it holds."""
    shares = choose("process")
    assert shares is not None
    before, worked = shares.look(), 0.0
    times = os.times()
    while worked < 0.2:
        now = os.times()
        worked = now.user + now.system - times.user - times.system
    after = shares.look()
    assert after.own_cpu_s - before.own_cpu_s == pytest.approx(worked, abs=0.1)
    assert 0 < after.memory_share < 1


# --- what the kernel says ---------------------------------------------------------------------------


@pytest.mark.parametrize("cgroups", [2, 1, 0], ids=["v2", "v1", "v2 namespace"])
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "allocation (1 of 8 CPUs, 1.0 of 64.0 GiB)"),
        ({"cpu_limit": None}, "allocation (8 of 8 CPUs, 1.0 of 64.0 GiB)"),
        ({"memory_limit_gib": None}, "allocation (1 of 8 CPUs, 64.0 of 64.0 GiB)"),
        ({"cpu_limit": 2.5, "pinned": "1,3-5"}, "allocation (2.5 of 8 CPUs, 1.0 of 64.0 GiB)"),
        ({"cpu_limit": 4.0, "pinned": "1,3"}, "allocation (2 of 8 CPUs, 1.0 of 64.0 GiB)"),
        (
            {"cpu_limit": None, "memory_limit_gib": None},
            "the whole machine, no limit here is smaller",
        ),
        (
            {"cpu_limit": 16.0, "memory_limit_gib": 128},
            "the whole machine, no limit here is smaller",
        ),
    ],
)
def test_auto_takes_the_allocation_where_a_limit_is_smaller(
    tmp_path: Path, cgroups: int, limits: dict[str, Any], words: str
) -> None:
    """Quota, pinning and memory of any group on the way up, under both versions."""
    machine = FakeMachine(tmp_path, cgroups=cgroups, **limits)
    assert in_words("auto", choose("auto", machine.root, PID)) == words


def test_the_machine_may_be_asked_for_in_a_limited_container(tmp_path: Path) -> None:
    """Then its whole figure stands."""
    machine = FakeMachine(tmp_path)
    assert choose("machine", machine.root, PID) is None
    assert in_words("machine", None) == "the whole machine"


def test_a_container_of_version_1_sees_its_group_at_the_mount_point(tmp_path: Path) -> None:
    """Its path is the host's, and so is the root of the mount: together they are the mount point."""
    machine = FakeMachine(tmp_path, cgroups=1)
    base = "sys/fs/cgroup/cpu"
    machine.write(f"proc/{PID}/cgroup", "3:cpu,cpuacct:/docker/abc\n")
    mount = "32 31 0:29 {} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    machine.write(f"{base}/cpu.cfs_quota_us", "150000")
    machine.write(f"{base}/cpu.cfs_period_us", "100000")
    machine.write(f"{base}/cpuacct.usage", "2500000000")
    for root in ("/docker/abc", "/", "/../.."):  # the second: a path that is not mounted here
        machine.write(f"proc/{PID}/mountinfo", mount.format(root))
        groups = Cgroups(tmp_path, str(PID))
        assert (groups.cpu_limit(), groups.cpu_time_s()) == (1.5, 2.5)


def test_busy_time_leaves_out_idling_waiting_and_what_was_stolen(tmp_path: Path) -> None:
    """user, nice, system, irq and softirq; guests are in user already."""
    machine = FakeMachine(tmp_path, cpus=1)
    ticks = os.sysconf("SC_CLK_TCK")
    values = " ".join(str(n * ticks) for n in (1, 2, 4, 1000, 2000, 8, 16, 4000, 1, 1))
    machine.write("proc/stat", f"cpu  {values}\ncpu0 {values}\n")
    assert Machine(tmp_path).busy_s() == pytest.approx(31.0)


@pytest.mark.parametrize("scope", ["allocation", "process"])
def test_a_scope_that_cannot_be_had_names_the_choices(tmp_path: Path, scope: ServerScope) -> None:
    """Where there is no /proc, a share is refused and ``auto`` is the machine."""
    with pytest.raises(ScopeUnavailable, match=f"{scope} is not .* choices: auto, machine"):
        choose(scope, tmp_path, PID)
    assert choose("auto", tmp_path, PID) is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("proc/stat", "no numbers"),
        (f"proc/{PID}/cgroup", "nonsense"),
        (f"proc/{PID}/mountinfo", "a - b"),
        (f"sys/fs/cgroup{GROUP}/cpu.max", "soon"),
        (f"sys/fs/cgroup{GROUP}/cpu.stat", "user_usec 7"),
        ("proc/meminfo", "MemTotal:\n"),
    ],
)
def test_files_of_another_form_are_no_share(tmp_path: Path, file: str, text: str) -> None:
    """Never an exception of another kind, and never a share of 0."""
    machine = FakeMachine(tmp_path)
    machine.write(file, text)
    with pytest.raises(ScopeUnavailable):
        choose("allocation", tmp_path, PID)


# --- what cannot be attributed ----------------------------------------------------------------------


class ScriptedMachine(FakeMachine):
    """A machine whose meter gives what it is told to."""

    def __init__(self, root: Path, *readings: Reading) -> None:
        super().__init__(root)
        self.readings = iter(readings)

    def read(self) -> Reading:
        """The next one."""
        self.run(10, 0.5)
        return next(self.readings)


def test_energy_of_no_known_component_is_an_error_and_never_zero(tmp_path: Path) -> None:
    """A total without parts, or with a part missing, cannot be shared out."""
    whole, most = Reading(1.0), Reading(1.0, 0.5, None, 0.3)
    meter = metered(ScriptedMachine(tmp_path, whole, most))
    for _ in range(2):
        with pytest.raises(MeterError, match="neither CPU's, RAM's nor GPU's"):
            meter.read()


def test_a_component_that_is_not_observed_stays_unknown(tmp_path: Path) -> None:
    """RAM alone: CPU and GPU are None, not 0."""
    machine = ScriptedMachine(
        tmp_path, Reading(1.0, None, None, 1.0), Reading(2.0, None, None, 2.0)
    )
    meter = metered(machine)
    meter.read()
    assert meter.read() == Reading(1 / 64, None, None, 1 / 64, 1.0)


def test_a_share_that_cannot_be_read_is_an_error_that_the_next_reading_makes_good(
    tmp_path: Path,
) -> None:
    """No energy is lost over it, and none is made up."""
    machine, twin = FakeMachine(tmp_path / "a"), FakeMachine(tmp_path / "b")
    meter, other = metered(machine), metered(twin)
    meter.read()
    other.read()
    usage = machine.root / f"sys/fs/cgroup{GROUP}/cpu.stat"
    for told in ("gone", "backwards"):
        for each in (machine, twin):
            each.run(10, 0.5, 2.0)
        usage.write_text("usage_usec 1\n" if told == "backwards" else "")
        with pytest.raises(MeterError, match="our share of the machine"):
            meter.read()
    for each in (machine, twin):
        each.run(10, 0.5, 2.0)
    assert meter.read() == other.read()


def test_readings_too_close_for_the_machines_meter_share_out_nothing(tmp_path: Path) -> None:
    """The same reading again is the same figure, and the time between is not forgotten."""
    machine = FakeMachine(tmp_path)
    meter = metered(machine)
    meter.read()
    machine.run(10, 1.0)
    first = meter.read()
    machine.now += 0.01
    assert meter.read() is first


# --- rules ------------------------------------------------------------------------------------------

intervals = st.builds(
    lambda wall, energy, cpus, own, others, allotted: Interval(
        wall_s=wall,
        energy_kwh=energy,
        own_s=min(own, allotted or cpus) * wall,
        busy_s=min(cpus, min(own, allotted or cpus) + others) * wall,
        cpus=cpus,
        allotted_cpus=None if allotted is None else min(allotted, cpus),
    ),
    st.floats(0.01, 1e4),
    st.floats(0, 1),
    st.integers(1, 256),
    st.floats(0, 256),
    st.floats(0, 256),
    st.none() | st.floats(0.1, 256),
)


@given(intervals, st.floats(0, 1))
def test_a_part_is_never_more_than_the_whole_nor_less_than_nothing(
    interval: Interval, idle_kw: float
) -> None:
    """By either rule, whatever the idle power is."""
    most = interval.energy_kwh * (1 + 1e-9)
    for kwh in (
        modelled_kwh(interval, codecarbon_w),
        measured_kwh(interval, None),
        measured_kwh(interval, idle_kw),
    ):
        assert 0 <= kwh <= most


@given(st.floats(0, 500), st.floats(0, 50), st.lists(st.floats(0, 8), min_size=3, max_size=20))
def test_idle_power_is_found_on_a_straight_line(
    idle_w: float, per_cpu_w: float, busy: list[float]
) -> None:
    """Exactly, from readings of any length; and not at all from readings that are all alike."""
    found = IdlePower()
    for place, cpus in enumerate(busy):
        wall = 1.0 + place
        kwh = (idle_w + per_cpu_w * cpus) * wall / JOULES_PER_KWH
        found.learn(Interval(wall, kwh, 0.0, cpus * wall, 8, 1.0))
    if found.kw is None:
        assert max(busy) - min(busy) < 1
    else:
        assert found.kw * 1000 == pytest.approx(idle_w, abs=1e-3)


@pytest.mark.parametrize(
    ("busy_w", "idle_w"),
    [({0.1: 10, 5: 100, 8: 101}, 10), ({0: 1, 4: 2, 8: 200}, 0)],
    ids=["the line meets above the least", "the line meets below 0"],
)
def test_idle_power_stays_within_what_was_read(busy_w: dict[float, float], idle_w: float) -> None:
    """A machine is not a straight line: never above the least power that was read, nor below 0."""
    found = IdlePower()
    for cpus, watts in busy_w.items():
        found.learn(Interval(1.0, watts / JOULES_PER_KWH, 0.0, cpus, 8, 1.0))
    assert found.kw is not None
    assert found.kw * 1000 == pytest.approx(idle_w)


@pytest.mark.parametrize("load", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("mode", ["cpu_load", "constant"])
def test_the_model_is_codecarbons_own(mode: str, load: float) -> None:
    """The very power that codecarbon gives at that load; no model where it reads a sensor."""

    class Load:
        def percent(self) -> float:
            return load * 100

    cpu = CPU.from_utils("", mode, "made up", 130)
    cpu._cpu_load_meter = Load()  # type: ignore[assignment]
    model = cpu_model_of([object(), cpu])
    assert model is not None
    assert model(load) == pytest.approx(cpu._get_power_from_cpus().W)
    cpu._mode = "intel_rapl"
    assert cpu_model_of([cpu]) is None


def test_a_real_meter_tells_its_model_once_it_has_started() -> None:
    """A forced CPU power is the model's at full load."""
    meter = CodeCarbonMeter(force_cpu_power=200.0)
    assert meter.cpu_model is None
    meter.start()
    assert meter.wait_ready(30.0)
    assert meter.cpu_model is not None
    assert meter.cpu_model(1.0) == pytest.approx(200.0)
    meter.stop()


def test_readings_never_fall(tmp_path: Path) -> None:
    """Each figure of a cumulative meter is at least the one before, whatever the load does."""
    machine = FakeMachine(tmp_path, cpu_w=rapl_w, modelled=False, gpu_w=10.0)
    meter = metered(machine)
    readings = [meter.read()]
    for own, others in ((0, 0), (1, 7), (0, 7), (0.5, 0), (1, 0), (0, 0.1)):
        machine.run(3, own, others)
        readings.append(meter.read())
    for before, after in pairwise(readings):
        used = after.minus(before)
        assert min(used.energy_kwh, used.cpu_kwh or 0, used.gpu_kwh or 0, used.ram_kwh or 0) >= 0
        assert used.energy_kwh <= (used.machine_kwh or math.inf) * (1 + 1e-9)
