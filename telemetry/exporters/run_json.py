"""``json``: a whole run - seal, facts, method, totals, every closed round with its clients and reports.

Written piece by piece, one client at a time, so that its size does not matter. A round's
``participants`` is a number, its ``clients`` say who they were, under their pseudonyms; connections
(nodes), machines and the owning process are not written. Unknown is ``null``. Energies are kWh at
the meter, before PUE; emissions are kg CO2eq and include it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final, TextIO

from telemetry.domain import (
    CLIENT_BUCKETS_G,
    Histogram,
    RoundSummary,
    RunTotals,
    StoredRun,
    utc_text,
)
from telemetry.exporters.base import Format, Notes
from telemetry.method import SEAL_COVERS, boundary, method_of
from telemetry.store.base import Store

VERSION: Final = 1
"""Of this layout; raised when something is moved or removed, not when something is added."""

NOT_WRITTEN: Final = frozenset({"node_id", "host_id", "server_host_id", "run_id"})
"""Identities of connections and machines; ``run_id`` stands once, at the top."""

TRACKED_ONLY: Final = frozenset(
    {
        "reports_accepted",
        "reports_rejected",
        "reports_repeated",
        "reports_late",
        "reports_without_host",
        "client_histogram",
    }
)
"""Counts that would read 0 where reports are thrown away unread: unknown there."""


def write(store: Store, run_id: str, out: TextIO) -> Notes:
    """Write a run with all its closed rounds as one JSON object."""
    run = store.run(run_id)
    head = {
        "format_version": VERSION,
        "run_id": run.run_id,
        "sha256": run.sha256,
        "status": run.status,
        "reason": run.reason,
        "ended_at": run.ended_at,
        "run": public_members(run.info),
        "method": method(run, store.rounds(run_id)),
        "totals_of_closed_rounds": counted_members(run.totals, run.info.tracked),
    }
    out.write("{\n")
    for name, value in head.items():
        out.write(f"{json_text(name)}: {json_text(value)},\n")
    out.write('"rounds": [')
    _write_rounds(store, run, out)
    out.write("]\n}\n")
    return []


def method(run: StoredRun, rounds: Iterable[RoundSummary]) -> dict[str, Any]:
    """How the figures came about, for a reader who has only this file."""
    found = method_of(run, rounds)
    return public_members(found) | {
        "energy": "kWh at the meter, before PUE",
        "emissions": "kg CO2eq; the server's are energy x PUE x carbon intensity",
        "estimates": "beside the measured total and never in it",
        "clients": _KEPT if found.client_rows else _NOT_KEPT,
        "seal": SEAL_COVERS,
        "boundary": boundary(found),
    }


_KEPT: Final = "each client and each report of a round is listed with it, under pseudonyms"
_NOT_KEPT: Final = (
    "only sums and distributions were kept (telemetry.client_rows: false): the lists of clients and "
    "reports of such rounds are empty, whoever took part"
)


def _write_rounds(store: Store, run: StoredRun, out: TextIO) -> None:
    rounds = store.rounds(run.run_id)
    first = next(rounds, None)
    if first is None:
        return
    # Begun after the rounds: what closes in between has clients but no round here, never a round
    # without its clients.
    participants = _ByRound(store.participants(run.run_id))
    reports = _ByRound(store.reports(run.run_id))
    between = "\n"
    for row in chain((first,), rounds):
        out.write(between + json_text(counted_members(row, row.tracked))[:-1])
        key = (row.round, row.attempt)
        _write_list(out, "clients", participants.of(key))
        _write_list(out, "reports", reports.of(key))
        out.write("}")
        between = ",\n"


def counted_members(record: RoundSummary | RunTotals, tracked: bool) -> dict[str, Any]:
    """A record's fields; counts of reports are unknown where they were thrown away unread."""
    members = public_members(record)
    return members if tracked else members | dict.fromkeys(TRACKED_ONLY & members.keys())


def _write_list(out: TextIO, name: str, items: Iterable[Any]) -> None:
    out.write(f",\n {json_text(name)}: [")
    between = "\n  "
    for item in items:
        out.write(between + json_text(item))
        between = ",\n  "
    out.write("]")


class _ByRound:
    """Hands out the items of one round after another from a stream ordered by round."""

    def __init__(self, stream: Iterator[tuple[int, int, Any]]) -> None:
        self._stream = stream
        self._next = next(stream, None)

    def of(self, key: tuple[int, int]) -> Iterator[Any]:
        """The items of the round ``key``; keys must be asked for in rising order.

        Rounds that nobody asks for are passed over.
        """
        while self._next is not None and self._next[:2] <= key:
            if self._next[:2] == key:
                yield self._next[2]
            self._next = next(self._stream, None)


def json_text(value: Any) -> str:
    """A record, or what is made of records, as JSON."""
    return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """What JSON has no word for, as something it has."""
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, Histogram):
        return {"bounds_g": CLIENT_BUCKETS_G, "counts": value.counts, "sum_g": value.sum_g}
    if isinstance(value, Mapping):
        return dict(value)
    return public_members(value)


def public_members(record: Any) -> dict[str, Any]:
    """A record's fields by name, without those that identify connections and machines."""
    names = (
        [item.name for item in fields(record)]
        if is_dataclass(record)
        else list(type(record).model_fields)
    )
    return {name: getattr(record, name) for name in names if name not in NOT_WRITTEN}


FORMAT: Final = Format(name="json", media_type="application/json", suffix=".json", write=write)
