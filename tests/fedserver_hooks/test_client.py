"""What a client's helper reports, and that it never gets in the way of training."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fedserver_hooks import client, sampler
from fedserver_hooks.client import emissions_mod, track_emissions, wait_for_port
from fedserver_hooks.host import host_id
from fedserver_hooks.intensity import lookup
from fedserver_hooks.meter import CodeCarbonMeter, MeterError, NullMeter, Reading, ReplayMeter
from fedserver_hooks.sampler import Sampler
from fedserver_hooks.wire import RUN_ID_KEY, split_flat, take_report
from telemetry.reports import WIRE_FIELDS, ClientReport, read_report

_CONFIG = {RUN_ID_KEY: "20260101-000000-abcdef", "server_round": 1}
_SPAIN_G_PER_KWH = lookup("ESP").g_per_kwh
_BEFORE = Reading(1.0, 0.25, None, 0.75)
_AFTER = Reading(3.0, 1.25, None, 1.75)


@pytest.fixture(autouse=True)
def warned() -> Iterator[None]:
    """Each test starts as a process that has warned of nothing."""
    client._warned.clear()
    yield
    client._warned.clear()


def _meter(*script: Reading | MeterError) -> ReplayMeter:
    return ReplayMeter(script=script or (_BEFORE, _AFTER), sensor="model")


# --- NumPyClient -----------------------------------------------------------------------------


def test_reports_energy_times_intensity_in_kg() -> None:
    """2 kWh in Spain are 2 × 174.05 g, given in kg under ``emissions``."""
    with track_emissions({}, country="ESP", meter=_meter()) as emissions:
        pass
    assert dict(emissions) == {"emissions": pytest.approx(2.0 * _SPAIN_G_PER_KWH / 1000.0)}


def test_every_known_field_goes_to_a_server_that_asks() -> None:
    """With a run id in the config all that is known follows; what is unknown is absent."""
    with track_emissions(_CONFIG, country="ESP", client_name="hall 3", meter=_meter()) as emissions:
        pass
    fields = {key.removeprefix("emissions.") for key in emissions if key != "emissions"}
    assert fields == set(WIRE_FIELDS) - {"emissions_kg", "gpu_kwh"}
    assert (emissions["emissions.energy_kwh"], emissions["emissions.cpu_kwh"]) == (2.0, 1.0)
    assert emissions["emissions.host_id"] == host_id(str(_CONFIG[RUN_ID_KEY]))
    assert emissions["emissions.client_name"] == "hall 3"
    assert (emissions["emissions.sensor"], emissions["emissions.scope"]) == ("model", "machine")
    assert {type(value) for value in emissions.values()} <= {int, float, str}


def test_the_server_accepts_every_field_as_it_is_sent() -> None:
    """Flat metrics → record → report drops nothing and leaves the client's own metrics alone."""
    with track_emissions(_CONFIG, country="ESP", client_name="x", meter=_meter()) as emissions:
        pass
    record, rest = split_flat({**emissions, "loss": 0.5})
    assert rest == {"loss": 0.5}
    report = read_report(dict(record or {}))
    assert isinstance(report, ClientReport)
    assert report.dropped_fields == ()
    assert report.emissions_kg == emissions["emissions"]
    assert (report.country, report.tracker, report.schema_version) == ("ESP", "replay", 1)


def test_the_window_is_the_block_in_utc() -> None:
    """Start and end are UTC with microseconds and a Z, as far apart as the duration says."""
    with track_emissions(_CONFIG, meter=_meter()) as emissions:
        time.sleep(0.02)
    texts = [str(emissions["emissions.started_at"]), str(emissions["emissions.ended_at"])]
    assert all(
        len(text) == len("2026-01-01T00:00:00.000000Z") and text[-1] == "Z" for text in texts
    )
    started, ended = (datetime.fromisoformat(text) for text in texts)
    duration_s = emissions["emissions.duration_s"]
    assert isinstance(duration_s, float)
    assert 0.02 <= duration_s < 2.0
    assert (ended - started) / timedelta(seconds=1) == pytest.approx(duration_s, abs=2e-6)


def test_without_a_country_the_world_average_counts() -> None:
    """No country: no country field, and the world's intensity."""
    with track_emissions(_CONFIG, meter=_meter()) as emissions:
        pass
    assert "emissions.country" not in emissions
    assert emissions["emissions.carbon_intensity_g_per_kwh"] == 475.0
    assert emissions["emissions"] == pytest.approx(0.95)


def test_a_fixed_intensity_is_used() -> None:
    """A client that knows its electricity states it."""
    with track_emissions(_CONFIG, carbon_intensity_g_per_kwh=20.0, meter=_meter()) as emissions:
        pass
    assert emissions["emissions"] == pytest.approx(0.04)


def test_a_return_from_inside_the_block_counts_too() -> None:
    """Looked at inside the block, the mapping holds what was used so far; after it, everything."""
    last = Reading(9.0)
    meter = _meter(Reading(0.0), Reading(4.0), last)
    with track_emissions({}, carbon_intensity_g_per_kwh=1000.0, meter=meter) as emissions:
        inside = {**emissions}
    assert inside == {"emissions": 4.0}
    assert dict(emissions) == {"emissions": 9.0}


def test_metrics_can_be_updated_with_it() -> None:
    """It is a mapping like any other: `update`, `len`, `in`, `items`."""
    with track_emissions({}, carbon_intensity_g_per_kwh=1000.0, meter=_meter()) as emissions:
        pass
    metrics: dict[str, Any] = {"loss": 1.0}
    metrics.update(emissions)
    assert metrics == {"loss": 1.0, "emissions": 2.0}
    assert len(emissions) == 1
    assert "emissions.energy_kwh" not in emissions


_BROKEN: dict[str, Callable[[], dict[str, Any]]] = {
    "metering off": lambda: {"meter": NullMeter()},
    "first reading fails": lambda: {"meter": _meter(MeterError("lost"), _AFTER)},
    "last reading fails": lambda: {"meter": _meter(_BEFORE, MeterError("lost"))},
    "wrong country": lambda: {"meter": _meter(), "country": "ES"},
    "wrong region": lambda: {"meter": _meter(), "country": "ESP", "region": "x"},
    "wrong intensity": lambda: {"meter": _meter(), "carbon_intensity_g_per_kwh": float("nan")},
    "no meter at all": lambda: {"meter": object()},
}


@pytest.mark.parametrize("fault", _BROKEN)
def test_what_cannot_be_measured_is_missing_and_warned_of_once(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Any fault gives an empty mapping, never a zero, and one WARNING however often it happens."""
    with caplog.at_level(logging.INFO, client.__name__):
        for _ in range(3):
            with track_emissions(_CONFIG, **_BROKEN[fault]()) as emissions:
                trained = True
            assert trained
            assert dict(emissions) == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].getMessage().startswith("emissions are not measured: ")


def test_a_wrong_country_is_warned_of_with_the_right_one(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names value and choice."""
    with track_emissions({}, country="ES", meter=_meter()):
        pass
    assert "'ES'" in caplog.text
    assert "ESP (Spain)" in caplog.text


def test_an_odd_config_is_no_trouble() -> None:
    """A config that is no mapping, or a run id that is no text, means no further fields."""
    for config in (None, {RUN_ID_KEY: 7}, {RUN_ID_KEY: ""}):
        with track_emissions(config, meter=_meter()) as emissions:  # type: ignore[arg-type]
            pass
        assert list(emissions) == ["emissions"]


def test_trainings_own_exceptions_pass() -> None:
    """What training raises reaches its caller, and no report is made of it."""
    with (
        pytest.raises(ZeroDivisionError),
        track_emissions(_CONFIG, meter=_meter()) as emissions,
    ):
        raise ZeroDivisionError
    assert dict(emissions) == {}


# --- the real meter --------------------------------------------------------------------------


def test_with_codecarbon_a_short_block_is_never_a_false_zero() -> None:
    """A block of no length at all is stretched to what codecarbon resolves, and has an energy."""
    meter = CodeCarbonMeter(force_ram_power=100.0)
    try:
        with track_emissions(_CONFIG, country="ESP", meter=meter) as emissions:
            pass
        report = read_report(dict(split_flat({**emissions})[0] or {}))
        assert isinstance(report, ClientReport)
        assert report.duration_s is not None
        assert report.duration_s >= meter.resolution_s
        assert report.ram_kwh is not None
        assert report.ram_kwh * 3.6e6 == pytest.approx(100.0 * report.duration_s, rel=0.5)
        assert report.tracker == "codecarbon 3.3.2"
    finally:
        meter.stop()


def test_calls_in_one_process_share_its_meter() -> None:
    """Without a meter of one's own the first call starts one, and the next ones read it."""
    try:
        energies = []
        for _ in range(2):
            with track_emissions(_CONFIG) as emissions:
                pass
            energies.append(emissions["emissions.energy_kwh"])
            assert emissions["emissions.tracker"] == "codecarbon 3.3.2"
        assert all(isinstance(energy, float) and energy > 0 for energy in energies)
        assert sum(thread.name == "meter-start" for thread in threading.enumerate()) == 0
    finally:
        sampler.shared_sampler().meter.stop()
        sampler._forget()


class CoarseMeter(ReplayMeter):
    """Like codecarbon: no new figure within its resolution; counts how often it is asked."""

    reads = 0

    def read(self) -> Reading:
        self.reads += 1
        return super().read()


def test_windows_in_a_row_share_their_boundaries() -> None:
    """Windows closer together than the resolution neither overlap, nor lose, nor wait needlessly."""
    now, waited = [0.0], list[float]()

    def wait(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    meter = CoarseMeter(3.6e6, clock=lambda: now[0], resolution_s=0.05)  # 1 kWh a second
    windows = Sampler(meter, clock=lambda: now[0], wait=wait)
    energies = []
    for length in (0.0, 0.02, 1.0, 0.01):
        begun = windows.begin()
        now[0] += length
        ended = windows.now(begun)
        energies.append(ended.reading.minus(begun.reading).energy_kwh)
        assert energies[-1] == pytest.approx(ended.at - begun.at)
    assert energies == pytest.approx([0.05, 0.05, 1.0, 0.05])
    assert waited == pytest.approx([0.05, 0.03, 0.04])
    assert sum(energies) == pytest.approx(now[0])
    assert meter.reads == 5


def test_a_forked_child_gets_a_meter_of_its_own() -> None:
    """One meter serves a process; a child makes another, whatever lock the parent held."""
    script = """
import os
from fedserver_hooks import sampler
mine = sampler.shared_sampler()
assert sampler.shared_sampler() is mine
sampler._shared_lock.acquire()
child = os.fork()
if child == 0:
    os._exit(0 if sampler.shared_sampler() is not mine else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- ClientApp -------------------------------------------------------------------------------


def _context() -> Context:
    return Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def _message(kind: str, config: dict[str, Any] | None = None) -> Message:
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1  # Flower's programs do
    content = RecordDict({"config": ConfigRecord(config or dict(_CONFIG))})
    return Message(content=content, dst_node_id=2, message_type=kind)


def _app(mod: Any) -> ClientApp:
    app = ClientApp(mods=[mod])

    def work(message: Message, context: Context) -> Message:
        records: dict[str, Any] = {
            "arrays": ArrayRecord([np.arange(3.0)]),
            "metrics": MetricRecord({"loss": 0.5, "num-examples": 4}),
        }
        return Message(content=RecordDict(records), reply_to=message)

    app.train()(work)
    app.evaluate()(work)
    app.query()(work)
    return app


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_the_mod_adds_one_record_to_train_and_evaluate(kind: str) -> None:
    """The reply carries the whole report, which the server takes, and is else what the app made."""
    mod = emissions_mod("ESP", client_name="lab", meter=_meter())
    reply = _app(mod)(_message(kind), _context())
    values = take_report(reply.content)[0]
    assert set(values or {}) == set(WIRE_FIELDS) - {"gpu_kwh"}
    report = read_report(values or {})
    assert isinstance(report, ClientReport)
    assert report.dropped_fields == ()
    assert report.emissions_kg == pytest.approx(2.0 * _SPAIN_G_PER_KWH / 1000.0)
    assert report.host_id == host_id(str(_CONFIG[RUN_ID_KEY]))
    assert list(reply.content) == ["arrays", "metrics"]
    assert reply.content["metrics"] == {"loss": 0.5, "num-examples": 4}


def test_the_mod_leaves_other_messages_alone() -> None:
    """A query is answered without a report, and the meter is not even started."""
    meter = _meter()
    reply = _app(emissions_mod(meter=meter))(_message("query"), _context())
    assert list(reply.content) == ["arrays", "metrics"]
    assert not meter.wait_ready(0.0)


def test_the_mod_needs_no_run_id() -> None:
    """A server that sends no run id gets the report without a host."""
    message = _message("train", {"lr": 0.1})
    reply = _app(emissions_mod("ESP", meter=_meter()))(message, _context())
    values = take_report(reply.content)[0]
    assert set(values or {}) == set(WIRE_FIELDS) - {"gpu_kwh", "host_id", "client_name"}


@pytest.mark.parametrize("fault", _BROKEN)
def test_the_mod_never_harms_the_reply(fault: str) -> None:
    """With any fault the reply is the one that the app made."""
    reply = _app(emissions_mod(**_BROKEN[fault]()))(_message("train"), _context())
    assert list(reply.content) == ["arrays", "metrics"]


def test_the_mod_leaves_an_error_reply_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A reply that is an error carries no report, and nobody is warned."""
    app = ClientApp(mods=[emissions_mod(meter=_meter())])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(Error(code=0, reason="out of memory"), reply_to=message)

    assert app(_message("train"), _context()).has_error()
    assert not caplog.records


def test_the_mod_lets_the_apps_exceptions_pass() -> None:
    """What the app raises is raised."""
    app = ClientApp(mods=[emissions_mod(meter=_meter())])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app(_message("train"), _context())


# --- imports, ports --------------------------------------------------------------------------


def test_the_helper_needs_neither_flower_nor_a_server() -> None:
    """Importing and using the helper loads no Flower, database, web framework or exporter."""
    script = """
import sys
for name in ("flwr", "sqlalchemy", "fastapi", "prometheus_client"):
    sys.modules[name] = None
from fedserver_hooks.client import track_emissions
from fedserver_hooks.meter import ReplayMeter
assert "codecarbon" not in sys.modules
with track_emissions({"fl-run-id": "r"}, country="ESP", meter=ReplayMeter(10.0)) as emissions:
    pass
assert emissions["emissions"] >= 0 and emissions["emissions.host_id"]
loaded = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
assert not loaded & {"flwr", "sqlalchemy", "alembic", "fastapi", "uvicorn", "numpy"}, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_config_key_is_the_servers() -> None:
    """Client and server, which share no import here, mean the same keys."""
    assert client._RUN_ID_KEY == RUN_ID_KEY
    source = Path(client.__file__).read_text(encoding="utf-8")
    assert "fedserver_hooks.wire" not in source


def test_wait_for_port_returns_once_something_listens() -> None:
    """It waits while the port refuses, and returns when the server has come."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        waiting = threading.Thread(target=wait_for_port, args=(f"127.0.0.1:{port}", 20.0))
        waiting.start()
        assert waiting.is_alive()
        server.listen()
        waiting.join(20.0)
        assert not waiting.is_alive()


def test_wait_for_port_gives_up_with_the_address() -> None:
    """Nothing there in time is a TimeoutError that says where it looked."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TimeoutError, match=address):
            wait_for_port(address, 0.05)


@pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:http", ""])
def test_wait_for_port_refuses_what_is_no_address(address: str) -> None:
    """A wrong address fails at once."""
    with pytest.raises(ValueError, match="host:port"):
        wait_for_port(address, 60.0)
