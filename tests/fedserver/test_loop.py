"""The loop is Flower's own, bit for bit, and ends where Flower's would not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from fedserver.guard import GuardStrategy
from fedserver.loop import LoopResult, run_rounds
from fedserver.transport import Stopped
from tests.fedserver.fakes import STRATEGIES, FakeGrid, bytes_of, default_answer, model


def play(
    strategy: Strategy, grid: FakeGrid, arrays: ArrayRecord | None = None, **options: Any
) -> LoopResult:
    """Three rounds; ``options`` replace what matters to a test."""
    defaults: dict[str, Any] = {
        "rounds": 3,
        "round_timeout_s": 60.0,
        "wait_timeout_s": None,
        "min_nodes": 2,
        "min_evaluate_nodes": 2,
        "max_failed_rounds": 3,
    }
    return run_rounds(strategy, grid, arrays or model(), **{**defaults, **options})


def guarded(strategy: Strategy) -> Strategy:
    """As the server wraps it."""
    return GuardStrategy(strategy, failed=lambda *_: None, round_failed=lambda _: None)


def seeded() -> None:
    """Sampling and noise from here on are the same each time."""
    random.seed(42)
    np.random.seed(42)


@pytest.mark.parametrize("wrap", [lambda strategy: strategy, guarded], ids=["bare", "guarded"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_model_is_that_of_flowers_own_loop(
    name: str, wrap: Callable[[Strategy], Strategy]
) -> None:
    """Same seed, same replies: every byte is the same, for strategies with and without state."""
    seeded()
    ours = play(
        wrap(STRATEGIES[name]()), FakeGrid(), rounds=4, train_config=ConfigRecord({"lr": 0.1})
    )
    seeded()
    theirs = wrap(STRATEGIES[name]()).start(
        FakeGrid(), model(), num_rounds=4, train_config=ConfigRecord({"lr": 0.1})
    )

    assert (ours.ended, ours.rounds_played, ours.reason) == ("completed", 4, None)
    assert bytes_of(ours.arrays) == bytes_of(theirs.arrays)
    assert bytes_of(ours.arrays) != bytes_of(model())


def test_rounds_are_sent_in_order_with_their_timeouts() -> None:
    """Train, then evaluate, each with its own limit and with the config of every round."""
    seen: list[tuple[str, Any, Any]] = []

    def answer(message: Message) -> RecordDict:
        config = message.content.config_records["config"]
        if message.metadata.dst_node_id == 1:
            seen.append((message.metadata.message_type, config["server-round"], config.get("lr")))
        return default_answer(message)

    grid = FakeGrid(answer=answer)
    play(FedAvg(), grid, rounds=2, round_timeout_s=7.0, train_config=ConfigRecord({"lr": 0.1}))

    assert seen == [
        ("train", 1, 0.1),
        ("evaluate", 1, None),
        ("train", 2, 0.1),
        ("evaluate", 2, None),
    ]
    assert grid.timeouts == [7.0] * 4


def test_waiting_limits_are_those_of_the_configuration() -> None:
    """No limit before the first round, then the round's; evaluation waits for nobody."""
    grid = FakeGrid()
    play(FedAvg(), grid, rounds=2, round_timeout_s=7.0, min_nodes=3, min_evaluate_nodes=4)
    assert grid.required == [(3, None), (3, 7.0), (4, 0), (3, 7.0), (4, 0)]


def test_a_waiting_limit_holds_from_the_beginning() -> None:
    """With ``wait_timeout_s`` the first wait has that limit too."""
    grid = FakeGrid()
    play(FedAvg(), grid, rounds=1, wait_timeout_s=5.0)
    assert [timeout for _, timeout in grid.required] == [5.0, 5.0, 0]


def test_too_few_clients_fail_the_round_and_then_the_run() -> None:
    """Counted, never repeated; after ``max_failed_rounds`` in a row the run has failed."""
    grid = FakeGrid(nodes=[1])
    ended: list[int] = []
    result = play(
        FedAvg(),
        grid,
        rounds=10,
        max_failed_rounds=2,
        wait_timeout_s=5.0,
        on_round_end=lambda number, _: ended.append(number),
    )

    assert (result.ended, result.rounds_played) == ("failed", 2)
    assert (
        result.reason
        == "2 rounds in a row failed; the last because: too few clients: 1 of 2 after 5 s"
    )
    assert bytes_of(result.arrays) == bytes_of(model())
    assert ended == [1, 2]
    # The wait before the first round was that round's: it does not wait twice.
    assert [timeout for _, timeout in grid.required] == [5.0, 0.0, 5.0]


def test_a_failed_round_keeps_the_model_and_the_next_one_goes_on() -> None:
    """Round 2 aggregates nothing: its number is used up, and nobody evaluates the same model twice."""
    evaluated: list[Any] = []
    models: dict[int, list[tuple[str, bytes]]] = {}

    def answer(message: Message) -> RecordDict | None:
        number = message.content.config_records["config"]["server-round"]
        if message.metadata.message_type == "evaluate":
            evaluated.append(number)
        elif number == 2:
            return None
        return default_answer(message)

    result = play(
        FedAvg(),
        FakeGrid(nodes=[1, 2], answer=answer),
        max_failed_rounds=2,
        on_round_end=lambda number, arrays: models.update({number: bytes_of(arrays)}),
    )

    assert (result.ended, result.rounds_played) == ("completed", 3)
    assert models[2] == models[1] != models[3]
    assert evaluated == [1, 1, 3, 3]


def test_failed_rounds_count_only_in_a_row() -> None:
    """Two failed rounds with a good one between them do not end the run at a limit of two."""

    def answer(message: Message) -> RecordDict | None:
        odd = message.content.config_records["config"]["server-round"] in (1, 3)
        return None if odd else default_answer(message)

    result = play(FedAvg(), FakeGrid(answer=answer), rounds=4, max_failed_rounds=2)
    assert (result.ended, result.rounds_played) == ("completed", 4)


def test_a_run_without_any_new_model_has_failed() -> None:
    """Even if the limit of failed rounds was never reached."""
    result = play(FedAvg(), FakeGrid(answer=lambda _: None), rounds=2, max_failed_rounds=5)
    assert (result.ended, result.reason) == ("failed", "no round made a new model")


def test_too_few_clients_for_evaluation_skip_it() -> None:
    """The round stands, and is not evaluated."""
    kinds: set[str] = set()

    def answer(message: Message) -> RecordDict:
        kinds.add(message.metadata.message_type)
        return default_answer(message)

    result = play(FedAvg(), FakeGrid(nodes=[1, 2], answer=answer), min_evaluate_nodes=3)
    assert (result.ended, result.rounds_played) == ("completed", 3)
    assert kinds == {"train"}


@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_a_stop_interrupts_with_the_last_model(phase: str) -> None:
    """Rounds played to their end and the model so far are kept."""

    def answer(message: Message) -> RecordDict:
        config = message.content.config_records["config"]
        if config["server-round"] == 2 and message.metadata.message_type == phase:
            raise Stopped
        return default_answer(message)

    models: list[list[tuple[str, bytes]]] = []
    result = play(
        FedAvg(),
        FakeGrid(answer=answer),
        on_round_end=lambda _, arrays: models.append(bytes_of(arrays)),
    )
    assert (result.ended, result.rounds_played, result.reason) == ("interrupted", 1, None)
    # A round that was aggregated has a model, whether or not it was evaluated.
    assert (bytes_of(result.arrays) == models[0]) == (phase == "train")


def test_a_later_first_round_continues_the_numbers() -> None:
    """Rounds 3 and 4 of 4; nothing at all if there are none left."""
    ended: list[int] = []
    grid = FakeGrid()
    result = play(
        FedAvg(), grid, rounds=4, first_round=3, on_round_end=lambda number, _: ended.append(number)
    )
    nothing = play(FedAvg(), FakeGrid(nodes=[]), rounds=4, first_round=5)

    assert ended == [3, 4]
    assert (result.ended, result.rounds_played) == ("completed", 2)
    assert (nothing.ended, nothing.rounds_played) == ("completed", 0)


def test_whoever_is_asked_before_a_round_may_end_the_training() -> None:
    """Asked once a round, before it; the model of the rounds played is kept, and it is no failure."""
    asked: list[int] = []

    def may_go_on(number: int) -> str | None:
        asked.append(number)
        return "enough" if number == 3 else None

    result = play(FedAvg(), FakeGrid(), rounds=5, may_go_on=may_go_on)
    two = play(FedAvg(), FakeGrid(), rounds=2)
    assert asked == [1, 2, 3]
    assert (result.ended, result.reason, result.rounds_played) == ("stopped_on_budget", "enough", 2)
    assert result.arrays is not None
    assert two.arrays is not None
    for name, array in two.arrays.items():
        np.testing.assert_allclose(result.arrays[name].numpy(), array.numpy(), rtol=1e-6)
