"""docker-compose.yml run as plain processes: a training whose figures Prometheus and Grafana's role see.

The file's own commands, environment, health checks, dependencies and ports; what is changed for want of
an engine stands in `tests.compose.translation`. Grafana itself is not run: what it is given is looked at.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
import yaml
from fastapi.testclient import TestClient

from telemetry.service.service import create_service
from telemetry.store import open_store
from telemetry.store.base import Store
from tests.compose.files import ROOT
from tests.compose.processes import WAIT_S, Stack

ROUNDS: Final = 2
CLIENTS: Final = ("client-own-tracker", "client-helper", "client-silent")
NOT_RUN: Final = {
    ("grafana", "healthcheck", ""),
    ("grafana", "port", "127.0.0.1:3000:3000"),
    ("grafana", "mount", "/tmp"),
    ("grafana", "mount", "/var/lib/grafana"),
}
"""All that is not done here, beside Grafana's own settings (``GF_…``): there is no Grafana."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """All services but Grafana, and the three clients, which have trained and left."""
    folder = Path(tempfile.mkdtemp(prefix="fl-up-"))
    folder.chmod(0o711)  # PostgreSQL runs as somebody else where the tests run as root
    try:
        with Stack(folder, {"FL_ROUNDS": str(ROUNDS), "FL_COUNTRY": "ESP"}) as started:
            for name in ("fedserver", "prometheus"):
                started.up(name)
                started.wait_until_healthy(name)
            for name in ("telemetry", "fedserver", "prometheus"):
                started.reach_ports(name)  # the FL port closes when the training ends
            started.strangers = strangers(started)
            for name in CLIENTS:
                started.up(name)
            for name in CLIENTS:
                assert started.exit_of(name) == 0, started.log(name)
            waited(
                lambda: the_run(started)["status"] == "completed", lambda: started.log("fedserver")
            )
            for name in started.services:
                if name != "grafana":
                    started.look_at_mounts(name)
            look_at_prometheus(started)
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def waited(holds: Callable[[], object], said: Callable[[], str] = lambda: "") -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, said()
        time.sleep(0.3)


def get(stack: Stack, path: str, token: str | None, name: str = "telemetry", **headers: str) -> Any:
    """GET from a service's HTTP interface."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    address = f"{stack.url(name, 9464)}{path}"
    return httpx.get(address, headers=headers, timeout=10, trust_env=False)


def strangers(stack: Stack) -> list[str]:
    """What clients of the demo say that come without a token, and with one of their own."""
    said = []
    command = stack.command("client-silent")
    bare = command[: command.index("--token-variable")]
    for line, own in ((bare, {}), (command, {"FL_CLIENT_TOKEN": "flc_" + "x" * 43})):
        done = subprocess.run(
            line, env=stack.environment("client-silent") | own,
            capture_output=True, text=True, timeout=WAIT_S, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        said.append(done.stderr)
    return said


def the_run(stack: Stack) -> dict[str, Any]:
    """The training, as the service knows it."""
    answer = get(stack, "/api/v1/runs", stack.secrets["TELEMETRY_READ_TOKEN"])
    runs = answer.raise_for_status().json()["runs"]
    return runs[0] if runs else {"status": None}


def prometheus(stack: Stack, path: str, **query: str) -> Any:
    """What Prometheus answers."""
    address = f"{stack.url('prometheus', 9090)}/api/v1/{path}"
    answer = httpx.get(address, params=query, timeout=10, trust_env=False)
    return answer.raise_for_status().json()["data"]


def look_at_prometheus(stack: Stack) -> None:
    """It has read the two files that it mounts."""
    config = yaml.safe_load(prometheus(stack, "status/config")["yaml"])
    assert {job["job_name"] for job in config["scrape_configs"]} == {"telemetry", "fedserver"}
    stack.note("prometheus", "mount", "/etc/prometheus/prometheus.yml")
    assert prometheus(stack, "rules")["groups"]
    stack.note("prometheus", "mount", "/etc/prometheus/rules.yml")


def look_at_grafana(stack: Stack) -> list[dict[str, Any]]:
    """What Grafana would read where the file mounts it: its data sources, with secrets put in."""
    mounts = {mount.inside: mount.here for mount in stack.machine.mounts["grafana"]}
    environment = stack.services["grafana"]["environment"]
    provisioning = mounts["/etc/grafana/provisioning"]
    sources = []
    for path in sorted((provisioning / "datasources").glob("*.y*ml")):
        text = stack.machine.names("grafana", path.read_text(encoding="utf-8"))
        sources += [filled_in(stack, source) for source in yaml.safe_load(text)["datasources"]]
    providers = []
    for path in sorted((provisioning / "dashboards").glob("*.y*ml")):
        providers += yaml.safe_load(path.read_text(encoding="utf-8"))["providers"]
    assert providers
    for provider in providers:
        folder = mounts[provider["options"]["path"]]
        assert len(list(folder.glob("*.json"))) == 4
        stack.note("grafana", "mount", provider["options"]["path"])
    home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(stack.machine.paths("grafana", home)).is_file()
    stack.note("grafana", "variable", "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH")
    stack.note("grafana", "mount", "/etc/grafana/provisioning")
    return sources


def filled_in(stack: Stack, value: Any) -> Any:
    """A value of a provisioning file with the environment's variables put in, as Grafana does."""
    if isinstance(value, dict):
        return {key: filled_in(stack, item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    environment = stack.services["grafana"]["environment"]
    for variable in re.findall(r"\$\{?([A-Za-z_]+)", value):
        value = re.sub(rf"\$(\{{{variable}\}}|{variable}\b)", environment[variable], value)
        stack.note("grafana", "variable", variable)
    return value


def stores(stack: Stack) -> tuple[Store, Store]:
    """The FL server's own and the service's."""
    ours = stack.environment("fedserver")["FEDSERVER_TELEMETRY__DATABASE_URL"]
    environment = stack.environment("telemetry")
    theirs = environment["FEDSERVER_TELEMETRY__DATABASE_URL"]
    password = environment["PGPASSWORD"]
    return open_store(ours), open_store(theirs.replace("telemetry@", f"telemetry:{password}@"))


def test_the_training_is_whole_in_the_server_and_in_the_service(stack: Stack) -> None:
    """Both rounds of all three clients, one of which reported nothing; the same in both stores."""
    ours, theirs = stores(stack)
    with closing(ours), closing(theirs):
        (mine,), (other,) = ours.runs(), theirs.runs()
        assert mine.totals == other.totals
        rounds = list(theirs.rounds(other.run_id))
        assert rounds == list(ours.rounds(mine.run_id))
        assert [row.round for row in rounds] == list(range(ROUNDS + 1))
        assert [row.status for row in rounds[1:]] == ["completed"] * ROUNDS
        assert [(row.participants, row.reported) for row in rounds[1:]] == [(3, 2)] * ROUNDS
        assert other.totals.total_emissions_kg
        assert other.info.factors.country == "ESP"
        clients = {row.client for row in theirs.round(other.run_id, 1).participants}
        assert len(clients) == 3
        assert all(f"client-{n}" in stack.log("fedserver") for n in (1, 2, 3))


def test_prometheus_shows_what_the_service_has(stack: Stack) -> None:
    """Its own configuration and rules; both targets are up; the emissions are the store's."""
    ours, theirs = stores(stack)
    with closing(ours), closing(theirs):
        total_g = theirs.runs()[0].totals.total_emissions_kg
        assert total_g is not None
        total_g *= 1000
    run_id = the_run(stack)["run_id"]
    query = f'sum(fl_emissions_co2eq_grams_total{{run_id="{run_id}"}})'

    def shown() -> float | None:
        result = prometheus(stack, "query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None

    waited(lambda: shown() == pytest.approx(total_g, rel=1e-9), lambda: stack.log("prometheus"))
    up = prometheus(stack, "query", query="up")["result"]
    assert {(s["metric"]["job"], s["value"][1]) for s in up} == {
        ("telemetry", "1"),
        ("fedserver", "1"),
    }
    waiting = 'fl_telemetry_undelivered_rounds{job="fedserver"} == 0'
    waited(lambda: prometheus(stack, "query", query=waiting)["result"])
    assert prometheus(stack, "rules")["groups"]
    flags = prometheus(stack, "status/flags")
    assert flags["storage.tsdb.retention.time"] not in ("", "0s", "15d")
    assert flags["storage.tsdb.retention.size"] != "0B"
    assert flags["web.enable-lifecycle"] == flags["web.enable-admin-api"] == "false"


def test_nobody_gets_in_without_a_token(stack: Stack) -> None:
    """Neither at the service, nor at the FL server's page, nor as a client."""
    read, page = stack.secrets["TELEMETRY_READ_TOKEN"], stack.secrets["FL_READ_TOKEN"]
    assert get(stack, "/metrics", None).status_code == 401
    assert get(stack, "/metrics", page).status_code == 401
    assert get(stack, "/metrics", read, Host="telemetry:9464").status_code == 200
    assert get(stack, "/metrics", read, Host="elsewhere:9464").status_code == 400
    assert get(stack, "/metrics", None, "fedserver").status_code == 401
    assert get(stack, "/metrics", page, "fedserver", Host="fedserver:9464").status_code == 200
    written = httpx.put(
        f"{stack.url('telemetry', 9464)}/api/v1/runs/x", json={}, trust_env=False,
        headers={"Authorization": f"Bearer {read}"},
    )  # fmt: skip
    assert written.status_code == 403
    for said in stack.strangers:
        assert "UNAUTHENTICATED" in said


def test_secrets_are_in_no_log_and_no_list_of_processes(stack: Stack) -> None:
    """Those that became files belong to their user alone and have left the environment."""
    secrets = [value for value in stack.secrets.values() if len(value) > 20]
    assert len(secrets) == 9
    for name, process in stack.running.items():
        if process.poll() is None:
            line = Path(f"/proc/{process.pid}/cmdline").read_text()
            assert not any(secret in line for secret in secrets), name
        assert not any(secret in stack.log(name) for secret in secrets), name
    for name, count in (("fedserver", 2), ("prometheus", 2)):
        (folder,) = (m.here for m in stack.machine.mounts[name] if m.inside == "/run/secrets")
        files = list(folder.iterdir())
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * count
        environ = Path(f"/proc/{stack.running[name].pid}/environ").read_text()
        for variable in ("FL_READ_TOKEN", "FL_CLIENT_TOKENS", "TELEMETRY_READ_TOKEN"):
            assert f"\0{variable}=" not in f"\0{environ}"


def test_the_file_holds_with_its_open_addresses_too(stack: Stack) -> None:
    """The server takes its configuration as it stands, and the service answers to its name."""
    environment = stack.environment("fedserver", renamed=False)
    assert environment["FEDSERVER_SERVER__ADDRESS"].startswith("0.0.0.0:")
    done = subprocess.run(
        [shutil.which("fedserver", path=stack.programs) or "", "check-config"],
        env=environment, cwd=stack.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    command = stack.services["telemetry"]["command"]
    host, allowed = (command[command.index(o) + 1] for o in ("--host", "--allowed-host"))
    ours, theirs = stores(stack)
    with closing(ours), closing(theirs):
        app = create_service(theirs, bind_host=host, allowed_hosts=(allowed,))
        with TestClient(app, base_url="http://telemetry:9464") as client:
            assert client.get("/readyz").status_code == 200
            assert client.get("/metrics").status_code == 401


def test_a_second_start_changes_nothing(stack: Stack) -> None:
    """What runs once at each start finds its work done, or does it again with the same result."""
    assert stack.again("migrate") == 0
    assert "is up to date" in stack.log("migrate")
    before = get(stack, "/api/v1/runs", stack.secrets["TELEMETRY_READ_TOKEN"]).json()
    assert stack.again("tokens") == 0
    assert stack.log("tokens").endswith(
        "fedserver: is there already\nprometheus: is there already\n"
    )
    assert get(stack, "/api/v1/runs", stack.secrets["TELEMETRY_READ_TOKEN"]).json() == before


def test_grafana_would_find_what_it_reads(stack: Stack) -> None:
    """Prometheus answers at its data source; the other logs in, and reads views and nothing else."""
    kinds = {"prometheus": 0, "postgres": 0}
    for source in look_at_grafana(stack):
        if source["type"] == "prometheus":
            kinds["prometheus"] += 1
            address = f"{source['url']}/-/ready"
            assert httpx.get(address, timeout=10, trust_env=False).status_code == 200
            continue
        kinds["postgres"] += 1
        assert source["type"] == "grafana-postgresql-datasource"
        host, _, port = source["url"].partition(":")
        password = source["secureJsonData"]["password"]
        assert password == stack.secrets["PG_READER_PASSWORD"]
        connect: dict[str, Any] = {
            "host": host, "port": int(port), "user": source["user"],
            "dbname": source["jsonData"]["database"],
        }  # fmt: skip
        with psycopg.connect(**connect, password=password, autocommit=True) as connection:
            assert connection.execute("SELECT count(*) FROM v_run").fetchone() == (1,)
            for table in ("api_tokens", "telemetry_secret", "reports"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"SELECT * FROM {table}")
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("CREATE TABLE mine (number int)")
        for wrong in ("", "wrong"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(**connect, password=wrong)
    assert kinds == {"prometheus": 1, "postgres": 1}


def documented(service: str) -> list[list[str]]:
    """The commands that docs/deployment.md runs within a container."""
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    found = re.findall(rf"docker compose exec (?:-T )?{service} ([^`\n<>|]+)", page)
    assert found
    return [shlex.split(command) for command in found]


@pytest.mark.parametrize("service", ["fedserver", "telemetry"])
def test_the_commands_of_the_documentation_work(stack: Stack, service: str) -> None:
    """Each prints a token that its server then knows."""
    for program, *arguments in documented(service):
        assert program == "fedserver"
        for words in (arguments, [*arguments[: arguments.index("create")], "list"]):
            done = subprocess.run(
                [shutil.which("fedserver", path=stack.programs) or "", *words],
                env=stack.environment(service), cwd=stack.folder,
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        assert arguments[arguments.index("--label") + 1] in done.stdout


def test_the_backup_of_the_documentation_brings_everything_back(stack: Stack) -> None:
    """Into a database that lost its tables, with the commands of the page."""
    server = stack.postgres
    assert server is not None
    dump, restore = [c for c in documented("postgres") if c[0].startswith("pg_")][:2]
    around = server.surroundings() | {"PGHOST": str(server.folder)}

    def run(command: list[str], **redirected: Any) -> None:
        program = str(server.programs / command[0])
        subprocess.run([program, *command[1:]], env=around, check=True, timeout=60, **redirected)

    path = stack.folder / "telemetry.dump"
    with path.open("wb") as out:
        run(dump, stdout=out)
    url = server.url("telemetry", "telemetry")
    with closing(open_store(url)) as store:
        before = store.runs()
        rounds = list(store.rounds(before[0].run_id))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE runs CASCADE")
    with path.open("rb") as back:
        run(restore, stdin=back)
    with closing(open_store(url)) as store:
        assert store.runs() == before
        assert list(store.rounds(before[0].run_id)) == rounds
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE grafana_reader")
        assert connection.execute("SELECT count(*) FROM v_run").fetchone() == (len(before),)


def test_everything_in_the_file_was_run_and_ends_in_order(stack: Stack) -> None:
    """Each command, health check, port, mount and variable, but Grafana's own; SIGTERM ends all."""
    look_at_grafana(stack)
    left = {item for item in stack.left if not item[2].startswith("GF_")}
    assert left == NOT_RUN
    assert all(name == "grafana" for name, _, _ in stack.left)
    assert stack.stop("fedserver") == 0, stack.log("fedserver")  # the run's own exit code
    assert stack.stop("prometheus") == 0
    assert stack.stop("telemetry") == 0, stack.log("telemetry")
