"""What the tests of exports and ``/metrics`` share: runs made step by step, and readers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from math import fsum
from typing import Any, Final

from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from telemetry.domain import JOULES_PER_KWH, Factors, Lap, Outcome, RoundRecord, RunInfo
from telemetry.exporters import FORMATS
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.store import Store, open_store
from telemetry.testing import (
    OWNER,
    RUN_ID,
    START,
    make_lap,
    make_participant,
    make_report,
    make_round,
    make_run,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

BACKENDS: Final = ("memory", "sqlite")
PUE_FACTORS: Final = Factors(
    server_carbon_intensity_g_per_kwh=174.0, intensity_source="made up", pue=1.3
)
_numbers = count()


@contextmanager
def opened(backend: str, sqlite_url: str) -> Iterator[Store]:
    """A store of that kind, closed at the end."""
    store = open_store("memory://" if backend == "memory" else sqlite_url)
    try:
        yield store
    finally:
        store.close()


def a_run(store: Store, *rounds: RoundRecord, **facts: Any) -> RunInfo:
    """A stored run with these rounds."""
    info = make_run(**facts)
    store.start_run(info, OWNER, START)
    for record in rounds:
        store.record_round(record)
    return info


def exported(store: Store, name: str = "csv", run_id: str = RUN_ID) -> str:
    """An export as text, its line ends untouched."""
    out = io.StringIO(newline="")
    FORMATS[name].write(store, run_id, out)
    return out.getvalue()


def table(store: Store, name: str = "csv", run_id: str = RUN_ID) -> list[dict[str, str]]:
    """A CSV export read back by the standard library."""
    return list(csv.DictReader(io.StringIO(exported(store, name, run_id), newline=""), strict=True))


def registry_of(store: Store, **options: Any) -> CollectorRegistry:
    """A registry as an FL server has it, at the moment `START`."""
    options = {"clock": lambda: START, **options}
    return metrics_registry(EmissionsCollector(store, OWNER, **options))


def samples(registry: CollectorRegistry, *types: str, run_id: str = RUN_ID) -> Samples:
    """A run's samples, of these types (all by default), by name and other labels."""
    return {
        (sample.name, frozenset(item for item in sample.labels.items() if item[0] != "run_id")): (
            sample.value
        )
        for metric in registry.collect()
        if not types or metric.type in types
        for sample in metric.samples
        if sample.labels.get("run_id") == run_id
    }


def value(found: Samples, name: str, /, **labels: str) -> float | None:
    """One sample's value; None if there is no such sample."""
    return found.get((name, frozenset(labels.items())))


def column_sum(rows: list[dict[str, str]], name: str) -> float:
    """Sum of a column's known cells."""
    return fsum(float(row[name]) for row in rows if row[name])


# --- made-up runs ------------------------------------------------------------------------------

amounts = st.floats(min_value=0.0, max_value=50.0, allow_subnormal=False)
outcomes = st.sampled_from(("reported", "missing", "rejected", "failed"))


@dataclass(frozen=True)
class Content:
    """What one round came to."""

    laps: tuple[Lap, ...]
    clients: tuple[tuple[Outcome, float, float | None], ...]
    """Outcome, emissions in kg, energy in kWh."""
    late: float | None
    repeated: int
    metrics: dict[str, float]


laps = st.builds(
    lambda phase, kwh: make_lap(kwh, phase=phase),
    st.sampled_from(("setup", "configure", "wait", "aggregate")),
    st.none() | amounts,
)
contents = st.builds(
    Content,
    laps=st.lists(laps, max_size=3).map(tuple),
    clients=st.lists(st.tuples(outcomes, amounts, st.none() | amounts), max_size=3).map(tuple),
    late=st.none() | amounts,
    repeated=st.integers(0, 2),
    metrics=st.dictionaries(
        st.sampled_from(("accuracy", "loss", "a,b", 'q"')),
        st.floats(-1e6, 1e6),
        max_size=3,
    ),
)


def record_of(content: Content, number: int, **facts: Any) -> RoundRecord:
    """The round with that content."""
    nodes = [f"node-{place}" for place in range(len(content.clients))]
    participants, reports = [], []
    for node, (outcome, kg, kwh) in zip(nodes, content.clients, strict=True):
        words: dict[Outcome, float | str] = {"reported": kg, "rejected": "negative"}
        came_to = words.get(outcome, outcome)
        participants.append(make_participant(node, came_to))
        if outcome in ("reported", "rejected"):
            known = {"energy_kwh": kwh, "counted_energy_kwh": kwh}
            more = known if outcome == "reported" else {}
            reports.append(make_report(node, came_to, reported_round=number, **more))
    if content.late is not None and number > 0:
        reports.append(make_report("node-late", content.late, reported_round=number - 1, late=True))
    return make_round(
        number,
        **{
            "participants": tuple(participants),
            "reports": tuple(reports),
            "laps": content.laps,
            "reports_repeated": content.repeated,
            "train_metrics": content.metrics,
            "factors": PUE_FACTORS,
            **facts,
        },
    )


@dataclass
class Driver:
    """Plays steps on a run as a server would: revisions, closes, new attempts, repeats."""

    store: Store
    run_id: str = field(default_factory=lambda: f"run-{next(_numbers):06d}")
    number: int = 0
    attempt: int = 1
    revision: int = 0
    last: RoundRecord | None = None

    def start(self) -> None:
        """Store the run."""
        started_at = datetime.now(UTC)
        self.store.start_run(make_run(self.run_id, started_at=started_at), OWNER, started_at)

    def play(self, step: str, content: Content) -> None:
        """One step."""
        if step == "late":
            self.store.add_late_reports(self.run_id, 1)
        elif step == "repeat":
            if self.last is not None:
                self.store.record_round(self.last)
        else:
            self._record(content, closed=step != "revise")
            if step == "close":
                self.number, self.attempt, self.revision = self.number + 1, 1, 0
            elif step == "try again":
                self.attempt, self.revision = self.attempt + 1, 0

    def _record(self, content: Content, *, closed: bool) -> None:
        self.last = record_of(
            content,
            self.number,
            run_id=self.run_id,
            attempt=self.attempt,
            revision=self.revision,
            closed=closed,
            status="completed" if closed else "running",
        )
        self.revision += 1
        self.store.record_round(self.last)


steps = st.lists(
    st.tuples(
        st.sampled_from(("revise", "revise", "close", "close", "try again", "repeat", "late")),
        contents,
    ),
    min_size=1,
    max_size=8,
)


def joules(kwh: float | None) -> float | None:
    """For comparison with a sample."""
    return None if kwh is None else kwh * JOULES_PER_KWH
