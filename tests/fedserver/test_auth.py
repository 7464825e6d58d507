"""Verifying tokens: three outcomes, without files or sockets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedserver import auth
from fedserver.auth import KnownToken, Outcome, digest_of, new_token, verify

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD, OLD, GONE = new_token(), new_token(), new_token()
KNOWN = (
    KnownToken("good", digest_of(GOOD), NOW + timedelta(seconds=1)),
    KnownToken("old", digest_of(OLD), NOW),
    KnownToken("gone", digest_of(GONE), revoked=True),
)


def test_a_token_has_32_random_bytes_and_says_what_it_is() -> None:
    """The prefix tells a leaked one apart; the rest is 43 characters of base64, never twice."""
    assert GOOD.startswith("flc_")
    assert len(GOOD) == len("flc_") + 43
    assert len({new_token() for _ in range(100)}) == 100


@pytest.mark.parametrize("header", ["authorization", "x-authorization"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_valid_token_in_either_header_is_valid(header: str, scheme: str) -> None:
    """Both spellings that ai4flwr has used are read."""
    verdict = verify([("user-agent", "x"), (header, f"{scheme} {GOOD}")], KNOWN, NOW)
    assert (verdict.outcome, verdict.token) == (Outcome.VALID, KNOWN[0])


@pytest.mark.parametrize(
    ("metadata", "outcome", "problem", "label"),
    [
        ([], Outcome.NONE, "token missing", None),
        ([("cookie", f"Bearer {GOOD}")], Outcome.NONE, "token missing", None),
        ([("authorization", "")], Outcome.INVALID, "token malformed", None),
        ([("authorization", GOOD)], Outcome.INVALID, "token malformed", None),
        ([("authorization", "Bearer ")], Outcome.INVALID, "token malformed", None),
        ([("authorization", f"Basic {GOOD}")], Outcome.INVALID, "token malformed", None),
        ([("authorization", f"Bearer {GOOD} x")], Outcome.INVALID, "token malformed", None),
        ([("authorization", f"Bearer {'x' * 513}")], Outcome.INVALID, "token malformed", None),
        ([("authorization", b"Bearer x")], Outcome.INVALID, "token malformed", None),
        ([("authorization", f"Bearer {new_token()}")], Outcome.INVALID, "token unknown", None),
        ([("authorization", f"Bearer {GOOD[:-1]}")], Outcome.INVALID, "token unknown", None),
        ([("authorization", f"Bearer {OLD}")], Outcome.INVALID, "token expired", "old"),
        ([("authorization", f"Bearer {GONE}")], Outcome.INVALID, "token revoked", "gone"),
        ([("authorization", "Bearer flt_abc")], Outcome.INVALID, auth.FOR_THE_API, None),
    ],
)
def test_what_is_wrong_is_named(
    metadata: Any, outcome: Outcome, problem: str, label: str | None
) -> None:
    """Each fault has a text of its own; a known token keeps its label."""
    verdict = verify(metadata, KNOWN, NOW)
    assert (verdict.outcome, verdict.problem) == (outcome, problem)
    assert (verdict.token and verdict.token.label) == label


def test_a_header_of_a_proxy_does_not_hide_the_token() -> None:
    """A valid token is enough, whatever stands in the other header."""
    metadata = [("authorization", "Basic abc"), ("x-authorization", f"Bearer {GOOD}")]
    assert verify(metadata, KNOWN, NOW).outcome is Outcome.VALID


def test_of_two_sources_the_last_decides() -> None:
    """A token that the file still lists is refused once the store has it revoked."""
    known = [KnownToken("file-1", digest_of(GONE)), *KNOWN]
    assert verify([("authorization", f"Bearer {GONE}")], known, NOW).problem == auth.REVOKED


@given(st.lists(st.tuples(st.sampled_from(auth.HEADERS), st.text() | st.binary()), max_size=6))
def test_no_header_at_all_makes_verification_raise(metadata: Any) -> None:
    """Whatever stands in the headers, it is not valid, and the text does not repeat it."""
    verdict = verify(metadata, KNOWN, NOW)
    assert verdict.outcome is not Outcome.VALID
    assert verdict.problem in {auth.MISSING, auth.MALFORMED, auth.UNKNOWN, auth.FOR_THE_API}
