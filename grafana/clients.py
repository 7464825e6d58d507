"""*Clients*: who reported in a run, and what. PostgreSQL; clients under their pseudonyms."""

from __future__ import annotations

from typing import Final

from grafana.client_panels import (
    RUN,
    distribution,
    everyone,
    odd,
    outcomes,
    reasons,
    refused,
    replies,
    spread,
    top,
)
from grafana.fields import CLIENTS, OUTCOMES, PROGRESS, Json, fixed, steps
from grafana.frame import SQL_VARIABLE, UNSEEN, Row, Section, dashboard, selected, sql_marks, zoom
from grafana.panels import select, stat

UID: Final = "fl-clients"


def _tiles() -> Row:
    return Row(
        4,
        [
            (4, _seen()),
            (4, _coverage()),
            (4, _emitted()),
            (4, _accepted()),
            (4, _rejected()),
            (4, _flagged()),
        ],
    )


def _seen() -> Json:
    return stat(
        "Clients",
        """Different clients that were asked to train or evaluate in the run's closed rounds.""",
        [
            select(
                f"SELECT COUNT(DISTINCT client) AS clients FROM v_client_round WHERE {RUN} AND closed"
            )
        ],
    )


def _coverage() -> Json:
    return stat(
        "Coverage",
        """Of all times that a client was selected: how often its report on training was accepted. The
        emissions of the others are unknown.""",
        [
            select(f"""
    SELECT SUM(reported)::float / NULLIF(SUM(participants), 0) AS coverage
    FROM v_round WHERE {RUN} AND closed""")
        ],
        unit="percentunit",
        decimals=0,
        color=fixed(PROGRESS),
    )


def _emitted() -> Json:
    return stat(
        "CO2eq of clients",
        """What the accepted reports of the run's closed rounds count for, each machine once.""",
        [select(f'SELECT clients_emissions_kg * 1000 AS "CO2eq" FROM v_run WHERE {RUN}')],
        unit="massg",
        color=fixed(CLIENTS),
        no_value="unknown",
    )


def _accepted() -> Json:
    return stat(
        "Reports accepted",
        """On training and evaluation, in closed rounds; late ones beside them count, too.""",
        [
            select(
                f"SELECT reports_accepted AS accepted, reports_late AS late FROM v_run WHERE {RUN}"
            )
        ],
        text="value_and_name",
    )


def _rejected() -> Json:
    return stat(
        "Reports rejected",
        """They cannot be believed, and add nothing: below it stands why.""",
        [select(f"SELECT reports_rejected AS rejected FROM v_run WHERE {RUN}")],
        color={"mode": "thresholds"},
        thresholds=steps((None, "text"), (1, OUTCOMES["rejected"])),
    )


def _flagged() -> Json:
    return stat(
        "Reports flagged",
        """They look odd, and count all the same: far from the round's others, or rising like a running
        total.""",
        [
            select(f"""
    SELECT COUNT(*) AS flagged FROM v_report
    WHERE {RUN} AND closed AND accepted AND (outlier OR looks_cumulative)""")
        ],
        color={"mode": "thresholds"},
        thresholds=steps((None, "text"), (1, CLIENTS)),
    )


def build() -> Json:
    """The dashboard."""
    return dashboard(
        UID,
        """The clients of one run under their pseudonyms: who reported, who emitted what, what was odd.""",
        sections=[
            Section("", [_tiles()]),
            Section("Coverage and distribution", [Row(9, [(12, outcomes()), (12, spread())])]),
            Section(
                "Who emits",
                [
                    Row(12, [(8, top()), (8, distribution()), (8, replies())]),
                    Row(9, [(24, everyone())]),
                ],
            ),
            Section(
                "What was odd",
                [Row(8, [(6, reasons()), (9, refused()), (9, odd())])],
            ),
        ],
        variables=[
            SQL_VARIABLE,
            selected(
                "run_id",
                "Run",
                """
    SELECT run_id AS __value, run_name || ' · ' || run_id AS __text
    FROM v_run ORDER BY started_at DESC, run_id DESC LIMIT 500""",
            ),
            selected(
                "run_from",
                "",
                f"""
    SELECT (FLOOR(EXTRACT(EPOCH FROM started_at)) * 1000 - 5000)::bigint::text
    FROM v_run WHERE {RUN}""",
            )
            | UNSEEN,
            selected(
                "run_to",
                "",
                f"""
    SELECT COALESCE((FLOOR(EXTRACT(EPOCH FROM ended_at)) * 1000 + 30000)::bigint::text, 'now')
    FROM v_run WHERE {RUN}""",
            )
            | UNSEEN,
        ],
        links=[zoom(UID)],
        annotations=[
            sql_marks(
                "Rounds",
                f"""
    SELECT started_at AS time, ended_at AS timeend, 'round ' || round AS text, 'round' AS tags
    FROM v_round WHERE {RUN} AND round > 0 AND $__timeFilter(started_at)
    ORDER BY started_at DESC LIMIT 50""",
            )
        ],
        start="now-6h",
        refresh="30s",
    )
