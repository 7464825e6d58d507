"""The tiles of *Run overview*: how the run stands."""

from __future__ import annotations

from grafana.fields import (
    BUDGET,
    CLIENTS,
    EMITTED,
    PROGRESS,
    QUIET,
    RATIO_NAMES,
    Json,
    by_round,
    fixed,
    matching,
    of,
    steps,
    words,
)
from grafana.frame import Row
from grafana.panels import gauge, now, rows, stat
from grafana.run_queries import ACTIVE, ENDED, SENSOR_IN_WORDS, STARTED, last, progress


def tiles() -> list[Row]:
    """Two rows of six."""
    return [
        Row(4, [(4, _name()), (4, _status()), (4, _round()), (4, _emitted()), (4, _budget()), (4, _coverage())]),
        Row(4, [(4, _metric()), (4, _price()), (4, _energy()), (4, _power()), (4, _clients()), (4, _time())]),
    ]  # fmt: skip


def _name() -> Json:
    return stat(
        "Run",
        """Name and strategy of the run that is chosen above (run ids begin with the start, in UTC).""",
        [now(last("fl_run_info", "run_name, strategy"), "{{run_name}} · {{strategy}}")],
        text="name",
        unit="string",
        size=24,
    )


def _status() -> Json:
    return stat(
        "Status",
        """Training: the run is at work, and its server says so. Ended: by itself, by a fault, or on its
        budget; `fedserver runs show` says which. No word: neither its end nor a sign of life is known.""",
        [
            now(
                f"(2 * ({ACTIVE} == 1)) or (0 * {ENDED} + 1) or (0 * {last('fl_run_active')})",
                "status",
            )
        ],
        mappings=words(
            {"2": ("training", PROGRESS), "1": ("ended", "text"), "0": ("no word", CLIENTS)}
        ),
    )


def _round() -> Json:
    return stat(
        "Round",
        """The newest round, open or closed (0 is the set-up), and how many are planned; no second figure
        where the end is open.""",
        [
            now(last("fl_run_round"), "now", "A"),
            now(last("fl_run_rounds_planned"), "planned", "B"),
        ],
        text="value_and_name",
        overrides=[of("planned", color=fixed(QUIET))],
    )


def _emitted() -> Json:
    return stat(
        "CO2eq so far",
        """Measured emissions of server and clients, the open round included, with PUE. Not in it: clients
        that did not report, networks, hardware manufacture, and every estimate. Without a power sensor the
        server's part is modelled from the CPU's load and the size of the memory.""",
        [
            now(
                f"max by (sensor) ({SENSOR_IN_WORDS}) * on () group_left () "
                f"{last('fl_run_emissions_co2eq_grams')}",
                "{{sensor}}",
            )
        ],
        unit="massg",
        text="value_and_name",
        color=fixed(EMITTED),
        no_value="unknown",
    )


def _budget() -> Json:
    return gauge(
        "Budget used",
        """Measured emissions ÷ the run's budget (`emissions.budget_kg`), the open round included. May pass
        100 % where the run only warns.""",
        [now(last("fl_emissions_budget_used_ratio"), "used")],
        unit="percentunit",
        min=0,
        max=1,
        decimals=0,
        color={"mode": "thresholds"},
        thresholds=steps((None, QUIET), (0, PROGRESS), (0.8, CLIENTS), (1, BUDGET)),
        no_value="no budget",
    )


def _metric() -> Json:
    return stat(
        "$metric",
        """Newest value of the metric that is chosen above: the clients' evaluation where the run has one,
        else training; a mean over clients by their examples.""",
        [now(progress("fl_training_metric", "name"), "{{name}}")],
        color=fixed(PROGRESS),
        decimals=3,
        overrides=[matching(RATIO_NAMES, unit="percentunit", decimals=1)],
    )


def _price() -> Json:
    return stat(
        "CO2eq/point",
        """Grams since the best value of the run's value metric before ÷ points (0.01) that the last closed
        round gained over it; – where that round set no new best.""",
        [now(last("fl_emissions_marginal_co2eq_grams_per_point"), "per point")],
        unit="massg",
        color=fixed(EMITTED),
        no_value="–",
    )


def _energy() -> Json:
    return stat(
        "Energy",
        """Measured energy of closed rounds, server and clients, before PUE. Not in it: clients whose reports
        carry no energy.""",
        [now(f"sum({last('fl_energy_joules_total', 'component')}) / 3600", "energy")],
        unit="watth",
    )


def _power() -> Json:
    return stat(
        "Power",
        """Energy of the last closed round ÷ its duration, server and clients together, waiting included.""",
        [
            rows(
                f"sum by (round) ({last('fl_round_energy_joules', 'round, component')})"
                f" / {last('fl_round_duration_seconds', 'round')}"
            )
        ],
        unit="watt",
        fields="power",
        transformations=by_round({"A": "power"}),
    )


def _coverage() -> Json:
    return stat(
        "Coverage",
        """Share of the last closed round's selected clients whose report on training was accepted. The
        others' emissions are unknown: not zero, and not in any total.""",
        [now(last("fl_emissions_coverage_ratio"), "coverage")],
        unit="percentunit",
        decimals=0,
    )


def _clients() -> Json:
    return stat(
        "Clients",
        """Connected now, and those that the last closed round was for.""",
        [
            now(last("fl_clients", state="connected"), "connected", "A"),
            now(last("fl_clients", state="selected"), "selected", "B"),
        ],
        text="value_and_name",
    )


def _time() -> Json:
    return stat(
        "Time",
        """From the start of the run to its end, or to now while it trains.""",
        [now(f"((time() * ({ACTIVE} == 1)) or {ENDED}) - {STARTED}", "time")],
        unit="dthms",
    )
