"""Meters: exact figures where power is forced, and errors instead of zeros."""

from __future__ import annotations

import inspect
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from codecarbon import OfflineEmissionsTracker
from codecarbon.emissions_tracker import BaseEmissionsTracker
from codecarbon.external.hardware import CPU
from codecarbon.external.ram import RAM
from hypothesis import given
from hypothesis import strategies as st

from fedserver_hooks.codecarbon_tracker import parameters, sensor_of
from fedserver_hooks.meter import (
    CodeCarbonMeter,
    Meter,
    MeterError,
    MeterStarting,
    NullMeter,
    Reading,
    ReplayMeter,
)

_JOULES_PER_KWH = 3.6e6
_RAM_W = 100.0
_START_S = 30.0


class FakeTracker:
    """Stands for codecarbon's tracker: ``energies`` in kWh, one a flush; an error is raised."""

    def __init__(self, energies: Iterator[float | Exception | None], sink: Any) -> None:
        self.energies = energies
        self.sink = sink
        self.flushes = 0
        self.stops = 0

    def start(self) -> None:
        """Nothing to start."""

    def flush(self) -> float | None:
        """The next total, handed to the sink as codecarbon does."""
        self.flushes += 1
        energy = next(self.energies)
        if isinstance(energy, Exception):
            raise energy
        if energy is None:
            return None
        self.sink.out(
            SimpleNamespace(
                energy_consumed=energy, cpu_energy=energy, gpu_energy=0.0, ram_energy=0.0
            ),
            None,
        )
        return 0.001

    def stop(self) -> None:
        """Counts."""
        self.stops += 1


class FakeFactory:
    """Builds one `FakeTracker` and keeps it."""

    def __init__(self, *energies: float | Exception | None) -> None:
        self.energies = energies
        self.built: FakeTracker | None = None

    def __call__(self, **arguments: Any) -> FakeTracker:
        self.built = FakeTracker(iter(self.energies), arguments["output_handlers"][0])
        return self.built

    @property
    def tracker(self) -> FakeTracker:
        assert self.built is not None
        return self.built


class EagerMeter(CodeCarbonMeter):
    """Asks its tracker at every reading, however soon after the last."""

    resolution_s = 0.0


def _started(factory: Callable[..., Any]) -> CodeCarbonMeter:
    meter = EagerMeter(factory=factory)
    meter.start()
    assert meter.wait_ready(_START_S)
    return meter


def _reasons(meter: Meter, times: int) -> list[str]:
    reasons = []
    for _ in range(times):
        with pytest.raises(MeterError) as caught:
            meter.read()
        reasons.append(caught.value.reason)
    return reasons


@pytest.fixture(scope="module")
def real() -> Iterator[CodeCarbonMeter]:
    """A real codecarbon meter whose RAM draws exactly 100 W."""
    meter = CodeCarbonMeter(country="ESP", force_ram_power=_RAM_W)
    meter.start()
    assert meter.wait_ready(_START_S)
    yield meter
    meter.stop()


# --- the real one ----------------------------------------------------------------------------


def test_readings_are_power_times_time(real: CodeCarbonMeter) -> None:
    """Between two readings the RAM's energy is its forced power × the time between them."""
    time.sleep(real.resolution_s)  # past the fixture's own reading
    outer = time.perf_counter()
    before = real.read()
    inner = time.perf_counter()
    time.sleep(0.3)
    inner_s = time.perf_counter() - inner
    used = real.read().minus(before)
    outer_s = time.perf_counter() - outer
    assert used.ram_kwh is not None
    joules = used.ram_kwh * _JOULES_PER_KWH
    assert _RAM_W * inner_s * 0.99 <= joules <= _RAM_W * outer_s * 1.01
    assert used.cpu_kwh is not None
    assert used.energy_kwh == pytest.approx(
        used.ram_kwh + used.cpu_kwh + (used.gpu_kwh or 0.0), rel=1e-9
    )


def test_threads_reading_at_once_count_nothing_twice(real: CodeCarbonMeter) -> None:
    """Eight threads that read all the time show the energy of one (codecarbon alone: 3 times)."""
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            real.read()

    time.sleep(real.resolution_s)
    begun, before = time.perf_counter(), real.read()
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    stop.wait(0.4)
    stop.set()
    for thread in threads:
        thread.join()
    time.sleep(real.resolution_s)
    used, ended = real.read().minus(before), time.perf_counter()
    assert used.ram_kwh is not None
    assert used.ram_kwh * _JOULES_PER_KWH == pytest.approx(_RAM_W * (ended - begun), rel=0.2)


def test_says_what_measures_and_of_what(real: CodeCarbonMeter) -> None:
    """Scope, resolution and tracker are known, and the sensor is one that codecarbon uses here."""
    assert (real.scope, real.resolution_s) == ("machine", 0.05)
    assert real.tracker == "codecarbon 3.3.2"
    assert real.sensor in {"rapl", "nvml", "mixed", "model"}
    assert (real.read().gpu_kwh is None) == (real.sensor in {"rapl", "model"})


def test_stop_ends_every_thread_and_may_be_repeated() -> None:
    """After `stop` no thread of the meter's is left, and reading fails; twice is once."""
    others = set(threading.enumerate())
    meter = CodeCarbonMeter(force_ram_power=_RAM_W)
    meter.start()
    assert meter.wait_ready(_START_S)
    mine = set(threading.enumerate()) - others
    assert mine
    meter.stop()
    meter.stop()
    for thread in mine:
        thread.join(5)
    assert not set(threading.enumerate()) - others
    assert _reasons(meter, 1) == ["the meter has been stopped"]


def test_a_half_built_tracker_is_an_error_with_its_cause() -> None:
    """codecarbon's constructor swallows what went wrong; the meter names it and leaves no thread."""
    others = set(threading.enumerate())
    meter = CodeCarbonMeter(region=7)  # type: ignore[arg-type]
    meter.start()
    assert not meter.wait_ready(_START_S)
    (reason,) = _reasons(meter, 1)
    assert reason == "codecarbon gave no figures (AssertionError)"
    assert not {t for t in threading.enumerate() if t.name != "meter-start"} - others


def test_parameters_are_those_of_the_installed_codecarbon() -> None:
    """A parameter that codecarbon renames is noticed here, not as a tracker that is never built."""
    known = {
        *inspect.signature(BaseEmissionsTracker.__init__).parameters,
        *inspect.signature(OfflineEmissionsTracker.__init__).parameters,
    }
    assert set(parameters(object(), "ESP", None, 1.0, 1.0)) <= known


_QUIET_SCRIPT = """
import json, signal, sys, time
opened, written, handlers = [], [], [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
def audit(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        if arguments[1:] != (("::1", 0),):  # urllib3 asks once whether there is IPv6
            opened.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        if not isinstance(arguments[0], int):  # an end of a pipe to lscpu
            written.append(str(arguments[0]))
sys.addaudithook(audit)
from fedserver_hooks.meter import CodeCarbonMeter
assert "codecarbon" not in sys.modules
meter = CodeCarbonMeter(country="ESP", force_ram_power=100.0)
meter.start()
assert meter.wait_ready(30)
time.sleep(0.06)
begun, before = time.perf_counter(), meter.read()
time.sleep(0.2)
after, ended = meter.read(), time.perf_counter()
used = after.minus(before)
mode = meter._session._tracker._conf["tracking_mode"]
meter.stop()
print(json.dumps({
    "opened": opened,
    "written": [path for path in written if path != "/dev/null"],
    "same_handlers": handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    "mode": mode,
    "ram_w": used.ram_kwh * 3.6e6 / (ended - begun),
}))
"""


def test_nothing_is_sent_written_or_said_whatever_codecarbons_settings(tmp_path: Path) -> None:
    """No socket, file, log line, warning or signal handler; scope and PUE cannot be changed."""
    (tmp_path / ".codecarbon.config").write_text(
        "[codecarbon]\nsave_to_api = true\napi_key = k\noutput_methods = api,csv,prometheus\n"
        "emissions_endpoint = http://127.0.0.1:9/\nelectricitymaps_api_token = t\n"
        "api_call_interval = 1\nallow_multiple_runs = false\npue = 3\ntracking_mode = process\n"
        "output_dir = /nowhere\nlog_level = debug\ncloud_provider = aws\ncloud_region = x\n",
        encoding="utf-8",
    )
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(Path.cwd()),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CODECARBON_SAVE_TO_API": "true",
        "CODECARBON_LOG_LEVEL": "debug",
        "CODECARBON_OUTPUT_METHODS": "api,csv",
        "CODECARBON_CO2_SIGNAL_API_TOKEN": "t",
    }
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", _QUIET_SCRIPT],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen.pop("ram_w") == pytest.approx(100.0, rel=0.3)
    assert seen == {"opened": [], "written": [], "same_handlers": True, "mode": "machine"}
    assert sorted(tmp_path.iterdir()) == before


def test_a_forked_child_cannot_read_its_parents_meter() -> None:
    """A child would show its parent's energy as its own: reading fails there, and in it only."""
    script = """
import os
from types import SimpleNamespace
from fedserver_hooks.meter import CodeCarbonMeter, MeterError
class Tracker:
    def __init__(self, output_handlers, **_): self.sink = output_handlers[0]
    def start(self): pass
    def stop(self): print("stopped in", "parent" if os.getpid() == parent else "child", flush=True)
    def flush(self):
        figures = dict(energy_consumed=1.0, cpu_energy=1.0, gpu_energy=0.0, ram_energy=0.0)
        self.sink.out(SimpleNamespace(**figures), None)
        return 0.1
parent = os.getpid()
meter = CodeCarbonMeter(factory=Tracker)
meter.start()
assert meter.wait_ready(30)
meter._lock.acquire()  # as another thread would hold it while it reads
child = os.fork()
if child == 0:
    try:
        meter.read()
    except MeterError as error:
        print(error, flush=True)
    assert not meter.wait_ready(30)
    meter.stop()
    os._exit(0)
meter._lock.release()
assert os.waitpid(child, 0)[1] == 0
assert meter.read().energy_kwh == 1.0
meter.stop()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "the meter belongs to the process that this one was forked from",
        "stopped in parent",
    ]


def test_a_missing_codecarbon_is_an_error_with_a_reason() -> None:
    """Without the package the start ends, and reading says why."""
    script = """
import sys
sys.modules["codecarbon"] = None
from fedserver_hooks.meter import CodeCarbonMeter, MeterError
meter = CodeCarbonMeter()
meter.start()
assert not meter.wait_ready(30)
try:
    meter.read()
except MeterError as error:
    print(error.reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("codecarbon cannot be imported: ")


# --- faults ----------------------------------------------------------------------------------


def test_start_returns_at_once_and_reading_waits_for_it() -> None:
    """`start` does not wait for codecarbon; until it is there a reading is `MeterStarting`."""
    hold = threading.Event()
    factory = FakeFactory(0.0, 1.0)

    def slow(**arguments: Any) -> FakeTracker:
        hold.wait(_START_S)
        return factory(**arguments)

    meter = EagerMeter(factory=slow)
    with pytest.raises(MeterError, match="not been started"):
        meter.read()
    meter.start()
    assert not meter.wait_ready(0.0)
    with pytest.raises(MeterStarting):
        meter.read()
    assert (meter.sensor, meter.tracker) == ("unknown", None)
    hold.set()
    assert meter.wait_ready(_START_S)
    assert meter.read().energy_kwh == 1.0


def test_stopped_while_it_starts() -> None:
    """A tracker that comes up after `stop` is ended at once, and never read."""
    hold, built = threading.Event(), threading.Event()
    factory = FakeFactory(0.0)

    def slow(**arguments: Any) -> FakeTracker:
        hold.wait(_START_S)
        built.set()
        return factory(**arguments)

    meter = CodeCarbonMeter(factory=slow)
    meter.start()
    meter.stop()
    hold.set()
    assert built.wait(_START_S)
    assert not meter.wait_ready(_START_S)
    assert factory.tracker.stops == 1
    assert _reasons(meter, 1) == ["the meter has been stopped"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (None, "codecarbon gave no figures"),
        (RuntimeError("sensor is gone"), "RuntimeError: sensor is gone"),
        (math.nan, "codecarbon gave an energy of nan kWh"),
        (-1.0, "codecarbon gave an energy of -1.0 kWh"),
        (0.5, "codecarbon's total went backwards"),
        ("text", "ValueError: could not convert string to float: 'text'"),
    ],
)
def test_a_failed_reading_is_an_error_and_the_next_may_succeed(fault: Any, reason: str) -> None:
    """Whatever a flush does, the meter gives a reason and no figure, and goes on reading."""
    factory = FakeFactory(0.0, 1.0, fault, fault, 2.0, fault, fault, 3.0)
    meter = _started(factory)
    assert meter.read().energy_kwh == 1.0
    assert _reasons(meter, 2) == [reason, reason]
    assert meter.read().energy_kwh == 2.0
    assert _reasons(meter, 2) == [reason, reason]
    assert meter.read().energy_kwh == 3.0
    assert factory.tracker.stops == 0


def test_readings_within_the_resolution_do_not_ask_again() -> None:
    """codecarbon would take no sample: the last reading stands, and costs nothing."""
    factory = FakeFactory(0.0, 1.0)
    meter = CodeCarbonMeter(factory=factory)
    meter.start()
    assert meter.wait_ready(_START_S)
    assert meter.read() == meter.read() == Reading(1.0, 1.0, 0.0, 0.0)
    assert factory.tracker.flushes == 2  # one when it started


def test_three_failures_in_a_row_stop_the_tracker() -> None:
    """The tracker is ended once, never read again, and the last reason stays the answer."""
    factory = FakeFactory(0.0, None, None, OSError("last one"))
    meter = _started(factory)
    reasons = _reasons(meter, 6)
    assert reasons[:2] == ["codecarbon gave no figures"] * 2
    assert reasons[2:] == ["OSError: last one"] * 4
    assert (factory.tracker.flushes, factory.tracker.stops) == (4, 1)
    meter.stop()
    assert factory.tracker.stops == 1
    assert not meter.wait_ready(0.0)


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (FakeFactory(None), "codecarbon gave no figures"),
        (FakeFactory(ZeroDivisionError()), "ZeroDivisionError"),
    ],
)
def test_a_tracker_that_never_works_is_ended(factory: FakeFactory, reason: str) -> None:
    """A start without a first figure fails with its reason, and leaves no tracker running."""
    meter = CodeCarbonMeter(factory=factory)
    meter.start()
    assert not meter.wait_ready(_START_S)
    assert _reasons(meter, 4) == [reason] * 4
    assert (factory.tracker.flushes, factory.tracker.stops) == (1, 1)


def test_a_constructor_that_raises_is_an_error_with_a_reason() -> None:
    """A factory may raise: the meter says what."""

    def broken(**arguments: Any) -> FakeTracker:
        raise OSError("no such folder")

    meter = CodeCarbonMeter(factory=broken)
    meter.start()
    assert not meter.wait_ready(_START_S)
    assert _reasons(meter, 1) == ["OSError: no such folder"]


def test_stop_never_raises() -> None:
    """A tracker whose `stop` raises is given up quietly; so is a meter that was never started."""

    class Stubborn(FakeTracker):
        def stop(self) -> None:
            raise RuntimeError("not now")

    meter = _started(lambda **arguments: Stubborn(iter([0.0]), arguments["output_handlers"][0]))
    meter.stop()
    never = CodeCarbonMeter()
    never.stop()
    never.start()
    assert not never.wait_ready(0.0)
    assert _reasons(never, 1) == ["the meter has been stopped"]


def test_a_reading_that_hangs_does_not_hang_the_others() -> None:
    """While one reading hangs in a driver, another fails and `stop` comes back."""
    inside, hold = threading.Event(), threading.Event()

    class Hanging(FakeTracker):
        def flush(self) -> float | None:
            if self.flushes:
                inside.set()
                hold.wait(_START_S)
            return super().flush()

    meter = _started(lambda **arguments: Hanging(iter([0.0, 1.0]), arguments["output_handlers"][0]))
    hung = threading.Thread(target=meter.read)
    hung.start()
    assert inside.wait(_START_S)
    stopping = threading.Thread(target=meter.stop)
    stopping.start()
    assert _reasons(meter, 1) == ["the meter is busy: an earlier reading has not come back"]
    stopping.join(_START_S)
    assert not stopping.is_alive()
    hold.set()
    hung.join(_START_S)


# --- sensors ---------------------------------------------------------------------------------


class FakeGpu:
    """Looks like codecarbon's GPU part with devices of one make."""

    def __init__(self, make: str) -> None:
        self.devices = SimpleNamespace(devices=[type(make, (), {})()])


_gpu = type("GPU", (FakeGpu,), {})


@pytest.fixture
def cpus(tmp_path: Path) -> dict[str, CPU]:
    """codecarbon's own CPU parts, one for each way to measure, RAPL over made-up counters."""
    domain = tmp_path / "intel-rapl" / "intel-rapl:0"
    domain.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "1"), ("max_energy_range_uj", "9")):
        (domain / name).write_text(text, encoding="ascii")
    folder = str(domain.parent)
    modes = ("intel_rapl", "cpu_load", "constant")
    return {mode: CPU("", mode, "a CPU", 10, rapl_dir=folder) for mode in modes}


@pytest.mark.parametrize(
    ("cpu", "gpu", "sensor"),
    [
        ("intel_rapl", None, "rapl"),
        ("cpu_load", None, "model"),
        ("constant", None, "constant"),
        (None, "NvidiaGPUDevice", "nvml"),
        ("intel_rapl", "NvidiaGPUDevice", "mixed"),
        ("cpu_load", "NvidiaGPUDevice", "mixed"),
        (None, "AMDGPUDevice", "unknown"),
        (None, None, "unknown"),
    ],
)
def test_the_sensor_is_what_codecarbon_measures_with(
    cpus: dict[str, CPU], cpu: str | None, gpu: str | None, sensor: str
) -> None:
    """CPU and GPU decide, by codecarbon's own parts; RAM, which is always modelled, does not."""
    parts: list[object] = [RAM()]
    parts += [cpus[cpu]] if cpu else []
    parts += [_gpu(gpu)] if gpu else []
    assert sensor_of(parts) == sensor


def test_an_unknown_part_or_mode_is_an_unknown_sensor(cpus: dict[str, CPU]) -> None:
    """What we cannot name is not called a measurement."""
    cpus["cpu_load"]._mode = "oracle"
    assert sensor_of([cpus["cpu_load"]]) == "unknown"
    assert sensor_of([type("Raspberry", (), {})()]) == "unknown"


# --- the others ------------------------------------------------------------------------------


def test_replay_of_constant_watts_is_exact() -> None:
    """36 W for 100 s are 1 Wh."""
    now = [50.0]
    meter = ReplayMeter(36.0, clock=lambda: now[0])
    with pytest.raises(MeterError):
        meter.read()
    assert not meter.wait_ready(0.0)
    meter.start()
    now[0] = 75.0
    meter.start()
    now[0] = 150.0
    assert meter.wait_ready(0.0)
    assert meter.read() == Reading(0.001)
    meter.stop()


def test_replay_of_a_script_gives_each_entry_and_repeats_the_last() -> None:
    """Readings are returned, errors raised, and the last entry stands for ever."""
    script: list[Reading | MeterError] = [
        Reading(1.0),
        MeterError("lost"),
        Reading(2.0, 1.0, None, 1.0),
    ]
    meter = ReplayMeter(script=script)
    meter.start()
    assert meter.read() == script[0]
    assert _reasons(meter, 1) == ["lost"]
    assert meter.read() == meter.read() == script[2]
    empty = ReplayMeter(script=[])
    empty.start()
    assert _reasons(empty, 1) == ["the script is empty"]


def test_the_null_meter_reads_nothing() -> None:
    """Metering that is off is an error at each reading, never a zero."""
    meter = NullMeter()
    meter.start()
    assert not meter.wait_ready(_START_S)
    assert _reasons(meter, 2) == ["metering is off"] * 2
    meter.stop()


def test_every_meter_is_one() -> None:
    """All three satisfy the protocol, which the type checker reads here."""
    meters: list[Meter] = [CodeCarbonMeter(), ReplayMeter(), NullMeter()]
    assert [meter.sensor for meter in meters] == ["unknown", "constant", "unknown"]


_ENERGY = st.floats(0, 1e6)


@given(st.lists(_ENERGY, min_size=2, max_size=20))
def test_differences_of_readings_sum_to_the_whole(energies: list[float]) -> None:
    """However often a meter is read, the parts add up to last less first."""
    totals = sorted(energies)
    readings = [Reading(total, cpu_kwh=total) for total in totals]
    parts = [after.minus(before) for before, after in pairwise(readings)]
    whole = Reading.sum(parts)
    assert whole is not None
    assert whole.energy_kwh == pytest.approx(totals[-1] - totals[0], rel=1e-9, abs=1e-9)
    assert whole.cpu_kwh == whole.energy_kwh
    assert (whole.gpu_kwh, whole.ram_kwh) == (None, None)


def test_an_unknown_component_stays_unknown() -> None:
    """A component that one part does not know is unknown in the sum; no parts are no energy."""
    known, unknown = Reading(2.0, cpu_kwh=1.0), Reading(2.0)
    assert Reading.sum([known, unknown]) == Reading(4.0)
    assert known.minus(unknown) == Reading(0.0)
    assert known.times(0.5) == Reading(1.0, cpu_kwh=0.5)
    assert Reading.sum([]) is None
