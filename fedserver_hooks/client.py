"""For FL clients: measure one ``fit`` or ``evaluate`` and tell the server.

In a ``NumPyClient`` (any Flower from 1.13 on; this module needs no Flower for it)::

    def fit(self, parameters, config):
        with track_emissions(config, country="ESP") as emissions:
            ...  # train
        return parameters, examples, {"accuracy": accuracy, **emissions}

In a ``ClientApp``: ``ClientApp(mods=[emissions_mod(country="ESP")])``.

`start_client` and `BearerToken` are here too (from `fedserver_hooks.client_start`, with Flower).

Emissions are the machine's energy × the carbon intensity of ``country``. Nothing here raises into
training: what cannot be measured is left out of the reply, with one WARNING.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from fedserver_hooks.host import host_id
from fedserver_hooks.intensity import Intensity, lookup
from fedserver_hooks.meter import Meter
from fedserver_hooks.sampler import Sample, Sampler, shared_sampler
from telemetry.reports import WIRE_SCHEMA

if TYPE_CHECKING:
    from flwr.app import Context, Message

    from fedserver_hooks.client_start import BearerToken, start_client

    Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]

__all__ = [
    "BearerToken",
    "Emissions",
    "emissions_mod",
    "start_client",
    "track_emissions",
    "wait_for_port",
    "warm_up",
]

Value = int | float | str

_RECORD_KEY: Final = "emissions"
_RUN_ID_KEY: Final = "fl-run-id"
_REPORTED_MESSAGES: Final = frozenset({"train", "evaluate"})
_GRAMS_PER_KG: Final = 1000.0
_NAME_CHARACTERS: Final = 64
_POLL_S: Final = 0.1

logger = logging.getLogger(__name__)
_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class _Settings:
    """How a client measures itself, from the arguments of the public functions."""

    country: str | None
    region: str | None
    carbon_intensity_g_per_kwh: float | None
    client_name: str | None
    meter: Meter | None

    def sampler(self) -> Sampler:
        return shared_sampler() if self.meter is None else Sampler(self.meter)

    def intensity(self) -> Intensity:
        return lookup(self.country, self.region, self.carbon_intensity_g_per_kwh)


@dataclass(frozen=True, slots=True)
class _Window:
    """A measurement that has begun."""

    settings: _Settings
    sampler: Sampler
    begun: Sample

    @classmethod
    def open(cls, settings: _Settings) -> _Window:
        sampler = settings.sampler()
        return cls(settings, sampler, sampler.begin())

    def report(self, run_id: str | None) -> dict[str, Value]:
        """The record for the server, of the time since it began. Raises whatever goes wrong."""
        ended = self.sampler.now(self.begun)
        energy = ended.reading.minus(self.begun.reading)
        duration_s = ended.at - self.begun.at
        intensity = self.settings.intensity()
        meter, name = self.sampler.meter, self.settings.client_name
        values: dict[str, Value | None] = {
            "schema": WIRE_SCHEMA,
            "emissions_kg": energy.energy_kwh * intensity.g_per_kwh / _GRAMS_PER_KG,
            "energy_kwh": energy.energy_kwh,
            "cpu_kwh": energy.cpu_kwh,
            "gpu_kwh": energy.gpu_kwh,
            "ram_kwh": energy.ram_kwh,
            "duration_s": duration_s,
            "started_at": _as_text(self.begun.taken_at),
            "ended_at": _as_text(self.begun.taken_at + timedelta(seconds=duration_s)),
            "country": intensity.country,
            "carbon_intensity_g_per_kwh": intensity.g_per_kwh,
            "sensor": meter.sensor,
            "scope": meter.scope,
            "host_id": None if run_id is None else host_id(run_id),
            "client_name": None if name is None else name[:_NAME_CHARACTERS],
            "tracker": meter.tracker,
        }
        return {field: value for field, value in values.items() if value is not None}


class Emissions(Mapping[str, Value]):
    """What a client adds to its metrics; empty where measuring failed.

    ``emissions`` is in kg CO2eq. Where the server asks for it (by ``fl-run-id`` in the config) the
    other fields follow as ``emissions.<field>``. Inside the ``with`` block it holds what was used
    up to the moment it is looked at, so a ``return`` from within the block counts too.
    """

    def __init__(self, measure: Callable[[], dict[str, Value]]) -> None:
        self._measure: Callable[[], dict[str, Value]] | None = measure
        self._values: dict[str, Value] = {}

    def __getitem__(self, key: str) -> Value:
        if not self._values:
            self._update()
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        self._update()
        return iter(self._values)

    def __len__(self) -> int:
        self._update()
        return len(self._values)

    def __repr__(self) -> str:
        return f"Emissions({self._values})"

    def _update(self) -> None:
        if self._measure is not None:
            self._values = self._measure()

    def _close(self, *, measured: bool) -> None:
        if measured:
            self._update()
        self._measure = None


class _Tracking(AbstractContextManager[Emissions]):
    """Measures its ``with`` block. Neither raises nor swallows anything."""

    def __init__(self, settings: _Settings, run_id: str | None) -> None:
        self._settings = settings
        self._run_id = run_id
        self._window: _Window | None = None
        self._emissions = Emissions(self._measure)

    def __enter__(self) -> Emissions:
        self._window = _begin(self._settings)
        return self._emissions

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Where training raised there is no reply that could carry a report.
        self._emissions._close(measured=kind is None)

    def _measure(self) -> dict[str, Value]:
        report = _report(self._window, self._run_id)
        if not report:
            return {}
        flat: dict[str, Value] = {_RECORD_KEY: report.pop("emissions_kg")}
        if self._run_id is not None:
            flat |= {f"{_RECORD_KEY}.{field}": value for field, value in report.items()}
        return flat


def track_emissions(
    config: Mapping[str, Any],
    country: str | None = None,
    *,
    region: str | None = None,
    carbon_intensity_g_per_kwh: float | None = None,
    client_name: str | None = None,
    meter: Meter | None = None,
) -> AbstractContextManager[Emissions]:
    """Measure a block of a ``NumPyClient``'s ``fit`` or ``evaluate``.

    ``config`` is the one that Flower hands over. ``country`` (ISO 3166-1 alpha-3) and ``region``
    choose the carbon intensity, as `fedserver_hooks.intensity.lookup` does: the world average if
    neither is given, ``carbon_intensity_g_per_kwh`` instead of a table. ``client_name`` is how the
    server may call this client. ``meter`` replaces this process's codecarbon meter.

    The first call in a process waits for codecarbon's start (about 2 s; `warm_up` does it earlier),
    and a block of less than 50 ms is stretched to 50 ms, the shortest that codecarbon resolves.
    """
    settings = _Settings(country, region, carbon_intensity_g_per_kwh, client_name, meter)
    return _Tracking(settings, _run_id_in(config))


def emissions_mod(
    country: str | None = None,
    *,
    region: str | None = None,
    carbon_intensity_g_per_kwh: float | None = None,
    client_name: str | None = None,
    meter: Meter | None = None,
) -> Mod:
    """A mod for ``ClientApp(mods=[…])`` that reports every train and evaluate message.

    The reply gets a ConfigRecord ``emissions``. The arguments are those of `track_emissions`.
    """
    settings = _Settings(country, region, carbon_intensity_g_per_kwh, client_name, meter)

    def measure(
        message: Message, context: Context, call_next: Callable[[Message, Context], Message]
    ) -> Message:
        if message.metadata.message_type.split(".")[0] not in _REPORTED_MESSAGES:
            return call_next(message, context)
        run_id = _run_id_of(message)  # before the app, which may change the message
        window = _begin(settings)
        reply = call_next(message, context)
        _attach(reply, _report(window, run_id))
        return reply

    return measure


def warm_up() -> None:
    """Start this process's meter now, in the background, so that the first round need not wait."""
    try:
        shared_sampler().meter.start()
    except Exception as error:  # noqa: BLE001  # telemetry never harms training
        _warn(error)


def wait_for_port(address: str, timeout_s: float = 60.0) -> None:
    """Wait until something listens at ``host:port``: ``start_client`` itself never tries again.

    Raises TimeoutError with the address, ValueError for what is not one.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ValueError(f"{address!r} is not host:port")
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        try:
            socket.create_connection((host.strip("[]"), int(port)), max(left_s, _POLL_S)).close()
        except OSError as error:
            if left_s <= 0:
                raise TimeoutError(f"nothing listens at {address} after {timeout_s:g} s") from error
            time.sleep(min(_POLL_S, left_s))
        else:
            return


def __getattr__(name: str) -> Any:
    if name not in ("BearerToken", "start_client"):  # which need gRPC and Flower
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("fedserver_hooks.client_start"), name)


# --- where an exception would reach training -------------------------------------------------


def _begin(settings: _Settings) -> _Window | None:
    try:
        return _Window.open(settings)
    except Exception as error:  # noqa: BLE001  # telemetry never harms training
        _warn(error)
        return None


def _report(window: _Window | None, run_id: str | None) -> dict[str, Value]:
    """The report, empty where there is none."""
    if window is None:
        return {}
    try:
        return window.report(run_id)
    except Exception as error:  # noqa: BLE001  # telemetry never harms training
        _warn(error)
        return {}


def _attach(reply: Message, report: dict[str, Value]) -> None:
    if not report:
        return
    try:
        if reply.has_content():  # else it is an error reply
            _config_records(reply.content)[_RECORD_KEY] = _config_record(report)
    except Exception as error:  # noqa: BLE001  # telemetry never harms training
        _warn(error)


def _warn(error: Exception) -> None:
    """Log each kind of trouble once in a process."""
    text = str(error) or type(error).__name__
    if text not in _warned:
        _warned.add(text)
        logger.warning("emissions are not measured: %s", text)


# --- Flower, whichever version ---------------------------------------------------------------


def _run_id_of(message: Message) -> str | None:
    try:
        configs = [_run_id_in(record) for record in _config_records(message.content).values()]
    except Exception as error:  # noqa: BLE001  # telemetry never harms training
        _warn(error)
        return None
    return next((run_id for run_id in configs if run_id is not None), None)


def _run_id_in(config: object) -> str | None:
    value = config.get(_RUN_ID_KEY) if isinstance(config, Mapping) else None
    return value if isinstance(value, str) and value else None


def _config_records(content: Any) -> Any:
    """A message's config records, to be read and written: Flower ≤ 1.16 called them otherwise."""
    records = getattr(content, "config_records", None)
    return content.configs_records if records is None else records


def _config_record(values: dict[str, Value]) -> Any:
    common = import_module("flwr.common")  # not ``flwr.app``, which old versions do not have
    return (getattr(common, "ConfigRecord", None) or common.ConfigsRecord)(values)


def _as_text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
