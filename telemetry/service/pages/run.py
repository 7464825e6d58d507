"""``/runs/{run_id}``: one run, from its name down to its seal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from telemetry.exporters import FORMATS
from telemetry.service.html import text
from telemetry.service.pages.bound import Bound, Path
from telemetry.service.pages.frame import head, page, table
from telemetry.service.pages.rounds import Slice, rounds_table

SCRIPT: Final = "run.js"
PHASES: Final[Mapping[str, str]] = {
    "setup": "before the first round, waiting for clients included",
    "configure": "choosing clients and writing their messages",
    "wait": "while clients train",
    "aggregate": "making one model of theirs",
    "evaluate": "while clients evaluate, and the server",
    "idle": "between these",
}


def run_page(answer: Mapping[str, Any], rounds: Slice) -> str:
    """The page of an answer to ``GET /runs/{run_id}``, with that of ``…/method`` as ``account``."""
    run = Bound(answer)
    run_id = str(run.at("run_id"))
    return page(
        f'<div id="page" data-run="{text(run_id)}">\n{_heading(run)}\n{_tiles(run)}\n'
        '<section id="charts" aria-label="Charts" hidden></section>\n'
        f"{run.when('run.tracked', _split(run) + _outcomes(run) + _estimates(run))}\n"
        f"{rounds_table(rounds)}\n{_account(run)}\n{_downloads(run_id)}\n{_seal(run)}\n</div>",
        back=True,
        live=True,
    )


def _heading(run: Bound) -> str:
    silent = "Its server was not heard of lately: it may have gone away."
    pruned = f"Its rounds were deleted on {run.show('pruned_at', 'moment')}; totals and seal stay."
    untracked = (
        "Emissions are not tracked in this run (<code>track_emissions: false</code>): they are "
        "unknown, and not zero."
    )
    facts = (
        ("Run", run.show("run_id")),
        ("Strategy", f"<bdi>{run.show('run.strategy')}</bdi>"),
        ("Privacy", f"<bdi>{run.show('run.privacy')}</bdi>"),
        ("Started", run.show("run.started_at", "moment")),
    )
    ended = f"<dt>Ended</dt><dd>{run.show('ended_at', 'moment')}</dd>"
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    listed += run.when("ended_at", ended)
    return (
        f"<h1><bdi>{run.show('run.run_name')}</bdi> {run.state('status')}</h1>\n"
        f'<dl class="facts">{listed}</dl>\n'
        f"{run.when('reason', run.show('reason'), 'p', class_='alarm')}"
        f"{run.when('so_far.silent', silent, 'p', class_='alarm')}"
        f"{run.when('pruned_at', pruned, 'p', class_='alarm')}"
        f"{run.unless('run.tracked', untracked, 'p', class_='note')}"
    )


# --- the headline ----------------------------------------------------------------------------------


def _tiles(run: Bound) -> str:
    modelled = "modelled; no power sensor on the server"
    sensor = f"server measured by {run.show('so_far.server_sensor')}"
    emissions = _tile(
        "CO2eq so far",
        run.show("so_far.emissions_kg", "grams", " g"),
        run.when(
            "so_far.emissions_kg",
            run.when("so_far.modelled", modelled, "small")
            + run.unless("so_far.modelled", sensor, "small"),
        )
        + run.unless("so_far.emissions_kg", "nothing is known yet", "small"),
    )
    coverage = _tile(
        "Coverage, last round",
        run.show("so_far.coverage", "percent", " %"),
        run.when(
            "so_far.coverage",
            f"{run.show('so_far.reported', 'count')} of "
            f"{run.show('so_far.participants', 'count')} clients reported",
            "small",
        ),
    )
    budget = _tile(
        "Budget used",
        run.show("so_far.budget_used_ratio", "percent", " %"),
        run.meter("so_far.budget_used_ratio", "Budget used")
        + f"<small>of {run.show('run.budget_kg', 'grams', ' g')}; then "
        f"{run.show('run.on_budget')}</small>",
    )
    rounds = _tile(
        "Rounds",
        run.show("so_far.rounds_done", "count")
        + run.when("run.rounds_planned", f" of {run.show('run.rounds_planned', 'count')}", "span"),
        run.when(
            "so_far.connected",
            f"clients connected: {run.show('so_far.connected', 'count')}",
            "small",
        ),
    )
    best = _tile(
        f"Best <bdi>{run.show('account.best.metric')}</bdi>",
        run.show("account.best.value", "number"),
        f"<small>in round {run.show('account.best.round', 'count')}"
        + run.when(
            "account.best.spent_kg",
            f", after {run.show('account.best.spent_kg', 'grams', ' g')}",
            "span",
        )
        + "</small>",
    )
    epsilon = _tile("Privacy spent", f"ε {run.show('so_far.privacy_epsilon', 'number')}", "")
    return (
        '<section class="tiles" aria-label="The run at a glance">'
        f"{run.when('run.tracked', emissions, class_='tile main')}"
        f'<div class="tile">{rounds}</div>'
        f"{run.when('account.best', best, class_='tile')}"
        f"{run.when('run.tracked', coverage, class_='tile')}"
        f"{run.when('run.budget_kg', budget, class_='tile')}"
        f"{run.when('so_far.privacy_epsilon', epsilon, class_='tile')}</section>"
    )


def _tile(name: str, figure: str, notes: str) -> str:
    return f'<h2>{name}</h2><p class="figure">{figure}</p>{notes}'


# --- what it is made of ----------------------------------------------------------------------------


_PARTS: Final = (
    ("Server", "so_far.server_emissions_kg", "so_far.server_energy_kwh"),
    ("Clients", "so_far.clients_emissions_kg", "so_far.clients_energy_kwh"),
)
_TOTAL: Final = "so_far.emissions_kg"
_PHASES: Final[Mapping[str, Path]] = {name: ("so_far", "phase_energy_kwh", name) for name in PHASES}


def _split(run: Bound) -> str:
    def parts(own: Bound) -> str:
        lines = [
            _line(name, own.show(kg, "grams"), own.show(kwh, "watt_hours"))
            for name, kg, kwh in _PARTS
        ]
        return "".join([*lines, _line("Measured total", own.show(_TOTAL, "grams"), "", kind="sum")])

    def phases(own: Bound) -> str:
        return "".join(
            _line(f"{name.capitalize()}<small>{PHASES[name]}</small>", own.show(path, "watt_hours"))
            for name, path in _PHASES.items()
        )

    grams: dict[Path, str] = dict.fromkeys([*(kg for _, kg, _ in _PARTS), _TOTAL], "grams")
    energies: dict[Path, str] = dict.fromkeys((kwh for _, _, kwh in _PARTS), "watt_hours")
    by_part = table(
        "By component",
        head(("Component", ""), ("CO2eq, g", "num"), ("Energy, Wh", "num")),
        run.together("tbody", (grams, energies), parts),
        "components",
    )
    by_phase = table(
        "The server by phase",
        head(("Phase of the server", ""), ("Energy, Wh", "num")),
        run.together("tbody", (dict.fromkeys(_PHASES.values(), "watt_hours"),), phases),
        "phases",
    )
    note = (
        "Energy is that at the meters, before PUE. The phases are what the server's meter showed, "
        "before clients on its own machine are split off."
    )
    return (
        '<section aria-labelledby="split-name"><h2 id="split-name">Server and clients</h2>'
        f'<div class="pair">{by_part}{by_phase}</div><p class="note">{note}</p></section>'
    )


def _outcomes(run: Bound) -> str:
    trained = (
        ("Asked to train", "account.method.participants", ""),
        ("Reported", "account.method.reported", "sent a figure that counts"),
        ("Missing", "account.method.missing", "sent none; unknown, and not zero"),
        ("Rejected", "account.method.rejected", "sent one that cannot be believed"),
        ("Failed", "account.method.failed", "sent no usable model"),
    )
    counts = "totals_of_closed_rounds."
    reports = (
        ("Accepted", counts + "reports_accepted", "training and evaluation"),
        ("Rejected", counts + "reports_rejected", "each with its reason in the export"),
        ("Late", counts + "reports_late", "counted in the round open on arrival"),
        ("Repeated", counts + "reports_repeated", "not counted again"),
        ("Without a machine's name", counts + "reports_without_host", "counted in full"),
        ("Marked as odd", "account.method.reports_flagged", "counted unchanged"),
    )

    def body(lines: tuple[tuple[str, str, str], ...]) -> str:
        return "".join(
            _line(f"{name}<small>{what}</small>", run.show(path, "count"))
            for name, path, what in lines
        )

    return (
        '<section aria-labelledby="outcomes-name"><h2 id="outcomes-name">Clients’ outcomes</h2>'
        '<div class="pair">'
        + table(
            "Outcomes of requests to train",
            head(("Requests to train", ""), ("Closed rounds", "num")),
            f"<tbody>{body(trained)}</tbody>",
            "outcomes",
        )
        + table(
            "What became of reports",
            head(("Reports", ""), ("Closed rounds", "num")),
            f"<tbody>{body(reports)}</tbody>",
            "reports",
        )
        + "</div></section>"
    )


def _estimates(run: Bound) -> str:
    communication = (
        f"{run.show('so_far.communication_emissions_kg_estimated', 'grams', ' g')}<small>"
        f"allocated, by {run.show('run.factors.network_kwh_per_gb', 'number')} kWh per GB and the "
        "server's carbon intensity</small>"
    )
    imputed = (
        f"{run.show('so_far.imputed_emissions_kg', 'grams', ' g')}<small>from "
        f"{run.show('so_far.imputed_low_emissions_kg', 'grams', ' g')} to "
        f"{run.show('so_far.imputed_high_emissions_kg', 'grams', ' g')}, by what the others "
        "reported per example</small>"
    )
    off = "not estimated in this run"
    factor = "run.factors.network_kwh_per_gb"
    rows = (
        ("Data transfer", run.when(factor, communication) + run.unless(factor, off)),
        (
            "Clients that did not report",
            run.when("run.factors.impute_missing", imputed)
            + run.unless("run.factors.impute_missing", off),
        ),
    )
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return (
        '<section aria-labelledby="estimates-name"><h2 id="estimates-name">Estimates</h2>'
        '<p class="note">Beside the measured total, and in no figure above.</p>'
        f'<dl class="facts wide-facts">{listed}</dl></section>'
    )


# --- how it came about -----------------------------------------------------------------------------


def _account(run: Bound) -> str:
    inside = run.each("account.method.boundary.included", _item, "ul", id="included")
    outside = run.each("account.method.boundary.not_included", _item, "ul", id="left-out")
    factors = (
        ("Carbon intensity", run.show("run.factors.server_carbon_intensity_g_per_kwh", "number")
         + f" g/kWh<small>{run.show('run.factors.intensity_source')}</small>"),
        ("Country", f"{run.show('run.factors.country')}"
         + run.unless("run.factors.country", "not stated: the world's average", "small")),
        ("PUE", run.show("run.factors.pue", "number")),
        ("Scope of the server", run.show("run.factors.server_scope")),
        ("Meter", run.show("run.tracker")),
    )  # fmt: skip
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in factors)
    bounds = (
        f'<div class="pair"><div><h3>In the measured total</h3>{inside}</div>'
        f"<div><h3>Not in it</h3>{outside}</div></div>"
    )
    measured = f'<dl class="facts">{listed}</dl>{bounds}'
    return (
        '<section aria-labelledby="method-name"><h2 id="method-name">How these figures came about</h2>'
        f'<p class="statement" id="statement">{run.show("account.statement")}</p>'
        f"{run.when('run.tracked', measured)}</section>"
    )


def _item(words: Bound) -> str:
    return f"<li>{words.show(())}</li>"


_ABOUT: Final[Mapping[str, str]] = {
    "csv": "a row a round",
    "clients-csv": "a row a client's report, under pseudonyms",
    "codecarbon-csv": "a row a round in codecarbon's columns",
    "json": "all of it, with method and seal",
}


def _downloads(run_id: str) -> str:
    links = "".join(
        f'<li><a class="button" download href="/api/v1/runs/{text(run_id)}/export?format={text(name)}">'
        f"{text(name)}</a> <small>{text(_ABOUT.get(name, ''))}</small></li>"
        for name in FORMATS
    )
    return (
        '<section aria-labelledby="downloads-name"><h2 id="downloads-name">Downloads</h2>'
        f'<p class="note">Closed rounds, as they are at this moment.</p><ul class="downloads">{links}</ul></section>'
    )


def _seal(run: Bound) -> str:
    sealed = (
        f'<p class="seal">{run.show("sha256")}</p><p class="note">The SHA-256 of the run’s facts, its '
        "end and every figure of its closed rounds. <code>fedserver runs verify "
        f"{run.show('run_id')}</code> computes it again from the store.</p>"
    )
    return (
        '<section aria-labelledby="seal-name"><h2 id="seal-name">Seal</h2>'
        f"{run.when('sha256', sealed)}"
        f"{run.unless('sha256', 'None yet: a run is sealed when it ends.', 'p', class_='note')}</section>"
    )


def _line(name: str, *figures: str, kind: str = "") -> str:
    cells = "".join(f'<td class="num">{figure}</td>' for figure in figures)
    mark = f' class="{kind}"' if kind else ""
    return f'<tr{mark}><th scope="row">{name}</th>{cells}</tr>'
