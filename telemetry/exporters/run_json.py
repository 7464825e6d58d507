"""``json``: a whole run - facts, method, totals, every closed round with its clients and reports.

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
    RunInfo,
    RunTotals,
    Sensor,
    StoredRun,
)
from telemetry.exporters.base import Format, Notes
from telemetry.exporters.cells import iso_utc
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

BOUNDARY: Final = {
    "included": [
        "electricity of the server during the run, set-up and waiting included, as far as its "
        "meter sees it",
        "electricity of the clients' training and evaluation, as far as they report it",
        "data centre overhead of the server, by the factor given as pue",
    ],
    "not_included": [
        "clients that sent no valid report, and whatever a client did not measure",
        "energy of data transfer over networks",
        "manufacture, transport and disposal of hardware",
        "water",
        "work before the run and use of the model after it",
    ],
    "machines": "reports of clients on one machine are scaled to the time they cover together; "
    "clients on the server's machine are split off from the server's figure, not added to it",
    "unknown": "null is unknown and never 0; a total is the sum of its known parts",
}


def write(store: Store, run_id: str, out: TextIO) -> Notes:
    """Write a run with all its closed rounds as one JSON object."""
    run = store.run(run_id)
    head = {
        "format_version": VERSION,
        "run_id": run.run_id,
        "status": run.status,
        "reason": run.reason,
        "ended_at": run.ended_at,
        "run": public_members(run.info),
        "method": method(run.info, _sensors(store.rounds(run_id))),
        "totals_of_closed_rounds": counted_members(run.totals, run.info.tracked),
    }
    out.write("{\n")
    for name, value in head.items():
        out.write(f"{json_text(name)}: {json_text(value)},\n")
    out.write('"rounds": [')
    _write_rounds(store, run, out)
    out.write("]\n}\n")
    return []


def method(info: RunInfo, sensors: Iterable[Sensor] = ()) -> dict[str, Any]:
    """How the figures came about, for a reader who has only this file.

    ``sensors`` are what the rounds' figures really rest on; the run's own entry is what was known
    when it started.
    """
    factors = info.factors
    return {
        "tracked": info.tracked,
        "tracker": info.tracker,
        "server_sensors": sorted(sensors) or [factors.server_sensor],
        "server_scope": factors.server_scope,
        "server_share": factors.server_share,
        "server_carbon_intensity_g_per_kwh": factors.server_carbon_intensity_g_per_kwh,
        "intensity_source": factors.intensity_source,
        "intensity_year": factors.intensity_year,
        "country": factors.country,
        "pue": factors.pue,
        "energy": "kWh at the meter, before PUE",
        "emissions": "kg CO2eq; the server's are energy x PUE x carbon intensity",
        "boundary": BOUNDARY,
    }


def _sensors(rounds: Iterable[RoundSummary]) -> set[Sensor]:
    return {row.factors.server_sensor for row in rounds if row.host_energy_kwh is not None}


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
        return iso_utc(value)
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
