"""*Service health*: requests, errors, durations, deliveries, and what telemetry itself costs. Prometheus."""

from __future__ import annotations

from typing import Final

from grafana.fields import BUDGET, CLIENTS, QUIET, Json, fixed, of, steps
from grafana.frame import (
    JOB_VARIABLE,
    PROMETHEUS_VARIABLE,
    Row,
    Section,
    dashboard,
    label_values,
    marks,
)
from grafana.panels import now, stat
from grafana.service_cost import by_stage, cpu, memory, overhead, page, processes, refusals, scrapes
from grafana.service_flow import (
    deliveries,
    durations,
    failures,
    queue,
    requests,
    slowest,
    waiting_rounds,
    writes,
)
from grafana.service_queries import of_process

UID: Final = "fl-service-health"


def _tiles() -> Row:
    return Row(
        4,
        [
            (4, _up()),
            (4, _undelivered()),
            (4, _oldest()),
            (4, _errors()),
            (4, _series_used()),
            (4, _stored()),
        ],
    )


def _up() -> Json:
    return stat(
        "Answering",
        """Scrapes that succeeded just now, of all that Prometheus tries. An FL server goes when its run has
        ended: that is no fault.""",
        [
            now(f"sum({of_process('up')})", "up", "A"),
            now(f"count({of_process('up')})", "of", "B"),
        ],
        text="value_and_name",
        overrides=[of("of", color=fixed(QUIET))],
    )


def _undelivered() -> Json:
    return stat(
        "Undelivered rounds",
        """Rounds that are not in the store yet, or not with the service where one is set, and those lost for
        good; all chosen FL servers together; – where
        none is scraped.""",
        [now(f"sum({of_process('fl_telemetry_undelivered_rounds')})", "rounds")],
        color={"mode": "thresholds"},
        thresholds=steps((None, "text"), (5, CLIENTS), (20, BUDGET)),
        no_value="–",
    )


def _oldest() -> Json:
    return stat(
        "Oldest undelivered",
        """For how long the oldest round, or end of a run, has waited to be acknowledged by the service; – where no
        FL server has one set.""",
        [now(f"max({of_process('fl_telemetry_oldest_undelivered_seconds')})", "waits")],
        unit="dthms",
        color={"mode": "thresholds"},
        thresholds=steps((None, "text"), (60, CLIENTS), (300, BUDGET)),
        no_value="–",
    )


def _errors() -> Json:
    return stat(
        "Telemetry errors",
        """Failures of telemetry in the time range, all stages; training goes on through all of them.""",
        [now(f"sum(increase({of_process('fl_telemetry_errors_total')}[$__range]))", "errors")],
        decimals=0,
        color={"mode": "thresholds"},
        thresholds=steps((None, "text"), (1, CLIENTS)),
    )


def _series_used() -> Json:
    return stat(
        "Series of the limit",
        """Series of runs on the fullest page ÷ `max_series`. Above the limit the runs that ended first leave
        the page; nothing is lost in the database.""",
        [
            now(
                f"max({of_process('fl_exposed_series')} / {of_process('fl_exposed_series_limit')})",
                "used",
            )
        ],
        unit="percentunit",
        decimals=1,
        color={"mode": "thresholds"},
        thresholds=steps((None, "text"), (0.8, CLIENTS), (1, BUDGET)),
    )


def _stored() -> Json:
    return stat(
        "Last stored",
        """How long ago the telemetry service last stored something new; repeats do not count. While nothing
        trains it grows, and that is no fault.""",
        [now(f"time() - max({of_process('fl_ingest_last_stored_timestamp_seconds')})", "ago")],
        unit="dthms",
        no_value="–",
    )


def build() -> Json:
    """The dashboard."""
    return dashboard(
        UID,
        """Telemetry itself: requests, errors, durations, what is not delivered, and what it costs.""",
        sections=[
            Section("", [_tiles()]),
            Section(
                "Requests",
                [Row(8, [(8, requests()), (8, failures()), (8, durations())])],
            ),
            Section(
                "Deliveries and the database",
                [
                    Row(8, [(8, waiting_rounds()), (8, deliveries()), (8, queue())]),
                    Row(8, [(8, writes()), (8, slowest()), (8, by_stage())]),
                ],
            ),
            Section(
                "What telemetry costs",
                [
                    Row(8, [(8, overhead()), (8, cpu()), (8, memory())]),
                    Row(8, [(8, page()), (8, scrapes()), (8, refusals())]),
                    Row(6, [(24, processes())]),
                ],
            ),
        ],
        variables=[
            PROMETHEUS_VARIABLE,
            JOB_VARIABLE,
            label_values(
                "instance", "Instance", 'fl_build_info{job=~"$job"}', "instance", several=True
            ),
        ],
        annotations=[
            marks(
                "Restarts",
                f'count_values by (job, instance) ("began", {of_process("process_start_time_seconds")})'
                f" * on (job, instance) group_left ()"
                f" (max by (job, instance) ({of_process('process_start_time_seconds')}) * 1000)",
                "{{job}} {{instance}} started",
                useValueForTime=True,
            )
        ],
        start="now-1h",
        refresh="10s",
    )
