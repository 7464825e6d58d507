"""Keeps the runs on a page within a number of series.

Above it the runs that ended first leave, each of them whole, then the oldest rounds of those that are
left. So no counter falls: a series is there with its value, or it is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from telemetry.exporters.samples import RunView

STAYS_S: Final = 60.0
"""A run that has just ended stays so long, whatever the limits: its last figures must be scraped."""


def just_ended(view: RunView) -> bool:
    """Whether it ended, or fell silent, so lately that somebody may not have scraped its end."""
    return view.now - _last_word(view) < timedelta(seconds=STAYS_S)


def within(limit: int, metrics: Sequence[Metric], views: Sequence[RunView]) -> int:
    """Take samples out of ``metrics`` until they are ``limit`` series; how many are left.

    More than the limit only where the totals of runs that must stay (active ones, those of the
    process that answers, and those that have just ended) are more already.
    """
    count = sum(len(metric.samples) for metric in metrics)
    if count <= limit:
        return count
    of_run: Counter[str] = Counter()
    of_round: dict[str, Counter[int]] = {view.run_id: Counter() for view in views}
    for metric in metrics:
        for sample in metric.samples:
            run_id, number = _place(sample)
            of_run[run_id] += 1
            if number is not None:
                of_round[run_id][number] += 1
    for view in sorted(filter(_may_leave, views), key=_last_word):
        if count <= limit:
            break
        count -= of_run[view.run_id]
        del of_round[view.run_id]
    first_round = _first_rounds(list(of_round.values()), limit - count)
    kept = dict(zip(of_round, first_round, strict=True))
    for metric in metrics:
        metric.samples = [sample for sample in metric.samples if _stays(sample, kept)]
    return sum(len(metric.samples) for metric in metrics)


def _first_rounds(runs: Sequence[Counter[int]], room: int) -> list[int]:
    """From which round on each run shows its rounds, equally many of each: the newest that fit.

    ``room`` is what is left of the limit with all of them, negative where they are too many.
    """
    newest_first = [sorted(counts.items(), reverse=True) for counts in runs]
    depth = max(map(len, newest_first), default=0)
    costs = [sum(run[n][1] for run in newest_first if n < len(run)) for n in range(depth)]
    room += sum(costs)
    fit = sum(spent <= room for spent in accumulate(costs))
    return [run[min(fit, len(run)) - 1][0] if run and fit else _NONE for run in newest_first]


_NONE: Final = 2**63
"""No round has that number."""


def _place(sample: Sample) -> tuple[str, int | None]:
    number = sample.labels.get("round")
    return sample.labels["run_id"], None if number is None else int(number)


def _stays(sample: Sample, kept: dict[str, int]) -> bool:
    run_id, number = _place(sample)
    return run_id in kept and (number is None or number >= kept[run_id])


def _may_leave(view: RunView) -> bool:
    run = view.exposed.run
    own = view.owner is not None and run.owner == view.owner
    return not (own or view.active or just_ended(view))


def _last_word(view: RunView) -> datetime:
    run = view.exposed.run
    return run.ended_at or run.last_seen_at
