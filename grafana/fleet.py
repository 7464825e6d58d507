"""*Fleet*: all runs of a telemetry service, side by side. PostgreSQL, and Prometheus for what trains now."""

from __future__ import annotations

from typing import Final

from grafana.fields import (
    CLIENTS,
    EMITTED,
    PROGRESS,
    RATIO_NAMES,
    SENSORS,
    SERVER,
    Json,
    arranged,
    colored,
    fixed,
    joined,
    matching,
    of,
    words,
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
from grafana.panels import (
    EVERY_VALUE,
    bars,
    categories,
    now,
    over_time,
    rows,
    scatter,
    select,
    series,
    stat,
    table,
)

UID: Final = "fl-fleet"
_CHOSEN: Final = """$__timeFilter(r.started_at)
      AND r.strategy IN (${strategy:sqlstring}) AND r.run_name IN (${run_name:sqlstring})"""
_MEASURED: Final = "(r.server_emissions_kg IS NOT NULL OR r.clients_emissions_kg IS NOT NULL)"
"""Something of the run is known; a round that nobody took part in counts 0, which is no knowledge."""
_KWH: Final = """CASE WHEN r.server_energy_kwh IS NOT NULL OR r.clients_energy_kwh IS NOT NULL
        THEN COALESCE(r.server_energy_kwh, 0) + COALESCE(r.clients_energy_kwh, 0) END"""
STATUSES: Final = words(
    {
        "running": ("running", PROGRESS),
        "completed": ("completed", "text"),
        "failed": ("failed", "#D55E00"),
        "interrupted": ("interrupted", CLIENTS),
        "stopped_on_budget": ("at budget", CLIENTS),
    }
)


# --- tiles ---------------------------------------------------------------------------------------


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
        [select(f"SELECT COUNT(*) AS runs FROM v_run r WHERE {_CHOSEN}")],
    )


def _emitted() -> Json:
    return stat(
        "CO2eq of these runs",
        """Measured emissions of their closed rounds, servers and reporting clients, with PUE. Runs that are
        not tracked add nothing.""",
        [
            select(f"""
    SELECT SUM(r.total_emissions_kg) * 1000 AS "CO2eq"
    FROM v_run r WHERE {_CHOSEN} AND {_MEASURED}""")
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
    SELECT SUM({_KWH}) * 1000 AS energy
    FROM v_run r WHERE {_CHOSEN}""")
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
    WHERE {_CHOSEN} AND d.closed AND d.tracked""")
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


# --- what trains now -----------------------------------------------------------------------------


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
            of("run", unit="string", links=[_to_run("${__value.raw}", "now-1h", "now")]),
            of("CO2eq", unit="massg"),
            of("reported", unit="percentunit", decimals=0),
            of("budget used", unit="percentunit", decimals=0),
            of("for", unit="dthms"),
        ],
        no_value="nothing trains now",
    )  # fmt: skip


def _to_run(run: str, start: str, end: str) -> Json:
    return {
        "title": "show the run",
        "url": f"/d/fl-run-overview?var-run_id={run}&from={start}&to={end}&${{datasource:queryparam}}",
        "targetBlank": False,
    }


# --- comparison ----------------------------------------------------------------------------------


def _comparison() -> Json:
    return table(
        "Runs, side by side",
        """Measured emissions against what was reached. Best: of the run's value metric, in the clients'
        evaluation where it has one. Per point: grams from the first value to the best ÷ points (0.01)
        gained, as `fedserver runs compare` has it; empty where nothing was gained. Compare runs only where
        coverage, sensor and carbon intensity are alike. At most 200 runs, newest first; a click on a run
        shows it. g/kWh: the carbon intensity of the server.""",
        [
            select(f"""
    SELECT
      r.run_id AS run,
      r.run_name AS name,
      r.strategy,
      r.status,
      r.started_at AS started,
      EXTRACT(EPOCH FROM COALESCE(r.ended_at, r.last_seen_at) - r.started_at)::float AS duration,
      r.rounds_completed + r.rounds_partial + r.rounds_failed + r.rounds_interrupted AS rounds,
      v.metric,
      v.best_value AS best,
      CASE WHEN {_MEASURED} THEN r.total_emissions_kg * 1000 END AS "CO2eq",
      v.grams_per_point AS "per point",
      ({_KWH}) * 1000 AS energy,
      d.coverage AS reported,
      r.server_carbon_intensity_g_per_kwh AS "g/kWh",
      COALESCE(d.sensor, r.server_sensor) AS sensor,
      EXTRACT(EPOCH FROM r.started_at)::bigint * 1000 - 5000 AS begin_ms,
      EXTRACT(EPOCH FROM COALESCE(r.ended_at, r.last_seen_at))::bigint * 1000 + 60000 AS end_ms
    FROM v_run r
    LEFT JOIN LATERAL (SELECT * FROM v_run_value v WHERE v.run_id = r.run_id) v ON true
    LEFT JOIN LATERAL (
      SELECT
        SUM(d.reported)::float / NULLIF(SUM(d.participants), 0) AS coverage,
        MAX(d.server_sensor) FILTER (WHERE d.server_sensor <> 'unknown') AS sensor
      FROM v_round d WHERE d.run_id = r.run_id AND d.closed
    ) d ON true
    WHERE {_CHOSEN}
    ORDER BY r.started_at DESC
    LIMIT 200""")
        ],
        overrides=[
            of(
                "name",
                unit="string",
                links=[
                    _to_run(
                        "${__data.fields.run}",
                        "${__data.fields.begin_ms}",
                        "${__data.fields.end_ms}",
                    )
                ],
            ),
            of("strategy", unit="string", custom__width=95),
            of(
                "status",
                mappings=STATUSES,
                custom__cellOptions={"type": "color-text"},
                custom__width=95,
            ),
            of("started", unit="time:YYYY-MM-DD HH:mm", custom__width=130),
            of("duration", unit="dthms", custom__width=80),
            of("rounds", custom__width=65),
            of("metric", unit="string", custom__width=80),
            of("best", decimals=3, custom__width=60),
            of(
                "CO2eq",
                unit="massg",
                min=0,
                color=fixed(EMITTED),
                custom__cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
                custom__width=150,
            ),
            of("per point", unit="massg", custom__width=85),
            of("energy", unit="watth", custom__width=85),
            of("reported", unit="percentunit", decimals=0, custom__width=75),
            of("g/kWh", decimals=0, custom__width=60),
            of("sensor", mappings=SENSORS, custom__width=90),
            matching("^(run|begin_ms|end_ms)$", custom__hidden=True),
        ],
    )


def _per_day() -> Json:
    return categories(
        "CO2eq of each day (UTC)",
        """Measured emissions by the day on which a round closed, in UTC, servers and clients on one another;
        of a run whose rounds were pruned, all on the day of its end. No bar on days without a round.""",
        [
            select("""
    WITH amounts AS (
      SELECT d.ended_at, d.server_emissions_kg, d.clients_emissions_kg
      FROM v_round d JOIN v_run r ON r.run_id = d.run_id
      WHERE d.closed AND $__timeFilter(d.ended_at)
        AND r.strategy IN (${strategy:sqlstring}) AND r.run_name IN (${run_name:sqlstring})
      UNION ALL
      SELECT r.ended_at, r.server_emissions_kg, r.clients_emissions_kg
      FROM v_run r
      WHERE $__timeFilter(r.ended_at)
        AND r.strategy IN (${strategy:sqlstring}) AND r.run_name IN (${run_name:sqlstring})
        AND NOT EXISTS (SELECT 1 FROM v_round d WHERE d.run_id = r.run_id)
    ),
    days AS (
      SELECT generate_series(
        date_trunc('day', GREATEST($__timeFrom()::timestamptz, MIN(ended_at) - INTERVAL '30 days')
          AT TIME ZONE 'UTC'),
        date_trunc('day', LEAST($__timeTo()::timestamptz, MAX(ended_at) + INTERVAL '30 days')
          AT TIME ZONE 'UTC'), '1 day') AS day
      FROM amounts HAVING COUNT(*) > 0
    )
    SELECT
      to_char(day, 'YYYY-MM-DD') AS day,
      SUM(server_emissions_kg) * 1000 AS server,
      SUM(clients_emissions_kg) * 1000 AS clients
    FROM days LEFT JOIN amounts ON date_trunc('day', ended_at AT TIME ZONE 'UTC') = day
    GROUP BY days.day ORDER BY days.day""")
        ],
        x="day",
        unit="massg",
        overrides=[
            *colored({"server": SERVER, "clients": CLIENTS}),
            of("day", noValue=""),  # else what has no room for its label is labelled so
        ],
        no_value="no round closed in this time",
    )


def _by_strategy(title: str, description: str, figure: str) -> Json:
    return bars(
        title,
        description,
        [
            select(f"""
    SELECT r.strategy, {figure} AS "CO2eq"
    FROM v_run r LEFT JOIN LATERAL (SELECT * FROM v_run_value v WHERE v.run_id = r.run_id) v ON true
    WHERE {_CHOSEN} AND {_MEASURED}
    GROUP BY r.strategy HAVING {figure} IS NOT NULL
    ORDER BY 2 DESC LIMIT 12""")
        ],
        unit="massg",
        reduce=EVERY_VALUE,
        overrides=[
            of("CO2eq", color=fixed(EMITTED), displayName="${__data.fields.strategy}"),
        ],
        no_value="no measured run in this time",
    )


def _front() -> Json:
    return scatter(
        "Best $value_metric against CO2eq, a point each run",
        """Up and left is better (of a loss: down and left): more reached for less. Measured emissions of closed
        rounds. Compare runs only where coverage, sensor and carbon intensity are alike.""",
        [
            select(f"""
    SELECT r.total_emissions_kg * 1000 AS "CO2eq", v.best_value AS best, r.run_name AS name, r.strategy
    FROM v_run r JOIN LATERAL (SELECT * FROM v_run_value v WHERE v.run_id = r.run_id) v ON true
    WHERE {_CHOSEN} AND {_MEASURED} AND r.total_emissions_kg > 0
      AND v.metric = ${{value_metric:sqlstring}}
    ORDER BY 1""")
        ],
        unit="none",
        color=fixed(PROGRESS),
        transformations=[arranged(rename={"best": "$value_metric"})],
        overrides=[
            of(
                "CO2eq",
                unit="massg",
                custom__axisLabel="CO2eq of the run",
                custom__scaleDistribution={"type": "log", "log": 10},
            ),
            matching(RATIO_NAMES, unit="percentunit"),
        ],
        no_value="no measured run in this time",
    )


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
            Section("", [_tiles_row() for _tiles_row in (_tiles,)]),
            Section("Comparison", [Row(10, [(24, _comparison())])]),
            Section(
                "Where it went",
                [
                    Row(9, [(12, _per_day()), (12, _front())]),
                    Row(
                        8,
                        [
                            (
                                12,
                                _by_strategy(
                                    "CO2eq by strategy",
                                    "Measured emissions of the runs of each strategy, added up.",
                                    "SUM(r.total_emissions_kg) * 1000",
                                ),
                            ),
                            (
                                12,
                                _by_strategy(
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
            Section("Active now", [Row(7, [(12, _training_now()), (12, _live())])]),
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
    FROM v_run GROUP BY value_metric ORDER BY COUNT(*) DESC, value_metric""",
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
