"""``/``: the runs, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from telemetry.service.html import text
from telemetry.service.pages.bound import Bound
from telemetry.service.pages.frame import head, page

SCRIPT: Final = "runs.js"
_COLUMNS: Final = (
    ("Run", ""),
    ("Status", ""),
    ("Rounds", "num"),
    ("CO2eq", ""),
    ("Coverage", ""),
    ("Metrics", ""),
)


def runs_page(answer: Mapping[str, Any], address: str) -> str:
    """The page of an answer to ``GET /runs``, which was asked for at that address."""
    bound = Bound(answer)
    rows = bound.each("runs", _row, "tbody")
    older = bound.when(
        "next", f'<a class="button" data-cursor href="{_older(bound)}">Older runs</a>', "p"
    )
    first = '<p><a class="button" href="/">Newest runs</a></p>' if "cursor=" in address else ""
    table = f'<table class="cards" id="runs">{head(*_COLUMNS)}{rows}</table>'
    nothing = (
        "<h2>No run yet</h2><p>Runs appear here by themselves as soon as a server starts one: "
        "<code>fedserver run</code>, or <code>fedserver demo</code> for a trial.</p>"
    )
    return page(
        f'<h1>Runs</h1>\n<div id="page" data-address="{text(address)}">'
        f"{bound.when('runs', table)}"
        f"{bound.unless('runs', nothing, class_='empty')}"
        f"{older}{first}</div>\n{_NOTES}",
        live=True,
    )


def _row(run: Bound) -> str:
    cells = (
        _name(run),
        f"{run.state('status')}{run.when('so_far.silent', 'not heard of lately', 'small')}",
        f"{run.show('so_far.rounds_done', 'count')}"
        f"{run.when('run.rounds_planned', ' of ' + run.show('run.rounds_planned', 'count'), 'span')}",
        _emissions(run),
        _coverage(run),
        run.each("so_far.metrics", _metric, "ul", class_="plain")
        + run.unless("so_far.metrics", "–", "span"),
    )
    labels = (name for name, _ in _COLUMNS)
    kinds = (kind for _, kind in _COLUMNS)
    return (
        "<tr>"
        + "".join(
            f'<td data-label="{label}"{_kind(kind)}><div>{cell}</div></td>'
            for cell, label, kind in zip(cells, labels, kinds, strict=True)
        )
        + "</tr>"
    )


def _name(run: Bound) -> str:
    link = run.at("run_id")
    address = "" if link is None else f' href="/runs/{text(link)}"'
    about = (
        f"{run.show('run_id')} · {run.show('run.strategy')}"
        f"{run.when('sha256', ' · sealed', 'span')}"
    )
    return (
        f'<a class="name" data-link="run_id"{address}><bdi>{run.show("run.run_name")}</bdi></a>'
        f"<small>{about}</small>"
    )


def _emissions(run: Bound) -> str:
    measured = (
        f'<span class="figure">{run.show("so_far.emissions_kg", "grams", " g")}</span>'
        + run.when("so_far.emissions_kg", run.when("so_far.modelled", "modelled", "small"))
        + run.when(
            "so_far.communication_emissions_kg_estimated",
            "+ "
            + run.show("so_far.communication_emissions_kg_estimated", "grams", " g")
            + " estimated for communication (allocated, estimated)",
            "small",
        )
        + run.when(
            "so_far.imputed_emissions_kg",
            f"+ {run.show('so_far.imputed_emissions_kg', 'grams', ' g')} "
            f"({run.show('so_far.imputed_low_emissions_kg', 'grams')} to "
            f"{run.show('so_far.imputed_high_emissions_kg', 'grams')}) imputed for silent clients",
            "small",
        )
        + run.when(
            "run.budget_kg",
            f"{run.show('so_far.budget_used_ratio', 'percent', ' %')} of "
            f"{run.show('run.budget_kg', 'grams', ' g')} budget",
            "small",
        )
    )
    return run.when("run.tracked", measured) + run.unless("run.tracked", "not tracked")


def _coverage(run: Bound) -> str:
    of = (
        f"{run.show('so_far.reported', 'count')} of {run.show('so_far.participants', 'count')}"
        " clients"
    )
    return run.show("so_far.coverage", "percent", " %") + run.when("so_far.coverage", of, "small")


def _metric(metric: Bound) -> str:
    return (
        f"<li><bdi>{metric.show('name')}</bdi> <small>({metric.show('split')})</small> "
        f"{metric.show('value', 'number')}</li>"
    )


def _older(bound: Bound) -> str:
    cursor = bound.at("next")
    return "" if cursor is None else f"/?cursor={text(cursor)}"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


_NOTES: Final = (
    '<footer class="notes"><p>CO2eq is what is known of the server and of its clients. '
    "“Modelled” says that no sensor measured the server’s energy. Coverage is the share of a "
    "round’s clients that reported theirs; metrics are those of the last round. Estimates stand beside the measured figure and are "
    'not part of it. Prometheus reads <a href="/metrics">/metrics</a>, programs read '
    '<a href="/api/v1/openapi.json">the interface</a>.</p></footer>'
)
