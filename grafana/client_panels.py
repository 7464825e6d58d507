"""Coverage, emissions and oddities of a run's clients: SQL on the views, for *Clients*."""

from __future__ import annotations

from typing import Final

from grafana.fields import (
    CLIENTS,
    EMITTED,
    OUTCOMES,
    QUIET,
    ROUND_AXIS,
    SENSORS,
    WHOLE_NUMBERS,
    Json,
    colored,
    fixed,
    matching,
    of,
    words,
)
from grafana.panels import bars, line_style, select, series, table, trend

RUN: Final = "run_id = ${run_id:sqlstring}"
LAST: Final = f"""(
      SELECT DISTINCT ON (round) * FROM v_round
      WHERE {RUN} AND closed AND round > 0 ORDER BY round, attempt DESC
    )"""
"""Closed rounds of the run, each with its last attempt."""
NO_ROWS: Final = "no client's rows are kept of this run"
PHASES: Final = words({"train": ("training", None), "evaluate": ("evaluation", None)})


def outcomes() -> Json:
    """Bars over rounds."""
    return trend(
        "Clients of each round, by outcome",
        """Every selected client is exactly one of reported, missing, rejected and failed. Line, right:
        coverage, the share that reported. The last attempt of each round.""",
        [
            select(f"""
    SELECT round, reported, missing, rejected, failed, coverage, NULL::float AS edge
    FROM {LAST} d
    UNION ALL SELECT MAX(round) + 1, NULL, NULL, NULL, NULL, NULL, 0 FROM {LAST} d
    HAVING COUNT(*) > 0
    ORDER BY round""")
        ],
        x="round",
        unit="none",
        style="bars",
        stacked=True,
        min=0,
        mappings=WHOLE_NUMBERS,
        overrides=[
            *ROUND_AXIS,
            *colored(OUTCOMES),
            of(
                "coverage",
                unit="percentunit",
                mappings=[],
                color=fixed("text"),
                max=1,
                **line_style(
                    axisPlacement="right", fillOpacity=0, lineWidth=1, showPoints="always"
                ),
            ),
        ],
        no_value="no closed round",
    )


def spread() -> Json:
    """Lines over rounds."""
    return trend(
        "CO2eq of a client, each round",
        """Over the clients whose reports count in a round (training and evaluation together): least, median,
        90th percentile and most.""",
        [
            select(f"""
    SELECT
      c.round,
      MIN(c.emissions_kg) * 1000 AS least,
      PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY c.emissions_kg) * 1000 AS median,
      PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY c.emissions_kg) * 1000 AS "90 %",
      MAX(c.emissions_kg) * 1000 AS most
    FROM v_client_round c JOIN {LAST} d ON d.round = c.round AND d.attempt = c.attempt
    WHERE c.{RUN} AND c.emissions_kg IS NOT NULL
    GROUP BY c.round ORDER BY c.round""")
        ],
        x="round",
        unit="massg",
        drawn={"fillOpacity": 0, "showPoints": "always"},
        min=0,
        overrides=[
            *ROUND_AXIS,
            *colored({"least": QUIET, "median": CLIENTS, "90 %": EMITTED, "most": "text"}),
        ],
        no_value=NO_ROWS,
    )


def top() -> Json:
    """A row each: a bar's name would be cut where its letters are wide."""
    return table(
        "Top emitters",
        """The ten clients with the most emissions over the whole run, every attempt included, under their
        pseudonyms, and their share of what all clients' reports count for.""",
        [
            select(f"""
    SELECT
      client,
      SUM(emissions_kg) * 1000 AS "CO2eq",
      SUM(emissions_kg) / NULLIF(SUM(SUM(emissions_kg)) OVER (), 0) AS share
    FROM v_client_round WHERE {RUN} AND closed AND emissions_kg IS NOT NULL
    GROUP BY client ORDER BY 2 DESC LIMIT 10""")
        ],
        overrides=[
            of("client", unit="string", custom__width=105),
            of(
                "CO2eq",
                unit="massg",
                min=0,
                fieldMinMax=True,
                color=fixed(CLIENTS),
                custom__cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
            ),
            of("share", unit="percentunit", decimals=0, custom__width=65),
        ],
    )


def distribution() -> Json:
    """Bars over amounts."""
    return trend(
        "Clients by their CO2eq",
        """How many clients emitted how much over the whole run: two bars for each power of ten. Clients that
        count 0 have no bar.""",
        [
            select(f"""
    WITH sums AS (
      SELECT client, SUM(emissions_kg) * 1000 AS grams
      FROM v_client_round WHERE {RUN} AND closed AND emissions_kg IS NOT NULL
      GROUP BY client
    ),
    counted AS (
      SELECT FLOOR(2 * LOG(grams::numeric)) AS half, COUNT(*) AS clients
      FROM sums WHERE grams > 1e-12 GROUP BY 1
    ),
    halves AS (SELECT GENERATE_SERIES(MIN(half) - 1, MAX(half) + 1) AS half FROM counted)
    SELECT POWER(10, (half + 0.5) / 2)::float AS "CO2eq", COALESCE(clients, 0) AS clients
    FROM halves LEFT JOIN counted USING (half)
    ORDER BY half""")
        ],
        x="CO2eq",
        unit="none",
        style="bars",
        legend=False,
        min=0,
        decimals=0,
        overrides=[
            of(
                "CO2eq",
                unit="massg",
                min=None,
                decimals=None,
                custom__axisLabel="CO2eq of a client",
                custom__scaleDistribution={"type": "log", "log": 10},
            ),
            of("clients", color=fixed(CLIENTS)),
        ],
        no_value=NO_ROWS,
    )


def everyone() -> Json:
    """A row each."""
    return table(
        "All clients",
        """What each client came to in the closed rounds of the run, every attempt included. Per example: its
        emissions ÷ the examples of the rounds in which it reported. Sensor and country: as it last said.""",
        [
            select(f"""
    WITH said AS (
      SELECT DISTINCT ON (client) client, sensor, country
      FROM v_report WHERE {RUN} AND closed AND accepted
      ORDER BY client, round DESC, attempt DESC
    )
    SELECT
      c.client,
      COUNT(*) FILTER (WHERE c.train) AS selected,
      COUNT(*) FILTER (WHERE c.outcome = 'reported') AS reported,
      COUNT(*) FILTER (WHERE c.outcome = 'missing') AS missing,
      COUNT(*) FILTER (WHERE c.outcome = 'rejected') AS rejected,
      COUNT(*) FILTER (WHERE c.outcome = 'failed') AS failed,
      SUM(c.emissions_kg) * 1000 AS "CO2eq",
      SUM(c.emissions_kg) * 1000 / NULLIF(SUM(c.examples) FILTER (WHERE c.emissions_kg IS NOT NULL), 0)
        AS "per example",
      SUM(c.energy_kwh) * 1000 AS energy,
      COUNT(*) FILTER (WHERE c.outlier > 0 OR c.looks_cumulative > 0) AS flagged,
      s.sensor,
      s.country,
      MAX(c.replied_at) AS "last reply"
    FROM v_client_round c LEFT JOIN said s ON s.client = c.client
    WHERE c.{RUN} AND c.closed
    GROUP BY c.client, s.sensor, s.country
    ORDER BY 7 DESC NULLS LAST LIMIT 1000""")
        ],
        overrides=[
            of("client", unit="string", custom__width=110),
            matching("^(selected|reported|missing|rejected|failed|flagged)$", custom__width=80),
            of(
                "CO2eq",
                unit="massg",
                min=0,
                fieldMinMax=True,
                color=fixed(CLIENTS),
                custom__cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
            ),
            of("per example", unit="massg", custom__width=110),
            of("energy", unit="watth", custom__width=100),
            of("sensor", unit="string", mappings=SENSORS, custom__width=130),
            of("country", unit="string", custom__width=75),
            of("last reply", unit="time:YYYY-MM-DD HH:mm", custom__width=130),
        ],
    )


def reasons() -> Json:
    """Bars, a reason each."""
    return bars(
        "Rejected, by reason",
        """Reports of closed rounds. Implausible: more than the client's power cap allows. Inconsistent:
        emissions, energy and intensity contradict one another.""",
        [
            select(f"""
    SELECT REPLACE(rejection, '_', ' ') AS reason, COUNT(*) AS reports
    FROM v_report WHERE {RUN} AND closed AND NOT accepted
    GROUP BY rejection ORDER BY 2 DESC""")
        ],
        unit="none",
        decimals=0,
        name="reason",
        each_row=True,
        color=fixed(OUTCOMES["rejected"]),
        no_value="none rejected",
    )


def refused() -> Json:
    """A row each."""
    return table(
        "Rejected reports",
        """The newest 200, with the value as it was sent (at most 64 characters).""",
        [
            select(f"""
    SELECT round, client, phase, REPLACE(rejection, '_', ' ') AS reason, rejected_value AS "what it said"
    FROM v_report WHERE {RUN} AND closed AND NOT accepted
    ORDER BY round DESC, attempt DESC, client LIMIT 200""")
        ],
        overrides=[
            of("phase", mappings=PHASES, custom__width=90),
            of("round", custom__width=65),
            of("client", custom__width=100),
            of("reason", custom__width=110),
        ],
    )


def odd() -> Json:
    """A row each."""
    return table(
        "Flagged reports",
        """The newest 200 that look odd and count all the same. Outlier: |0.6745 (x − median) ÷ MAD| > 3.5 among
        the round's reports. Running total: five values or more that never fell and rise evenly.""",
        [
            select(f"""
    SELECT
      round,
      client,
      phase,
      counted_emissions_kg * 1000 AS "CO2eq",
      CONCAT_WS(', ', CASE WHEN outlier THEN 'outlier' END,
        CASE WHEN looks_cumulative THEN 'running total' END) AS flags
    FROM v_report WHERE {RUN} AND closed AND accepted AND (outlier OR looks_cumulative)
    ORDER BY round DESC, attempt DESC, client LIMIT 200""")
        ],
        overrides=[
            of("phase", mappings=PHASES, custom__width=90),
            of("round", custom__width=65),
            of("client", custom__width=100),
            of("CO2eq", unit="massg", custom__width=100),
        ],
    )


def replies() -> Json:
    """Points over time."""
    return series(
        "CO2eq of reports, as they came",
        """A point each report that counts, when its client's reply came in. Marks: rounds.""",
        [
            select(f"""
    SELECT replied_at AS time, emissions_kg * 1000 AS "CO2eq"
    FROM v_client_round
    WHERE {RUN} AND closed AND emissions_kg IS NOT NULL AND $__timeFilter(replied_at)
    ORDER BY replied_at""")
        ],
        unit="massg",
        style="points",
        min=0,
        legend=False,
        color=fixed(CLIENTS),
        no_value="no reply in this time",
    )
