"""``fedserver runs recost | compare | sci``: on a real database, and as docs/questions.md shows it."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedserver.cli import main
from telemetry.domain import RunInfo
from telemetry.store import open_store
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run
from tests.fedserver.clients import ROOT
from tests.fedserver.questions import FAST, SILENT, SLOW, a_round, fill

Run = Callable[..., str]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three runs of the page; no test writes to it."""
    path = tmp_path_factory.mktemp("questions") / "telemetry.db"
    fill(f"sqlite:///{path}")
    return path


@pytest.fixture
def ask(database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in the folder of the database; what it prints."""
    monkeypatch.chdir(database.parent)

    def asked(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr()
        if ended.value.code:
            assert ended.value.code == 2
            assert told.out == ""
            assert told.err.startswith("error: ")
            return told.err
        assert told.err == ""
        return told.out

    return asked


def answer(ask: Run, *arguments: str) -> dict[str, Any]:
    """What a command says as JSON."""
    found: dict[str, Any] = json.loads(ask("runs", *arguments, "--format", "json"))
    return found


# --- recost --------------------------------------------------------------------------------------


def test_recost_with_the_factors_of_the_run_shows_the_stored_figures(ask: Run) -> None:
    """Bit for bit, the whole run and each round."""
    found = answer(ask, "recost", SLOW, "--intensity", "174", "--pue", "1")
    assert found["stored"] == found["recosted"]
    assert found["stored"]["total_emissions_kg"] is not None
    for row in found["rounds"]:
        for name in ("server", "clients", "total", "cumulative"):
            figure = f"{name}_emissions_kg"
            assert row["stored"][figure] == row["recosted"][figure]
    assert [row["round"] for row in found["rounds"]] == [0, 1, 2, 3, 4]


def test_recost_by_hand(ask: Run) -> None:
    """56.04 g/kWh of France: who moves, with and without the whole federation."""
    # A round: 2.0 Wh on the meter, of which 0.6 are of the client beside; 0.8 Wh in France; 0.03 g bare.
    here = answer(ask, "recost", "plain", "--country", "FRA", "--pue", "1.5")
    france = here["changes"]["grid"]["g_per_kwh"] / 1000
    assert 0.02 < france < 0.1
    first = here["rounds"][1]["recosted"]
    assert first["server_emissions_kg"] == pytest.approx(0.0014 * 1.5 * france)
    beside, bare = 0.0006 * 1.5 * france, 0.00003
    assert first["clients_emissions_kg"] == pytest.approx(beside + 0.0008 * 0.056 + bare)
    assert here["kept"]["own_grid_kg"] == pytest.approx(4 * 0.0008 * 0.056)
    assert here["kept"]["without_energy_kg"] == pytest.approx(4 * bare)
    all_of_it = answer(ask, "recost", "plain", "--country", "FRA", "--pue", "1.5", "--everywhere")
    first = all_of_it["rounds"][1]["recosted"]
    assert first["clients_emissions_kg"] == pytest.approx(beside + 0.0008 * france + bare)
    assert all_of_it["kept"]["own_grid_reports"] == 0
    assert first["intensity_source"].startswith("codecarbon")
    assert first["country"] == "FRA"


def test_recost_tells_which_grams_it_cannot_move(ask: Run) -> None:
    """With their part of the total, and the way to move those that could be."""
    told = ask("runs", "recost", "plain", "--intensity", "50")
    assert "0.120 g of 1.778 g cannot be re-costed: reported without energy (4 reports)" in told
    assert "0.179 g of 1.778 g are of clients elsewhere and stay at their own intensity" in told
    assert "every client: --everywhere" in told
    assert "50 gCO2eq/kWh, given with --intensity" in told


def test_no_question_writes_to_the_database(ask: Run, database: Path) -> None:
    """The file's bytes and its change counter are what they were."""

    def version() -> tuple[bytes, int]:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            (schema,) = connection.execute("PRAGMA schema_version").fetchone()
        return database.read_bytes(), schema

    with sqlite3.connect(database) as watching:
        (before,) = watching.execute("PRAGMA data_version").fetchone()
        content = version()
        ask("runs", "recost", "plain", "--country", "FRA", "--everywhere", "--network", "0.01")
        ask("runs", "compare", "plain", "adaptive")
        ask("runs", "sci", "plain")
        (after,) = watching.execute("PRAGMA data_version").fetchone()
    assert after == before
    assert version() == content


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("recost plain --country FR", ("--country", "'FR'", "FRA (France)")),
        ("recost plain --country SWE --region XX", ("--region", "'XX'", "SE1")),
        ("recost plain --country FRA --region IDF", ("--region", "no table of regions for FRA")),
        ("recost plain --region SE1", ("--region", "needs a country")),
        ("recost plain --pue 0.9", ("--pue", "0.9", "from 1")),
        ("recost plain --pue nan", ("--pue", "nan")),
        ("recost plain --network -1", ("--network", "-1", "kWh per decimal GB")),
        ("recost plain --intensity -1", ("--intensity", "-1")),
        ("recost plain --intensity 1e9", ("--intensity", "1000000000.0")),
        ("recost plain --intensity 50 --country FRA", ("--intensity", "--country")),
        ("recost plain", ("--intensity, --country, --pue or --network",)),
        ("recost plain --everywhere --pue 1.2", ("--everywhere", "--intensity or --country")),
        ("recost nothing --pue 1.2", ("nothing", SLOW)),
        ("recost plain --pue 1.2 --format xml", ("--format", "xml", "table, json")),
        ("compare plain adaptive --metric f1", ("--metric", "'f1'", "accuracy, loss")),
        ("compare plain nothing", ("nothing", SLOW)),
        ("compare plain --target nan", ("--target", "nan")),
        ("sci plain --per epoch", ("--per", "'epoch'", "client-round")),
    ],
)
def test_a_wrong_question_is_one_message(ask: Run, arguments: str, words: tuple[str, ...]) -> None:
    """Exit 2, the option, the value and what it may be."""
    told = ask("runs", *shlex.split(arguments))
    assert len(told.splitlines()) == 1
    for word in words:
        assert word in told, told


# --- compare and sci -----------------------------------------------------------------------------


def test_compare_marks_the_front_and_what_is_unfair(ask: Run) -> None:
    """Two runs on the front; the third reported less than it emitted, and it says so."""
    found = answer(ask, "compare", "plain", "adaptive", "half-silent", "plain", "--target", "0.84")
    by_id = {run["run_id"]: run for run in found["runs"]}
    assert [run["run_id"] for run in found["runs"]] == [SLOW, FAST, SILENT]
    assert [run["on_pareto_front"] for run in found["runs"]] == [True, True, False]
    assert [run["target_round"] for run in found["runs"]] == [3, 2, 4]
    assert [run["coverage"] for run in found["runs"]] == [1.0, 1.0, pytest.approx(2 / 3)]
    assert set(found["differences"]) == {"coverage"}
    # 29 points for the rounds 2 to 4.
    a_round_kg = 0.0014 * 0.174 + 0.0006 * 0.174 + 0.0008 * 0.056 + 0.00003
    assert by_id[SLOW]["average_g_per_point"] == pytest.approx(3 * a_round_kg * 1000 / 29)
    assert by_id[SLOW]["target_emissions_kg"] == pytest.approx(0.0005 * 0.174 + 3 * a_round_kg)
    told = ask("runs", "compare", "plain", "half-silent")
    assert f"{SILENT}: its total may be too low: 4 of 12 expected reports" in told
    assert "differs in coverage" in told


def test_compare_by_a_loss_takes_the_lower_one(ask: Run) -> None:
    """By its name; the other way round where that is said."""
    found = answer(ask, "compare", "plain", "adaptive", "--metric", "loss", "--target", "0.16")
    assert found["lower_is_better"] is True
    assert [run["best_value"] for run in found["runs"]] == [
        pytest.approx(0.09),
        pytest.approx(0.12),
    ]
    assert [run["metric_from"] for run in found["runs"]] == ["train", "train"]
    upwards = answer(ask, "compare", "plain", "--metric", "loss", "--higher-is-better")
    assert upwards["runs"][0]["best_value"] == pytest.approx(0.38)


def test_sci_scores_one_or_all_units_with_its_boundary(ask: Run) -> None:
    """E × I per R; M is named as not included."""
    found = answer(ask, "sci", "plain")
    total_g = found["operational_emissions_kg"] * 1000
    counts = {"run": 1, "round": 4, "client-round": 12, "point": 29, "1000-examples": 5.76}
    for score in found["scores"]:
        count = counts.pop(score["unit"])
        assert score["count"] == pytest.approx(count)
        assert score["g_co2eq_per_unit"] == pytest.approx(total_g / count)
    assert not counts
    assert found["embodied_included"] is False
    told = ask("runs", "sci", "half-silent", "--per", "round")
    for words in ("ISO/IEC 21031:2024", "without M", "manufacture", "perhaps too low: 4 of 12"):
        assert words in told
    assert "one round of training" in told
    assert "one training run" not in told


def test_show_says_what_a_target_cost(ask: Run) -> None:
    """All grams from the run's start, or that it was not reached."""
    told = ask("runs", "show", "plain", "--target", "0.9")
    assert "target     accuracy 0.9 in round 4, after 1.78 g" in told
    assert re.search(r"value      best accuracy 0.91 in round 4; 0.044 g for each point", told)
    assert "accuracy 0.99 was not reached" in ask("runs", "show", "plain", "--target", "0.99")


# --- what a store may lack -----------------------------------------------------------------------


def _store(path: Path, info: RunInfo, **facts: Any) -> None:
    store = open_store(f"sqlite:///{path}")
    store.start_run(info, OWNER, START)
    for number in (1, 2):
        record = a_round(SLOW, number)
        fields = {name: getattr(record, name) for name in type(record).model_fields}
        store.record_round(type(record)(**{**fields, "run_id": info.run_id, **facts}))
    store.finish_run(info.run_id, "completed", START)
    store.release(info.run_id, OWNER)
    store.close()


def test_a_run_without_client_rows_says_what_cannot_be_done(tmp_path: Path, ask: Run) -> None:
    """The server moves; the clients' grams are listed; examples are unknown with a reason."""
    _store(tmp_path / "t.db", make_run(client_rows=False), client_rows=False)
    where = ("--store", f"sqlite:///{tmp_path / 't.db'}")
    found = answer(ask, "recost", RUN_ID, "--intensity", "87", *where)
    assert found["recosted"]["server_emissions_kg"] == pytest.approx(
        found["stored"]["server_emissions_kg"] / 2
    )
    assert found["recosted"]["clients_emissions_kg"] == found["stored"]["clients_emissions_kg"]
    told = ask("runs", "recost", RUN_ID, "--intensity", "87", *where)
    assert re.search(r"0\.36 g of 0\.85 g cannot be re-costed: the run keeps no rows", told)
    assert "the run keeps no rows of its clients" in ask("runs", "sci", RUN_ID, *where)


def test_an_untracked_run_has_nothing_to_recost_and_no_score(tmp_path: Path, ask: Run) -> None:
    """Unknown is not 0: an error for recost, a dash on the others and no place on the front."""
    _store(tmp_path / "t.db", make_run(tracked=False), tracked=False, reports=(), laps=())
    where = ("--store", f"sqlite:///{tmp_path / 't.db'}")
    assert "not tracked" in ask("runs", "recost", RUN_ID, "--pue", "1.2", *where)
    (run,) = answer(ask, "compare", RUN_ID, *where)["runs"]
    assert (run["total_emissions_kg"], run["on_pareto_front"]) == (None, False)
    assert {s["g_co2eq_per_unit"] for s in answer(ask, "sci", RUN_ID, *where)["scores"]} == {None}
    told = ask("runs", "compare", RUN_ID, *where)
    assert f"{RUN_ID} is not on the front: its total is unknown" in told
    assert "perhaps too low" not in ask("runs", "sci", RUN_ID, *where)


def test_runs_with_other_value_metrics_need_a_choice(tmp_path: Path, ask: Run) -> None:
    """Which metric is named by the run; two names are a question back."""
    path = tmp_path / "t.db"
    _store(path, make_run())
    _store(path, make_run("20260102-030405-ffffff", value_metric="loss"))
    told = ask("runs", "compare", RUN_ID, "20260102-030405-ffffff", "--store", f"sqlite:///{path}")
    assert "choose one: accuracy, loss" in told


def test_a_run_that_goes_on_is_asked_about_its_closed_rounds(tmp_path: Path, ask: Run) -> None:
    """It says so; the open round is in nothing."""
    store = open_store(f"sqlite:///{tmp_path / 't.db'}")
    store.start_run(make_run(), OWNER, START)
    store.record_round(make_round(1, evaluate_metrics={"accuracy": 0.5}))
    store.record_round(make_round(2, closed=False, evaluate_metrics={"accuracy": 0.9}))
    store.close()
    where = ("--store", f"sqlite:///{tmp_path / 't.db'}")
    assert "the run goes on" in ask("runs", "recost", RUN_ID, "--pue", "1.2", *where)
    assert len(answer(ask, "recost", RUN_ID, "--pue", "1.2", *where)["rounds"]) == 1
    assert answer(ask, "compare", RUN_ID, *where)["runs"][0]["best_value"] == 0.5
    assert f"{RUN_ID} goes on" in ask("runs", "compare", RUN_ID, *where)


# --- the page ------------------------------------------------------------------------------------

PAGE = ROOT / "docs/questions.md"


def test_the_page_shows_what_the_commands_print(ask: Run) -> None:
    """Every command of docs/questions.md, with the output under it."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        command, _, shown = block.partition("\n")
        program, *arguments = shlex.split(command.removeprefix("$ "))
        assert program == "fedserver"
        told = "".join(f"{line.rstrip()}\n" for line in ask(*arguments).splitlines())
        assert told == shown, f"{command} (docs/make_questions.py writes it again) prints:\n{told}"
