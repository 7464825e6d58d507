"""What a view looks like, to the letter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fedserver.terminal.drawing import LOG_ROWS, lines
from fedserver.terminal.view import ClientView, Start, View, worth_showing
from tests.fedserver.terminal.views import DONE, FAILED, FOOTPRINT, TRAINING, fleet, view


def drawn(shown: View | Start, width: int = 80, height: int = 24) -> str:
    """As text."""
    return "\n".join(line.plain for line in lines(shown, width, height))


def test_a_round_at_80_columns() -> None:
    """Everything that there is, each thing once."""
    assert drawn(view(warnings=1, last_warning="telemetry (store): the database is locked")) == (
        """\
── digits · FedAvg · 20260128-120000-abcdef ────────────────────────────────────
round      3 of 5              ━━━━━━━━━━━━━╸───────────  0:21, about 0:15 left
training   2 of 3              ━━━━━━━━━━━━━━━━╸────────  0:04 of about 0:06
clients    3 connected · 1 training · 1 done · 1 failed
           ● training      0:03  hospital-a
           ✓ done         1.2 s  hospital-b
           ✗ failed              hospital-c: no answer within 20 s
accuracy   0.8712              ▁██                        best 0.8912, round 2
loss       0.31                █▆▁                        best 0.31, round 3
CO2eq      0.62 g so far       ▃▆·█                       a round
           modelled; no power sensor on the server
coverage   2 of 3 clients reported in round 2, 1 rejected
budget     12.00 g             ━━━━━━━━╸────────────────  34 % used
warnings   1  telemetry (store): the database is locked"""
    )


def test_a_round_at_60_columns() -> None:
    """Shorter bars and words, the same figures."""
    assert drawn(view(), width=60) == (
        """\
── digits · FedAvg · 20260128-120000-abcdef ────────────────
round      3 of 5              ━━━━━╸────  0:21, ~0:15 left
training   2 of 3              ━━━━━━╸───  0:04 of ~0:06
clients    3 connected · 1 training · 1 done · 1 failed
           ● training      0:03  hospital-a
           ✓ done         1.2 s  hospital-b
           ✗ failed              hospital-c: no answer with…
accuracy   0.8712              ▁██         best 0.8912
loss       0.31                █▆▁         best 0.31
CO2eq      0.62 g so far       ▃▆·█        a round
           modelled; no power sensor on the server
coverage   2 of 3 clients reported in round 2, 1 rejected
budget     12.00 g             ━━━╸──────  34 % used"""
    )


def test_waiting_for_clients_says_where_they_connect_to() -> None:
    """How many are there, how many are needed, and the address to share."""
    two = [replace(client, state="idle", seconds=None) for client in (TRAINING, DONE)]
    waiting = view(
        *two, step="waiting", round=0, expected_s=None, left_s=None, metrics=(), footprint=None
    )
    assert drawn(waiting) == (
        """\
── digits · FedAvg · 20260128-120000-abcdef ────────────────────────────────────
round      0 of 5              ─────────────────────────  0:21
waiting    2 of 3 connected    ━━━━━━━━━━━━━━━━╸────────  0:04
share      127.0.0.1:5000
clients    2 connected · 0 done · 0 failed
           ○ connected           hospital-a
           ○ connected           hospital-b
CO2eq      not tracked (track_emissions: false)"""
    )


def test_clients_that_are_busy_are_not_free() -> None:
    """Three are connected, and yet the round waits: it is said for what."""
    busy = replace(DONE, state="busy", seconds=None)
    idle = replace(TRAINING, state="idle", seconds=None)
    text = drawn(view(idle, busy, replace(idle, number=3), step="waiting"))
    assert "waiting    2 of 3 free         ━━━━━━━━━━━━━━━━╸────────" in text
    assert "clients    3 connected · 0 done · 0 failed · 1 busy\n" in text
    assert "share" not in text


def test_two_hundred_clients_are_folded() -> None:
    """Failed ones and slow ones are named, the others counted; figures keep their place."""
    text = drawn(view(*fleet(200, failed=9), metrics=()))
    assert "200 connected · 191 training · 0 done · 9 failed" in text
    rows = [line for line in text.splitlines() if line.startswith(" " * 11 + "✗")]
    assert rows[0].endswith("client-001: out of memory")
    assert len(rows) == 6
    assert [line.split()[-1] for line in text.splitlines() if "●" in line] == [
        "client-010", "client-011", "client-012"
    ]  # fmt: skip
    assert "           +191 more\n" in text
    assert "CO2eq      0.62 g so far" in text


def test_a_server_that_starts_says_what_it_does() -> None:
    """One line: which step, and how many are behind it."""
    start = Start(what="the power meter", done=1, of=3, seconds=2.4)
    assert drawn(start) == "starting   the power meter     ━━━━━━━━╸────────────────  0:02"


def test_rounds_without_a_model_are_told() -> None:
    """They have scrolled away in the log."""
    assert "failed     1 round has no new model" in drawn(view(failed_rounds=1))
    assert "failed     2 rounds have no new model" in drawn(view(failed_rounds=2))


def test_unknown_is_unknown_and_not_zero() -> None:
    """No figure before there is one."""
    nothing = replace(
        FOOTPRINT, total_kg=None, rounds_kg=(), coverage=None, budget_used=None, note=None
    )
    text = drawn(view(footprint=nothing))
    assert "CO2eq      unknown so far\n" in text
    assert "coverage" not in text
    assert text.endswith("nothing known yet")


def test_before_the_first_round_has_ended_answers_are_the_measure() -> None:
    """No expectation is made up."""
    text = drawn(view(expected_s=None, left_s=None, answered=1))
    assert "training   1 of 3              ━━━━━━━━╸────────────────  0:04\n" in text


HOSTILE = "\x1b[31m\x1b]0;x\x07[red]漢字\u202e\u05d0\u05d1\u05d2\u200b\n\r|" + "Z" + "\u0300" * 40


def test_a_hostile_name_cannot_do_anything() -> None:
    """Neither colour, nor move, nor reorder, nor a second line; the figures stand before it."""
    bad = ClientView(number=4, name=HOSTILE, state="failed", reason=f"because {HOSTILE}")
    shown = view(TRAINING, DONE, bad, run_name=HOSTILE, last_warning=HOSTILE, warnings=1)
    for width in (60, 80, 120):
        for line in lines(shown, width, 24):
            assert "\x1b" not in line.plain
            assert "\n" not in line.plain
            assert "\u202e" not in line.plain
    [row] = [line for line in lines(shown, 100, 24) if "failed   " in line.plain]
    assert row.plain.startswith("           ✗ failed              �[31m�]0;x�[red]漢字�אבג")
    assert not any("red" in str(span.style) for span in row.spans if span.end <= 33 < span.start)


@given(
    st.integers(1, 130),
    st.integers(1, 50),
    st.lists(
        st.builds(
            ClientView,
            number=st.integers(1, 99),
            name=st.text(max_size=40),
            state=st.sampled_from(["idle", "busy", "training", "evaluating", "done", "failed"]),
            seconds=st.none() | st.floats(0, 1e9),
            reason=st.none() | st.text(max_size=40),
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 10_000),
    st.sampled_from(["waiting", "preparing", "training", "aggregating", "closing", "ending"]),
)
def test_nothing_is_ever_too_wide_or_too_high(
    width: int, height: int, clients: list[ClientView], failed: int, step: str
) -> None:
    """In any terminal, however small: a line too wide would break the display."""
    shown = lines(
        view(*clients, failed_rounds=failed, step=step, last_warning="x" * 300, warnings=failed),
        width,
        height,
    )
    assert max(cell_len(line.plain) for line in shown) <= width
    assert not any(line.plain.endswith(" ") for line in shown)
    assert 1 <= len(shown) <= max(1, height - 1)


@pytest.mark.parametrize("count", [3, 8, 40])
def test_the_log_keeps_some_rows(count: int) -> None:
    """In a terminal of usual height."""
    assert len(lines(view(*fleet(count)), 80, 24)) <= 24 - LOG_ROWS


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 500), st.integers(0, 40))
def test_whoever_is_left_out_is_counted(failed: int, others: int, more: int, rows: int) -> None:
    """Shown and counted are all; the line that counts has its place; slow ones are not crowded out."""
    clients = fleet(failed + others, failed)
    total = failed + others + (more if failed + others else 0)
    shown, folded = worth_showing(clients, total, rows)
    assert len(shown) + folded == total
    assert len(shown) + (folded > 0) <= max(1, rows)
    if folded and others and rows >= 3:
        assert any(client.state != "failed" for client in shown)


def test_all_of_a_small_fleet_stand_in_order_of_arrival() -> None:
    """They do not change places when one of them fails."""
    shown, folded = worth_showing((TRAINING, DONE, FAILED), 3, 3)
    assert [client.number for client in shown] == [1, 2, 3]
    assert folded == 0
