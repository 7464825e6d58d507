"""Every text that a writer or a client can set, with harm in it, at every place where it comes out."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from fedserver.cli import main
from telemetry.exporters.cells import FORMULA_STARTS
from telemetry.service.request_log import JsonLines
from telemetry.service.service import create_service
from telemetry.store import open_store
from telemetry.testing import RUN_ID
from tests.telemetry.hostile import (
    HARMLESS,
    NAME,
    PAYLOADS,
    TAKES,
    encoded,
    hostile_bodies,
    texts,
    whole_bodies,
    with_text,
)

API = "/api/v1/runs"
RUN = f"{API}/{RUN_ID}"
JSON = {"Content-Type": "application/json"}
WAYS = {
    "run": ("PUT", RUN),
    "rounds": ("POST", f"{RUN}/rounds"),
    "finish": ("POST", f"{RUN}/finish"),
}
READ = {
    "page": "/",
    "metrics": "/metrics",
    "runs": API,
    "run": RUN,
    "rounds": f"{RUN}/rounds",
    "clients": f"{RUN}/clients",
    **{f"export {name}": f"{RUN}/export?format={name}" for name in ("csv", "clients-csv", "codecarbon-csv", "json")},
}  # fmt: skip
TERMINAL = {
    "terminal: list": ("runs", "list"),
    "terminal: show": ("runs", "show", RUN_ID),
    "terminal: method": ("runs", "show", RUN_ID, "--method"),
    "terminal: compare": ("runs", "compare", RUN_ID, RUN_ID),
    "terminal: recost": ("runs", "recost", RUN_ID, "--intensity", "100"),
    "terminal: sci": ("runs", "sci", RUN_ID),
    "terminal: verify": ("runs", "verify", RUN_ID),
    "terminal: no such run": ("runs", "show", RUN_ID[:-1] + "0"),
}
FREE = {
    "run_name", "strategy", "privacy", "intensity_source", "country", "tracker", "reason", "client",
    "node_id", "host_id", "scope", "dropped_fields", "metric_names", "software <name>",
    "train_metrics <name>", "evaluate_metrics <name>",
}  # fmt: skip
"""Texts that the service takes as they are."""


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """What the service logs, as it does."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield out
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def terminal(url: str, *command: str) -> str:
    """All that a command prints."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as ended:
        main([*command, "--store", url])
    said: str = out.buffer.getvalue().decode()
    assert ended.value.code in (0, 1, 2), said
    assert "Traceback" not in said
    return said


class Told:
    """A run that is full of one text, and how it comes out everywhere."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text = text
        url = f"sqlite:///{folder / 'telemetry.db'}"
        found, self.taken = hostile_bodies(text)
        with logged() as log, closing(open_store(url)) as store:
            app = create_service(store)
            with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
                for kind, (method, path) in WAYS.items():
                    headers = {**JSON, "X-Request-ID": text.encode(errors="replace")[:99]}
                    answer = client.request(
                        method, path, content=encoded(found[kind]), headers=headers
                    )
                    assert answer.status_code == 200, answer.text
                self.out = {}
                for name, path in READ.items():
                    answer = client.get(path)
                    assert answer.status_code == 200, answer.text
                    self.out[name] = answer.text
                # What no run has is asked for, too: it is in the log, and in the answer.
                unknown = client.get(f"{API}/{RUN_ID}", params={"limit": text, text: "1"})
                assert unknown.status_code in (200, 400, 422), unknown.text
                missing = client.get("/" + quote(text, safe=""))
                assert missing.status_code in (400, 404), missing.text
                self.out["problem"] = missing.text
        for name, command in TERMINAL.items():
            self.out[name] = terminal(url, *command)
        self.out["log"] = log.getvalue()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Told]:
    """By text; made once."""
    made: dict[str, Told] = {}

    def tell(text: str) -> Told:
        if text not in made:
            made[text] = Told(text, tmp_path_factory.mktemp("hostile"))
        return made[text]

    return tell


# --- what comes in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_text_is_taken_as_it_is_or_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    """Each place by itself: never a fault of the server."""
    whole = whole_bodies()
    with closing(open_store(f"sqlite:///{tmp_path / 'telemetry.db'}")) as store:
        app = create_service(store)
        with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
            client.put(RUN, content=encoded(whole["run"]), headers=JSON).raise_for_status()
            for kind in TAKES:
                method, path = WAYS[kind]
                for at in texts(whole[kind]):
                    body = encoded(with_text(whole[kind], at, PAYLOADS[name]))
                    answer = client.request(method, path, content=body, headers=JSON)
                    assert answer.status_code in (200, 400, 409, 422), (at, answer.text)
                    if answer.status_code != 200:
                        assert answer.headers["content-type"] == "application/problem+json"
                        assert json.loads(answer.text)["detail"], at


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_run_is_full_of_the_text(told: Callable[[str], Told], name: str) -> None:
    """Or else the tests below would look at nothing."""
    assert told(PAYLOADS[name]).taken >= FREE


# --- what comes out ----------------------------------------------------------------------------------


class Structure(HTMLParser):
    """Elements of a page with the names of their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Kept."""
        self.found[tag, tuple(sorted(name for name, _ in attributes))] += 1


def check_page(told: Told, exit_: str, plain: str) -> None:
    """No element and no attribute but those of a harmless run; the text is there to be read."""
    assert Structure(told.out[exit_]).found == Structure(plain).found


def check_metrics(told: Told, exit_: str, plain: str) -> None:
    """The same samples as of a harmless run; the text is a label's value, and nothing else."""

    def samples(text: str) -> tuple[Counter[str], set[str]]:
        found = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return Counter(s.name for s in found), {v for s in found for v in s.labels.values()}

    (names, labels), (expected, _) = samples(told.out[exit_]), samples(plain)
    assert names == expected
    assert told.text in labels
    assert len(told.out[exit_].splitlines()) >= len(plain.splitlines())


def check_csv(told: Told, exit_: str, plain: str) -> None:
    """As many rows and cells; no cell is a formula."""
    rows = list(csv.reader(io.StringIO(told.out[exit_], newline="")))
    expected = list(csv.reader(io.StringIO(plain, newline="")))
    assert [len(row) for row in rows] == [len(row) for row in expected]
    for row in rows:
        for cell in row:
            assert not cell.startswith(FORMULA_STARTS) or is_number(cell), cell
    if told.text.startswith(FORMULA_STARTS):
        assert any("'" + told.text in row for row in rows)


def is_number(cell: str) -> bool:
    """Whether a cell is a number of ours."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def check_json(told: Told, exit_: str, plain: str) -> None:
    """The same members; the text is a value (or a name) as it was said."""
    found = json.loads(told.out[exit_])
    assert told.text in set(strings(found))
    assert shape(found, told.text) == shape(json.loads(plain), HARMLESS)


def strings(value: Any) -> Iterator[str]:
    """Every text and name in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from strings(item)


def shape(value: Any, text: str) -> Any:
    """A document's names and lengths, without the values."""
    if isinstance(value, list):
        return [shape(item, text) for item in value]
    if isinstance(value, dict):
        return {NAME if name == text else name: shape(item, text) for name, item in value.items()}
    return None


def check_log(told: Told, exit_: str, plain: str) -> None:
    """As many lines, each a JSON object of ASCII; none is forged."""
    lines = told.out[exit_].splitlines()
    assert len(lines) == len(plain.splitlines())
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line)["message"] != "forged"


def check_terminal(told: Told, exit_: str, plain: str) -> None:
    """Lines of printable characters: no escape sequence, and no line that the text begins."""
    said = told.out[exit_]
    assert said
    wrong = {c for c in said if not (c.isprintable() or c == "\n")}
    assert not wrong, said
    assert not [line for line in said.splitlines() if line.startswith(("ERROR forged", '{"level"'))]


CHECKS: dict[str, Callable[[Told, str, str], None]] = {
    "page": check_page,
    "metrics": check_metrics,
    **dict.fromkeys(("runs", "run", "rounds", "clients", "export json"), check_json),
    **dict.fromkeys(("export csv", "export clients-csv", "export codecarbon-csv"), check_csv),
    "log": check_log,
    **dict.fromkeys(TERMINAL, check_terminal),
}


@pytest.mark.parametrize("exit_", CHECKS)
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_hostile_text_is_harmless_wherever_it_comes_out(
    told: Callable[[str], Told], name: str, exit_: str
) -> None:
    """Page, metrics, API, exports, log, terminal."""
    CHECKS[exit_](told(PAYLOADS[name]), exit_, told(HARMLESS).out[exit_])


@pytest.mark.parametrize("name", PAYLOADS)
def test_what_is_not_there_is_told_as_json(told: Callable[[str], Told], name: str) -> None:
    """Whatever was asked for: the problem document is one, and no page."""
    assert json.loads(told(PAYLOADS[name]).out["problem"])["status"] in (400, 404)
