"""``fedserver dashboards``: pushed over HTTP to a server that answers as Grafana's reference says."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedserver.cli import main
from fedserver.dashboards import files
from fedserver.dashboards.differences import differences
from fedserver.dashboards.items import FOLDER_TITLE, FOLDER_UID
from fedserver.errors import ConfigError
from telemetry.store import open_store
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run
from tests.fedserver.clients import ROOT
from tests.grafana_double import EDITOR, TOKEN, VIEWER, GrafanaDouble, grafana_double

BOARDS = ["fl-clients", "fl-fleet", "fl-run-overview", "fl-service-health"]
SOURCES = (
    "--prometheus-url", "http://prometheus:9090",
    "--postgres-url", "postgresql://grafana_reader@db.example.org/telemetry",
    "--postgres-password-variable", "READER",
)  # fmt: skip
CHECKED = SOURCES[:4]


@pytest.fixture
def grafana() -> Iterator[GrafanaDouble]:
    """A Grafana that holds nothing of ours, but something of somebody else's."""
    with grafana_double() as double:
        double.create_source(
            body={"uid": "prometheus", "name": "Theirs", "type": "prometheus", "access": "proxy"}
        )
        yield double


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, a token and a password in the environment, nothing else."""
    monkeypatch.chdir(tmp_path)
    for name in ("GRAFANA_URL", "FEDSERVER_TELEMETRY__DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    monkeypatch.setenv("READER", "the-word")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], grafana: GrafanaDouble) -> Any:
    """Standard output and error of a command that exits with a code; never with a secret."""

    def run(*arguments: str, code: int = 0, url: str | None = None) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["dashboards", *arguments, "--url", url or grafana.url])
        out, err = capsys.readouterr()
        assert ended.value.code == code, out + err
        assert not any(secret in out + err for secret in (TOKEN, "the-word", "Traceback"))
        return out, err

    return run


@pytest.fixture
def store(tmp_path: Path) -> str:
    """URL of a store with a run that has ended and one that goes on."""
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with closing(open_store(url)) as opened:
        opened.start_run(make_run(), OWNER, START)
        opened.record_round(make_round(1, clients={"1": 0.5}))
        opened.finish_run(RUN_ID, "completed", START + timedelta(minutes=10))
        opened.start_run(make_run("other", run_name="mine"), OWNER, START)
    return url


# --- push -----------------------------------------------------------------------------------------


def test_a_push_brings_everything_and_a_second_one_changes_nothing(
    said: Any, grafana: GrafanaDouble, store: str
) -> None:
    """Data sources by uid, the folder, the four dashboards, a region a run; and it says so."""
    out, _ = said("push", *SOURCES, "--store", store)
    assert "Grafana 12.4.11" in out
    assert out.endswith("9 created\n")
    assert sorted(grafana.dashboards) == BOARDS
    assert {d["meta"]["folderUid"] for d in grafana.dashboards.values()} == {"federated-learning"}
    assert grafana.folders["federated-learning"]["title"] == "Federated learning"
    assert grafana.sources["fl-prometheus"]["url"] == "http://prometheus:9090"
    assert grafana.sources["fl-prometheus"]["jsonData"]["timeInterval"] == "5s"
    postgres = grafana.sources["fl-postgresql"]
    assert (postgres["url"], postgres["user"]) == ("db.example.org:5432", "grafana_reader")
    assert postgres["jsonData"]["database"] == "telemetry"
    assert postgres["jsonData"]["sslmode"] == "require"
    assert postgres["secureJsonData"] == {"password": "the-word"}
    assert len(grafana.annotations) == 2
    before = len(grafana.changes)
    out, _ = said("push", *SOURCES, "--store", store)
    assert out.count(": unchanged\n") == 8
    assert "annotations of 2 run(s): unchanged" in out
    assert out.endswith("nothing was changed\n")
    assert len(grafana.changes) == before
    assert grafana.sources["prometheus"]["name"] == "Theirs"


def test_the_dashboards_use_the_data_sources_that_were_pushed(
    said: Any, grafana: GrafanaDouble
) -> None:
    """By their variables, also in a later push that does not name them; without any, Grafana picks."""

    def current(kind: str) -> set[str | None]:
        return {
            variable.get("current", {}).get("value")
            for board in grafana.dashboards.values()
            for variable in board["dashboard"]["templating"]["list"]
            if variable.get("type") == "datasource" and variable["query"] == kind
        }

    own: dict[str, set[str | None]] = {
        kind: set() for kind in ("prometheus", "grafana-postgresql-datasource")
    }
    said("push")
    for file in files.load_dashboards():
        for variable in file["templating"]["list"]:
            if variable.get("type") == "datasource":
                own[variable["query"]].add(variable.get("current", {}).get("value"))
    assert {kind: current(kind) for kind in own} == own
    said("push", *SOURCES)
    for _ in range(2):
        assert current("prometheus") == {"fl-prometheus"}
        assert current("grafana-postgresql-datasource") == {"fl-postgresql"}
        assert said("push")[0].endswith("nothing was changed\n")


def test_what_somebody_changed_is_named_and_brought_back(said: Any, grafana: GrafanaDouble) -> None:
    """A panel's title, a panel too many, another folder; the rest stays untouched."""
    said("push", *SOURCES)
    board = grafana.dashboards["fl-fleet"]["dashboard"]
    title = board["panels"][0]["title"]
    board["panels"][0]["title"] = "Mine"
    grafana.dashboards["fl-clients"]["dashboard"]["panels"].append({"id": 999})
    grafana.dashboards["fl-service-health"]["meta"]["folderUid"] = "elsewhere"
    grafana.sources["fl-prometheus"]["url"] = "http://old:9090"
    grafana.sources["fl-prometheus"]["jsonData"]["customQueryParameters"] = "a=b"
    grafana.folders["federated-learning"]["title"] = "Renamed"
    before = len(grafana.changes)
    out, _ = said("check", *CHECKED, code=1)
    assert len(grafana.changes) == before
    assert f'panels[0].title: {json.dumps(title)}, there "Mine"' in out
    assert 'folder: "federated-learning", there "elsewhere"' in out
    assert 'url: "http://prometheus:9090", there "http://old:9090"' in out
    assert out.count(": different\n") == 4
    assert "dashboard fl-run-overview: unchanged" in out
    assert "folder federated-learning: unchanged" in out
    assert said("push", *SOURCES)[0].endswith("4 updated\n")
    assert grafana.sources["fl-prometheus"]["jsonData"]["customQueryParameters"] == "a=b"
    assert grafana.sources["fl-postgresql"]["secureJsonData"] == {"password": "the-word"}
    assert "Grafana has all of it" in said("check", *CHECKED)[0]


def test_check_names_what_is_missing_and_changes_nothing(said: Any, grafana: GrafanaDouble) -> None:
    """With a token that may only read."""
    grafana.permissions = VIEWER
    out, _ = said("check", *CHECKED, code=1)
    assert out.count(": missing\n") == 7
    assert grafana.changes == []


def test_a_password_is_sent_where_there_is_none_and_when_asked(
    said: Any, grafana: GrafanaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grafana shows none, so a new one has to be said."""
    said("push", *SOURCES[:4])
    assert grafana.sources["fl-postgresql"]["secureJsonData"] == {}
    out, _ = said("push", *SOURCES)
    assert "password: not set there" in out
    monkeypatch.setenv("READER", "another")
    said("push", *SOURCES)
    assert grafana.sources["fl-postgresql"]["secureJsonData"] == {"password": "the-word"}
    said("push", *SOURCES, "--renew-password")
    assert grafana.sources["fl-postgresql"]["secureJsonData"] == {"password": "another"}


def test_a_run_is_one_region_that_grows_with_it(
    said: Any, grafana: GrafanaDouble, store: str
) -> None:
    """A point while it goes on; its end, state and emissions later; one too many is taken away."""
    said("push", "--store", store)
    marks = {mark["tags"][1]: mark for mark in grafana.annotations.values()}
    ended, going = marks[f"run:{RUN_ID}"], marks["run:other"]
    begin = round(START.timestamp() * 1000)
    assert (ended["time"], ended["timeEnd"]) == (begin, begin + 600_000)
    assert ended["text"] == "digits (FedAvg), completed: 500.17 g CO2eq"
    assert ended["tags"] == ["fl-run", f"run:{RUN_ID}"]
    assert ended["dashboardUID"] == "fl-run-overview"
    assert going["timeEnd"] == going["time"] == begin
    assert going["text"] == "mine (FedAvg), running: CO2eq unknown"
    with closing(open_store(store)) as opened:
        opened.finish_run("other", "failed", START + timedelta(minutes=1))
    grafana.create_annotation(body={**ended, "timeEnd": 1})
    out, _ = said("push", "--store", store)
    assert "2 of this run" in out
    assert out.endswith("2 updated\n")
    marks = {mark["tags"][1]: mark for mark in grafana.annotations.values()}
    assert marks["run:other"]["timeEnd"] == begin + 60_000
    assert "failed" in marks["run:other"]["text"]
    assert len(grafana.annotations) == 2
    assert said("push", "--store", store)[0].endswith("nothing was changed\n")


def test_many_runs_are_marked_as_far_as_asked(
    said: Any, grafana: GrafanaDouble, tmp_path: Path
) -> None:
    """The newest; more than the 100 annotations that Grafana hands out by default are all found."""
    url = f"sqlite:///{tmp_path}/many.db"
    with closing(open_store(url)) as opened:
        for number in range(130):
            started_at = START + timedelta(minutes=number)
            opened.start_run(make_run(f"run-{number}", started_at=started_at), OWNER, started_at)
    _, err = said("push", "--store", url, "--runs", "120")
    assert "the 120 newest of 130 runs are marked" in err
    assert "run:run-9" not in {mark["tags"][1] for mark in grafana.annotations.values()}
    out, _ = said("push", "--store", url, "--runs", "120")
    assert "annotations of 120 run(s): unchanged" in out


def test_a_store_has_to_be_named(said: Any, grafana: GrafanaDouble) -> None:
    """Otherwise no run is marked, and that is told; one that is not there is an error."""
    assert "runs are not marked" in said("push")[1]
    assert grafana.annotations == {}
    grafana.requests.clear()
    assert "no such file" in said("push", "--store", "sqlite:///none.db", code=2)[1]
    assert grafana.requests == []


# --- when Grafana says no -------------------------------------------------------------------------


def test_an_editor_may_do_all_but_data_sources(
    said: Any, grafana: GrafanaDouble, store: str
) -> None:
    """403 names the permission and the role, and does not hold up the rest."""
    grafana.permissions = EDITOR
    out, err = said("push", *SOURCES, "--store", store, code=1)
    for uid in ("fl-prometheus", "fl-postgresql"):
        assert f"data source {uid}: failed: 403: the token may not create the data source" in err
    assert "needs the role Admin" in err
    assert "Permissions needed: datasources:create" in err
    assert out.endswith("7 created, 2 failed\n")
    assert sorted(grafana.dashboards) == BOARDS


def test_a_viewer_gets_no_folder_and_so_no_dashboards(said: Any, grafana: GrafanaDouble) -> None:
    """What depends on what was refused is not tried."""
    grafana.permissions = VIEWER
    _, err = said("push", code=1)
    assert "folder federated-learning: failed: 403" in err
    assert err.count("not tried: there is no folder") == 4
    assert [path for _, path in grafana.changes] == ["/api/folders"]


def test_a_token_that_is_not_known_ends_it_at_once(
    said: Any, grafana: GrafanaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """401: one request more, one sentence."""
    monkeypatch.setenv("GRAFANA_TOKEN", "glsa_other")
    for command in ("push", "check"):
        _, err = said(command, code=1)
        assert "does not know this token" in err
        assert "Invalid API key" in err
        assert "glsa_other" not in err
    assert grafana.changes == []
    assert len(grafana.requests) == 4


@pytest.mark.parametrize(
    ("where", "answer", "words"),
    [
        ("POST /api/dashboards/db", (404, {"message": "Not found"}), "404: nothing is there"),
        ("POST /api/dashboards/db", (500, {"message": "database locked"}), "500: has trouble"),
        ("POST /api/dashboards/db", (400, {"message": "bad JSON"}), "400: refuses to save"),
        ("POST /api/folders", (409, {"message": "same uid"}), "409: something of that name"),
        ("POST /api/folders", (412, {"message": "changed by someone else"}), "412: a precondition"),
        ("GET /api/folders", (403, {"message": "Access denied"}), "403: the token may not read"),
        ("GET /api/health", (404, {}), "not answer as a Grafana"),
        ("GET /api/health", (200, b"<html>message: hello</html>"), "not answer as a Grafana"),
        ("GET /api/health", (502, b"a message of a proxy"), "not answer as a Grafana"),
        ("GET /api/health", (200, ["no"]), "not answer as a Grafana"),
        ("GET /api/health", (302, {}), "redirects elsewhere"),
        ("GET /api/health", b"nothing", "not answer as a Grafana"),
    ],
)
def test_each_refusal_is_a_sentence(
    said: Any, grafana: GrafanaDouble, where: str, answer: Any, words: str
) -> None:
    """With what was tried, Grafana's own words, and exit code 1."""
    grafana.instead[where] = answer
    out, err = said("push", code=1)
    assert words in err
    if isinstance(answer, tuple) and isinstance(answer[1], dict) and answer[1]:
        assert f"Grafana says: {answer[1]['message']}" in err
    assert "created" not in out or "folder" in out


def test_a_token_that_grafana_repeats_is_cut_out(said: Any, grafana: GrafanaDouble) -> None:
    """Its words are printed, and nobody's secret with them."""
    grafana.instead["GET /api/folders"] = (403, {"message": f"no such right: {TOKEN}\n\tat all"})
    assert "Grafana says: no such right: … at all" in said("push", code=1)[1]


def test_a_dashboard_of_a_plugin_is_left_alone(said: Any, grafana: GrafanaDouble) -> None:
    """412 with its reason; the others are saved."""
    grafana.plugin_dashboards = {"fl-fleet"}
    _, err = said("push", code=1)
    assert "dashboard fl-fleet: failed: 412" in err
    assert "belongs to plugin Emissions" in err
    assert len(grafana.dashboards) == 3


def test_a_data_source_from_a_file_is_not_changed(said: Any, grafana: GrafanaDouble) -> None:
    """Grafana would refuse it: it is told where it stands."""
    said("push", *SOURCES)
    grafana.sources["fl-prometheus"] |= {"readOnly": True, "url": "http://old:9090"}
    _, err = said("push", *SOURCES, code=1)
    assert "it is provisioned from a file" in err


def test_a_name_that_is_taken_is_told(said: Any, grafana: GrafanaDouble) -> None:
    """409: names of data sources are unique in Grafana."""
    grafana.sources["prometheus"]["name"] = "FL telemetry (Prometheus)"
    _, err = said("push", *SOURCES, code=1)
    assert "409: something of that name or uid is in the way" in err
    assert "same name already exists" in err


def test_a_host_that_is_not_there_is_told(said: Any) -> None:
    """Nobody listens; the certificate is wrong; nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "cannot be reached" in said("push", url=f"http://127.0.0.1:{port}", code=1)[1]
    assert "cannot be reached" in said("check", url=f"http://127.0.0.1:{port}", code=1)[1]
    assert "cannot be reached" in said("check", url="http://nowhere.invalid", code=1)[1]


def test_a_server_that_speaks_no_tls_is_told(said: Any, grafana: GrafanaDouble) -> None:
    """https:// to a port with plain HTTP."""
    url = grafana.url.replace("http://", "https://")
    _, err = said("push", url=url, code=1)
    assert "error: https://127.0.0.1" in err


def test_a_server_that_hangs_is_given_up(
    said: Any, grafana: GrafanaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time-out, with a sentence."""
    monkeypatch.setattr("fedserver.dashboards.grafana.TIMEOUT_S", 0.3)
    released = threading.Event()
    answer = grafana.answer
    monkeypatch.setattr(grafana, "answer", lambda *a: (released.wait(20), answer(*a))[1])
    try:
        assert "does not answer within" in said("push", code=1)[1]
    finally:
        released.set()


# --- use ------------------------------------------------------------------------------------------


def test_grafana_may_live_under_a_path(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind many reverse proxies; the address may come from the environment."""
    with grafana_double("/tools/grafana") as double:
        for url in (double.url, f"{double.url}/"):
            monkeypatch.setenv("GRAFANA_URL", url)
            with pytest.raises(SystemExit) as ended:
                main(["dashboards", "push"])
            assert ended.value.code == 0, capsys.readouterr()
        assert sorted(double.dashboards) == BOARDS


def test_the_token_comes_from_an_option_a_file_or_the_environment(
    said: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In this order, and not from two of the first."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    said("push")
    monkeypatch.setenv("GRAFANA_TOKEN", "wrong")
    said("check", "--token-file", "token")
    said("check", "--token", TOKEN)
    assert "give one of them" in said("check", "--token-file", "token", "--token", "x", code=2)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--url", "grafana.example.org"), "--url: is no address"),
        (("--url", "ftp://grafana"), "--url: is no address"),
        (("--url", "http://grafana:port"), "--url: is no address"),
        (("--url", "http://admin:the-word@grafana"), "use a token"),
        (("--url", "http://grafana/?orgId=1"), "ends before"),
        (("--token", "two words"), "--token: is no token"),
        (("--token", ""), "--token: is no token"),
        (("--token-file", "none"), "cannot read none"),
        (("--prometheus-url", "prometheus:9090"), "--prometheus-url: is no address"),
        (("--postgres-url", "db:5432"), "is no postgresql://"),
        (("--postgres-url", "postgresql://r@db"), "is no postgresql://"),
        (("--postgres-url", "postgresql://r:the-word@db/x"), "holds a password"),
        (("--postgres-url", "postgresql://r@db/x?sslmode=no"), "choose of require"),
        (("--postgres-url", "postgresql://r@db/x?a=b"), "only sslmode"),
        (("--postgres-password-variable", "READER"), "--postgres-url: is not given"),
        (("--renew-password",), "--postgres-url: is not given"),
        (
            ("--postgres-url", "postgresql://r@db/x", "--postgres-password-variable", "NONE"),
            "NONE is not set",
        ),
    ],
)
def test_wrong_use_is_told_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str],
    grafana: GrafanaDouble,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    """Exit code 2."""
    url = () if "--url" in arguments else ("--url", grafana.url)
    with pytest.raises(SystemExit) as ended:
        main(["dashboards", "push", *url, *arguments])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in err
    assert "the-word" not in err
    assert grafana.requests == []


def test_a_token_over_plain_http_to_elsewhere_is_warned_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on: inside a network of one's own that may be meant."""
    monkeypatch.setattr("fedserver.dashboards.grafana.TIMEOUT_S", 1.0)
    with pytest.raises(SystemExit):
        main(["dashboards", "check", "--url", "http://nowhere.invalid"])
    assert "is not encrypted" in capsys.readouterr().err


def test_address_and_token_have_to_be_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the message names the choices."""
    monkeypatch.delenv("GRAFANA_TOKEN")
    for arguments, words in (
        ((), "GRAFANA_URL"),
        (("--url", "http://127.0.0.1:9"), "--token-file"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["dashboards", "push", *arguments])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_without_the_package_the_extra_is_named(tmp_path: Path) -> None:
    """pip install 'fedserver-telemetry[grafana]'."""
    code = (
        "import sys; sys.modules['grafana_api'] = None\n"
        "from fedserver.cli import main\n"
        "main(['dashboards', 'push', '--url', 'http://127.0.0.1:9', '--token', 'x'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "fedserver-telemetry[grafana]" in done.stderr


# --- files ----------------------------------------------------------------------------------------


def test_the_files_are_those_of_the_checkout() -> None:
    """The four, each under its uid."""
    assert [board["uid"] for board in files.load_dashboards()] == BOARDS
    assert {path.stem for path in (ROOT / "grafana" / "dashboards").glob("*.json")} == set(BOARDS)


def test_the_folder_is_that_of_the_provisioning() -> None:
    """Whoever moves from one way to the other finds the same folder."""
    path = ROOT / "grafana" / "provisioning" / "dashboards" / "dashboards.yml"
    (provider,) = yaml.safe_load(path.read_text(encoding="utf-8"))["providers"]
    assert (provider["folderUid"], provider["folder"]) == (FOLDER_UID, FOLDER_TITLE)


def test_files_that_are_no_dashboards_are_told(tmp_path: Path) -> None:
    """None, no JSON, another uid."""
    with pytest.raises(ConfigError, match="holds no dashboards"):
        files.load_dashboards(tmp_path)
    for text in ("{", "[]", '{"uid": "b"}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ConfigError, match=r"a\.json"):
            files.load_dashboards(tmp_path)


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({"a": 1}, {"a": 1, "id": 7}, []),
        ({"a": None, "b": [], "c": {}}, {}, []),
        ({"a": 1.0}, {"a": 1}, []),
        ({"a": True}, {"a": 1}, ["a: true, there 1"]),
        ({"a": 0}, {"a": False}, ["a: 0, there false"]),
        ({"a": 1}, {}, ["a: 1, missing there"]),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}, ["a.b[1].c: 2, there 3"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a: 1 entries, there 2"]),
        ({"a": "x"}, {"a": ["x"]}, ['a: "x", there ["x"]']),
        ({"a": "x" * 99}, {"a": ""}, [f'a: "{"x" * 58}…, there ""']),
    ],
)
def test_differences_are_told_by_their_place(ours: Any, theirs: Any, told: list[str]) -> None:
    """What Grafana adds of its own is none."""
    assert list(differences(ours, theirs)) == told
