"""PromQL about one run, which the panels of *Run overview* share."""

from __future__ import annotations

from typing import Final

from grafana.fields import CLIENTS, OUTCOMES, SERVER
from grafana.panels import rows

RUN: Final = 'job=~"$job",run_id="$run_id"'
METRIC: Final = "$metric"
OTHER_THAN: Final = "^(?!({})$).*$"
"""For the field of the chosen metric: Grafana knows no variables where it looks for a field."""


def last(metric: str, by: str = "", **labels: str) -> str:
    """The last value in the time range, of a run that has ended too.

    ``max``: two processes of one service show the same runs, and both have the same figures.
    """
    chosen = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f"max by ({by}) (last_over_time({metric}{{{RUN}{chosen}}}[$__range]))"


def progress(metric: str, by: str) -> str:
    """The clients' evaluation where the run has one, else training."""
    evaluated = last(metric, by, name=METRIC, split="evaluate")
    trained = last(metric, by, name=METRIC, split="train")
    return f"{evaluated} or ({trained} unless on () {last(metric, name=METRIC, split='evaluate')})"


def facts(by: str) -> str:
    """Labels of the run. Its sensor is told of once it is known, not as unknown besides."""
    known = (
        f'max by ({by}) (last_over_time(fl_run_info{{{RUN},server_sensor!="unknown"}}[$__range]))'
    )
    return f"{known} or ({last('fl_run_info', by)} unless on () {known})"


def in_words(told_of: str) -> str:
    """With a label ``sensor``: what the server's meter read, for a headline."""
    told = {
        ".*": "sensor unknown",
        "model|constant": "modelled, no power sensor",
        "(rapl|nvml)": "measured ($1)",
        "mixed": "partly measured",
    }
    for pattern, words_for_it in told.items():
        told_of = (
            f'label_replace({told_of}, "sensor", "{words_for_it}", "server_sensor", "{pattern}")'
        )
    return told_of


METRICS: Final = last("fl_training_metric", "name")
ACCURACY: Final = 'label_replace(vector(1), "name", "accuracy", "", "")'
"""Until a run has metrics."""
AT: Final = '/at="(\\w+)/'
"""A time as a label: whole milliseconds since 1970, or now."""
ACTIVE: Final = f"max(fl_run_active{{{RUN}}})"
STARTED: Final = last("fl_run_start_timestamp_seconds")
ENDED: Final = last("fl_run_end_timestamp_seconds")
SERVER_GRAMS_A_JOULE: Final = (
    f"({last('fl_emissions_co2eq_grams_total', component='server')}"
    f" / {last('fl_energy_joules_total', component='server')})"
)
EDGE: Final = rows(f'count_values("round", ({last("fl_run_round")} + 1) or vector(0))', "Z")
"""One round more than there are: else the last bar would be cut in half. Without a run, round 0: a
trend without any row says that it misses a field."""
CUMULATIVE: Final = last("fl_round_cumulative_emissions_co2eq_grams", "round")
NOWHERE: Final = 'label_replace(vector(0), "round", "0", "", "")'
SENSOR_IN_WORDS: Final = in_words(facts("server_sensor"))
STATES: Final = {"connected": SERVER, "selected": SERVER, **OUTCOMES}
COMPONENTS: Final = {"server": SERVER, "clients": CLIENTS}
