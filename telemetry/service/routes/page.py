"""``/``: the runs and the newest one's last rounds as a page for people, without any script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from telemetry.digest import SEAL_DIGITS
from telemetry.domain import GRAMS_PER_KG, RoundSummary
from telemetry.errors import StoreError
from telemetry.exporters.family import Labels
from telemetry.exporters.samples import (
    RunView,
    budget_used_ratio,
    emissions_so_far_g,
    estimates_so_far_kg,
    metrics_of,
    sensor,
)
from telemetry.service.guards import Readers, wants_html
from telemetry.service.html import document, figure, text
from telemetry.writer import Failures

REFRESH_S: Final = 10
LAST_ROUNDS: Final = 20
MODELLED: Final = frozenset({"model", "constant", "unknown"})
"""Sensors that are no measurement of the server's energy."""

Views = Callable[[], Sequence[RunView]]
"""What a page shows, oldest start first: `EmissionsCollector.views`."""


def page_router(views: Views, readers: Readers) -> APIRouter:
    """The route; a browser that may not read is led to the form."""
    router = APIRouter()
    failures = Failures()

    # A plain def: it reads the store, so it belongs in a thread and not in the loop.
    @router.get("/")
    def page(request: Request) -> Response:
        if "authorization" not in request.headers and wants_html(request):
            readers.check_url(request)
            if not readers.admits(request):
                return RedirectResponse("/login", 303)
        readers(request)
        try:
            found = views()
        except StoreError as error:
            failures.note("page", str(error))
            body = (
                f"{_HEADING}<p>The record cannot be read just now; the server's log says why.</p>"
            )
            return document(_TITLE, body, status=503, refresh_s=REFRESH_S)
        return document(_TITLE, _body(found), refresh_s=REFRESH_S)

    return router


_TITLE: Final = "Federated training"
_HEADING: Final = f"<h1>{_TITLE}</h1>\n"


def _body(views: Sequence[RunView]) -> str:
    if not views:
        return f"<main>\n{_HEADING}<p>No run yet.</p>\n</main>"
    return (
        f"<main>\n{_HEADING}{_runs(views)}\n{_last_rounds(views[-1])}\n</main>\n"
        "<footer><p><small>Emissions in grams of CO2eq: what is known of the server and of its "
        "clients. “Modelled” says that no sensor measured the server’s energy. Coverage is the "
        "share of a round’s clients that reported theirs. Estimates stand beside the measured figure "
        "and are not part of it. "
        f"This page renews itself every {REFRESH_S} seconds; Prometheus reads /metrics."
        "</small></p></footer>"
    )


# --- the runs --------------------------------------------------------------------------------


def _runs(views: Sequence[RunView]) -> str:
    heads = ("Run", "Status", "Rounds", "g CO2eq", "Coverage", "Metrics of the last round")
    rows = [
        zip(
            heads,
            (
                _name(v),
                _status(v),
                _rounds(v),
                _emissions(v),
                _coverage(v.last_closed),
                _metrics(v),
            ),
            strict=True,
        )
        for v in reversed(views)
    ]
    lines = "\n".join(
        "<tr>"
        + "".join(f'<td data-label="{text(head)}"><div>{cell}</div></td>' for head, cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<table class="cards" id="runs">\n{_head(heads)}<tbody>\n{lines}\n</tbody>\n</table>'


def _name(view: RunView) -> str:
    run = view.exposed.run
    seal = "" if run.sha256 is None else f" · sealed {text(run.sha256[:SEAL_DIGITS])}"
    about = f"{text(view.run_id)} · {text(run.info.strategy)}{seal}"
    return f"{text(run.info.run_name)}<br><small>{about}</small>"


def _status(view: RunView) -> str:
    status = view.exposed.run.status
    silent = status == "running" and not view.active
    return text(f"{status}, not heard of lately" if silent else status)


def _rounds(view: RunView) -> str:
    run, last = view.exposed.run, view.last_closed
    done = sum(run.totals.rounds.values()) if last is None else last.round
    planned = run.info.rounds_planned
    return text(done if planned is None else f"{done} of {planned}")


def _emissions(view: RunView) -> str:
    if not view.tracked:
        return "not tracked"
    grams, kind = emissions_so_far_g(view), sensor(view)
    notes = [f"modelled ({text(kind)})"] if grams is not None and kind in MODELLED else []
    notes += [*_estimates(view), *_flags(view), *_budget(view)]
    return figure(grams) + "".join(f"<br><small>{note}</small>" for note in notes)


def _estimates(view: RunView) -> Iterator[str]:
    """Beside the measured figure, and named as what they are."""
    kg = estimates_so_far_kg(view)
    communication = kg["communication", "estimated", "central"]
    low, central, high = (kg["clients", "imputed", bound] for bound in ("low", "central", "high"))
    if communication is not None:
        yield f"+ {_grams(communication)} g estimated for communication (allocated, estimated)"
    if central:  # 0 where nobody is silent
        yield f"+ {_grams(central)} g ({_grams(low)} to {_grams(high)}) imputed for silent clients"


def _flags(view: RunView) -> Iterator[str]:
    """Of the rounds shown."""
    count = sum(row.reports_flagged or 0 for row in view.rounds_newest_first)
    if count:
        yield f"{figure(count)} {'report looks' if count == 1 else 'reports look'} odd"


def _budget(view: RunView) -> Iterator[str]:
    kg, used = view.exposed.run.info.budget_kg, budget_used_ratio(view)
    if kg is not None:
        share = "–" if used is None else f'<data value="{used!r}">{used * 100:.0f} %</data>'
        yield f"budget {_grams(kg)} g: {share} used"


def _coverage(row: RoundSummary | None) -> str:
    if row is None or row.coverage is None:
        return "–"
    share = f'<data value="{row.coverage!r}">{row.coverage:.0%}</data>'
    return f"{share} <small>({text(row.reported)} of {text(row.participants)})</small>"


def _metrics(view: RunView) -> str:
    row = view.last_closed
    found = () if row is None else metrics_of(row, view.metric_names)
    lines = [f"{text(_metric_name(labels))} {figure(value)}" for labels, value in found]
    return "<br>".join(lines) or "–"


def _metric_name(labels: Labels) -> str:
    name, split = labels
    return f"{name} ({split})"


# --- one run's rounds ------------------------------------------------------------------------


def _last_rounds(view: RunView) -> str:
    rows = [row for row, _ in zip(view.rounds_newest_first, range(LAST_ROUNDS), strict=False)]
    name = text(view.exposed.run.info.run_name)
    if not rows:
        return f"<h2>{name}</h2>\n<p>No round yet.</p>"
    metrics = [dict(metrics_of(row, view.metric_names)) for row in rows]
    columns = list(dict.fromkeys(labels for found in metrics for labels in found))
    heads = (
        "Round", "Status", "Seconds", "Coverage", "Server g", "Clients g", "Total g",
        *map(_metric_name, columns),
    )  # fmt: skip
    lines = "\n".join(
        _row(
            (
                text(row.round),
                text(row.status),
                figure(row.duration_s),
                _coverage(row) if row.closed else "–",
                _grams(row.server_emissions_kg),
                _grams(row.clients_emissions_kg),
                _grams(row.total_emissions_kg),
                *(figure(found.get(labels)) for labels in columns),
            )
        )
        for row, found in zip(rows, metrics, strict=True)
    )
    return (
        f"<h2>Last rounds of {name}</h2>\n"
        '<div class="wide" role="region" aria-label="Last rounds" tabindex="0">\n'
        f'<table id="rounds">\n{_head(heads)}<tbody>\n{lines}\n</tbody>\n</table>\n</div>'
        f"{_seal(view)}"
    )


def _seal(view: RunView) -> str:
    sha256 = view.exposed.run.sha256
    return "" if sha256 is None else f"\n<p><small>Sealed, SHA-256: {text(sha256)}</small></p>"


def _grams(kg: float | None) -> str:
    return figure(None if kg is None else kg * GRAMS_PER_KG)


def _head(names: Iterable[str]) -> str:
    cells = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>\n"


def _row(cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
