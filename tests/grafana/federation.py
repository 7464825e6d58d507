"""Real trainings for the dashboards: delivered, running, and gone, and what Prometheus scraped of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psycopg

from grafana.queries import Window
from telemetry.domain import RoundSummary, StoredRun
from telemetry.store import open_store
from telemetry.store.sql import migrating
from tests.fedserver.clients import ClientThread, Script, wait_until
from tests.fedserver.servers import ServerProcess
from tests.postgres import postgres_server
from tests.prometheus_server import Prometheus
from tests.telemetry.test_service_process import service

READER: Final = "grafana_reader"
ROUNDS: Final = 4
_KG: Final = 2e-6


def _reporter(number: int) -> Script:
    """Reports with everything that a report may hold, more each the higher its number."""
    kg = _KG * (1 + 0.05 * number)
    return Script(
        metrics={
            "emissions": kg,
            "emissions.energy_kwh": kg / 0.174,
            "emissions.carbon_intensity_g_per_kwh": 174.0,
            "emissions.country": "ESP",
            "emissions.sensor": "rapl",
            "emissions.host_id": f"{number:012x}",
            "emissions.client_name": f"site-{number}",
        },
        examples=10 + number,
        learns=0.05,
    )


REPORTERS: Final = tuple(map(_reporter, range(5)))
SILENT: Final = Script(learns=0.05)
NEGATIVE: Final = Script(metrics={"emissions": -1.0}, learns=0.05)
OUTLIER: Final = Script(metrics={"emissions": 100 * _KG}, learns=0.05)
FAILING: Final = Script(fit="unwell", fit_rounds=(2,), metrics={"emissions": _KG}, learns=0.05)
SLOW: Final = replace(REPORTERS[0], fit="hang", fit_rounds=(2,), hang_s=600)


@dataclass
class Kept:
    """A run as its store has it."""

    run: StoredRun
    rounds: list[RoundSummary]

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.run.run_id


@dataclass
class Federation:
    """What the dashboards have before them."""

    prometheus: Prometheus
    delivered: Kept
    """A run that has ended, in the service's PostgreSQL."""
    training: Kept
    """Another one there, that trains: round 1 is closed, and round 2 is open."""
    gone: Kept
    """A run of a server without a service, which has ended, and so has the server."""
    reader_url: str
    """The service's database, for the role that dashboards read with."""
    empty_url: str
    """A database of ours without any run, for the same role."""
    window: Window


def _server(stack: ExitStack, folder: Path, clients: int, **options: Any) -> ServerProcess:
    folder.mkdir()
    options = {"rounds": ROUNDS, "emissions__loopback_clients": "separate", **options}
    return stack.enter_context(ServerProcess(folder, clients, **options))


def _kept(url: str, run_id: str) -> Kept:
    with closing(open_store(url)) as store:
        return Kept(store.run(run_id), list(store.rounds(run_id)))


def _database(stack: ExitStack) -> tuple[str, str, str]:
    """URLs: the service's database, the same and an empty one for the reading role."""
    server = stack.enter_context(postgres_server())
    names = [server.create_database() for _ in range(2)]
    for name in names:
        open_store(server.url(name)).close()
        migrating.grant_reading(server.url(name), READER)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {READER} LOGIN")
    full, empty = names
    return server.url(full), server.url(full, user=READER), server.url(empty, user=READER)


def _config(folder: Path, service_url: str, servers: list[ServerProcess]) -> Path:
    """As prometheus/prometheus.yml, each second and without tokens."""

    def job(name: str, *urls: str) -> str:
        addresses = [url.removeprefix("http://").removesuffix("/metrics") for url in urls]
        return f"  - {{job_name: {name}, static_configs: [{{targets: {addresses}}}]}}\n"

    path = folder / "prometheus.yml"
    path.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 900ms}\nscrape_configs:\n"
        + job("telemetry", service_url)
        + job("fedserver", *(server.metrics_url for server in servers))
    )
    return path


@contextmanager
def federation(folder: Path) -> Iterator[Federation]:
    """Three servers that train with real clients, a service, PostgreSQL and Prometheus."""
    began = time.time()
    with ExitStack() as stack:
        url, reader_url, empty_url = _database(stack)
        _, service_url = stack.enter_context(service(url, folder / "service.log"))
        fleets = {
            "gone": (*REPORTERS, SILENT, NEGATIVE),
            "delivered": (*REPORTERS, OUTLIER, SILENT, NEGATIVE, FAILING),
            "training": (SLOW, SLOW),
        }
        estimates = {
            "emissions__budget_kg": 0.001,
            "emissions__network_kwh_per_gb": 0.05,
            "emissions__impute_missing": True,
        }
        delivers = {"telemetry__service_url": service_url, "telemetry__http__linger_s": "forever"}
        options: dict[str, dict[str, Any]] = {
            "gone": {
                "telemetry__http__linger_s": 4,
                "privacy__mechanism": "central-dp",
                "privacy__noise_multiplier": 1.0,
                "privacy__clipping_norm": 1.0,
                "privacy__num_sampled_clients": len(fleets["gone"]),
                "privacy__weights": "equal",
                "privacy__accounting": {"delta": 1e-5, "population": 100},
                **estimates,
            },
            "delivered": delivers,
            "training": {**delivers, **estimates, "round_timeout_s": 600},
        }
        servers = {
            name: _server(stack, folder / name, len(fleet), run_name=name, **options[name])
            for name, fleet in fleets.items()
        }
        prometheus = stack.enter_context(
            Prometheus(_config(folder, service_url, list(servers.values())), folder / "prometheus")
        )
        prometheus.until(
            lambda: sum(prometheus.query("up").values()) == 1 + len(servers), "it scrapes them all"
        )
        clients = {
            name: [
                stack.enter_context(ClientThread(servers[name].address, script))
                for script in fleets[name]
            ]
            for name in fleets
        }
        for client in clients["training"]:
            wait_until(lambda client=client: client.in_fit.is_set(), 60)
        ids = {
            name: server.wait_for(r"\brun (\d{8}-\d{6}-\w{6})\b").group(1)
            for name, server in servers.items()
        }
        servers["gone"].wait(60)
        _until_scraped(prometheus, ids)
        yield Federation(
            prometheus=prometheus,
            delivered=_kept(url, ids["delivered"]),
            training=_kept(url, ids["training"]),
            gone=_kept(servers["gone"].store_url, ids["gone"]),
            reader_url=reader_url,
            empty_url=empty_url,
            window=Window(start_s=began - 1, end_s=time.time(), step_s=1.0),
        )


def _until_scraped(prometheus: Prometheus, ids: dict[str, str]) -> None:
    def value(metric: str, name: str) -> float | None:
        found = prometheus.query(f'{metric}{{run_id="{ids[name]}"}}')
        return next(iter(found.values())) if found else None

    def settled() -> bool:
        return (
            value("fl_run_active", "gone") is None
            and value("fl_run_active", "delivered") == 0
            and (value("fl_run_active", "training"), value("fl_run_round", "training")) == (1, 2)
            and value("fl_emissions_coverage_ratio", "training") is not None
        )

    prometheus.until(settled, "one run trains, one has ended, the third one's server is gone")
