"""Errors, and what telemetry itself costs: charts of *Service health*."""

from __future__ import annotations

from grafana.fields import Json, arranged, of
from grafana.panels import over_time, rows, series, table
from grafana.service_queries import of_process, rate


def by_stage() -> Json:
    """Errors."""
    return series(
        "Errors of telemetry, by stage",
        """Failures a second, where they happened; the log names each kind once.""",
        [over_time(rate("fl_telemetry_errors_total", "stage"), "{{stage}}")],
        unit="ops",
        drawn={"axisSoftMax": 0.1},
        min=0,
    )


def refusals() -> Json:
    """An instance each."""
    return series(
        "Refused for want of a token",
        """HTTP requests and calls of FL clients a second.""",
        [over_time(rate("fl_auth_failures_total", "instance"), "{{instance}}")],
        unit="ops",
        drawn={"axisSoftMax": 0.1},
        min=0,
    )


def overhead() -> Json:
    """A share."""
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


def cpu() -> Json:
    """A process each."""
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


def memory() -> Json:
    """A process each."""
    return series(
        "Memory",
        """Resident memory of each process.""",
        [over_time(of_process("process_resident_memory_bytes"), "{{job}} {{instance}}")],
        unit="bytes",
        min=0,
    )


def page() -> Json:
    """A process each."""
    return series(
        "Series of runs on a page",
        """What `/metrics` shows of runs; how much of the limit that is stands in the tile above.""",
        [over_time(of_process("fl_exposed_series"), "{{job}} {{instance}}")],
        unit="none",
        min=0,
    )


def scrapes() -> Json:
    """A target each."""
    return series(
        "Duration of scrapes",
        """How long Prometheus waited for each page of metrics; its limit is 4 s.""",
        [over_time(of_process("scrape_duration_seconds"), "{{job}} {{instance}}")],
        unit="s",
        min=0,
    )


def processes() -> Json:
    """A row each."""
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
