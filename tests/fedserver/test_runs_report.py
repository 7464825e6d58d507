"""``fedserver runs report``: the file that a person attaches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedserver.cli import main
from telemetry.store import open_store
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run

Run = Callable[..., tuple[object, str]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in a folder with a store of one run: exit code, and what it says on stderr."""
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///telemetry.db")
    store.start_run(make_run(), OWNER, START)
    store.record_round(make_round(1, clients={"a": 0.25, "b": "missing"}))
    store.finish_run(RUN_ID, "completed", START)
    store.release(RUN_ID, OWNER)
    store.close()

    def asked(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            main(["runs", "report", *arguments])
        told = capsys.readouterr()
        assert told.out == ""
        return ended.value.code, told.err

    return asked


def test_it_writes_a_file_named_after_the_run(ask: Run) -> None:
    """The same bytes each time, and it says where it wrote them."""
    code, said = ask(RUN_ID)
    path = Path(f"report-{RUN_ID}.html")
    assert not code
    assert said == f"wrote {path}\n"
    first = path.read_bytes()
    assert b"Spain (ESP)" in first
    ask("digits", "-o", "again.html")
    assert Path("again.html").read_bytes() == first
    assert sorted(p.name for p in Path().glob("*html*")) == ["again.html", path.name]


def test_it_bears_whoever_answers_for_it_and_a_date(ask: Run) -> None:
    """In its head, and in how to cite it."""
    code, _ = ask(
        RUN_ID, "-o", "r.html", "--author", "A & B", "--date", "2026-01-31", "--store",
        "sqlite:///telemetry.db",
    )  # fmt: skip
    assert not code
    text = Path("r.html").read_text(encoding="utf-8")
    assert text.count("A &amp; B") >= 2
    assert text.count("2026-01-31") >= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-run",), "no-such-run"),
        ((RUN_ID, "--date", "31.1.2026"), "--date"),
        ((RUN_ID, "-o", "nowhere/r.html"), "--output: cannot write nowhere/r.html"),
    ],
)
def test_mistakes_are_told_and_write_nothing(
    ask: Run, arguments: tuple[str, ...], words: str
) -> None:
    """Exit code 2, with what is wrong; no half a file."""
    code, said = ask(*arguments)
    assert code == 2
    assert words in said
    assert "Traceback" not in said
    assert not list(Path().glob("*.html*"))
