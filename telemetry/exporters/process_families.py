"""The metric families that belong to no run: of the process that answers, its HTTP and its ingest.

A contract like `telemetry.exporters.families`. Every process that answers ``/metrics`` has those
``where`` says "process"; the others are an FL server's or the telemetry service's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from telemetry.durations import Distribution
from telemetry.exporters.family import Family, Sample


class ProcessFacts(Protocol):
    """What an FL server knows of its own telemetry; read at each scrape, from any thread."""

    @property
    def errors(self) -> Mapping[str, int]:
        """Failures so far, by stage."""
        ...

    @property
    def undelivered_rounds(self) -> int:
        """Rounds that are not where they belong yet, and those lost for good."""
        ...

    @property
    def oldest_undelivered_s(self) -> float | None:
        """Seconds for which the oldest has waited for the service; None where none is set."""
        ...

    @property
    def overhead_s(self) -> float:
        """Seconds of the training's own time that telemetry took so far."""
        ...


class WriteFacts(Protocol):
    """How long a store's writes took."""

    @property
    def so_far(self) -> Distribution:
        """All writes up to now."""
        ...


class RequestFacts(Protocol):
    """What was asked of a process over HTTP."""

    @property
    def answered(self) -> Mapping[tuple[str, str, str], int]:
        """Requests by (method, route, status)."""
        ...

    @property
    def durations(self) -> Mapping[tuple[str, str], Distribution]:
        """How long they took by (method, route), seconds."""
        ...


class IngestFacts(Protocol):
    """How the telemetry service's one writer stands."""

    @property
    def waiting(self) -> int:
        """Deliveries taken in and not written yet."""
        ...

    @property
    def problem(self) -> str | None:
        """Why the last write failed lately; None if it did not."""
        ...

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Deliveries so far by what became of them."""
        ...

    @property
    def last_stored_at(self) -> datetime | None:
        """When something new was last stored; None if nothing was."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessView:
    """The process at the moment of a scrape."""

    errors: Mapping[str, int]
    facts: ProcessFacts | None
    """None in a telemetry service, which trains nothing."""
    version: str
    series: int
    """Series of runs on this very page."""
    max_series: int


# --- samples -------------------------------------------------------------------------------------


def _errors(view: ProcessView) -> Iterator[Sample]:
    for stage, count in sorted(view.errors.items()):
        yield (stage,), count


def _undelivered(view: ProcessView) -> Iterator[Sample]:
    if view.facts is not None:
        yield (), view.facts.undelivered_rounds


def _oldest(view: ProcessView) -> Iterator[Sample]:
    oldest_s = None if view.facts is None else view.facts.oldest_undelivered_s
    if oldest_s is not None:
        yield (), oldest_s


def _overhead(view: ProcessView) -> Iterator[Sample]:
    if view.facts is not None:
        yield (), view.facts.overhead_s


def _requests(facts: RequestFacts) -> Iterator[Sample]:
    yield from sorted(facts.answered.items())


def _durations(facts: RequestFacts) -> Iterator[Sample]:
    for labels in sorted(durations := facts.durations):
        yield labels, durations[labels]


def _deliveries(facts: IngestFacts) -> Iterator[Sample]:
    for outcome, count in facts.outcomes.items():
        yield (outcome,), count


def _last_stored(facts: IngestFacts) -> Iterator[Sample]:
    if facts.last_stored_at is not None:
        yield (), facts.last_stored_at.timestamp()


def _elsewhere(_: Any) -> Iterator[Sample]:
    """None of ours: an instrument of Prometheus's library has them."""
    return iter(())


# --- the catalogue -------------------------------------------------------------------------------

PROCESS_FAMILIES: Final[tuple[Family[ProcessView], ...]] = (
    Family(
        "fl_build_info",
        "info",
        "Version of the program that answers.",
        lambda view: [((view.version,), 1.0)],
        ("version",),
        where="process",
    ),
    Family(
        "fl_exposed_series",
        "gauge",
        "Series of runs on this page, after what is above the limit was left out. Not in it: those "
        "of the process, which are bounded by themselves (a few hundred).",
        lambda view: [((), view.series)],
        where="process",
    ),
    Family(
        "fl_exposed_series_limit",
        "gauge",
        "Most series of runs on this page (max_series). Above it the runs that ended first are left "
        "out, then the oldest rounds of the others; totals of active runs never are.",
        lambda view: [((), view.max_series)],
        where="process",
    ),
    Family(
        "fl_telemetry_errors_total",
        "counter",
        "Failures of telemetry by stage; training goes on through all of them.",
        _errors,
        ("stage",),
        where="process",
    ),
    Family(
        "fl_telemetry_undelivered_rounds",
        "gauge",
        "Rounds that are not in the store yet, or not with the service where one is set, and those "
        "lost for good.",
        _undelivered,
        where="server",
    ),
    Family(
        "fl_telemetry_oldest_undelivered_seconds",
        "gauge",
        "Seconds for which the oldest round, or end of a run, has waited to be acknowledged by the "
        "service; absent where none is set.",
        _oldest,
        where="server",
    ),
    Family(
        "fl_telemetry_overhead_seconds_total",
        "counter",
        "Seconds of the training's own time that telemetry took. Not in it: what other threads do "
        "meanwhile.",
        _overhead,
        where="server",
    ),
)
"""Of `ProcessView`."""

STORE_FAMILIES: Final[tuple[Family[WriteFacts], ...]] = (
    Family(
        "fl_store_write_duration_seconds",
        "histogram",
        "Seconds that the store took for a write: of one round in an FL server, of up to 64 "
        "deliveries in one transaction in a telemetry service. Failed ones included, waiting for "
        "their turn not.",
        lambda facts: [((), facts.so_far)],
        where="process",
    ),
)

HTTP_FAMILIES: Final[tuple[Family[RequestFacts], ...]] = (
    Family(
        "fl_http_requests_total",
        "counter",
        "HTTP requests by method, template of the route and status; scrapes and health checks "
        'included. The route is "unmatched" where nothing is served, or where the request was refused '
        'before it was looked at; the status is "none" where the client went before the answer.',
        _requests,
        ("method", "route", "status"),
        where="process",
    ),
    Family(
        "fl_http_request_duration_seconds",
        "histogram",
        "Seconds from a request's head to the last byte of its answer, bodies and streamed exports "
        "included. Not in it: connections that were refused before a request.",
        _durations,
        ("method", "route"),
        where="process",
    ),
)

AUTH_FAILURES: Final[Family[Any]] = Family(
    "fl_auth_failures_total",
    "counter",
    "HTTP requests and FL calls refused for want of a valid token.",
    _elsewhere,
    where="process",
)

INGEST_FAMILIES: Final[tuple[Family[IngestFacts], ...]] = (
    Family(
        "fl_ingest_deliveries_total",
        "counter",
        "Deliveries of FL servers by what became of them: stored (something in it was news), repeated "
        "(nothing was), refused (what it says cannot be taken), failed (the database could not be "
        "written), busy (sent away with 503). Not in it: bodies that could not be read, and requests "
        "without a valid token.",
        _deliveries,
        ("outcome",),
        where="service",
    ),
    Family(
        "fl_ingest_waiting_deliveries",
        "gauge",
        "Deliveries that were taken in and are not written yet; beyond 512 senders are told to come "
        "again.",
        lambda facts: [((), facts.waiting)],
        where="service",
    ),
    Family(
        "fl_ingest_failing",
        "gauge",
        "1 while the last write of deliveries failed, at most ten seconds ago, else 0; senders keep "
        "what was not written.",
        lambda facts: [((), float(facts.problem is not None))],
        where="service",
    ),
    Family(
        "fl_ingest_last_stored_timestamp_seconds",
        "gauge",
        "When something new was last stored by this process, seconds since 1970 in UTC; absent until "
        "then. Repeats do not count.",
        _last_stored,
        where="service",
    ),
)

LIBRARY_FAMILIES: Final[tuple[Family[Any], ...]] = tuple(
    Family(name, kind, text, _elsewhere, labels, where="process")  # type: ignore[arg-type]
    for name, kind, text, labels in (
        ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", ()),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", ()),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", ()),
        ("process_open_fds", "gauge", "Number of open file descriptors.", ()),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors.", ()),
        ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", ()),
        ("python_info", "gauge", "Python platform information", ("implementation", "major", "minor", "patchlevel", "version")),
    )
)  # fmt: skip
"""What Prometheus's library for Python says of a process (on Linux), in its own words."""
