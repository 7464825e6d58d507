"""The one place that touches codecarbon's tracker; everything here is of codecarbon 3.3.

What codecarbon does by itself and is switched off or worked around here: it writes a CSV file,
uploads where a configuration file or a ``CODECARBON_*`` variable says so, swallows the exceptions of
its constructor and of ``flush()``, logs a line for each sample, and keeps two timer threads running
for a tracker that nobody stops.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedserver_hooks.readings import MeterError, Reading, describe

if TYPE_CHECKING:
    from telemetry.domain import Sensor

_LOGGER: Final = "codecarbon"
_MEASURE_EVERY_S: Final = 60
"""codecarbon's own sampling beside ours: seldom, because two samples at once would count twice;
often enough for RAPL counters, of which one wrap (20 minutes at full load) is corrected."""
_CPU_SENSORS: Final[dict[str, Sensor]] = {
    "intel_rapl": "rapl",
    "windows_emi": "rapl",
    "cpu_load": "model",
    "constant": "constant",
}


class Tracker(Protocol):
    """What is used of ``codecarbon.OfflineEmissionsTracker``."""

    def start(self) -> None:
        """Detect the hardware and begin to sample."""

    def flush(self) -> float | None:
        """Take a sample and hand the totals to the output handlers; None on any inner error."""

    def stop(self) -> object:
        """End the timer threads."""


TrackerFactory = Callable[..., Tracker]


class _Sink:
    """An output handler (see ``codecarbon.output_methods.base_output``) that keeps the totals."""

    def __init__(self) -> None:
        self._total: Reading | None = None

    def take(self) -> Reading | None:
        """The totals handed over since the last call; None if there were none."""
        total, self._total = self._total, None
        return total

    def out(self, total: Any, delta: Any) -> None:  # noqa: ARG002  # codecarbon's signature
        """Copy the run's totals; codecarbon goes on using the object that it hands over."""
        self._total = Reading(
            energy_kwh=float(total.energy_consumed),
            cpu_kwh=float(total.cpu_energy),
            gpu_kwh=float(total.gpu_energy),
            ram_kwh=float(total.ram_energy),
        )

    def live_out(self, total: Any, delta: Any) -> None:
        """Not asked for: ``api_call_interval`` is -1."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """There are no tasks."""

    def exit(self) -> None:
        """Nothing to close."""


class _Silence(logging.Filter):
    """While any session is open, lets no line of codecarbon's through.

    Keeps the first exception that codecarbon swallowed in the calling thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._sessions = 0
        self._swallowed = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and getattr(self._swallowed, "error", None) is None:
            self._swallowed.error = record.exc_info[1]
        return False

    def take(self) -> BaseException | None:
        """What was swallowed in this thread since the last call."""
        error: BaseException | None = getattr(self._swallowed, "error", None)
        self._swallowed.error = None
        return error

    def begin(self) -> None:
        """One session more."""
        with self._lock:
            self._sessions += 1
            logging.getLogger(_LOGGER).addFilter(self)

    def end(self) -> None:
        """One session less."""
        with self._lock:
            self._sessions -= 1
            if not self._sessions:
                logging.getLogger(_LOGGER).removeFilter(self)


_silence = _Silence()


class Session:
    """One tracker from its construction to its end. Not thread-safe."""

    def __init__(self, tracker: Tracker, sink: _Sink) -> None:
        self._tracker = tracker
        self._sink = sink
        self._observed = observed_components(tracker)
        self.sensor = sensor_of(_hardware(tracker))
        self.cpu_model = cpu_model_of(_hardware(tracker))
        self.tracker = _edition()

    @classmethod
    def open(
        cls,
        *,
        country: str | None,
        region: str | None,
        factory: TrackerFactory | None,
        force_cpu_power: float | None,
        force_ram_power: float | None,
    ) -> Session:
        """Build and start a tracker, and read it once. Raises whatever went wrong."""
        sink = _Sink()
        tracker: Tracker | None = None
        _silence.begin()  # before the import, which may log too
        try:
            build = factory or _offline_tracker()
            tracker = build(**parameters(sink, country, region, force_cpu_power, force_ram_power))
            tracker.start()
            session = cls(tracker, sink)
            session.read()
        except BaseException:
            _end(tracker)
            raise
        return session

    def read(self) -> Reading:
        """Take a sample (if the last is older than 50 ms) and return the totals so far."""
        self._sink.take()  # of a reading that failed half-way
        flushed = self._tracker.flush()
        total = self._sink.take()
        cause = _silence.take()
        if flushed is None or total is None:
            why = "" if cause is None else f" ({describe(cause)})"
            raise MeterError(f"codecarbon gave no figures{why}")
        return Reading(
            total.energy_kwh,
            *(
                value if component in self._observed else None
                for component, value in (
                    ("cpu", total.cpu_kwh),
                    ("gpu", total.gpu_kwh),
                    ("ram", total.ram_kwh),
                )
            ),
        )

    def close(self) -> None:
        """Stop the tracker; never raises."""
        _end(self._tracker)


def parameters(
    sink: object,
    country: str | None,
    region: str | None,
    force_cpu_power: float | None,
    force_ram_power: float | None,
) -> dict[str, Any]:
    """Parameters of the tracker. Whatever is left out may be set by codecarbon's own settings.

    So everything is given here that could send, write, multiply or narrow; what describes the
    hardware (forced powers, GPU ids, RAPL domains) is left to the person who configured it.
    """
    forced = {"force_cpu_power": force_cpu_power, "force_ram_power": force_ram_power}
    return {
        "output_methods": [],
        "output_handlers": [sink],
        "output_dir": tempfile.gettempdir(),  # is checked to exist; nothing is written there
        "emissions_endpoint": False,
        "electricitymaps_api_token": False,
        "api_call_interval": -1,
        "measure_power_secs": _MEASURE_EVERY_S,
        "tracking_mode": "machine",
        "allow_multiple_runs": True,  # False would install signal handlers and a lock file
        "pue": 1.0,
        "wue": 0.0,
        "log_level": "warning",
        "logger_preamble": "",
        "cloud_provider": None,
        "cloud_region": None,
        "country_2letter_iso_code": None,
        "force_carbon_intensity_g_co2e_kwh": 0.0,  # emissions are not its business, but ours
        "country_iso_code": country,
        "region": region,
        **{name: watts for name, watts in forced.items() if watts is not None},
    }


def sensor_of(hardware: Iterable[object]) -> Sensor:
    """What a tracker's parts measure with: ``mixed`` where CPU and GPU differ.

    RAM is left out: codecarbon models it by size or takes a constant on nearly every machine, so it
    would turn every sensor into ``mixed``. A forced CPU power is still a model (of the load), with
    another power at full load.
    """
    kinds: set[Sensor] = set()
    for part in hardware:
        match type(part).__name__:
            case "CPU":
                kinds.add(_CPU_SENSORS.get(str(getattr(part, "_mode", "")), "unknown"))
            case "GPU":
                kinds.add(_gpu_sensor(part))
            case "RAM":
                pass
            case _:  # Apple's estimates, a Raspberry Pi's power controller
                kinds.add("unknown")
    if not kinds:
        return "unknown"
    return kinds.pop() if len(kinds) == 1 else "mixed"


def cpu_model_of(hardware: Iterable[object]) -> Callable[[float], float] | None:
    """How the CPU's power is modelled, W by load (0 to 1); None where a sensor is read."""
    for part in hardware:
        full_w = getattr(part, "_tdp", None)
        if type(part).__name__ == "CPU" and isinstance(full_w, int | float):
            match getattr(part, "_mode", None):
                case "cpu_load":
                    return lambda load: full_w * (0.1 + 0.9 * load**3)
                case "constant":
                    return lambda _: full_w * 0.5
    return None


def observed_components(tracker: object) -> frozenset[str]:
    """Which of cpu, gpu and ram the tracker observes: it gives 0 for the others."""
    parts = _hardware(tracker)
    names = {
        str(getattr(part, "chip_part", "")) or type(part).__name__  # Apple's and Raspberry's parts
        for part in parts
    }
    return frozenset(name.lower() for name in names) if parts else frozenset({"cpu", "gpu", "ram"})


def _gpu_sensor(gpu: object) -> Sensor:
    devices = getattr(getattr(gpu, "devices", None), "devices", [])
    makes = {type(device).__name__ for device in devices}
    return "nvml" if makes == {"NvidiaGPUDevice"} else "unknown"


def _hardware(tracker: object) -> list[object]:
    # No public name says how the CPU is measured; without this one the sensor is "unknown".
    return list(getattr(tracker, "_hardware", ()))


def _offline_tracker() -> TrackerFactory:
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError as error:
        raise MeterError(f"codecarbon cannot be imported: {error}") from error
    return OfflineEmissionsTracker


def _end(tracker: Tracker | None) -> None:
    if tracker is not None:
        with suppress(Exception):
            tracker.stop()
    _silence.end()


def _edition() -> str | None:
    try:
        return f"codecarbon {version('codecarbon')}"
    except PackageNotFoundError:
        return None
