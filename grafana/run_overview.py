"""*Run overview*: one training, its progress beside its emissions. Prometheus alone, no SQL."""

from __future__ import annotations

from typing import Final

from grafana.fields import (
    BUDGET,
    CLIENTS,
    EMITTED,
    OUTCOMES,
    PHASES,
    PROGRESS,
    QUIET,
    RATIO_NAMES,
    ROUND_AXIS,
    SENSORS_IN_FULL,
    SERVER,
    Json,
    arranged,
    by_round,
    colored,
    fixed,
    matching,
    of,
    steps,
    words,
)
from grafana.frame import (
    JOB_VARIABLE,
    PROMETHEUS_VARIABLE,
    Row,
    Section,
    dashboard,
    from_query,
    label_values,
    marks,
    zoom,
)
from grafana.panels import bars, gauge, line_style, now, over_time, rows, series, stat, table, trend

UID: Final = "fl-run-overview"
_RUN: Final = 'job=~"$job",run_id="$run_id"'
_METRIC: Final = "$metric"
_OTHER_THAN: Final = "^(?!({})$).*$"
"""For the field of the chosen metric: Grafana knows no variables where it looks for a field."""


def last(metric: str, by: str = "", **labels: str) -> str:
    """The last value in the time range, of a run that has ended too.

    ``max``: two processes of one service show the same runs, and both have the same figures.
    """
    chosen = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f"max by ({by}) (last_over_time({metric}{{{_RUN}{chosen}}}[$__range]))"


def _progress(metric: str, by: str) -> str:
    """The clients' evaluation where the run has one, else training."""
    evaluated = last(metric, by, name=_METRIC, split="evaluate")
    trained = last(metric, by, name=_METRIC, split="train")
    return f"{evaluated} or ({trained} unless on () {last(metric, name=_METRIC, split='evaluate')})"


def _facts(by: str) -> str:
    """Labels of the run. Its sensor is told of once it is known, not as unknown besides."""
    known = (
        f'max by ({by}) (last_over_time(fl_run_info{{{_RUN},server_sensor!="unknown"}}[$__range]))'
    )
    return f"{known} or ({last('fl_run_info', by)} unless on () {known})"


def _in_words(facts: str) -> str:
    """With a label ``sensor``: what the server's meter read, for a headline."""
    told = {
        ".*": "sensor unknown",
        "model|constant": "modelled, no power sensor",
        "(rapl|nvml)": "measured ($1)",
        "mixed": "partly measured",
    }
    for pattern, words_for_it in told.items():
        facts = f'label_replace({facts}, "sensor", "{words_for_it}", "server_sensor", "{pattern}")'
    return facts


_AT: Final = '/at="(\\w+)/'
"""A time as a label: whole milliseconds since 1970, or now."""
_ACTIVE: Final = f"max(fl_run_active{{{_RUN}}})"
_STARTED: Final = last("fl_run_start_timestamp_seconds")
_ENDED: Final = last("fl_run_end_timestamp_seconds")
_SERVER_GRAMS_A_JOULE: Final = (
    f"({last('fl_emissions_co2eq_grams_total', component='server')}"
    f" / {last('fl_energy_joules_total', component='server')})"
)
_EDGE: Final = rows(f'count_values("round", {last("fl_run_round")} + 1)', "Z")
"""One round more than there are: else the last bar would be cut in half."""
_SENSOR_IN_WORDS: Final = _in_words(_facts("server_sensor"))
_STATES: Final = {"connected": SERVER, "selected": SERVER, **OUTCOMES}
_COMPONENTS: Final = {"server": SERVER, "clients": CLIENTS}


# --- tiles ---------------------------------------------------------------------------------------


def _tiles() -> list[Row]:
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
                f"(2 * ({_ACTIVE} == 1)) or (0 * {_ENDED} + 1) or (0 * {last('fl_run_active')})",
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
                f"max by (sensor) ({_SENSOR_IN_WORDS}) * on () group_left () "
                f"{last('fl_run_emissions_co2eq_grams')}",
                "{{sensor}}",
            )
        ],
        unit="massg",
        text="value_and_name",
        color=fixed(EMITTED),
        no_value="no emissions tracked",
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
        [now(_progress("fl_training_metric", "name"), "{{name}}")],
        color=fixed(PROGRESS),
        decimals=3,
        overrides=[matching(RATIO_NAMES, unit="percentunit", decimals=1)],
    )


def _price() -> Json:
    return stat(
        "CO2eq/point",
        """Grams since the best value of the run's value metric before ÷ points (0.01) that the last closed
        round gained over it. Empty where that round set no new best.""",
        [now(last("fl_emissions_marginal_co2eq_grams_per_point"), "per point")],
        unit="massg",
        color=fixed(EMITTED),
        no_value="no gain",
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
        [now(f"((time() * ({_ACTIVE} == 1)) or {_ENDED}) - {_STARTED}", "time")],
        unit="dthms",
    )


# --- rounds --------------------------------------------------------------------------------------


def _rounds() -> Section:
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
            rows(_progress("fl_round_training_metric", "round"), "C"),
            _EDGE,
        ],
        x="round",
        unit="massg",
        style="bars",
        stacked=True,
        min=0,
        transformations=by_round({"A": "server", "B": "clients", "C": _METRIC, "Z": "edge"}),
        overrides=[
            *ROUND_AXIS,
            *colored(_COMPONENTS),
            matching(
                _OTHER_THAN.format("round|server|clients|edge"),
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
            rows(last("fl_round_cumulative_emissions_co2eq_grams", "round"), "A"),
            rows(_progress("fl_round_training_metric", "round"), "B"),
        ],
        x="CO2eq",
        unit="none",
        drawn={"showPoints": "always", "pointSize": 7, "spanNulls": True},
        legend=False,
        transformations=by_round({"A": "CO2eq", "B": _METRIC}),
        overrides=[
            of("CO2eq", unit="massg", custom__axisLabel="CO2eq since the start"),
            matching(
                _OTHER_THAN.format("round|CO2eq"),
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
        unit="massg",
        overrides=colored(_COMPONENTS),
    )


def _by_phase() -> Json:
    return bars(
        "CO2eq by phase of the server",
        """Energy on the server's meter by phase × what a joule of the server came to in this run, PUE
        included. With the clients on its machine: they compute while the server waits.""",
        [
            now(
                f"sort_desc({last('fl_server_energy_joules_total', 'phase')} * on () group_left () "
                f"{_SERVER_GRAMS_A_JOULE})",
                "{{phase}}",
            )
        ],
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
            _EDGE,
        ],
        x="round",
        unit="watt",
        style="bars",
        stacked=True,
        min=0,
        transformations=by_round({"A": "server", "B": "clients", "Z": "edge"}),
        overrides=[*ROUND_AXIS, *colored(_COMPONENTS)],
    )


def _power_of(component: str) -> str:
    joules = last("fl_round_energy_joules", "round", component=component)
    return f"{joules} / {last('fl_round_duration_seconds', 'round')}"


# --- time ----------------------------------------------------------------------------------------


def _in_time() -> Section:
    return Section(
        "Over time",
        [Row(8, [(12, _so_far()), (6, _coverages()), (6, _outcomes())])],
    )


def _so_far() -> Json:
    run = "max(fl_run_emissions_co2eq_grams{" + _RUN + "})"
    limit = "max(fl_emissions_budget_co2eq_grams{" + _RUN + "})"
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
        [rows(last("fl_round_coverage_ratio", "round")), _EDGE],
        x="round",
        unit="percentunit",
        style="bars",
        min=0,
        max=1,
        legend=False,
        transformations=by_round({"A": "coverage", "Z": "edge"}),
        overrides=[*ROUND_AXIS, of("coverage", color=fixed(OUTCOMES["reported"]))],
    )


def _outcomes() -> Json:
    return bars(
        "Clients of the last round",
        """Selected is the sum of reported, missing, rejected and failed. Missing: said nothing. Rejected:
        said what cannot be believed. Failed: did not finish its training.""",
        [
            now(last("fl_clients", state=state), state, ref)
            for ref, state in zip("ABCDEF", _STATES, strict=True)
        ],
        unit="none",
        decimals=0,
        overrides=colored(_STATES),
    )


# --- what it rests on ----------------------------------------------------------------------------


def _grounds() -> Section:
    return Section(
        "What the figures rest on",
        [Row(9, [(12, _assumptions()), (6, _intensity()), (6, _estimates())])],
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
        [rows(_facts(", ".join(names)))],
        unit="string",
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
        unit="suffix: gCO2eq/kWh",
        decimals=0,
        overrides=colored(_COMPONENTS),
    )


def _estimates() -> Json:
    return bars(
        "Estimates, in no total",
        """Communication: bytes by the stated kWh/GB (`emissions.network_kwh_per_gb`), allocated. Clients that
        did not report (`emissions.impute_missing`): the median of those that did, with the 10th and 90th
        percentile as low and high.""",
        [
            now(
                last("fl_run_emissions_estimate_co2eq_grams", "component, quality, bound"),
                "{{component}}, {{bound}}",
            )
        ],
        unit="massg",
        color=fixed(QUIET),
        no_value="none switched on",
    )


def _more() -> Section:
    return Section(
        "More",
        [
            Row(8, [(8, _durations()), (8, _reports()), (8, _distribution())]),
            Row(4, [(6, _round_ends()), (6, _bytes()), (6, _without_host()), (6, _epsilon())]),
        ],
        collapsed=True,
    )


def _durations() -> Json:
    return trend(
        "Duration of each round",
        """From the start of a closed round to the start of the next, or to the end of the run; waiting
        included.""",
        [rows(last("fl_round_duration_seconds", "round")), _EDGE],
        x="round",
        unit="s",
        style="bars",
        min=0,
        legend=False,
        transformations=by_round({"A": "duration", "Z": "edge"}),
        overrides=[*ROUND_AXIS, of("duration", color=fixed(SERVER))],
    )


def _reports() -> Json:
    return bars(
        "Reports of closed rounds",
        """On training and evaluation, by what became of them; accepted and late ones count.""",
        [now(last("fl_client_reports_total", "outcome"), "{{outcome}}")],
        unit="none",
        decimals=0,
        color=fixed(SERVER),
        overrides=colored({"rejected": BUDGET}),
    )


def _distribution() -> Json:
    return bars(
        "Reports by their CO2eq, up to …",
        """How many clients (each round for itself, training and evaluation together) were counted with
        emissions up to that many grams, and above the bar before.""",
        [
            now(last("fl_client_emissions_co2eq_grams_bucket", "le"), "{{le}} g")
            | {"format": "heatmap"}
        ],
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


# --- the dashboard -------------------------------------------------------------------------------


def build() -> Json:
    """The dashboard."""
    return dashboard(
        UID,
        """One federated training: its progress beside what it emits. Needs Prometheus only.""",
        sections=[Section("", _tiles()), _rounds(), _in_time(), _grounds(), _more()],
        variables=[
            PROMETHEUS_VARIABLE,
            JOB_VARIABLE,
            label_values("run_id", "Run", 'fl_run_info{job=~"$job"}', "run_id", newest=True),
            label_values("metric", "Metric", f"fl_training_metric{{{_RUN}}}", "name"),
            from_query("run_from", f'count_values("at", ({_STARTED} - 5) * 1000)', _AT),
            from_query(
                "run_to",
                f"""label_replace({_ACTIVE} == 1, "at", "now", "", "")
                or on () count_values("at", ({_ENDED} + 30) * 1000)
                or on () label_replace({last("fl_run_active")}, "at", "now", "", "")""",
                _AT,
            ),
        ],
        links=[zoom(UID)],
        annotations=[
            marks(
                "Rounds",
                f'count_values by (run_id) ("round", max by (run_id) (fl_run_round{{{_RUN}}})'
                f" and on (run_id) (max by (run_id) (fl_run_active{{{_RUN}}}) == 1))",
                "round {{round}}",
                step="5s",
            ),
            marks(
                "Run",
                f'(label_replace({_STARTED}, "what", "starts", "", "")'
                f' or label_replace({_ENDED}, "what", "ends", "", "")) * 1000',
                "the run {{what}}",
                useValueForTime=True,
            ),
        ],
        start="now-6h",
        refresh="10s",
    )
