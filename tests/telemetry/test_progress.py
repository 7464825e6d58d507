"""Long work tells how far it is."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.exporters import FORMATS
from telemetry.progress import LineCounter, counted
from telemetry.store import open_store
from telemetry.store.memory import InMemoryStore
from telemetry.store.sql import migrating, sqlite
from telemetry.store.sql.schema import REVISION
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run


class Heard:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.of: list[int] = []
        self.what: list[str] = []

    def __call__(self, done: int, of: int | None = None, what: str | None = None) -> None:
        self.done.append(done)
        if of is not None:
            self.of.append(of)
        if what is not None:
            self.what.append(what)


def test_each_thing_is_told_of_once_it_has_been_dealt_with() -> None:
    """Not before: what is under way is not done."""
    heard = Heard()
    seen = [(item, list(heard.done)) for item in counted("abc", heard)]
    assert seen == [("a", []), ("b", [1]), ("c", [1, 2])]
    assert heard.done == [1, 2, 3]


def test_lines_are_counted_as_they_are_written() -> None:
    """However they come: several at once, or one in pieces."""
    heard, written = Heard(), io.StringIO()
    counter = LineCounter(written.write, heard)
    for text in ("a,b\r\n", "c", ",d\r\n", "e\r\nf\r\n"):
        assert counter.write(text) == len(text)
    assert heard.done == [1, 2, 4]
    assert written.getvalue() == "a,b\r\nc,d\r\ne\r\nf\r\n"


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_tells_how_many_lines_there_are(name: str, tmp_path: Path) -> None:
    """And how many there will be, where that is known before."""
    store, heard = InMemoryStore(), Heard()
    store.start_run(make_run(), OWNER, START)
    for number in range(5):
        store.record_round(make_round(number, clients={"a": 0.5, "b": 0.1} if number else None))
    store.finish_run(RUN_ID, "completed", START)
    FORMATS[name].save(store, RUN_ID, tmp_path / "told", heard)
    FORMATS[name].save(store, RUN_ID, tmp_path / "untold")
    text = (tmp_path / "told").read_bytes()
    assert text == (tmp_path / "untold").read_bytes()
    assert heard.done[-1] == text.count(b"\n")
    assert heard.of == ([] if FORMATS[name].lines is None else [text.count(b"\n")])


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_pruning_tells_of_each_run(kind: str, tmp_path: Path) -> None:
    """How many there are, and each that is done."""
    heard = Heard()
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/telemetry.db"
    with closing(open_store(url)) as store:
        for number in range(3):
            run_id = f"{RUN_ID}{number}"
            store.start_run(make_run(run_id), OWNER, START)
            store.record_round(make_round(1, run_id=run_id))
            store.finish_run(run_id, "completed", START)
        later = START.replace(year=START.year + 1)
        assert len(store.prune(later, later, heard)) == 3
    assert heard.of == [3]
    assert heard.done == [0, 1, 2, 3]


def test_an_upgrade_tells_of_the_copy_and_of_each_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages first, for a file that holds anything; then the revisions that it lacks."""
    monkeypatch.setattr(sqlite, "_PAGES", 5)
    old = Path(__file__).parent / "schemas" / "0002.sql"
    path = tmp_path / "filled.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(old.read_text())
    heard = Heard()
    migrating.upgrade(f"sqlite:///{path}", tell=heard)
    assert heard.what == ["copy pages", "upgrade"]
    lacked = int(REVISION) - 2
    assert heard.of[-1] == lacked
    assert heard.done[-lacked:] == list(range(1, lacked + 1))
    pages = heard.done[: -lacked - 1]
    assert pages == sorted(pages)
    assert pages[-1] == heard.of[-2]
    assert len(pages) > 3


def test_a_new_database_gets_every_revision(tmp_path: Path) -> None:
    """And nothing is copied."""
    heard = Heard()
    migrating.upgrade(f"sqlite:///{tmp_path}/new.db", tell=heard)
    assert heard.what == ["upgrade"]
    assert (heard.of, heard.done[-1]) == ([int(REVISION)], int(REVISION))
