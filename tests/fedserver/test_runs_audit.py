"""``runs show --method``, ``runs verify`` and ``runs delete``, as somebody types them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fedserver.cli import main
from fedserver.wording import sealed_line
from telemetry.domain import utc_now
from telemetry.statement import statement
from telemetry.store import Store, open_store
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run

OTHER = "20260102-040000-fedcba"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A folder with the default database: a run that has ended, and one that goes on."""
    monkeypatch.chdir(tmp_path)
    with closing(open_store("sqlite:///telemetry.db")) as kept:
        kept.start_run(make_run(), OWNER, START)
        kept.record_round(make_round(1, clients={"a": 0.5, "b": "missing"}))
        kept.record_round(make_round(2, clients={"a": 0.25}))
        kept.finish_run(RUN_ID, "completed", START)
        now = utc_now()
        kept.start_run(make_run(OTHER, run_name="other", started_at=now), OWNER, now)
        yield kept


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    """Runs ``fedserver runs …``."""
    return Typed(capsys)


class Typed:
    """A command line and what came of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        """The exit code."""
        with pytest.raises(SystemExit) as caught:
            main(["runs", *arguments])
        self.out, self.err = self._capsys.readouterr()
        return int(caught.value.code or 0)


def tamper(statement: str) -> None:
    """Past this program."""
    with closing(sqlite3.connect("telemetry.db")) as connection, connection:
        assert connection.execute(statement).rowcount > 0


# --- list ------------------------------------------------------------------------------------------


def test_a_round_that_was_played_again_is_listed_once(store: Store, typed: Typed) -> None:
    """Of three planned rounds the second was interrupted and repeated: three are played, not four."""
    run_id = "20260102-050000-aaaaaa"
    store.start_run(make_run(run_id, run_name="resumed", rounds_planned=3), OWNER, START)
    store.record_round(make_round(1, run_id=run_id))
    store.record_round(make_round(2, run_id=run_id, status="interrupted"))
    store.record_round(make_round(2, run_id=run_id, attempt=2))
    store.record_round(make_round(3, run_id=run_id))
    assert typed("list") == 0
    (line,) = [line for line in typed.out.splitlines() if run_id in line]
    assert " 3/3 " in line


# --- show ------------------------------------------------------------------------------------------


def test_show_prints_the_whole_seal(store: Store, typed: Typed) -> None:
    """Of a run that has ended; a running one has none."""
    assert typed("show", RUN_ID) == 0
    assert f"seal       {store.run(RUN_ID).sha256}\n" in typed.out
    assert "no rows of clients" not in typed.out
    assert typed("show", OTHER) == 0
    assert "seal" not in typed.out


def test_show_method_prints_the_statement_and_nothing_else(store: Store, typed: Typed) -> None:
    """With the country's name."""
    assert typed("show", RUN_ID, "--method") == 0
    assert typed.out == statement(store.run(RUN_ID), store.rounds(RUN_ID), "Spain") + "\n"
    assert "Spain (ESP)" in typed.out


def test_without_client_rows_show_and_export_say_so(store: Store, typed: Typed) -> None:
    """Show in a line, the export of reports on stderr."""
    store.record_round(make_round(1, run_id=OTHER, clients={"a": 0.5}, client_rows=False))
    assert typed("show", OTHER) == 0
    assert "no rows of clients are kept" in typed.out
    assert typed("export", OTHER, "--format", "clients-csv") == 0
    assert typed.out.count("\n") == 1
    assert "only sums of their clients were kept" in typed.err


def test_the_closing_line_ends_with_the_beginning_of_the_seal(store: Store) -> None:
    """Twelve digits; a run that could not be ended in the store has none."""
    run = store.run(RUN_ID)
    assert run.sha256 is not None
    assert sealed_line("total 1 g", run) == f"total 1 g, sealed {run.sha256[:12]}"
    assert sealed_line("total 1 g", replace(run, sha256=None)) == "total 1 g"


# --- verify ----------------------------------------------------------------------------------------


def test_verify_says_ok_with_the_seal(store: Store, typed: Typed) -> None:
    """Exit code 0; of a running run it says what is still open."""
    assert typed("verify", RUN_ID) == 0
    assert typed.out == f"run {RUN_ID}: OK, 2 closed rounds, seal {store.run(RUN_ID).sha256}\n"
    assert typed("verify", "--all") == 0
    assert (
        f"run {OTHER}: OK, 0 closed rounds\n  not verified: the seal: the run has not ended\n"
        in (typed.out)
    )


def test_verify_names_what_differs(store: Store, typed: Typed) -> None:
    """Exit code 1, the round, the figure, both values."""
    tamper("UPDATE reports SET counted_emissions_kg = 9 WHERE round = 2")
    assert typed("verify", "--all") == 1
    assert f"run {RUN_ID}: " in typed.out
    assert "  round 2: clients_emissions_kg is 0.25, recomputed 9.0\n" in typed.out
    assert "the seal alone" not in typed.out


def test_verify_says_what_only_the_seal_can_tell(store: Store, typed: Typed) -> None:
    """A run's facts are in no sum."""
    tamper(f"UPDATE runs SET run_name = 'better' WHERE run_id = '{RUN_ID}'")
    assert typed("verify", RUN_ID) == 1
    assert "the seal alone differs: a fact of the run" in typed.out


def test_verify_of_a_run_that_cannot_be_read(store: Store, typed: Typed) -> None:
    """Its id still leads to it; all of them at once do not."""
    tamper(f"UPDATE runs SET software = '{{' WHERE run_id = '{RUN_ID}'")
    assert typed("verify", RUN_ID) == 1
    assert "the run: its record is unreadable" in typed.out
    assert typed("verify", "--all") == 2
    assert "one by one" in typed.err


def test_verify_wants_one_run_or_all(store: Store, typed: Typed) -> None:
    """Not both, and not neither."""
    for arguments in ((), (RUN_ID, "--all")):
        assert typed("verify", *arguments) == 2
        assert "name one run, or give --all" in typed.err


def test_an_export_is_held_against_the_store(store: Store, typed: Typed) -> None:
    """A figure that was changed in the file is named, wherever it stands."""
    assert typed("export", RUN_ID, "--format", "json", "-o", "run.json") == 0
    assert typed("verify", "--json", "run.json") == 0
    assert typed.out.endswith("run.json: as the store has it\n")
    assert f"run {RUN_ID}: OK" in typed.out
    export = json.loads(Path("run.json").read_text())
    export["rounds"][1]["reports"][0]["emissions_kg"] = 0.125
    export["run"]["run_name"] = "better"
    del export["rounds"][0]["clients"][1]
    Path("run.json").write_text(json.dumps(export))
    assert typed("verify", "--json", "run.json") == 1
    assert typed.out.splitlines()[1:] == [
        "run.json: not what the store has",
        "  rounds[0].clients: 1 in the file, 2 in the store",
        "  rounds[1].reports[0].emissions_kg: 0.125 in the file, 0.25 in the store",
        '  run.run_name: "better" in the file, "digits" in the store',
    ]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"run_id": "x", "format_version": 2}'])
def test_what_is_no_export_is_refused(store: Store, typed: Typed, text: str) -> None:
    """With the reason, and so is a file that is not there."""
    Path("run.json").write_text(text)
    assert typed("verify", "--json", "run.json") == 2
    assert "not a JSON export of a run" in typed.err
    assert typed("verify", "--json", "nowhere.json") == 2


# --- delete ----------------------------------------------------------------------------------------


def test_a_deleted_run_is_gone_and_its_files_are_named(store: Store, typed: Typed) -> None:
    """What a server wrote beside the store, and copies from before upgrades, stay."""
    folder = Path("runs", RUN_ID)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    Path("telemetry.db.before-0003").write_text("")
    assert typed("delete", RUN_ID, "--yes") == 0
    assert f"deleted run {RUN_ID} from sqlite:///telemetry.db\n" in typed.out
    assert "not deleted, and may tell of it:" in typed.out
    assert f"  {folder / 'run.json'}\n" in typed.out
    assert "  telemetry.db.before-0003\n" in typed.out
    assert (folder / "run.json").exists()
    assert typed("show", RUN_ID) == 2
    assert f"run {RUN_ID} was deleted from sqlite:///telemetry.db on {utc_now():%Y-%m-%d}" in (
        typed.err
    )
    assert typed("delete", RUN_ID, "--yes") == 2
    assert typed("verify", RUN_ID) == 2


def test_without_a_terminal_nothing_is_deleted_unasked(store: Store, typed: Typed) -> None:
    """--yes is how a script says so."""
    assert typed("delete", RUN_ID) == 2
    assert "--yes" in typed.err
    assert store.run(RUN_ID).run_id == RUN_ID


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 1), ("n\n", 1, 2), ("\n", 1, 2)])
def test_on_a_terminal_it_is_asked(
    store: Store, typed: Typed, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: int
) -> None:
    """Only a yes deletes."""
    import io

    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert typed("delete", RUN_ID) == code
    assert f"delete run {RUN_ID} (digits, completed, started" in typed.out + typed.err
    assert len(store.runs()) == left


def test_a_live_run_is_not_deleted(store: Store, typed: Typed) -> None:
    """One whose server was last heard of a minute ago is."""
    assert typed("delete", OTHER, "--yes") == 2
    assert "is running" in typed.err
    store.renew_lease(OTHER, OWNER, utc_now() - timedelta(seconds=61))
    assert typed("delete", OTHER, "--yes") == 0
