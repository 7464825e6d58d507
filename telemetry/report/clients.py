"""What the rows of a run's clients tell: counted in one pass, in memory that does not grow with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from telemetry.analysis.sci import Examples, examples_of
from telemetry.domain import ParticipantRecord, ReportRecord

MOST_LISTED: Final = 40
"""Rejected reports that are shown one by one; of more, how many they are."""
MOST_WORDS: Final = 200
"""Different words of clients (countries, trackers, reasons) that are counted apart."""
OTHER: Final = "others"

ParticipantRow = tuple[int, int, ParticipantRecord]
ReportRow = tuple[int, int, ReportRecord]
"""Round, attempt, record."""


@dataclass(slots=True)
class Intensity:
    """Carbon intensities that reports stated, g CO2eq per kWh."""

    reports: int = 0
    low: float = float("inf")
    high: float = 0.0

    def add(self, value: float) -> None:
        """One more report."""
        self.reports += 1
        self.low, self.high = min(self.low, value), max(self.high, value)


@dataclass(slots=True)
class Clients:
    """Counts over the kept rows of a run's closed rounds.

    ``sensors``, ``trackers``, ``countries`` and ``intensity`` are of accepted reports, as they state
    them; a report that does not is under None, or in no intensity.
    """

    pseudonyms: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    """Why clients failed."""
    rejections: Counter[str] = field(default_factory=Counter)
    """Rejected reports by reason, of training and evaluation."""
    rejected: list[ReportRow] = field(default_factory=list)
    """The first of them."""
    outliers: Counter[str] = field(default_factory=Counter)
    """Reports that lie far from the others, by client."""
    cumulative: Counter[str] = field(default_factory=Counter)
    """Reports that look like running totals, by client."""
    sensors: Counter[str | None] = field(default_factory=Counter)
    trackers: Counter[str | None] = field(default_factory=Counter)
    countries: Counter[str | None] = field(default_factory=Counter)
    intensity: Intensity = field(default_factory=Intensity)
    """Of reports from elsewhere than the server's machine."""
    accepted: int = 0
    on_server_host: int = 0
    less: int = 0
    """Reports that count for less than they said."""
    more: int = 0
    """Reports that count for more: those on the server's machine take its intensity and PUE."""
    examples: Examples = field(default_factory=lambda: Examples(count=0, unknown=0))


def read_clients(participants: Iterable[ParticipantRow], reports: Iterable[ReportRow]) -> Clients:
    """Count the rows of closed rounds."""
    found = Clients()
    found.examples = examples_of(_noted(participants, found))
    for row in reports:
        _add(row, found)
    return found


def _noted(rows: Iterable[ParticipantRow], found: Clients) -> Iterator[ParticipantRecord]:
    for _, _, participant in rows:
        found.pseudonyms.add(participant.client)
        if participant.outcome == "failed":
            _count(found.failures, participant.reason or "no reason given")
        yield participant


def _add(row: ReportRow, found: Clients) -> None:
    report = row[2]
    if not report.accepted:
        found.rejections[report.rejection or "no reason given"] += 1
        if len(found.rejected) < MOST_LISTED:
            found.rejected.append(row)
        return
    found.accepted += 1
    found.on_server_host += report.on_server_host
    _count(found.sensors, report.sensor)
    _count(found.trackers, report.tracker)
    _count(found.countries, report.country)
    if report.outlier:
        found.outliers[report.client] += 1
    if report.looks_cumulative:
        found.cumulative[report.client] += 1
    if not report.on_server_host and report.carbon_intensity_g_per_kwh is not None:
        found.intensity.add(report.carbon_intensity_g_per_kwh)
    said, counted = report.emissions_kg, report.counted_emissions_kg
    if said is not None and counted is not None:
        found.less += counted < said
        found.more += counted > said


def _count(counter: Counter[Any], word: str | None) -> None:
    """One more of a word; a client makes up its words, so only so many different ones are kept."""
    counter[word if word in counter or len(counter) < MOST_WORDS else OTHER] += 1
