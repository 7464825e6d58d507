"""Watches a run's budget while it trains: asked before each round, and never in the training's way.

What is known is judged in a thread of its own. A verdict that is not there in time holds before the
next round instead; where the record cannot be read, the training goes on.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from dataclasses import replace
from typing import Final

from fedserver_hooks.recorder import RoundRecorder
from telemetry.budget import WARN_FROM, Reporters, Verdict, judge
from telemetry.domain import ReportRecord, RoundRecord, RoundSummary, utc_now
from telemetry.errors import RowsNotKept, StoreError
from telemetry.store.base import Store

logger = logging.getLogger(__name__)

WAIT_S = 0.24
"""For so long a round waits for a verdict: that, too, is no longer than `recorder.BARRIER_S`."""
SETTLE_S: Final = 10.0
"""How long a verdict waits for the last round to be on disk; the training does not wait so long."""


class BudgetWatch:
    """The verdicts on one run's budget. With ``trusted``, all its clients show tokens.

    What is amiss is logged, each thing once.
    """

    def __init__(self, budget_kg: float, *, trusted: bool = False) -> None:
        self._budget_kg = budget_kg
        self._trusted = trusted
        self._lock = threading.Lock()
        self._closed: dict[tuple[int, int], RoundSummary] = {}
        self._by_client: dict[str, float] = defaultdict(float)
        self._recorder: RoundRecorder | None = None
        self._asking: threading.Thread | None = None
        self._verdict: Verdict | None = None
        self._said: set[object] = set()

    def watch(self, recorder: RoundRecorder, *, resumed: bool = False) -> None:
        """The record of the run, not yet started; it tells `closed` of its rounds.

        What a resumed run has spent before is read at once; that raises `StoreError`.
        """
        self._recorder = recorder
        if resumed:
            run_id, store = recorder.run.run_id, recorder.store
            for row in store.rounds(run_id, closed_only=False):
                self._closed[row.round, row.attempt] = row
            for _, _, report in store.reports(run_id):
                _count(self._by_client, report)

    def closed(self, record: RoundRecord) -> None:
        """A round has closed; called by the writer, before it says that it is done."""
        summary = record.summary()
        with self._lock:
            self._closed[record.round, record.attempt] = summary
            for report in record.reports:
                _count(self._by_client, report)
            rounds = list(self._closed.values())
        # Nobody asks after the last round, and then there is none to forecast.
        verdict = judge(rounds, self._budget_kg, "warn")
        if verdict.used_ratio is not None and verdict.used_ratio >= WARN_FROM:
            self._warn(replace(verdict, cause="spent" if verdict.cause == "spent" else "near"))

    def before_round(self, number: int, wait_s: float | None = None) -> Verdict | None:
        """The newest verdict before round ``number``; None while there is none. Never raises.

        Waits at most ``wait_s`` (`WAIT_S`) for it.
        """
        if self._asking is None or not self._asking.is_alive():
            # One that takes longer is not waited for a second time.
            self._ask(number, WAIT_S if wait_s is None else wait_s)
        return self._verdict

    def may_go_on(self, number: int) -> str | None:
        """Why round ``number`` is not to be played, in words; None if it is. Never raises."""
        verdict = self.before_round(number)
        if verdict is None or verdict.action != "stop":
            return None
        return f"stopped before round {number}: {verdict.reason}"

    def _ask(self, number: int, wait_s: float) -> None:
        asking = threading.Thread(target=self._judge, name="telemetry-budget", daemon=True)
        try:
            asking.start()
        except RuntimeError as error:  # the system gives no more threads
            self._say("thread", "the budget is not watched: %s; the training goes on", error)
            return
        self._asking = asking
        if wait_s > 0:
            asking.join(wait_s)
            if asking.is_alive():
                self._say(
                    "late",
                    "no verdict on the budget within %g s before round %d: the training goes on, and "
                    "it holds before the next round",
                    wait_s,
                    number,
                )

    # --- the thread ----------------------------------------------------------------------------

    def _judge(self) -> None:
        try:
            verdict = self._verdict = self._judged()
            if verdict is not None and verdict.action == "warn":
                self._warn(verdict)
        except StoreError as error:
            self._say("store", "the budget cannot be looked at: %s; the training goes on", error)
        except Exception as error:  # noqa: BLE001 - the edge between training and telemetry
            self._say(
                type(error), "the budget cannot be looked at: %r; the training goes on", error
            )

    def _judged(self) -> Verdict | None:
        recorder = self._recorder
        if recorder is None or not recorder.started:
            return self._verdict
        if not recorder.settle(SETTLE_S):
            self._say("lag", "the record lags behind: the budget is not looked at for now")
            return self._verdict
        opened = self._open_round(recorder)
        with self._lock:
            rounds = {**self._closed}
            by_client = self._by_client.copy()
        if opened is not None:
            rounds.setdefault((opened.round, opened.attempt), opened)
        played = list(rounds.values())
        on_budget = recorder.run.on_budget
        verdict = judge(played, self._budget_kg, on_budget)
        if verdict.action != "stop" or self._trusted:
            return verdict
        # Only now is it worth reading who reported in the round just played.
        if opened is not None:
            _add_reports_of(opened, recorder.store, by_client)
        return judge(played, self._budget_kg, on_budget, Reporters(by_client))

    def _open_round(self, recorder: RoundRecorder) -> RoundSummary | None:
        exposed = recorder.store.exposed(utc_now(), recorder.owner, max_runs=0, max_rounds=0)
        ours = (run.open_round for run in exposed if run.run.run_id == recorder.run.run_id)
        return next(ours, None)

    def _warn(self, verdict: Verdict) -> None:
        news = {verdict.cause, verdict.held_back} - self._said - {None}
        if news:
            self._said |= news
            if verdict.used_ratio is not None and verdict.used_ratio >= WARN_FROM:
                self._said.add("near")  # has been said with it
            logger.warning("%s", verdict.reason)

    def _say(self, what: object, message: str, *facts: object) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning(message, *facts)


def _add_reports_of(row: RoundSummary, store: Store, by_client: dict[str, float]) -> None:
    try:
        record = store.round(row.run_id, row.round, row.attempt)
    except RowsNotKept:
        return  # then it may all be one client's
    if not record.closed:  # else they have come with `closed`
        for report in record.reports:
            _count(by_client, report)


def _count(by_client: dict[str, float], report: ReportRecord) -> None:
    """What a report counts towards a stop, kg CO2eq; one of 0 is one, too."""
    if report.accepted and not report.flags:
        by_client[report.client] += report.counted_emissions_kg or 0.0
