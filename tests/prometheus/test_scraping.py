"""A real Prometheus with our configuration and rules scrapes real trainings: it has the store's figures."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from telemetry.domain import GRAMS_PER_KG, JOULES_PER_KWH, StoredRun, utc_now
from telemetry.store import open_store
from telemetry.store.api_tokens import new_token
from tests.fedserver.clients import ClientThread, Script
from tests.fedserver.servers import ServerProcess
from tests.prometheus_server import Prometheus
from tests.telemetry.test_service_process import service
from tests.tools import require_tool

FOLDER = Path(__file__).parent.parent.parent / "prometheus"
READ_TOKEN = "made-up-read-token"
FLEET = (
    Script(metrics={"emissions": 1e-6, "accuracy": 0.5}),
    Script(metrics={"emissions": 2e-6, "accuracy": 0.7}),
    Script(metrics={"accuracy": 0.6}),
)
ROUNDS = 6


@dataclass
class Scraped:
    """Prometheus, and what it scraped: a server that shows its own run, and one that delivers."""

    prometheus: Prometheus
    own: StoredRun
    delivered: StoredRun
    page: str

    def figure(self, expression: str, run: StoredRun) -> float | None:
        """The value of the only series of a run; None without one."""
        found = [
            value
            for labels, value in self.prometheus.query(expression).items()
            if dict(labels)["run_id"] == run.run_id
        ]
        assert len(found) < 2, found
        return found[0] if found else None


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Two trainings, a service, and Prometheus with the files of the repository.

    Replaced in them: host and port of the two targets, and where the two tokens are mounted.
    """
    folder = tmp_path_factory.mktemp("scraped")
    with ExitStack() as stack:
        store_url = f"sqlite:///{folder / 'service.db'}"
        write, read = _tokens(store_url)
        _, service_url = stack.enter_context(
            service(store_url, folder / "service.log", "--max-series", "4000")
        )
        (folder / "write-token").write_text(write)
        (folder / "telemetry_read_token").write_text(read)
        (folder / "fedserver_read_token").write_text(READ_TOKEN)
        options: dict[str, Any] = {"rounds": ROUNDS, "telemetry__http__linger_s": "forever"}
        own = _server(
            stack,
            folder / "own",
            telemetry__http__read_token_file=str(folder / "fedserver_read_token"),
            emissions__budget_kg=0.001,
            telemetry__max_series=90,
            **options,
        )
        delivering = _server(
            stack,
            folder / "delivering",
            telemetry__service_url=service_url,
            telemetry__service_token_file=str(folder / "write-token"),
            **options,
        )
        prometheus = stack.enter_context(
            Prometheus(_config(folder, own.metrics_url, service_url), folder / "prometheus")
        )
        for server in (own, delivering):
            for script in FLEET:
                stack.push(ClientThread(server.address, script))
        ids = [server.wait_for(r"run (\S+) completed").group(1) for server in (own, delivering)]
        headers = {"Authorization": f"Bearer {READ_TOKEN}"}
        page = httpx.get(own.metrics_url, headers=headers, trust_env=False).text
        runs = []
        for url, run_id in ((own.store_url, ids[0]), (store_url, ids[1])):
            store = open_store(url)
            deadline = time.monotonic() + 30
            while store.run(run_id).status == "running":
                assert time.monotonic() < deadline, "the run's end does not arrive"
                time.sleep(0.1)
            runs.append(store.run(run_id))
            store.close()
        prometheus.until(
            lambda: all(
                any(
                    dict(labels)["run_id"] == run.run_id and value == ROUNDS
                    for labels, value in prometheus.query(
                        "run:fl_rounds:sum and on (run_id) fl_run_active == 0"
                    ).items()
                )
                for run in runs
            ),
            "the rules have evaluated the ends of both runs",
        )
        own_run, delivered = runs
        yield Scraped(prometheus, own_run, delivered, page)


def _tokens(store_url: str) -> tuple[str, str]:
    store = open_store(store_url)
    made = []
    for label, scope in (("server", "write"), ("prometheus", "read")):
        token, facts = new_token(label, [scope], utc_now(), None)
        store.add_token(facts)
        made.append(token)
    store.close()
    return made[0], made[1]


def _server(stack: ExitStack, folder: Path, **options: Any) -> ServerProcess:
    folder.mkdir()
    server = ServerProcess(folder, len(FLEET), **options)
    return stack.enter_context(server)


def _config(folder: Path, own_url: str, service_url: str) -> Path:
    """The repository's files with these targets and tokens."""
    text = (FOLDER / "prometheus.yml").read_text()
    for old, new in (
        ("telemetry:9464", service_url.removeprefix("http://")),
        ("fedserver:9464", own_url.removeprefix("http://").removesuffix("/metrics")),
        ("/run/secrets/telemetry_read_token", str(folder / "telemetry_read_token")),
        ("/run/secrets/fedserver_read_token", str(folder / "fedserver_read_token")),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "prometheus.yml"
    path.write_text(text)
    (folder / "rules.yml").write_text((FOLDER / "rules.yml").read_text())
    return path


def test_both_targets_answer_and_every_rule_is_evaluated(scraped: Scraped) -> None:
    """Each with its token; no rule fails on real series."""
    targets = scraped.prometheus.ask("targets")["activeTargets"]
    assert {one["labels"]["job"]: one["health"] for one in targets} == {
        "telemetry": "up",
        "fedserver": "up",
    }
    groups = scraped.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
    assert {rule["health"] for rule in rules} == {"ok"}


def test_each_run_has_one_source(scraped: Scraped) -> None:
    """The run that is delivered is the service's, the other its own server's."""
    found = scraped.prometheus.query("fl_run_active")
    assert {(dict(one)["run_id"], dict(one)["job"]) for one in found} == {
        (scraped.own.run_id, "fedserver"),
        (scraped.delivered.run_id, "telemetry"),
    }


@pytest.mark.parametrize("which", ["own", "delivered"])
def test_the_rules_record_the_stores_figures(scraped: Scraped, which: str) -> None:
    """Emissions, energy, rounds and coverage, to 1e-9."""
    run: StoredRun = getattr(scraped, which)
    totals = run.totals
    kwh = [kwh for kwh in (totals.server_energy_kwh, totals.clients_energy_kwh) if kwh is not None]
    assert totals.total_emissions_kg is not None
    expected = {
        "run:fl_emissions_co2eq_grams:sum": totals.total_emissions_kg * GRAMS_PER_KG,
        "run:fl_energy_joules:sum": sum(kwh) * JOULES_PER_KWH,
        "run:fl_rounds:sum": ROUNDS,
        "run:fl_round_coverage_ratio:avg": 2 / 3,
    }
    for name, figure in expected.items():
        assert scraped.figure(name, run) == pytest.approx(figure, rel=1e-9), name
    assert scraped.figure("fl_run_emissions_co2eq_grams", run) == pytest.approx(
        totals.total_emissions_kg * GRAMS_PER_KG, rel=1e-9
    )
    assert totals.total_emissions_kg > 0


def test_the_projected_budget_is_the_runs_use_of_it(scraped: Scraped) -> None:
    """All planned rounds are played: what is projected is what was used. Without a budget, nothing."""
    assert scraped.own.totals.total_emissions_kg is not None
    used = scraped.own.totals.total_emissions_kg / 0.001
    name = "run:fl_emissions_budget_used_ratio:projected"
    assert scraped.figure(name, scraped.own) == pytest.approx(used, rel=1e-9)
    assert scraped.figure(name, scraped.delivered) is None


def test_a_training_without_faults_fires_no_alert(scraped: Scraped) -> None:
    """Coverage of two thirds is pending at the most: the runs were short, and have ended."""
    assert scraped.prometheus.query('ALERTS{alertstate="firing"}') == {}


def test_max_series_holds_as_it_was_set(scraped: Scraped) -> None:
    """In the server's file and on the service's command line; with rounds left out, if need be."""

    def value(expression: str) -> float:
        (found,) = scraped.prometheus.query(expression).values()
        return found

    for job, limit in (("fedserver", 90), ("telemetry", 4000)):
        assert value(f'fl_exposed_series_limit{{job="{job}"}}') == limit
        of_runs = f'{{run_id!="", job="{job}", __name__=~"fl_.*"}}'
        assert value(f'fl_exposed_series{{job="{job}"}}') == value(f"count({of_runs})") <= limit
    rounds = f'count(count by (round) ({{run_id="{scraped.own.run_id}", round!=""}}))'
    assert value(rounds) < ROUNDS, "some had to leave"


def test_requests_are_counted_by_their_routes(scraped: Scraped) -> None:
    """Scrapes of both (a page tells of the scrapes before it), and what was delivered to the service."""
    expected = {
        ("fedserver", "/metrics"),
        ("telemetry", "/metrics"),
        ("telemetry", "/api/v1/runs/{run_id}"),
        ("telemetry", "/api/v1/runs/{run_id}/rounds"),
        ("telemetry", "/api/v1/runs/{run_id}/finish"),
    }

    def counted() -> bool:
        found = scraped.prometheus.query("sum by (job, route) (fl_http_requests_total)")
        return expected <= {(dict(one)["job"], dict(one)["route"]) for one in found}

    scraped.prometheus.until(counted, "a second scrape of both")
    stored = scraped.prometheus.query('fl_ingest_deliveries_total{outcome="stored"}')
    assert sum(stored.values()) >= 3, "the run, its rounds and its end"


def test_the_page_of_a_real_run_passes_promtool(scraped: Scraped) -> None:
    """Names, helps and types of everything that a real server shows."""
    assert f'run_id="{scraped.own.run_id}"' in scraped.page
    done = subprocess.run(
        [require_tool("promtool"), "check", "metrics"],
        input=scraped.page,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
