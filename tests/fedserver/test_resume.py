"""A run goes on where it was: checkpoints, and ``fedserver run --resume`` after a SIGKILL."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from fedserver.checkpoint import (
    INDEX,
    Checkpoint,
    CheckpointError,
    State,
    load_checkpoint,
    randomness_now,
    remove_checkpoint,
    restore_randomness,
    restore_states,
    save_checkpoint,
    states_of,
)
from fedserver.config import load_config
from fedserver.errors import ConfigError
from fedserver.running import run_server
from fedserver.strategies import StrategyConfig
from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.domain import RoundSummary, StoredRun
from telemetry.store import open_store
from tests.fedserver.clients import ClientThread, Script, wait_until
from tests.fedserver.fakes import bytes_of, model
from tests.fedserver.servers import ServerProcess, settings, train
from tests.fedserver.test_strategies import CASES, built, fleet_of, guarded, seeded
from tests.fedserver.test_strategies import play as play_rounds
from tests.fedserver_hooks.fakes import recorder

FLEET = [
    Script(add=0.1, examples=7, metrics={"emissions": 1e-7}),
    Script(add=0.7, examples=13, metrics={"emissions": 2e-7}),
    Script(add=-0.3, examples=29),
]
"""Two of the three are drawn in each round: another draw gives another model."""
OPTIONS: dict[str, Any] = {
    "rounds": 6,
    "seed": 5,
    "clients__min_fit": 2,
    "clients__min_evaluate": 2,
    "clients__fraction_fit": 0.67,
    "clients__fraction_evaluate": 0.67,
    "clients__min_available": 3,
}


def arrays_of(**layers: Any) -> ArrayRecord:
    """A model of these layers."""
    return ArrayRecord({name: Array(np.asarray(layer)) for name, layer in layers.items()})


# --- the files -----------------------------------------------------------------------------------


class Remembers:
    """A layer of a strategy with every kind of state that a checkpoint takes."""

    def __init__(self, inner: object = None, **values: Any) -> None:
        self.strategy = inner
        self.values: State = values

    def state(self) -> State:
        """What it remembers."""
        return self.values

    def load_state(self, state: State) -> None:
        """Remember this."""
        self.values = dict(state)


def test_a_checkpoint_comes_back_equal(tmp_path: Path) -> None:
    """Names, order, types, arrays inside mappings, bytes, exact floats and None."""
    outer = Remembers(
        Remembers(
            m={"z": np.array([0.1, 0.2], np.float32), "a": np.array([3], np.int64)},
            step=np.float64(0.1),
        ),
        budget=[(1, 0.1 + 0.2), None],
        raw=b"\x00\xff",
    )
    model = arrays_of(
        **{"z/1": np.ones((2, 2), np.float16), "a": np.array([1], np.int8), "flag": True}
    )
    written = Checkpoint(3, model, {"rounds": 6}, states_of(outer), randomness_now())
    save_checkpoint(tmp_path, written)
    read = load_checkpoint(tmp_path)

    assert (read.round_number, read.settings) == (3, {"rounds": 6})
    assert bytes_of(read.arrays) == bytes_of(model)
    again = Remembers(Remembers())
    restore_states(again, read.states)
    assert again.values == {"budget": [[1, 0.1 + 0.2], None], "raw": b"\x00\xff"}
    inner = again.strategy
    assert isinstance(inner, Remembers)
    assert list(inner.values["m"]) == ["z", "a"]
    assert inner.values["m"]["z"].dtype == np.float32
    assert inner.values["m"]["a"].tolist() == [3]
    assert isinstance(inner.values["step"], np.float64)


def test_randomness_goes_on_where_it_was(tmp_path: Path) -> None:
    """Both generators, a half-used pair of Gaussians in each included."""
    random.seed(3)
    np.random.seed(3)
    random.gauss()
    np.random.normal()
    save_checkpoint(tmp_path, Checkpoint(1, arrays_of(a=[1.0]), {}, {}, randomness_now()))
    expected = [random.gauss(), random.random(), *np.random.normal(size=3)]
    restore_randomness(load_checkpoint(tmp_path).randomness)
    assert [random.gauss(), random.random(), *np.random.normal(size=3)] == expected


def test_only_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    """Two models at most are on disk at a time, one afterwards, none after the end."""
    folder = tmp_path / "checkpoint"
    for number in (1, 2, 3):
        save_checkpoint(folder, Checkpoint(number, arrays_of(a=[float(number)]), {}))
        assert len(list(folder.iterdir())) == 2
    assert load_checkpoint(folder).round_number == 3
    remove_checkpoint(folder)
    assert not folder.exists()


def test_a_crash_while_writing_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """Whatever lies beside it, half a file included, the index says what counts."""
    save_checkpoint(tmp_path, Checkpoint(1, arrays_of(a=[1.0]), {}))
    (tmp_path / "round-000002.npz").write_bytes(b"half a fi")
    (tmp_path / f".{INDEX}").write_text("{")
    assert load_checkpoint(tmp_path).round_number == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / INDEX).unlink(), "does not exist"),
        (lambda folder: (folder / INDEX).write_text("[]"), "cannot be read"),
        (lambda folder: (folder / INDEX).write_text('{"schema": 2}'), "schema 2"),
        (lambda folder: (folder / "round-000001.npz").unlink(), "does not exist"),
        (lambda folder: (folder / "round-000001.npz").write_bytes(b"x"), "is not the file"),
    ],
)
def test_a_spoilt_checkpoint_says_what_is_wrong(tmp_path: Path, spoil: Any, words: str) -> None:
    """Never a traceback, and never half a model."""
    save_checkpoint(tmp_path, Checkpoint(1, arrays_of(a=[1.0]), {}))
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path)


def test_the_state_of_other_layers_is_refused() -> None:
    """A wrapper more or less would leave one of them without its memory."""
    states = states_of(Remembers(a=1))
    with pytest.raises(CheckpointError, match="0 Remembers"):
        restore_states(object(), states)


@pytest.mark.parametrize("config", CASES)
def test_a_checkpoint_continues_every_strategy_bit_for_bit(
    config: StrategyConfig, tmp_path: Path
) -> None:
    """Two rounds, and two more by new objects that know the files only: as four in one go."""
    fleet = fleet_of(config)

    def gone_on(first: int, last: int, arrays: ArrayRecord) -> tuple[Any, ArrayRecord]:
        inner = built(config)
        whole = EmissionsStrategy(guarded(config, inner, inner), recorder())
        if first > 1:
            restore_states(whole, load_checkpoint(tmp_path).states)
            restore_randomness(load_checkpoint(tmp_path).randomness)
        found = play_rounds(whole, fleet, arrays, rounds=last, first_round=first).arrays
        assert found is not None
        return whole, found

    seeded()
    _, expected = gone_on(1, 4, model())
    seeded()
    strategy, half = gone_on(1, 2, model())
    save_checkpoint(tmp_path, Checkpoint(2, half, {}, states_of(strategy), randomness_now()))
    random.seed(99)
    np.random.seed(99)
    _, rest = gone_on(3, 4, load_checkpoint(tmp_path).arrays)
    assert bytes_of(rest) == bytes_of(expected) != bytes_of(half)


# --- the run -------------------------------------------------------------------------------------


class Trained:
    """What a run left: its model's bytes, the run as stored, and its rounds."""

    def __init__(self, folder: Path) -> None:
        (model,) = folder.glob("runs/*/model.npz")
        self.model = model.read_bytes()
        self.files = sorted(path.name for path in model.parent.iterdir())
        store = open_store(f"sqlite:///{folder / 'telemetry.db'}")
        self.run: StoredRun = store.runs()[0]
        self.rounds: list[RoundSummary] = list(store.rounds(self.run.run_id))
        store.close()


def play(server: ServerProcess, stack: ExitStack, scripts: list[Script]) -> None:
    """Start the clients one after another, so that each time the same one is the first."""
    for number, script in enumerate(scripts, 1):
        stack.enter_context(ClientThread(server.address, script))
        server.wait_for(rf"client .*#{number} connected")


def open_rounds(folder: Path) -> Sequence[tuple[int, str]]:
    """Number and status of the rounds that have not closed."""
    store = open_store(f"sqlite:///{folder / 'telemetry.db'}")
    rows = store.rounds(store.runs()[0].run_id, closed_only=False)
    found = [(row.round, row.status) for row in rows if not row.closed]
    store.close()
    return found


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run killed in round 3 and taken up again, beside one that was left alone."""
    alone, folder = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("killed")
    train(alone, FLEET, **OPTIONS)
    hangs = [replace(script, fit="hang", fit_rounds=(3,), hang_s=25) for script in FLEET]
    with ServerProcess(folder, 3, **OPTIONS) as server, ExitStack() as stack:
        play(server, stack, hangs)
        server.wait_for("round 2/6 completed")
        wait_until(lambda: (3, "running") in open_rounds(folder))
        server.signal(signal.SIGKILL)
        server.wait()
    with ServerProcess(folder, 3, arguments=("--resume", "latest"), **OPTIONS) as server:
        with ExitStack() as stack:
            play(server, stack, FLEET)
            assert server.wait() == 0, server.log
        log = server.log
    return {"alone": Trained(alone), "resumed": Trained(folder), "log": log, "folder": folder}


def test_a_killed_run_goes_on_bit_for_bit(resumed: dict[str, Any]) -> None:
    """Killed in round 3 of 6, the model is the one of a run that was never killed."""
    assert resumed["resumed"].model == resumed["alone"].model


def test_a_resumed_round_is_a_new_attempt_and_the_lost_one_keeps_its_energy(
    resumed: dict[str, Any],
) -> None:
    """Set-up and round 3 were played twice; every attempt's energy is in the totals."""
    rows, run = resumed["resumed"].rounds, resumed["resumed"].run
    assert [(row.round, row.attempt, row.status) for row in rows] == [
        (0, 1, "completed"), (0, 2, "completed"), (1, 1, "completed"), (2, 1, "completed"),
        (3, 1, "interrupted"), (3, 2, "completed"), (4, 1, "completed"), (5, 1, "completed"),
        (6, 1, "completed"),
    ]  # fmt: skip
    assert [row.sequence for row in rows] == [1, 5, 2, 3, 4, 6, 7, 8, 9]  # as they were played
    assert all(row.host_energy_kwh is not None for row in rows if row.attempt == 2)
    assert run.totals.total_emissions_kg == fsum(row.total_emissions_kg or 0 for row in rows)
    assert (run.status, run.reason) == ("completed", None)


def test_the_log_says_where_it_goes_on_and_that_clients_must_be_started(
    resumed: dict[str, Any],
) -> None:
    """The clients of before have ended with their connection."""
    assert "going on with round 3 of 6" in resumed["log"]
    assert "must be started again" in resumed["log"]


def test_a_completed_run_leaves_no_checkpoint(resumed: dict[str, Any]) -> None:
    """Only what a run is for stays in its folder."""
    assert resumed["resumed"].files == ["footprint.csv", "model.npz", "run.json"]


def refused(folder: Path, *, run: str = "latest", **overrides: Any) -> str:
    """What a server says that does not start."""
    options = settings(folder, 3, **(OPTIONS | overrides))
    with pytest.raises(ConfigError) as caught:
        run_server(load_config(None, {}, options).config, resume=run)
    return str(caught.value)


def test_a_completed_run_is_not_resumed(resumed: dict[str, Any]) -> None:
    """The start is refused with the reason; an unknown run with those that are there."""
    folder = resumed["folder"]
    assert "nothing is left to do" in refused(folder)
    assert resumed["resumed"].run.run_id in refused(folder, run="20200101-000000-ffffff")


def test_an_interrupted_run_says_how_to_resume_and_wants_its_own_configuration(
    tmp_path: Path,
) -> None:
    """SIGTERM leaves a checkpoint and names the command; another strategy's rounds are refused."""
    slow = [replace(script, fit="hang", hang_s=0.3) for script in FLEET]
    with ServerProcess(tmp_path, 3, **OPTIONS) as server, ExitStack() as stack:
        play(server, stack, slow)
        server.wait_for("round 1/6 completed")
        server.signal(signal.SIGTERM)
        assert server.wait() == 143
        run_id = server.wait_for(r"fedserver run --resume (\S+)").group(1)
    index = tmp_path / "runs" / run_id / "checkpoint" / INDEX
    assert json.loads(index.read_text())["round"] >= 1
    said = refused(tmp_path, run=run_id, rounds=9, emissions__country="FRA")
    assert "rounds: 9 now, but the run began with 6" in said
    assert "emissions.country: FRA now, but the run began with ESP" in said
    (tmp_path / "runs" / run_id / "checkpoint" / INDEX).unlink()
    assert "there is no checkpoint" in refused(tmp_path, run=run_id)
