"""Fifty clients at once, and a client that stands still without a word."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fedserver.ending import DISCONNECT_GRACE_S
from fedserver_hooks.clock import SystemClock
from tests.fedserver.clients import ClientProcess, ClientThread, Script
from tests.fedserver.servers import train

MANY = 50
KEEPALIVE_S = 1
"""Pings go out, and are waited for, as long as this."""


@pytest.mark.slow
def test_fifty_clients_at_once(tmp_path: Path) -> None:
    """They connect together, two rounds complete with each one's report, and all leave cleanly."""
    with ExitStack() as stack:
        clients: list[ClientThread] = []

        def start(server: Any, _: str) -> None:
            for number in range(1, MANY + 1):
                script = Script(metrics={"emissions": number * 1e-8})
                clients.append(stack.enter_context(ClientThread(server.grid.address, script)))

        done = train(
            tmp_path,
            [],
            on_ready=start,
            clients__min_fit=MANY,
            clients__min_evaluate=MANY,
            clients__min_available=MANY,
            clients__wait_timeout_s=60,
            round_timeout_s=60,
            emissions__loopback_clients="separate",
        )
        assert [client.wait() for client in clients] == [None] * MANY
    assert (done.outcome.exit_code, done.run.status) == (0, "completed")
    for row in done.rounds[1:]:
        assert (row.status, row.participants, row.reported) == ("completed", MANY, MANY)
        assert row.coverage == 1.0
        assert row.clients_emissions_kg == pytest.approx(MANY * (MANY + 1) / 2 * 1e-8, rel=1e-9)
    assert [row.round for row in done.rounds] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"round_timeout_s": 2}, "2 s"),
        ({"round_timeout_s": 25, "server__keepalive_s": KEEPALIVE_S}, "connection"),
    ],
    ids=["round timeout", "keepalive"],
)
def test_a_client_frozen_in_fit_is_given_up(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    """Stopped by SIGSTOP, its socket open: failed with the reason, and the others train to the end."""
    good = Script(metrics={"emissions": 1e-7})
    with ExitStack() as stack:
        frozen: list[ClientProcess] = []
        others: list[ClientThread] = []

        def start(server: Any, _: str) -> None:
            address = server.grid.address
            frozen.append(stack.enter_context(ClientProcess(address, Script(fit="freeze"))))
            server.grid.require(1, 20.0)
            server.grid.get_node_ids()
            others.extend(stack.enter_context(ClientThread(address, good)) for _ in range(2))
            server.grid.require(3, 20.0)
            server.grid.get_node_ids()

        done = train(
            tmp_path,
            [],
            on_ready=start,
            rounds=2,
            clients__min_fit=2,
            clients__min_evaluate=2,
            clients__min_available=2,
            **settings,
        )
        ended = SystemClock()()
        process = frozen[0].process
        stopped = process.poll() is None
        assert [client.wait() for client in others] == [None, None]
        os.kill(process.pid, signal.SIGKILL)
    assert stopped, "the client was not frozen: it had ended"
    assert (done.outcome.exit_code, done.run.status) == (0, "completed")
    first, second = done.round(1), done.round(2)
    assert {p.node_id: p.outcome for p in first.participants} == {
        "1": "failed", "2": "reported", "3": "reported",
    }  # fmt: skip
    (reason,) = [p.reason for p in first.participants if p.node_id == "1"]
    assert words in (reason or ""), reason
    assert first.duration_s < 6.0
    assert [p.node_id for p in second.participants] == ["2", "3"]
    assert (first.status, second.status) == ("partial", "completed")
    # What is left after the last round is the grace for clients that are still busy.
    assert done.run.ended_at is not None
    assert ended - done.run.ended_at.timestamp() < DISCONNECT_GRACE_S + 3.0


@pytest.mark.slow
def test_a_busy_client_is_not_taken_for_a_frozen_one(tmp_path: Path) -> None:
    """Its ``fit`` keeps Python's other threads from running for longer than a ping is waited for."""
    busy = Script(fit="hold", hang_s=8, fit_rounds=(1,), metrics={"emissions": 1e-7})
    done = train(
        tmp_path, [busy, Script()], processes=(0,), rounds=1, server__keepalive_s=KEEPALIVE_S
    )
    assert {p.node_id: p.outcome for p in done.round(1).participants} == {
        "1": "reported", "2": "missing",
    }  # fmt: skip
    assert done.round(1).duration_s > 7.0
