"""Stored runs side by side: SQL on the views, for *Fleet*."""

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
    matching,
    of,
    words,
)
from grafana.panels import bars, categories, scatter, select, table

CHOSEN: Final = """$__timeFilter(r.started_at)
      AND r.strategy = ANY (ARRAY[${strategy:sqlstring}]::text[]) AND r.run_name = ANY (ARRAY[${run_name:sqlstring}]::text[])"""
"""An array: of a database without runs Grafana puts nothing at all between the brackets."""
MEASURED: Final = "(r.server_emissions_kg IS NOT NULL OR r.clients_emissions_kg IS NOT NULL)"
"""Something of the run is known; a round that nobody took part in counts 0, which is no knowledge."""
KWH: Final = """CASE WHEN r.server_energy_kwh IS NOT NULL OR r.clients_energy_kwh IS NOT NULL
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


def to_run(run: str, start: str, end: str) -> Json:
    """A click on a run shows it, at its time."""
    return {
        "title": "show the run",
        "url": f"/d/fl-run-overview?var-run_id={run}&from={start}&to={end}&${{datasource:queryparam}}",
        "targetBlank": False,
    }


def comparison() -> Json:
    """The table."""
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
      CASE WHEN {MEASURED} THEN r.total_emissions_kg * 1000 END AS "CO2eq",
      v.grams_per_point AS "per point",
      ({KWH}) * 1000 AS energy,
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
    WHERE {CHOSEN}
    ORDER BY r.started_at DESC
    LIMIT 200""")
        ],
        overrides=[
            of(
                "name",
                unit="string",
                custom__width=140,
                links=[
                    to_run(
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
                fieldMinMax=True,
                color=fixed(EMITTED),
                custom__cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
            ),
            of("per point", unit="massg", custom__width=85),
            of("energy", unit="watth", custom__width=85),
            of("reported", unit="percentunit", decimals=0, custom__width=75),
            of("g/kWh", decimals=0, custom__width=60),
            of("sensor", mappings=SENSORS, custom__width=90),
            matching("^(run|begin_ms|end_ms)$", custom__hidden=True),
        ],
    )


def per_day() -> Json:
    """Bars over days."""
    return categories(
        "CO2eq of each day (UTC)",
        """Measured emissions by the day on which a round closed, in UTC, servers and clients on one another;
        of a run whose rounds were pruned, all on the day of its end. No bar on days without a round. At least two weeks are shown.""",
        [
            select("""
    WITH amounts AS (
      SELECT d.ended_at, d.server_emissions_kg, d.clients_emissions_kg
      FROM v_round d JOIN v_run r ON r.run_id = d.run_id
      WHERE d.closed AND $__timeFilter(d.ended_at)
        AND r.strategy = ANY (ARRAY[${strategy:sqlstring}]::text[]) AND r.run_name = ANY (ARRAY[${run_name:sqlstring}]::text[])
      UNION ALL
      SELECT r.ended_at, r.server_emissions_kg, r.clients_emissions_kg
      FROM v_run r
      WHERE $__timeFilter(r.ended_at)
        AND r.strategy = ANY (ARRAY[${strategy:sqlstring}]::text[]) AND r.run_name = ANY (ARRAY[${run_name:sqlstring}]::text[])
        AND NOT EXISTS (SELECT 1 FROM v_round d WHERE d.run_id = r.run_id)
    ),
    days AS (
      SELECT generate_series(
        date_trunc('day', LEAST(
          GREATEST($__timeFrom()::timestamptz, MIN(ended_at) - INTERVAL '30 days'),
          MAX(ended_at) - INTERVAL '13 days') AT TIME ZONE 'UTC'),
        date_trunc('day', LEAST($__timeTo()::timestamptz, MAX(ended_at) + INTERVAL '30 days')
          AT TIME ZONE 'UTC'), '1 day') AS day
      FROM amounts HAVING COUNT(*) > 0
    )
    SELECT
      to_char(day, CASE
        WHEN (SELECT MAX(day) - MIN(day) FROM days) > INTERVAL '330 days' THEN 'YYYY-MM-DD'
        ELSE 'DD Mon' END) AS day,
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


def by_strategy(title: str, description: str, figure: str) -> Json:
    """Bars, a strategy each."""
    return bars(
        title,
        description,
        [
            select(f"""
    SELECT r.strategy, {figure} AS "CO2eq"
    FROM v_run r LEFT JOIN LATERAL (SELECT * FROM v_run_value v WHERE v.run_id = r.run_id) v ON true
    WHERE {CHOSEN} AND {MEASURED}
    GROUP BY r.strategy HAVING {figure} IS NOT NULL
    ORDER BY 2 DESC LIMIT 12""")
        ],
        unit="massg",
        name="strategy",
        each_row=True,
        color=fixed(EMITTED),
        no_value="no measured run in this time",
    )


def front() -> Json:
    """Points, a run each."""
    return scatter(
        "Best $value_metric against CO2eq, a point each run",
        """Up and left is better (of a loss: down and left): more reached for less. Measured emissions of closed
        rounds. Compare runs only where coverage, sensor and carbon intensity are alike.""",
        [
            select(f"""
    SELECT r.total_emissions_kg * 1000 AS "CO2eq", v.best_value AS best, r.run_name AS name, r.strategy
    FROM v_run r JOIN LATERAL (SELECT * FROM v_run_value v WHERE v.run_id = r.run_id) v ON true
    WHERE {CHOSEN} AND {MEASURED} AND r.total_emissions_kg > 0
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
