"""*Fleet*: all runs of a telemetry service, side by side. PostgreSQL, and Prometheus for what trains now."""

from __future__ import annotations

from typing import Final

from grafana.fields import EMITTED, PROGRESS, Json, arranged, fixed, joined, of
from grafana.fleet_runs import (
    CHOSEN,
    KWH,
    MEASURED,
    by_strategy,
    comparison,
    front,
    per_day,
    to_run,
)
from grafana.frame import (
    JOB_VARIABLE,
    PROMETHEUS_VARIABLE,
    SQL_VARIABLE,
    Row,
    Section,
    dashboard,
    selected,
    sql_marks,
)
from grafana.panels import now, over_time, rows, select, series, stat, table

UID: Final = "fl-fleet"


def _tiles() -> Row:
    return Row(
        4,
        [
            (4, _count()),
            (5, _emitted()),
            (5, _energy()),
            (5, _coverage()),
            (5, _active()),
        ],
    )


def _count() -> Json:
    return stat(
        "Runs",
        """Runs that started in the time range and are chosen above.""",
        [select(f"SELECT COUNT(*) AS runs FROM v_run r WHERE {CHOSEN}")],
    )


def _emitted() -> Json:
    return stat(
        "CO2eq of these runs",
        """Measured emissions of their closed rounds, servers and reporting clients, with PUE. Runs that are
        not tracked add nothing.""",
        [
            select(f"""
    SELECT SUM(r.total_emissions_kg) * 1000 AS "CO2eq"
    FROM v_run r WHERE {CHOSEN} AND {MEASURED}""")
        ],
        unit="massg",
        color=fixed(EMITTED),
    )


def _energy() -> Json:
    return stat(
        "Energy of these runs",
        """At the meters, before PUE: servers, and clients whose reports carry an energy.""",
        [
            select(f"""
    SELECT SUM({KWH}) * 1000 AS energy
    FROM v_run r WHERE {CHOSEN}""")
        ],
        unit="watth",
    )


def _coverage() -> Json:
    return stat(
        "Coverage",
        """Of all times that a client was selected: how often its report on training was accepted.""",
        [
            select(f"""
    SELECT SUM(d.reported)::float / NULLIF(SUM(d.participants), 0) AS coverage
    FROM v_run r JOIN v_round d ON d.run_id = r.run_id
    WHERE {CHOSEN} AND d.closed AND d.tracked""")
        ],
        unit="percentunit",
        decimals=0,
    )


def _active() -> Json:
    return stat(
        "Training now",
        """Runs whose server said in the last minute that it trains.""",
        [now('sum(max by (run_id) (fl_run_active{job=~"$job"}))', "runs")],
        color=fixed(PROGRESS),
        no_value="0",
    )


def _training_now() -> Json:
    def of_active(metric: str, by: str = "run_id", labels: str = "") -> str:
        return (
            f'max by ({by}) ({metric}{{job=~"$job"{labels}}})'
            ' and on (run_id) (max by (run_id) (fl_run_active{job=~"$job"}) == 1)'
        )

    return table(
        "Active now",
        """Runs that train at the end of the time range. CO2eq: measured so far, the open round included. A
        click on a run shows it.""",
        [
            rows(of_active("fl_run_info", "run_id, run_name, strategy"), "A"),
            rows(of_active("fl_run_round"), "B"),
            rows(of_active("fl_run_rounds_planned"), "C"),
            rows(of_active("fl_run_emissions_co2eq_grams"), "D"),
            rows(of_active("fl_emissions_coverage_ratio"), "E"),
            rows(of_active("fl_emissions_budget_used_ratio"), "F"),
            rows(f"time() - ({of_active('fl_run_start_timestamp_seconds')})", "G"),
        ],
        transformations=[
            joined("run_id"),
            arranged(
                hide=("Time", *(f"Time {number}" for number in range(1, 8)), "Value #A"),
                rename={
                    "run_id": "run",
                    "run_name": "name",
                    "Value #B": "round",
                    "Value #C": "planned",
                    "Value #D": "CO2eq",
                    "Value #E": "reported",
                    "Value #F": "budget used",
                    "Value #G": "for",
                },
                order=(
                    "run_id", "run_name", "strategy", "Value #B", "Value #C", "Value #D", "Value #E",
                    "Value #F", "Value #G",
                ),
            ),
        ],
        overrides=[
            of("run", unit="string", custom__width=180, links=[to_run("${__value.raw}", "now-1h", "now")]),
            of("CO2eq", unit="massg"),
            of("reported", unit="percentunit", decimals=0),
            of("budget used", unit="percentunit", decimals=0),
            of("for", unit="dthms"),
        ],
        no_value="nothing trains now",
    )  # fmt: skip


def _live() -> Json:
    return series(
        "Emissions of what trains",
        """Measured emissions so far of each run that trains, the open round included. Marks: runs.""",
        [
            over_time(
                'max by (run_id, run_name) (fl_run_info{job=~"$job"})'
                ' * on (run_id) group_left () max by (run_id) (fl_run_emissions_co2eq_grams{job=~"$job"})'
                ' and on (run_id) (max by (run_id) (fl_run_active{job=~"$job"}) == 1)',
                "{{run_name}} {{run_id}}",
            )
        ],
        unit="massg",
        min=0,
        no_value="nothing trained in this time",
    ) | {"timeFrom": "1h"}


def build() -> Json:
    """The dashboard."""
    return dashboard(
        UID,
        """Every run of the service: what it emitted, what it reached, and what trains now.""",
        sections=[
            Section("", [_tiles()]),
            Section("Comparison", [Row(10, [(24, comparison())])]),
            Section(
                "Where it went",
                [
                    Row(9, [(12, per_day()), (12, front())]),
                    Row(
                        8,
                        [
                            (
                                12,
                                by_strategy(
                                    "CO2eq by strategy",
                                    "Measured emissions of the runs of each strategy, added up.",
                                    "SUM(r.total_emissions_kg) * 1000",
                                ),
                            ),
                            (
                                12,
                                by_strategy(
                                    "CO2eq per point, by strategy",
                                    """Median over the runs of a strategy of grams per point, from the first
                                    value to the best.""",
                                    "PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY v.grams_per_point)",
                                ),
                            ),
                        ],
                    ),
                ],
            ),
            Section("Active now", [Row(5, [(24, _training_now())]), Row(7, [(24, _live())])]),
        ],
        variables=[
            PROMETHEUS_VARIABLE,
            SQL_VARIABLE,
            JOB_VARIABLE,
            selected(
                "strategy",
                "Strategy",
                "SELECT DISTINCT strategy AS __value, strategy AS __text FROM v_run ORDER BY 1",
                several=True,
            ),
            selected(
                "run_name",
                "Name",
                "SELECT DISTINCT run_name AS __value, run_name AS __text FROM v_run ORDER BY 1",
                several=True,
            ),
            selected(
                "value_metric",
                "Value",
                """
    SELECT value_metric AS __value, value_metric AS __text
    FROM (
      SELECT value_metric, COUNT(*) AS runs FROM v_run GROUP BY value_metric
      UNION ALL SELECT 'accuracy', 0 WHERE NOT EXISTS (SELECT 1 FROM v_run)
    ) metrics
    ORDER BY runs DESC, value_metric""",
            ),
        ],
        annotations=[
            sql_marks(
                "Runs",
                """
    SELECT
      r.started_at AS time,
      COALESCE(r.ended_at, r.last_seen_at) AS timeend,
      r.run_name || ' · ' || r.strategy || ' (' || r.status || ')' AS text,
      'run' AS tags
    FROM v_run r
    WHERE $__timeFilter(r.started_at) ORDER BY r.started_at DESC LIMIT 100""",
            )
        ],
        start="now-30d",
        refresh="1m",
    )
