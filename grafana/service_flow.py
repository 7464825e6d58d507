"""Requests, deliveries and writes: charts of *Service health*."""

from __future__ import annotations

from grafana.fields import BUDGET, CLIENTS, PROGRESS, SERVER, Json, colored
from grafana.panels import over_time, series
from grafana.service_queries import of_process, quantile, rate


def requests() -> Json:
    """By route."""
    return series(
        "Requests, by route",
        """HTTP requests a second by the template of their route; scrapes and health checks included.""",
        [over_time(rate("fl_http_requests_total", "route"), "{{route}}")],
        unit="reqps",
        min=0,
    )


def failures() -> Json:
    """Shares."""
    everything = rate("fl_http_requests_total", "")

    def share(of_status: str) -> str:
        answered = rate("fl_http_requests_total", "", status=f'=~"{of_status}"')
        return f"({answered} or vector(0)) / {everything}"

    return series(
        "Requests that failed",
        """Share of requests that were answered with an error of the service itself (5xx) and of those that
        were refused (4xx).""",
        [
            over_time(share("5.."), "5xx", "A"),
            over_time(share("4.."), "4xx", "B"),
        ],
        unit="percentunit",
        min=0,
        drawn={"axisSoftMax": 0.05},
        overrides=colored({"5xx": BUDGET, "4xx": CLIENTS}),
    )


def durations() -> Json:
    """Percentiles."""
    metric = "fl_http_request_duration_seconds"
    return series(
        "Duration of requests",
        """From a request's head to the last byte of its answer: median, 95th and 99th percentile over all
        routes, estimated within the histogram's buckets.""",
        [
            over_time(quantile(0.5, metric, ""), "50 %", "A"),
            over_time(quantile(0.95, metric, ""), "95 %", "B"),
            over_time(quantile(0.99, metric, ""), "99 %", "C"),
        ],
        unit="s",
        min=0,
        overrides=colored({"50 %": PROGRESS, "95 %": CLIENTS, "99 %": BUDGET}),
    )


def slowest() -> Json:
    """A route each."""
    return series(
        "95th percentile, by route",
        """Of the duration of requests, for each route; the page of metrics and streamed exports take longest.""",
        [over_time(quantile(0.95, "fl_http_request_duration_seconds", "route"), "{{route}}")],
        unit="s",
        min=0,
    )


def waiting_rounds() -> Json:
    """A server each."""
    return series(
        "Rounds not delivered",
        """Of each FL server: rounds that are not where they belong. They are kept, and come again.""",
        [over_time(of_process("fl_telemetry_undelivered_rounds"), "{{instance}}")],
        unit="none",
        drawn={"axisSoftMax": 5},
        min=0,
        no_value="no FL server in this time",
    )


def deliveries() -> Json:
    """By outcome."""
    return series(
        "Deliveries, by outcome",
        """What became of what FL servers delivered, a second. Repeated: all of it was known. Refused: what it
        says cannot be taken. Failed: the database could not be written. Busy: sent away with 503.""",
        [over_time(rate("fl_ingest_deliveries_total", "outcome"), "{{outcome}}")],
        unit="ops",
        drawn={"axisSoftMax": 1},
        min=0,
        overrides=colored(
            {
                "stored": PROGRESS,
                "repeated": SERVER,
                "refused": BUDGET,
                "failed": "#CC79A7",
                "busy": CLIENTS,
            }
        ),
        no_value="no telemetry service",
    )


def writes() -> Json:
    """Percentiles."""
    metric = "fl_store_write_duration_seconds"
    return series(
        "Duration of writes",
        """Of one round in an FL server, of up to 64 deliveries in one transaction in a telemetry service;
        waiting for their turn is not in it. Empty while nothing is written.""",
        [
            over_time(quantile(0.5, metric, "job"), "{{job}}, 50 %", "A"),
            over_time(quantile(0.95, metric, "job"), "{{job}}, 95 %", "B"),
        ],
        unit="s",
        min=0,
    )


def queue() -> Json:
    """How many."""
    return series(
        "Deliveries that wait",
        """Taken in and not written yet; beyond 512 senders are told to come again. Failing: 1 while the last
        write failed.""",
        [
            over_time(f"sum({of_process('fl_ingest_waiting_deliveries')})", "waiting", "A"),
            over_time(f"max({of_process('fl_ingest_failing')})", "failing", "B"),
        ],
        unit="none",
        drawn={"axisSoftMax": 5},
        min=0,
        overrides=colored({"waiting": SERVER, "failing": BUDGET}),
        no_value="no telemetry service",
    )
