"""What a store promises. Every backend runs ``tests/contracts/store.py``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol

from telemetry.domain import (
    ExposedRun,
    Owner,
    ParticipantRecord,
    PendingRun,
    ReportRecord,
    RoundRecord,
    RoundSummary,
    RunInfo,
    RunStatus,
    StoredRun,
)
from telemetry.errors import TelemetryError
from telemetry.progress import Tell, nobody
from telemetry.store.api_tokens import ApiToken
from telemetry.store.deliveries import Delivery

LEASE_RENEW_S: Final = 10.0
"""How often an owner says that it is alive."""
LEASE_EXPIRES_S: Final = 60.0
"""After this long without a word a run counts as abandoned."""


class Store(Protocol):
    """Keeps runs and their rounds.

    *Threads.* Every method may be called from any thread; writes are serialised by the backend.
    *Transactions.* Each method that writes is one transaction: all of it is stored, or nothing.
    *Ownership.* What is returned is immutable and not changed by later writes.
    *Errors.* Trouble with the database is a `StoreError`; a run id that is not stored is a
    `RunNotFound`. Nothing else of the backend's own errors escapes.
    """

    @property
    def url(self) -> str:
        """Where the data is, fit for a message: without any password."""
        ...

    @property
    def secret(self) -> bytes:
        """Key of the pseudonyms (HMAC): kept beside the data, the same for the store's life."""
        ...

    def start_run(self, info: RunInfo, owner: Owner, now: datetime) -> None:
        """Store a new run, ``running`` and held by ``owner``.

        The same facts again are a no-op; other facts under the same id raise `RunExists`. The id of a
        run that was deleted raises `RunDeleted`.
        """
        ...

    def renew_lease(self, run_id: str, owner: Owner, now: datetime) -> bool:
        """Say that the owner lives. False, and nothing changed, if the run is not its own any more."""
        ...

    def record_round(self, record: RoundRecord) -> bool:
        """Store a round, or a newer revision of one that is still open.

        Returns True if anything was stored. An older or equal revision of an open round, or the
        same content of a closed one, is a no-op (False), so that a delivery may be repeated.
        Any revision that would change a closed round raises `RoundConflict`; an *open* revision
        older than the closed one is merely out of date (False).
        Closing a round adds it to the run's totals in the same transaction, exactly once, and fixes
        its ``cumulative_emissions_kg``: the totals' ``total_emissions_kg`` with this round (None
        while nothing is known). An open round's cumulative figure is None.
        Refused as a `StoreError`: a closed round that is still ``running``, one with two
        participants of one node, or with two reports of one node, phase and reported round.
        Of a round without ``client_rows`` all sums are stored, and no row of a client.
        """
        ...

    def add_late_reports(self, run_id: str, count: int) -> None:
        """Count reports that came when no round was open: in the totals, in no round."""
        ...

    def finish_run(
        self, run_id: str, status: RunStatus, ended_at: datetime, reason: str | None = None
    ) -> None:
        """End a run and seal it. It keeps its owner until `release`.

        Ending an ended run is a no-op. A round that is closed after the end renews the seal
        (`StoredRun.sha256`); `mark_interrupted` seals, too, and `resume_run` takes the seal off.
        Where rounds came in another order than that of their ``sequence``, sealing adds up their
        cumulative figures anew (`rules.wrongly_added`).
        """
        ...

    def release(self, run_id: str, owner: Owner) -> None:
        """The owner goes away; a no-op if it does not hold the run."""
        ...

    def mark_interrupted(self, now: datetime, is_alive: Callable[[Owner], bool]) -> Sequence[str]:
        """Mark as ``interrupted`` each running run whose owner is gone, and return their ids.

        Gone: its lease is older than `LEASE_EXPIRES_S`, or ``is_alive(owner)`` is False (the caller
        answers True where it cannot know). ``ended_at`` becomes the last word of the owner. An open
        round is closed with what was last stored, as its next revision: its status stays, but
        ``running`` becomes ``interrupted``. A live run is never touched, and neither is one that is
        delivered to a service: its server may live beyond a network that is down, and says the end.
        Ended runs whose owner is gone without letting go of them (its disk was full) are released.
        """
        ...

    def resume_run(self, run_id: str, owner: Owner, now: datetime) -> None:
        """Take up a run that ended before its time: ``running`` again, and held by ``owner``.

        Its end and the reason are forgotten, what was recorded stays. An open round is closed as
        `mark_interrupted` does. A run that is ``running`` or ``completed`` raises `RunNotResumable`.
        """
        ...

    def delete_run(self, run_id: str, now: datetime) -> None:
        """Delete a run and all that is known of it, but for its id, its seal and when that was.

        That much stays so that the id is never taken again and a copy of the run can be recognised.
        From then on the run's id raises `RunDeleted`. A run that a server is at work on (``running``
        with a lease that has not expired) raises `RunIsLive`.
        """
        ...

    def prune(
        self,
        before: datetime,
        now: datetime,
        tell: Tell = nobody,
        *,
        keep_totals: bool = True,
        spared: Collection[str] = (),
    ) -> Sequence[str]:
        """Of runs that ended before then delete the rounds, with all that hangs on them.

        The runs with their totals and seals stay; `StoredRun.pruned_at` says so. Rounds of such a
        run raise `RunPruned`, and it is delivered to no service any more. Without ``keep_totals`` the
        runs go, too, those that were pruned before included, each as by `delete_run`. The runs
        ``spared`` stay as they are. Returns the ids of the others; ``tell`` hears of each.
        """
        ...

    # --- of a service ------------------------------------------------------------------------

    def deliver(
        self, deliveries: Sequence[Delivery], now: datetime
    ) -> Sequence[int | TelemetryError]:
        """Store what senders hand over, in one transaction if nothing is wrong with any of it.

        Of each delivery the number of what was news in it (0: all was known), or why nothing of it
        was stored: `RunNotFound` for an unknown run and for one of another writer, `RunDeleted`,
        `RunPruned`, and what `start_run` and `record_round` raise. Each delivery is a word of the
        run's server (``last_seen_at``). Rounds are taken after the run's end, too. A new attempt that
        began after the end takes up a run that did not complete (`rules.resumes`); such a run may
        also be ended again otherwise, a completed one may not (`EndConflict`).
        """
        ...

    def add_token(self, token: ApiToken) -> None:
        """Store a token; `BadTokenFact` if one of that label holds or has expired unrevoked."""
        ...

    def api_tokens(self) -> Sequence[ApiToken]:
        """Every token ever made, by time of making, revoked ones included."""
        ...

    def revoke_token(self, label: str, now: datetime) -> None:
        """Make the label's token invalid; `BadTokenFact` if there is none to revoke."""
        ...

    # --- reading -----------------------------------------------------------------------------

    def runs(self) -> Sequence[StoredRun]:
        """All runs, newest start first."""
        ...

    def page_of_runs(
        self, limit: int, start: tuple[datetime, str] | None = None
    ) -> Sequence[StoredRun]:
        """At most ``limit`` runs, newest start first, from the run that (started at, id) names on."""
        ...

    def run(self, run_id: str) -> StoredRun:
        """One run by its exact id."""
        ...

    def rounds(
        self, run_id: str, *, closed_only: bool = True, start: tuple[int, int] | None = None
    ) -> Iterator[RoundSummary]:
        """A run's rounds by (round, attempt), streamed; those from ``start`` on."""
        ...

    def round(self, run_id: str, round_number: int, attempt: int | None = None) -> RoundRecord:
        """One round, whole: equal to what was recorded. `RunNotFound` if it is not stored.

        Without ``attempt`` the last one: of a run that was resumed, what came after the interruption.
        `RowsNotKept` where it was recorded without ``client_rows``.
        """
        ...

    def reports(
        self, run_id: str, *, start: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, int, ReportRecord]]:
        """(round, attempt, report) of a run's closed rounds by (round, attempt, node, phase), streamed.

        Those of the rounds from ``start``, a (round, attempt), on.
        """
        ...

    def participants(self, run_id: str) -> Iterator[tuple[int, int, ParticipantRecord]]:
        """(round, attempt, participant) of a run's closed rounds, in the same order, streamed."""
        ...

    def exposed(
        self, now: datetime, owner: Owner | None, *, max_runs: int, max_rounds: int
    ) -> Sequence[ExposedRun]:
        """What ``/metrics`` of ``owner`` shows, oldest start first.

        Its own runs, and the ``max_runs`` last ended runs that no live owner holds (released, or a
        lease older than `LEASE_EXPIRES_S`), unless another live owner's run began before all of its
        own: each run is shown by one of them. ``owner`` None stands for a service: every run. Each
        with its open round and its last ``max_rounds`` closed rounds (from round 1 on; of several
        attempts the last). Rounds are given for all running runs and the ``max_runs`` last ended.
        """
        ...

    def latest(self, runs: Sequence[StoredRun], *, max_rounds: int) -> Sequence[ExposedRun]:
        """These runs, in their order, each with its open round and its last closed ones.

        Which rounds: as in `exposed`; none of a run that was deleted meanwhile.
        """
        ...

    def check(self) -> None:
        """Ask the database whether it is there, with this program's schema; `StoreError` if not."""
        ...

    # --- what a service has acknowledged ------------------------------------------------------

    def undelivered(self, service: str, now: datetime, owner: Owner | None) -> Sequence[PendingRun]:
        """Runs of which ``service`` has not acknowledged everything: ``owner``'s first, by start.

        Those of ``owner`` and those that no live owner holds, as in `exposed`: whoever lives delivers
        its own. Runs without ``client_rows`` are left out: a service adds up the rows itself; and so
        are pruned ones, of which there is nothing to add up.
        ``service`` is its URL: what one has acknowledged, another need not have.
        """
        ...

    def unacknowledged(self, services: Collection[str]) -> Sequence[str]:
        """Ids of the runs of which a service has not acknowledged everything, whoever holds them.

        One of ``services``, or another that has acknowledged something of the run.
        """
        ...

    def mark_announced(self, service: str, run_id: str) -> None:
        """The service knows the run, and that it goes on; what it knew of an end is forgotten."""
        ...

    def mark_delivered(self, service: str, run_id: str, rounds: Sequence[tuple[int, int]]) -> None:
        """The service has these closed rounds, by (round, attempt). Again is a no-op."""
        ...

    def mark_ended(self, service: str, run_id: str, ended_at: datetime) -> None:
        """The service knows that the run, which was announced to it, ended at that time."""
        ...

    def forget_delivered(self, service: str, run_id: str) -> None:
        """The service has lost the run: everything of it is to be delivered again."""
        ...

    def close(self) -> None:
        """Let go of connections; only what the store itself opened."""
        ...
