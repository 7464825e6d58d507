"""What the figures of *Run overview* rest on, and what else is known of the run."""

from __future__ import annotations

from grafana.fields import (
    BUDGET,
    CLIENTS,
    QUIET,
    ROUND_AXIS,
    SENSORS_IN_FULL,
    SERVER,
    Json,
    arranged,
    by_round,
    colored,
    fixed,
    of,
)
from grafana.frame import Row, Section
from grafana.panels import bars, now, rows, stat, table, trend
from grafana.run_queries import COMPONENTS, EDGE, facts, last


def grounds() -> Section:
    """Assumptions, sensor, carbon intensity, and the estimates apart."""
    return Section(
        "What the figures rest on",
        [Row(10, [(12, _assumptions()), (6, _intensity()), (6, _estimates())])],
    )


def _assumptions() -> Json:
    names = {
        "run_id": "run",
        "run_name": "name",
        "strategy": "strategy",
        "privacy": "privacy",
        "server_sensor": "power sensor of the server",
        "server_scope": "the server's figure is of",
        "country": "country",
        "intensity_source": "carbon intensity from",
        "pue": "PUE",
    }
    return table(
        "Assumptions and sensor",
        """What the run trains with, and what its figures rest on. A country is empty for the world's
        average.""",
        [rows(facts(", ".join(names)))],
        unit="string",
        no_value="no run chosen",
        header=False,
        transformations=[
            arranged(hide=("Value",), rename=names, order=("Time", *names)),
            {"id": "transpose", "options": {"firstFieldName": "fact", "restFieldsName": "value"}},
        ],
        overrides=[of("value", mappings=SENSORS_IN_FULL), of("fact", custom__width=200)],
    )


def _intensity() -> Json:
    return bars(
        "Carbon intensity",
        """Grams CO2eq for each kWh. Server: what its emissions are computed with, before PUE. Clients: what
        their counted emissions come to per energy, in the last round whose reports all carry an energy.""",
        [now(last("fl_carbon_intensity_grams_per_kilowatt_hour", "component"), "{{component}}")],
        name="component",
        unit="suffix: gCO2eq/kWh",
        decimals=0,
        overrides=colored(COMPONENTS),
    )


def _estimates() -> Json:
    known = last("fl_run_emissions_estimate_co2eq_grams", "component, bound")
    named = f'label_join({known}, "what", ", ", "component", "bound")'
    return bars(
        "Estimates, in no total",
        """Communication: bytes by the stated kWh/GB (`emissions.network_kwh_per_gb`), allocated. Clients that
        did not report (`emissions.impute_missing`): the median of those that did, with the 10th and 90th
        percentile as low and high.""",
        [
            now(
                f'label_replace({named}, "what", "$1", "what", "(.*), central")',
                "{{what}}",
            )
        ],
        name="what",
        unit="massg",
        color=fixed(QUIET),
        no_value="none switched on",
    )


def more() -> Section:
    """Folded away at first."""
    return Section(
        "More",
        [
            Row(12, [(8, _durations()), (8, _reports()), (8, _distribution())]),
            Row(4, [(6, _round_ends()), (6, _bytes()), (6, _without_host()), (6, _epsilon())]),
        ],
        collapsed=True,
    )


def _durations() -> Json:
    return trend(
        "Duration of each round",
        """From the start of a closed round to the start of the next, or to the end of the run; waiting
        included.""",
        [rows(last("fl_round_duration_seconds", "round")), EDGE],
        x="round",
        unit="s",
        style="bars",
        min=0,
        legend=False,
        transformations=by_round({"A": "duration", "Z": "edge"}, always="Z"),
        overrides=[*ROUND_AXIS, of("duration", color=fixed(SERVER))],
    )


def _reports() -> Json:
    return bars(
        "Reports of closed rounds",
        """On training and evaluation, by what became of them; accepted and late ones count.""",
        [now(last("fl_client_reports_total", "outcome"), "{{outcome}}")],
        name="outcome",
        unit="none",
        decimals=0,
        color=fixed(SERVER),
        overrides=colored({"rejected": BUDGET}),
    )


def _distribution() -> Json:
    return bars(
        "Reports by CO2eq, up to",
        """How many clients (each round for itself, training and evaluation together) were counted with
        emissions up to that many grams, and above the bar before.""",
        [
            now(
                f"label_replace({last('fl_client_emissions_co2eq_grams_bucket', 'le')},"
                r' "le", "$1", "le", "(0\\.0*[1-9]\\d{0,2}|\\d+\\.\\d{1,2})\\d*")',
                "{{le}} g",
            )
            | {"format": "heatmap"}
        ],
        name="${__field.name} g",
        unit="none",
        decimals=0,
        color=fixed(CLIENTS),
    )


def _round_ends() -> Json:
    return stat(
        "Rounds by how they ended",
        """Each attempt at a round for itself; without the set-up and the open round.""",
        [now(f"{last('fl_rounds_total', 'status')} > 0", "{{status}}")],
        text="value_and_name",
    )


def _bytes() -> Json:
    return stat(
        "Bytes of messages",
        """As the server counted them, in closed rounds, without the transport's headers and repeats.""",
        [now(last("fl_network_bytes_total", "direction"), "{{direction}}")],
        unit="decbytes",
        text="value_and_name",
        no_value="not counted",
    )


def _without_host() -> Json:
    return stat(
        "Reports that name no machine",
        """Counted in full, even where two of them measured one machine.""",
        [now(last("fl_reports_without_host"), "reports")],
    )


def _epsilon() -> Json:
    return stat(
        "Privacy loss (epsilon)",
        """Spent by the run so far.""",
        [now(last("fl_privacy_epsilon"), "epsilon")],
        no_value="not accounted",
        decimals=2,
    )
