"""The catalogue of metrics: what it lists is what the pages have, under names that Prometheus likes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from fedserver.config import load_config
from fedserver.preparing import bind_http
from fedserver_hooks.meter import ReplayMeter
from fedserver_hooks.recorder import RoundRecorder
from telemetry.exporters.catalogue import CATALOGUE
from telemetry.exporters.families import FAMILIES
from telemetry.service.service import create_service
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_round, make_run
from tests.telemetry.views import a_run
from tests.tools import require_tool

PROCESS = {
    "fl_build_info": ("info", ("version",), "process"),
    "fl_exposed_series": ("gauge", (), "process"),
    "fl_exposed_series_limit": ("gauge", (), "process"),
    "fl_telemetry_errors_total": ("counter", ("stage",), "process"),
    "fl_telemetry_undelivered_rounds": ("gauge", (), "server"),
    "fl_telemetry_oldest_undelivered_seconds": ("gauge", (), "server"),
    "fl_telemetry_overhead_seconds_total": ("counter", (), "server"),
    "fl_store_write_duration_seconds": ("histogram", (), "process"),
    "fl_http_requests_total": ("counter", ("method", "route", "status"), "process"),
    "fl_http_request_duration_seconds": ("histogram", ("method", "route"), "process"),
    "fl_auth_failures_total": ("counter", (), "process"),
    "fl_ingest_deliveries_total": ("counter", ("outcome",), "service"),
    "fl_ingest_waiting_deliveries": ("gauge", (), "service"),
    "fl_ingest_failing": ("gauge", (), "service"),
    "fl_ingest_last_stored_timestamp_seconds": ("gauge", (), "service"),
}
LIBRARY = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
    "python_info",
}


@pytest.fixture(params=["server", "service"])
def page(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """``/metrics`` of an FL server and of a telemetry service, each with a run, asked twice."""
    store = InMemoryStore()
    with ExitStack() as stack:
        client: httpx.Client
        if request.param == "server":
            recorder = RoundRecorder(make_run(), store, ReplayMeter(100.0))
            recorder.start()
            recorder.begin_round(1)
            recorder.finish("completed")
            config = load_config(None, {}, {"telemetry.http.port": 0}).config
            http = stack.enter_context(bind_http(config, store, recorder))
            client = stack.enter_context(httpx.Client(base_url=http.url, trust_env=False))
        else:
            a_run(store, make_round(1, clients={"a": 0.1}))
            app = create_service(store)
            client = stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))
        client.get("/metrics")
        yield request.param, client.get("/metrics").text


def families(text: str) -> dict[str, Metric]:
    """Those of a page by the names that the catalogue has."""
    found = {}
    for family in text_string_to_metric_families(text):
        suffix = "_total" if family.type == "counter" else ""
        found[family.name + suffix] = family
    return found


def test_names_types_labels_and_places_of_process_families_are_those_of_the_contract() -> None:
    """Dashboards rely on these as on those of runs."""
    ours = [f for f in CATALOGUE if f.where != "run" and f.name.startswith("fl_")]
    assert {f.name: (f.type, f.labels, f.where) for f in ours} == PROCESS
    assert {f.name for f in CATALOGUE if not f.name.startswith("fl_")} == LIBRARY


def test_every_name_is_there_once_and_every_figure_is_explained() -> None:
    """Runs first; each help is a sentence or more; counters end in ``_total`` and nothing else does."""
    names = [family.name for family in CATALOGUE]
    assert len(names) == len(set(names))
    assert CATALOGUE[: len(FAMILIES)] == FAMILIES
    assert all(family.where == "run" for family in FAMILIES)
    for family in CATALOGUE:
        assert (family.type == "counter") == family.name.endswith("_total"), family.name
        assert (family.type == "info") == (
            family.name.endswith("_info") and family.name != "python_info"
        )
        if family.name not in LIBRARY:
            assert family.help.endswith("."), family.name


def test_a_page_has_what_the_catalogue_lists_and_nothing_else(page: tuple[str, str]) -> None:
    """Names, types, helps and the labels of every sample, of both kinds of process."""
    kind, text = page
    found = families(text)
    expected = {
        family.name: family
        for family in CATALOGUE
        if family.where != "service" or kind == "service"
    }
    assert set(found) == set(expected)
    for name, family in found.items():
        row = expected[name]
        types = {"info": "gauge"}  # the text format has no type for it
        assert family.type == types.get(row.type, row.type), name
        assert family.documentation == row.help, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(row.all_labels), name


def test_figures_of_the_process_are_there(page: tuple[str, str]) -> None:
    """Each family that every such process can fill has a sample."""
    kind, text = page
    found = families(text)
    absent = {
        "fl_telemetry_oldest_undelivered_seconds",  # no service is set
        "fl_ingest_last_stored_timestamp_seconds",  # nothing was delivered
    }
    for name, (_, _, where) in PROCESS.items():
        if where in ("process", kind) and name not in absent:
            assert found[name].samples, name
        elif name in found:
            assert not found[name].samples, name


def test_promtool_finds_nothing_to_say_about_either_page(page: tuple[str, str]) -> None:
    """Names, units and helps of the process's families, too."""
    done = subprocess.run(
        [require_tool("promtool"), "check", "metrics"],
        input=page[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
