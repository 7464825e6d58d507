"""*Service health*: requests, errors, durations, deliveries, and what telemetry itself costs. Prometheus."""

from __future__ import annotations

from typing import Final

from grafana.fields import (
    BUDGET,
    CLIENTS,
    PROGRESS,
    QUIET,
    SERVER,
    Json,
    arranged,
    colored,
    fixed,
    of,
    steps,
)
from grafana.frame import (
    JOB_VARIABLE,
    PROMETHEUS_VARIABLE,
    Row,
    Section,
    dashboard,
    label_values,
    marks,
)
from grafana.panels import now, over_time, rows, series, stat, table

UID: Final = "fl-service-health"
_HERE: Final = 'job=~"$job",instance=~"$instance"'


def of_process(metric: str, **labels: str) -> str:
    """A series of the chosen processes."""
    chosen = "".join(f",{name}{value}" for name, value in labels.items())
    return f"{metric}{{{_HERE}{chosen}}}"


def rate(metric: str, by: str, **labels: str) -> str:
    """A second, added up."""
    return f"sum by ({by}) (rate({of_process(metric, **labels)}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', ', '.join(('le', by)).rstrip(', '))})"


# --- tiles ---------------------------------------------------------------------------------------


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
        thresholds=steps((None, "text"), (1, CLIENTS), (20, BUDGET)),
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
        no_value="nothing yet",
    )


# --- requests ------------------------------------------------------------------------------------


def _requests() -> Json:
    return series(
        "Requests, by route",
        """HTTP requests a second by the template of their route; scrapes and health checks included.""",
        [over_time(rate("fl_http_requests_total", "route"), "{{route}}")],
        unit="reqps",
        min=0,
    )


def _failures() -> Json:
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


def _durations() -> Json:
    metric = "fl_http_request_duration_seconds"
    return series(
        "Duration of requests",
        """From a request's head to the last byte of its answer: median, 95th and 99th percentile over all
        routes, estimated within the histogram's buckets.""",
        [
            over_time(_quantile(0.5, metric, ""), "50 %", "A"),
            over_time(_quantile(0.95, metric, ""), "95 %", "B"),
            over_time(_quantile(0.99, metric, ""), "99 %", "C"),
        ],
        unit="s",
        min=0,
        overrides=colored({"50 %": PROGRESS, "95 %": CLIENTS, "99 %": BUDGET}),
    )


def _slowest() -> Json:
    return series(
        "95th percentile, by route",
        """Of the duration of requests, for each route; the page of metrics and streamed exports take longest.""",
        [over_time(_quantile(0.95, "fl_http_request_duration_seconds", "route"), "{{route}}")],
        unit="s",
        min=0,
    )


# --- deliveries ----------------------------------------------------------------------------------


def _waiting_rounds() -> Json:
    return series(
        "Rounds not delivered",
        """Of each FL server: rounds that are not where they belong. They are kept, and come again.""",
        [over_time(of_process("fl_telemetry_undelivered_rounds"), "{{instance}}")],
        unit="none",
        drawn={"axisSoftMax": 5},
        min=0,
        no_value="no FL server in this time",
    )


def _deliveries() -> Json:
    return series(
        "Deliveries, by outcome",
        """What became of what FL servers delivered, a second. Repeated: all of it was known. Refused: what it
        says cannot be taken. Failed: the database could not be written. Busy: sent away with 503.""",
        [over_time(rate("fl_ingest_deliveries_total", "outcome"), "{{outcome}}")],
        unit="ops",
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


def _writes() -> Json:
    metric = "fl_store_write_duration_seconds"
    return series(
        "Duration of writes",
        """Of one round in an FL server, of up to 64 deliveries in one transaction in a telemetry service;
        waiting for their turn is not in it. Empty while nothing is written.""",
        [
            over_time(_quantile(0.5, metric, "job"), "{{job}}, 50 %", "A"),
            over_time(_quantile(0.95, metric, "job"), "{{job}}, 95 %", "B"),
        ],
        unit="s",
        min=0,
    )


def _queue() -> Json:
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


# --- errors --------------------------------------------------------------------------------------


def _by_stage() -> Json:
    return series(
        "Errors of telemetry, by stage",
        """Failures a second, where they happened; the log names each kind once.""",
        [over_time(rate("fl_telemetry_errors_total", "stage"), "{{stage}}")],
        unit="ops",
        drawn={"axisSoftMax": 0.1},
        min=0,
    )


def _refusals() -> Json:
    return series(
        "Refused for want of a token",
        """HTTP requests and calls of FL clients a second.""",
        [over_time(rate("fl_auth_failures_total", "instance"), "{{instance}}")],
        unit="ops",
        drawn={"axisSoftMax": 0.1},
        min=0,
    )


# --- what it costs -------------------------------------------------------------------------------


def _overhead() -> Json:
    return series(
        "Training time that telemetry takes",
        """Share of the training thread's time that telemetry took, of each FL server. What other threads do
        meanwhile is in the CPU time beside it.""",
        [
            over_time(
                f"sum by (instance) (rate({of_process('fl_telemetry_overhead_seconds_total')}[$__rate_interval]))",
                "{{instance}}",
            )
        ],
        unit="percentunit",
        min=0,
        no_value="no FL server in this time",
    )


def _cpu() -> Json:
    return series(
        "CPU time",
        """CPU seconds a second: 100 % is one core. Of an FL server the whole process, training's work on the
        server included.""",
        [
            over_time(
                f"sum by (job, instance) (rate({of_process('process_cpu_seconds_total')}[$__rate_interval]))",
                "{{job}} {{instance}}",
            )
        ],
        unit="percentunit",
        min=0,
    )


def _memory() -> Json:
    return series(
        "Memory",
        """Resident memory of each process.""",
        [over_time(of_process("process_resident_memory_bytes"), "{{job}} {{instance}}")],
        unit="bytes",
        min=0,
    )


def _page() -> Json:
    return series(
        "Series of runs on a page",
        """What `/metrics` shows of runs; dashed: the limit is far above, see the tile.""",
        [over_time(of_process("fl_exposed_series"), "{{job}} {{instance}}")],
        unit="none",
        min=0,
    )


def _scrapes() -> Json:
    return series(
        "Duration of scrapes",
        """How long Prometheus waited for each page of metrics; its limit is 4 s.""",
        [over_time(of_process("scrape_duration_seconds"), "{{job}} {{instance}}")],
        unit="s",
        min=0,
    )


def _processes() -> Json:
    return table(
        "Processes",
        """Who answers, with which version, and for how long.""",
        [
            rows(f"max by (job, instance, version) ({of_process('fl_build_info')})", "A"),
            rows(
                f"time() - max by (job, instance) ({of_process('process_start_time_seconds')})", "B"
            ),
            rows(f"max by (job, instance) ({of_process('process_open_fds')})", "C"),
        ],
        transformations=[
            {"id": "merge", "options": {}},
            arranged(
                hide=("Time", "Value #A"),
                rename={"Value #B": "for", "Value #C": "open files"},
                order=("job", "instance", "version", "Value #B", "Value #C"),
            ),
        ],
        overrides=[of("for", unit="dthms")],
        no_value="no process answers",
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
                [Row(8, [(8, _requests()), (8, _failures()), (8, _durations())])],
            ),
            Section(
                "Deliveries and the database",
                [
                    Row(8, [(8, _waiting_rounds()), (8, _deliveries()), (8, _queue())]),
                    Row(8, [(8, _writes()), (8, _slowest()), (8, _by_stage())]),
                ],
            ),
            Section(
                "What telemetry costs",
                [
                    Row(8, [(8, _overhead()), (8, _cpu()), (8, _memory())]),
                    Row(8, [(8, _page()), (8, _scrapes()), (8, _refusals())]),
                    Row(6, [(24, _processes())]),
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
