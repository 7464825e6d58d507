"""How a draft becomes a round's record; in the writer's thread.

A part that no record can be made with (an epsilon that is not a number) costs that part and not the
round: what the round was, how it ended and what it took stand in any case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Final

from fedserver_hooks.clock import Clock
from fedserver_hooks.draft import Draft, FactBuilder, numbers_in, status_of
from fedserver_hooks.phases import PhaseLedger
from telemetry.accounting import ParticipantFacts, ReceivedReport, RoundFacts, Rules, account
from telemetry.domain import Lap, RoundRecord, RunInfo
from telemetry.marks import BareHistory
from telemetry.writer import Failures

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordMaker:
    """Accounts for the rounds of one run. What goes wrong is noted in ``failures``, not raised."""

    run: RunInfo
    rules: Rules
    clock: Clock
    ledger: PhaseLedger
    failures: Failures
    history: BareHistory = field(default_factory=BareHistory)
    told: set[str] = field(default_factory=set)
    """Nodes of which the log has said that they look cumulative."""

    def make(
        self, draft: Draft, builder: FactBuilder, revision: int, *, closed: bool
    ) -> RoundRecord:
        """The record of a round as ``draft`` has it. Waits for the meter where it is ``closed``."""
        laps = self._laps(draft, closed=closed)
        self._fold(builder)
        participants, reports = self._clients(builder)
        status = status_of(draft, builder, closed=closed)
        facts = RoundFacts(
            run_id=self.run.run_id,
            round=draft.key[0],
            attempt=draft.key[1],
            revision=revision,
            sequence=draft.sequence,
            closed=closed,
            tracked=self.run.tracked,
            status=status,
            reason=draft.failure if status in ("failed", "partial") else None,
            started_at=draft.started_at,
            ended_at=self.clock() if draft.ended_at is None else draft.ended_at,
            connected=draft.connected,
            factors=self.run.factors,
            server_host_id=self.run.server_host_id,
            rules=self.rules,
            participants=participants,
            reports=reports,
            laps=laps,
            train_metrics=numbers_in(draft.train_metrics),
            evaluate_metrics=numbers_in(draft.evaluate_metrics),
            privacy_epsilon=draft.privacy_epsilon,
            noise=draft.noise,
            client_rows=self.run.client_rows,
            history=self.history.of,
        )
        try:
            record = account(facts)
        except Exception as error:  # noqa: BLE001 - a fault of ours in one part of a round
            record = self._reduced(facts, error)
        if closed:
            self._remember(record)
        return record

    def _remember(self, record: RoundRecord) -> None:
        """Keep the round's bare values, and say once of each client that it seems to add up."""
        self.history.add(record.reports)
        for report in record.reports:
            if report.looks_cumulative and report.node_id not in self.told:
                self.told.add(report.node_id)
                logger.warning(
                    "client %s: its emissions look cumulative (they only rise, as a running total "
                    "does); they count as reported. One tracker for each round would report the "
                    "round alone",
                    report.client,
                )

    def _reduced(self, facts: RoundFacts, error: Exception) -> RoundRecord:
        """The record without as few parts as it takes; raises ``error`` where nothing helps."""
        for count in range(1, len(_PARTS) + 1):
            for dropped in combinations(_PARTS, count):
                less, names = facts, " and ".join(name for name, _ in dropped)
                for _, without in dropped:
                    less = without(less)
                said = f"recorded without {names} ({type(error).__name__})"
                reason = said if less.reason is None else f"{less.reason}; {said}"
                with suppress(Exception):  # then something else is broken, or too
                    record = account(replace(less, reason=reason))
                    self._note(f"round {facts.round} is {said}", error)
                    return record
        raise error

    # --- each part by itself -----------------------------------------------------------------

    def _laps(self, draft: Draft, *, closed: bool) -> Sequence[Lap]:
        if not self.run.tracked:
            return ()
        try:
            if closed:
                self.ledger.settle(draft.key)
            return self.ledger.laps(draft.key)
        except Exception as error:  # noqa: BLE001 - the clients' figures stand all the same
            self._note(f"round {draft.key[0]} is recorded without the server's energy", error)
            return ()
        finally:
            if closed:
                self.ledger.forget(draft.key)

    def _fold(self, builder: FactBuilder) -> None:
        while True:
            try:
                return builder.fold()
            except Exception as error:  # noqa: BLE001 - it goes on after the event that it was
                self._note("something that happened in a round is not recorded", error)

    def _clients(
        self, builder: FactBuilder
    ) -> tuple[Sequence[ParticipantFacts], Sequence[ReceivedReport]]:
        try:
            return builder.participants(), builder.reports()
        except Exception as error:  # noqa: BLE001 - who took part is known without it
            self._note("a round is recorded without its clients' reports", error)
            return builder.bare_participants(), ()

    def _note(self, problem: str, error: Exception) -> None:
        self.failures.note("accounting", problem, error=error)


def _bare(participants: Iterable[ParticipantFacts]) -> list[ParticipantFacts]:
    return [
        ParticipantFacts(node_id=p.node_id, client=p.client, train=p.train, failed=p.failed)
        for p in participants
    ]


_PARTS: Final[tuple[tuple[str, Callable[[RoundFacts], RoundFacts]], ...]] = (
    ("its privacy figures", lambda facts: replace(facts, privacy_epsilon=None, noise=None)),
    ("its training metrics", lambda facts: replace(facts, train_metrics={}, evaluate_metrics={})),
    ("its clients' reports", lambda facts: replace(facts, reports=())),
    ("details of its clients", lambda f: replace(f, participants=_bare(f.participants))),
    ("the server's energy", lambda facts: replace(facts, laps=())),
)
"""What a record can do without, the least first."""
