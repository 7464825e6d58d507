"""Clients that report twice, for another round or for another's host, over real sockets.

Each does what the rules allow it to do to the figures, and no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from flwr.proto.transport_pb2 import ClientMessage, Code, Parameters, Scalar, ServerMessage, Status

from telemetry.accounting import WINDOW_SLACK_S
from telemetry.domain import ParticipantRecord, RoundRecord
from tests.fedserver.clients import RawClient, Script
from tests.fedserver.servers import Training, train

HOST: Final = "a" * 12
HOURS_S: Final = 10 * 3600.0
HONEST_KG: Final = 0.001


def hours(middle: float) -> dict[str, float]:
    """The fields of a report that claims to have worked for twenty hours."""
    return {
        "emissions.started_at": middle - HOURS_S,
        "emissions.ended_at": middle + HOURS_S,
    }


def sent_and_replied(record: RoundRecord, node: str) -> tuple[float, float]:
    """The server's window of a client, epoch seconds."""
    (part,) = [p for p in record.participants if p.node_id == node]
    assert isinstance(part, ParticipantRecord)
    assert part.sent_at is not None
    assert part.replied_at is not None
    return part.sent_at.timestamp(), part.replied_at.timestamp()


def counted_kg(record: RoundRecord) -> dict[str, float | None]:
    """What each client's training counts for."""
    return {r.node_id: r.counted_emissions_kg for r in record.accepted if r.phase == "train"}


def test_hours_claimed_on_anothers_host_count_as_five_seconds(tmp_path: Path) -> None:
    """The liar's window is what the server saw and 5 s more at each end, not twenty hours."""
    honest = Script(
        fit="hang", hang_s=0.5, metrics={"emissions": HONEST_KG, "emissions.host_id": HOST}
    )
    liar = Script(metrics={"emissions": HONEST_KG, "emissions.host_id": HOST, **hours(time.time())})
    record = train(tmp_path, [honest, liar], rounds=1).round(1)
    honest_from, honest_to = sent_and_replied(record, "1")
    liar_from, liar_to = sent_and_replied(record, "2")
    liar_s = liar_to - liar_from + 2 * WINDOW_SLACK_S
    union_s = max(honest_to, liar_to + WINDOW_SLACK_S) - (liar_from - WINDOW_SLACK_S)
    share = union_s / (liar_s + honest_to - honest_from)
    assert 0.9 < share < 1  # half a second of the honest one's lies within ten of the liar's
    assert counted_kg(record) == pytest.approx({"1": HONEST_KG * share, "2": HONEST_KG * share})


def test_hours_claimed_on_the_servers_host_stay_within_its_meter(tmp_path: Path) -> None:
    """From a loopback address: clients and server are what the meter showed, none below zero."""
    claims_kwh = {"1": 1e-6, "2": 0.1}  # at 100 W, less than a second of work, and an hour
    scripts = [
        Script(metrics={"emissions": kwh / 5, "emissions.energy_kwh": kwh, **hours(time.time())})
        for kwh in claims_kwh.values()
    ]
    record = train(tmp_path, scripts, rounds=1).round(1)
    assert record.report_count("accepted") == len(scripts)
    assert record.host_energy_kwh
    assert record.clients_energy_kwh == pytest.approx(record.host_energy_kwh)
    assert record.server_energy_kwh == pytest.approx(0.0, abs=1e-15)
    for report in record.accepted:  # who claims more gets more, of what there is
        share = claims_kwh[report.node_id] / sum(claims_kwh.values())
        assert report.counted_energy_kwh == pytest.approx(record.host_energy_kwh * share)


# --- a client that speaks the protocol as it likes -----------------------------------------------


def fit_answer(asked: ServerMessage.FitIns, kg: float, **fields: float) -> ClientMessage:
    """The model as it came, with a report."""
    values = {"emissions": kg, **{f"emissions.{name}": value for name, value in fields.items()}}
    return ClientMessage(
        fit_res=ClientMessage.FitRes(
            status=Status(code=Code.OK),
            parameters=Parameters(
                tensors=asked.parameters.tensors, tensor_type=asked.parameters.tensor_type
            ),
            num_examples=10,
            metrics={name: Scalar(double=value) for name, value in values.items()},
        )
    )


class Talkative:
    """A client of two rounds that reports its own way; round 1 came to `HONEST_KG`."""

    def __init__(self, address: str, way: str) -> None:
        self._way = way
        self._raw = RawClient(address)
        self._fits = 0
        self._first: ClientMessage | None = None
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _talk(self) -> None:
        for asked in self._raw.asked:
            match asked.WhichOneof("msg"):
                case "fit_ins":
                    self._fit(asked.fit_ins)
                case "evaluate_ins":
                    self._evaluate()
                case _:
                    return

    def _fit(self, asked: ServerMessage.FitIns) -> None:
        self._fits += 1
        mine = fit_answer(asked, HONEST_KG * self._fits)
        if self._first is None:
            past = time.time() - HOURS_S
            self._first = fit_answer(asked, HONEST_KG, started_at=past, ended_at=past + 60)
        self._raw.answer(self._first if self._way == "the same again" else mine)
        if self._way == "at once":
            self._raw.answer(fit_answer(asked, 7 * HONEST_KG))

    def _evaluate(self) -> None:
        if self._way == "instead of evaluation":
            assert self._first is not None
            self._raw.answer(self._first)
            return
        status = Status(code=Code.OK)
        self._raw.answer(
            ClientMessage(evaluate_res=ClientMessage.EvaluateRes(status=status, num_examples=1))
        )

    def close(self) -> None:
        """Hang up."""
        self._raw.close()
        self._thread.join(5)


@contextmanager
def talking(way: str) -> Iterator[Any]:
    """What `train` is to do when the server is ready: let the talkative client in."""
    clients: list[Talkative] = []
    try:
        yield lambda server, _: clients.append(Talkative(server.grid.address, way))
    finally:
        for client in clients:
            client.close()


def trained_with(way: str, folder: Path) -> Training:
    """Two rounds: an ordinary client that is node 1, and the talkative one that is node 2.

    The ordinary one takes a moment, so that whatever the other sends at once comes while the server
    still waits in the same phase.
    """
    with talking(way) as let_in:
        return train(
            folder,
            [Script(fit="hang", hang_s=0.3, metrics={"emissions": HONEST_KG})],
            on_ready=let_in,
            clients__min_fit=2,
            clients__min_evaluate=2,
            clients__min_available=2,
            emissions__loopback_clients="separate",
        )


@pytest.mark.parametrize("way", ["at once", "instead of evaluation"])
def test_a_second_report_of_one_training_counts_nowhere(tmp_path: Path, way: str) -> None:
    """Sent after the first or as the answer to another question, it is in no figure of the run."""
    done = trained_with(way, tmp_path)
    assert done.outcome.exit_code == 0
    for number in (1, 2):
        record = done.round(number)
        assert counted_kg(record) == {"1": HONEST_KG, "2": pytest.approx(HONEST_KG * number)}
        assert record.clients_emissions_kg == pytest.approx(HONEST_KG * (1 + number))
        assert record.outcomes["reported"] == 2
    assert sum(row.reports_late for row in done.rounds) == 0


def test_a_report_of_another_round_is_that_of_the_round_it_answers(tmp_path: Path) -> None:
    """Which round it was is the server's word: one report in each, and windows of hours ago are void."""
    done = trained_with("the same again", tmp_path)
    assert done.outcome.exit_code == 0
    for number in (1, 2):
        record = done.round(number)
        assert counted_kg(record) == {"1": HONEST_KG, "2": HONEST_KG}
        assert {r.reported_round for r in record.accepted} == {number}
