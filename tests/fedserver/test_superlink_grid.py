"""The grid over a SuperLink: order, limits, reasons, late replies; and the app's whole training."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict

from fedserver.app import config_of, train
from fedserver.transport import NoInitialModel, NullListener, SuperLinkGrid, TooFewClients
from telemetry.store import open_store
from telemetry.writer import Failures
from tests.fedserver.fakes import ask, model
from tests.fedserver_hooks.fakes import LocalGrid, Reply, fails, trains

NEVER = math.inf


class Link(LocalGrid):
    """A SuperLink in memory: each node replies so many seconds after it was asked, in any order."""

    def __init__(self, nodes: dict[int, Reply], delays: dict[int, float] | None = None) -> None:
        super().__init__(nodes)
        self.delays = delays or {}
        self.refused: set[int] = set()
        self._due: dict[str, tuple[float, Message]] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[Any]:
        """Ids in the order of the messages; None for one that was not taken."""
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str | None:
        node = message.metadata.dst_node_id
        if node in self.refused:
            return None
        message_id = f"message-{len(self.sent)}"
        self.sent.append(message)
        message.metadata.__dict__["_message_id"] = message_id  # as Flower's own grid does
        at = time.monotonic() + self.delays.get(node, 0.0)
        if at < NEVER:
            self._due[message_id] = (at, self.nodes[node](message))
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """What is due of these, the last first; each once."""
        now = time.monotonic()
        wanted = set(message_ids)
        due = [key for key, (at, _) in self._due.items() if at <= now and key in wanted]
        return [self._due.pop(key)[1] for key in reversed(due)]


class Told(NullListener):
    """Keeps failures, late replies and waiting."""

    def __init__(self) -> None:
        self.failures: list[tuple[int, str]] = []
        self.late_rounds: list[tuple[int, int]] = []
        self.waited: list[tuple[int, int]] = []

    def failed(self, node: int, phase: str, reason: str) -> None:
        """Kept."""
        self.failures.append((node, reason))

    def late(self, reply: Message, phase: str, server_round: int) -> None:
        """Kept."""
        self.late_rounds.append((reply.metadata.src_node_id, server_round))

    def waiting(self, connected: int, required: int) -> None:
        """Kept."""
        self.waited.append((connected, required))


def test_replies_come_in_the_order_of_the_messages() -> None:
    """One for each, whatever the order of arrival: sums of floats depend on it."""
    grid = SuperLinkGrid(Link({node: trains() for node in (3, 1, 2)}, {1: 0.2}))
    replies = grid.send_and_receive(ask((3, 1, 2), model()), timeout=5)
    assert [reply.metadata.src_node_id for reply in replies] == [3, 1, 2]


def test_who_does_not_answer_is_an_error_left_alone_and_back_when_late() -> None:
    """A reply after its time is energy, not model; until then the node is not asked again."""
    told = Told()
    link = Link({1: trains(), 2: trains()}, {2: 0.5})
    grid = SuperLinkGrid(link, listener=told)
    good, late = grid.send_and_receive(ask((1, 2), model()), timeout=0.2)
    assert not good.has_error()
    assert late.error.reason == "no answer within 0.2 s"
    assert late.metadata.src_node_id == 2
    grid.require(1, 0)
    assert grid.get_node_ids() == [1]
    grid.require(2, 5)
    assert grid.get_node_ids() == [1, 2]
    assert [node for node, _ in told.late_rounds] == [2]
    assert told.failures == [(2, "no answer within 0.2 s")]


def test_errors_of_clients_and_of_the_superlink_belong_to_the_node_that_was_asked() -> None:
    """With a reason on one line."""
    told = Told()
    link = Link(
        {1: fails("out of\nmemory"), 2: trains(), 3: lambda m: Message(Error(3), reply_to=m)}
    )
    link.refused = {2}
    replies = SuperLinkGrid(link, listener=told).send_and_receive(
        ask((1, 2, 3), model()), timeout=5
    )
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2, 3]
    assert told.failures == [
        (1, "out of memory"), (2, "the SuperLink did not take the message"), (3, "error 3"),
    ]  # fmt: skip


def test_waiting_for_clients_has_an_end_and_is_said() -> None:
    """How many of how many, now and then, and the error at the limit."""
    told = Told()
    grid = SuperLinkGrid(Link({1: trains()}), listener=told, say_waiting_s=0.0)
    grid.require(2, 0.3)
    with pytest.raises(TooFewClients, match="1 of 2"):
        grid.get_node_ids()
    assert told.waited[0] == (1, 2)


def test_a_listener_that_raises_costs_no_round(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is counted, the first one logged with its traceback."""

    class Broken(NullListener):
        def replied(self, *_: object) -> None:
            raise RuntimeError("replied is broken")

    failures = Failures()
    grid = SuperLinkGrid(
        Link({node: trains() for node in (1, 2)}), listener=Broken(), failures=failures
    )
    with caplog.at_level(logging.WARNING):
        replies = grid.send_and_receive(ask((1, 2), model()), timeout=5)
    assert [reply.has_content() for reply in replies] == [True, True]
    assert failures.counts == {"transport": 2}
    (warning,) = caplog.records
    assert warning.exc_info is not None


def with_model(answer: Reply) -> Reply:
    """A client that can also say what to begin with."""

    def reply(message: Message) -> Message:
        if message.metadata.message_type == "query.initial_model":
            arrays = ArrayRecord({"w": Array(np.zeros((2, 2), np.float32))})
            return Message(RecordDict({"arrays": arrays}), reply_to=message)
        return answer(message)

    return reply


def test_the_model_to_begin_with_comes_from_the_first_client_that_has_one() -> None:
    """Those without a handler answer with an error; if all do, the message names the option."""
    arrays = SuperLinkGrid(Link({1: fails(), 2: with_model(trains())})).initial_arrays(5)
    assert list(arrays) == ["w"]
    with pytest.raises(NoInitialModel, match=r"model\.initial"):
        SuperLinkGrid(Link({1: fails(), 2: fails()})).initial_arrays(5)


def poisons(message: Message) -> Message:
    """A client whose model is NaN, and whose report is fine."""
    return trains(add=math.nan, emissions=5e-6)(message)


def test_the_mixed_fleet_trains_over_a_superlink_with_the_rows_of_a_fedserver_run(
    tmp_path: Path,
) -> None:
    """Guard and record are the same: outcomes, rejections, sums, and a model without NaN."""
    fleet = {
        1: with_model(trains(emissions=1e-6)),
        2: trains(),
        3: trains(emissions=math.nan),
        4: trains(emissions=math.inf),
        5: trains(emissions=-1.0),
        6: trains(emissions_kg="0.5"),  # over a SuperLink text and booleans fit a ConfigRecord only
        7: trains(emissions_kg=True),
        8: trains(emissions=1e308),
        11: fails("told to fail"),
        12: poisons,
        14: trains(emissions=7e-6),
    }
    config = config_of(
        {
            "rounds": 2,
            "track-emissions": True,
            "emissions.country": "ESP",
            "clients.wait-timeout-s": 5,
            "model.output-dir": str(tmp_path / "runs"),
            "telemetry.database-url": f"sqlite:///{tmp_path / 'telemetry.db'}",
            "telemetry.http.port": 0,
        },
        {},
    )
    result = train(config, Link(fleet))
    assert (result.ended, result.rounds_played) == ("completed", 2)
    store = open_store(config.telemetry.database_url)
    (run,) = store.runs()
    record = store.round(run.run_id, 2)
    store.close()
    assert (run.status, record.status) == ("completed", "partial")
    assert {p.node_id: p.outcome for p in record.participants} == {
        "1": "reported", "2": "missing", "3": "rejected", "4": "rejected", "5": "rejected",
        "6": "rejected", "7": "rejected", "8": "rejected", "11": "failed", "12": "failed",
        "14": "reported",
    }  # fmt: skip
    assert {r.node_id: r.rejection for r in record.reports if r.rejection} == {
        "3": "not_finite", "4": "not_finite", "5": "negative", "6": "not_a_number",
        "7": "not_a_number", "8": "implausible",
    }  # fmt: skip
    assert {p.node_id: p.reason for p in record.participants if p.outcome == "failed"}["11"] == (
        "told to fail"
    )
    assert record.clients_emissions_kg == pytest.approx(1e-6 + 5e-6 + 7e-6, rel=1e-9)
    with np.load(tmp_path / "runs" / run.run_id / "model.npz") as trained:
        np.testing.assert_allclose(trained["w"], 2.0)


@pytest.mark.slow
def test_what_the_store_will_not_take_is_kept_for_the_next_start(tmp_path: Path) -> None:
    """The database is locked to the end: the model is there, the rounds wait in a file, whole."""
    config = config_of(
        {
            "rounds": 2,
            "clients.wait-timeout-s": 5,
            "model.output-dir": str(tmp_path / "runs"),
            "telemetry.database-url": f"sqlite:///{tmp_path / 'telemetry.db'}",
            "telemetry.http.port": 0,
        },
        {},
    )
    blocker: list[sqlite3.Connection] = []

    def locks(message: Message) -> Message:
        if not blocker:
            blocker.append(sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None))
            blocker[0].execute("BEGIN EXCLUSIVE")
        return trains()(message)

    assert train(config, Link({1: with_model(locks), 2: trains()})).ended == "completed"
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "model.npz").exists()
    assert (folder / "undelivered.json").exists()
    blocker[0].execute("COMMIT")
    blocker[0].close()
    assert train(config, Link({1: with_model(trains()), 2: trains()})).ended == "completed"
    assert not (folder / "undelivered.json").exists()
    with closing(open_store(config.telemetry.database_url)) as store:
        assert [row.round for row in store.rounds(folder.name)] == [0, 1, 2]
        assert store.run(folder.name).status == "completed"
