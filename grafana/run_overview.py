"""*Run overview*: one training, its progress beside its emissions. Prometheus alone, no SQL."""

from __future__ import annotations

from typing import Final

from grafana.fields import Json
from grafana.frame import (
    JOB_VARIABLE,
    PROMETHEUS_VARIABLE,
    Section,
    dashboard,
    from_query,
    label_values,
    marks,
    zoom,
)
from grafana.run_grounds import grounds, more
from grafana.run_queries import ACCURACY, ACTIVE, AT, ENDED, METRICS, RUN, STARTED, last
from grafana.run_rounds import in_time, rounds
from grafana.run_tiles import tiles

UID: Final = "fl-run-overview"


def build() -> Json:
    """The dashboard."""
    return dashboard(
        UID,
        """One federated training: its progress beside what it emits. Needs Prometheus only.""",
        sections=[Section("", tiles()), rounds(), in_time(), grounds(), more()],
        variables=[
            PROMETHEUS_VARIABLE,
            JOB_VARIABLE,
            label_values("run_id", "Run", 'fl_run_info{job=~"$job"}', "run_id", newest=True),
            from_query("metric", f"{METRICS} or on () {ACCURACY}", '/name="([^"]+)"/')
            | {"label": "Metric", "hide": 0, "skipUrlSync": False, "sort": 1},
            from_query("run_from", f'count_values("at", ({STARTED} - 5) * 1000)', AT),
            from_query(
                "run_to",
                f"""label_replace({ACTIVE} == 1, "at", "now", "", "")
                or on () count_values("at", ({ENDED} + 30) * 1000)
                or on () label_replace({last("fl_run_active")}, "at", "now", "", "")""",
                AT,
            ),
        ],
        links=[zoom(UID)],
        annotations=[
            marks(
                "Rounds",
                f'count_values by (run_id) ("round", max by (run_id) (fl_run_round{{{RUN}}})'
                f" and on (run_id) (max by (run_id) (fl_run_active{{{RUN}}}) == 1))",
                "round {{round}}",
                step="5s",
            ),
            marks(
                "Run",
                f'(label_replace({STARTED}, "what", "starts", "", "")'
                f' or label_replace({ENDED}, "what", "ends", "", "")) * 1000',
                "the run {{what}}",
                useValueForTime=True,
            ),
        ],
        start="now-6h",
        refresh="10s",
    )
