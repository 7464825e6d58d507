"""Who is called what, and at what cost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedserver_hooks.draft import Names
from fedserver_hooks.labels import Labels

NODES = 10_000
STEPS_A_CLAIM = 400
"""Python instructions; about 110 are needed, and a walk through 10,000 nodes needs far more."""


class TooManySteps(AssertionError):
    """Raised within the code that took them."""


def steps_of(work: Callable[[], None], limit: int) -> int:
    """The Python instructions of ``work``, which is broken off after ``limit`` of them."""
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        steps += event == "opcode"
        if steps > limit:
            raise TooManySteps(f"more than {limit} steps")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def seen_by_name(names: Names) -> None:
    """Every node has a name of its own."""
    for node in range(NODES):
        names.seen(node, f"10.0.0.1 #{node + 1}", False)


def claimed_alike(names: Names) -> None:
    """Every node says the same name."""
    for node in range(NODES):
        names.claim(node, "hospital")


def come_and_gone(names: Names) -> None:
    """One name for all, and the first ones come anew again and again."""
    for node in range(NODES // 2):
        names.claim(node, "hospital")
    for node in range(NODES // 4):
        names.gone(node)
        names.claim(NODES + node, "hospital")
        names.claim(2 * NODES + node, "hospital")


@pytest.mark.parametrize("work", [seen_by_name, claimed_alike, come_and_gone])
def test_naming_a_node_costs_the_same_however_many_there_are(work: Callable[[Names], None]) -> None:
    """Instructions are counted, not time."""
    names = Names(b"secret")
    assert steps_of(lambda: work(names), NODES * STEPS_A_CLAIM) > NODES


def test_ten_thousand_of_one_name_are_numbered() -> None:
    """And whoever comes next gets the lowest number that is free."""
    names = Names(b"secret")
    claimed_alike(names)
    assert names.name(0) == "hospital"
    assert names.name(NODES - 1) == f"hospital#{NODES}"
    for node in (6, 3):
        names.gone(node)
    assert names.name(6) == "hospital#7", "its name in the log stays"
    for node in (NODES + 1, NODES + 2, NODES + 3):
        names.claim(node, "hospital")
    later = [names.name(NODES + n) for n in (1, 2, 3)]
    assert later == ["hospital#4", "hospital#7", f"hospital#{NODES + 1}"]


def test_a_node_that_comes_back_shares_its_name_with_nobody() -> None:
    """Its name was given away while it was gone."""
    names = Names(b"secret")
    names.claim(1, "hospital")
    names.gone(1)
    names.claim(2, "hospital")
    names.seen(1, None, False)
    assert (names.name(1), names.name(2)) == ("hospital#2", "hospital")


NAMES = st.sampled_from(["a", "a#2", "a#3", "a#2#2", "a#0", "a#1", "a#02", "a#", "#2", "", "b"])


@given(st.lists(st.tuples(st.integers(0, 6), st.none() | NAMES), max_size=60))
def test_labels_are_those_that_a_walk_through_all_finds(
    events: list[tuple[int, str | None]],
) -> None:
    """``name``, ``name#2``, …: the first that nobody else holds; None is a release."""
    labels, held = Labels(), dict[str, str]()
    for number, name in events:
        holder = str(number)
        if name is None:
            held.pop(holder, None)
            labels.release(holder)
            continue
        taken = {label for other, label in held.items() if other != holder}
        count, expected = 1, name
        while expected in taken:
            count += 1
            expected = f"{name}#{count}"
        held[holder] = expected
        assert labels.take(holder, name) == expected


# --- what is shown of a name ------------------------------------------------------------------------


def test_a_client_is_shown_as_a_keyed_hash_of_its_name() -> None:
    """``c-`` and 8 hex digits of HMAC-SHA256 (RFC 2104) under the store's secret, written out here."""
    secret, block = b"s" * 32, 64
    names = Names(secret)
    names.seen(7, "hospital-a", False)
    key = secret.ljust(block, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in key) + b"hospital-a").digest()
    outer = sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()
    assert names.pseudonym(7) == f"c-{outer[:8]}"


def test_two_stores_know_a_client_by_two_pseudonyms() -> None:
    """The same in every run of a store, and of no use to whoever has another one."""
    shown = []
    for secret, node in ((b"one" * 11, 1), (b"one" * 11, 5), (b"two" * 11, 1)):
        names = Names(secret)
        names.seen(node, "hospital-a", False)
        shown.append(names.pseudonym(node))
    assert shown[0] == shown[1] != shown[2]
