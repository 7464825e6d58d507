"""The rules by which a round's figures come about, as pure functions.

`account` turns what happened in a round (`RoundFacts`) into a `RoundRecord`. It reads no clock, no
file and no configuration of its own. The rules, with a worked example, are in
``docs/accounting.md``; the host rule follows from one principle: *server and clients together never
exceed what one meter per host would show*.
"""

from __future__ import annotations

from telemetry.accounting.facts import ParticipantFacts, ReceivedReport, RoundFacts, Rules
from telemetry.accounting.host_rule import overlap_factor
from telemetry.accounting.judged import WINDOW_SLACK_S, window
from telemetry.accounting.rounds import account

__all__ = [
    "WINDOW_SLACK_S",
    "ParticipantFacts",
    "ReceivedReport",
    "RoundFacts",
    "Rules",
    "account",
    "overlap_factor",
    "window",
]
