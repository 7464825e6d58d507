"""Round by round, and over time: the charts of *Run overview*."""

from __future__ import annotations

from grafana.fields import (
    BUDGET,
    EMITTED,
    OUTCOMES,
    PHASES,
    PROGRESS,
    RATIO_NAMES,
    ROUND_AXIS,
    Json,
    by_round,
    colored,
    fixed,
    matching,
    of,
)
from grafana.frame import Row, Section
from grafana.panels import bars, line_style, now, over_time, rows, series, trend
from grafana.run_queries import (
    COMPONENTS,
    CUMULATIVE,
    EDGE,
    METRIC,
    NOWHERE,
    OTHER_THAN,
    RUN,
    SERVER_GRAMS_A_JOULE,
    STATES,
    last,
    progress,
)


def rounds() -> Section:
    """Emissions beside progress."""
    return Section(
        "Emissions and progress",
        [
            Row(10, [(12, _per_round()), (12, _against_emissions())]),
            Row(8, [(6, _by_component()), (6, _by_phase()), (12, _power_per_round())]),
        ],
    )


def _per_round() -> Json:
    return trend(
        "CO2eq and $metric of each round",
        """Bars, left: measured emissions of a closed round, server and clients on one another, its last
        attempt. Line, right: the chosen metric after the round. A bar is missing where nothing of that part
        is known.""",
        [
            rows(last("fl_round_emissions_co2eq_grams", "round", component="server"), "A"),
            rows(last("fl_round_emissions_co2eq_grams", "round", component="clients"), "B"),
            rows(progress("fl_round_training_metric", "round"), "C"),
            EDGE,
        ],
        x="round",
        unit="massg",
        style="bars",
        stacked=True,
        min=0,
        transformations=by_round(
            {"A": "server", "B": "clients", "C": METRIC, "Z": "edge"}, always="Z"
        ),
        overrides=[
            *ROUND_AXIS,
            *colored(COMPONENTS),
            matching(
                OTHER_THAN.format("round|server|clients|edge"),
                unit="none",
                color=fixed(PROGRESS),
                **line_style(axisPlacement="right", fillOpacity=0, showPoints="always"),
            ),
            matching(RATIO_NAMES, unit="percentunit"),
        ],
    )


def _against_emissions() -> Json:
    return trend(
        "$metric against cumulative CO2eq",
        """What the model is worth for what it has emitted: the chosen metric after each round over the
        measured emissions up to then, set-up and every attempt included. A flat end says that the last
        rounds bought little.""",
        [
            rows(f"{CUMULATIVE} or on () {NOWHERE}", "A"),
            rows(progress("fl_round_training_metric", "round"), "B"),
        ],
        x="CO2eq",
        unit="none",
        drawn={"showPoints": "always", "pointSize": 7, "spanNulls": True},
        legend=False,
        transformations=by_round({"A": "CO2eq", "B": METRIC}, always="A"),
        overrides=[
            of("CO2eq", unit="massg", custom__axisLabel="CO2eq since the start"),
            matching(
                OTHER_THAN.format("round|CO2eq"),
                color=fixed(PROGRESS),
                custom__axisPlacement="left",
            ),
            of(
                "round",
                unit="none",
                custom__axisPlacement="hidden",
                custom__hideFrom={"legend": True, "tooltip": False, "viz": True},
            ),
            matching(RATIO_NAMES, unit="percentunit"),
        ],
    )


def _by_component() -> Json:
    return bars(
        "CO2eq by component",
        """Measured emissions of closed rounds. Server: its meter, with PUE, without the clients on its
        machine. Clients: accepted reports only.""",
        [now(last("fl_emissions_co2eq_grams_total", "component"), "{{component}}")],
        name="component",
        unit="massg",
        overrides=colored(COMPONENTS),
    )


def _by_phase() -> Json:
    return bars(
        "CO2eq by phase of the server",
        """Energy on the server's meter by phase × what a joule of the server came to in this run, PUE
        included. With the clients on its machine: they compute while the server waits.""",
        [
            now(
                f"sort_desc({last('fl_server_energy_joules_total', 'phase')} * on () group_left () "
                f"{SERVER_GRAMS_A_JOULE})",
                "{{phase}}",
            )
        ],
        name="phase",
        unit="massg",
        overrides=colored(PHASES),
    )


def _power_per_round() -> Json:
    return trend(
        "Mean power of each round",
        """Energy of a closed round at the meter ÷ its duration, server and clients on one another. Clients:
        reports that carry an energy, spread over the whole round.""",
        [
            rows(_power_of("server"), "A"),
            rows(_power_of("clients"), "B"),
            EDGE,
        ],
        x="round",
        unit="watt",
        style="bars",
        stacked=True,
        min=0,
        transformations=by_round({"A": "server", "B": "clients", "Z": "edge"}, always="Z"),
        overrides=[*ROUND_AXIS, *colored(COMPONENTS)],
    )


def _power_of(component: str) -> str:
    joules = last("fl_round_energy_joules", "round", component=component)
    return f"{joules} / {last('fl_round_duration_seconds', 'round')}"


# --- over time -----------------------------------------------------------------------------------


def in_time() -> Section:
    """Emissions as they add up, and who reported."""
    return Section(
        "Over time",
        [Row(8, [(12, _so_far()), (6, _coverages()), (6, _outcomes())])],
    )


def _so_far() -> Json:
    run = "max(fl_run_emissions_co2eq_grams{" + RUN + "})"
    limit = "max(fl_emissions_budget_co2eq_grams{" + RUN + "})"
    return series(
        "CO2eq so far, and the budget",
        """Measured emissions while the run goes on, the open round included; dashed: the budget, where there
        is one. Marks: rounds, as far as they were open when Prometheus looked.""",
        [over_time(run, "CO2eq", "A"), over_time(limit, "budget", "B")],
        unit="massg",
        min=0,
        overrides=[
            of("CO2eq", color=fixed(EMITTED)),
            of(
                "budget",
                color=fixed(BUDGET),
                **line_style(fillOpacity=0, lineStyle={"fill": "dash", "dash": [10, 10]}),
            ),
        ],
    )


def _coverages() -> Json:
    return trend(
        "Clients that reported, each round",
        """Share of a closed round's selected clients whose report on training was accepted. No bar where
        nobody was selected.""",
        [rows(last("fl_round_coverage_ratio", "round")), EDGE],
        x="round",
        unit="percentunit",
        style="bars",
        min=0,
        max=1,
        legend=False,
        transformations=by_round({"A": "coverage", "Z": "edge"}, always="Z"),
        overrides=[*ROUND_AXIS, of("coverage", color=fixed(OUTCOMES["reported"]))],
    )


def _outcomes() -> Json:
    return bars(
        "Clients of the last round",
        """Selected is the sum of reported, missing, rejected and failed. Missing: said nothing. Rejected:
        said what cannot be believed. Failed: did not finish its training.""",
        [
            now(last("fl_clients", "state", state=state), state, ref)
            for ref, state in zip("ABCDEF", STATES, strict=True)
        ],
        name="state",
        unit="none",
        decimals=0,
        overrides=colored(STATES),
    )
