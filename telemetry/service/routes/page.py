"""``/`` and ``/runs/{run_id}``: the runs and one of them as pages for people.

What they show is what the interface answers at the same moment, and stands without a script; one renews
it while a training goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from telemetry.domain import ExposedRun, Owner, StoredRun, utc_now
from telemetry.errors import RunDeleted, RunNotFound, StoreError
from telemetry.exporters.run_json import counted_members, json_text
from telemetry.exporters.samples import RunView
from telemetry.service.assets import CHARTS
from telemetry.service.guards import Readers, wants_html
from telemetry.service.html import document
from telemetry.service.pages import run as one_run
from telemetry.service.pages import runs as all_runs
from telemetry.service.pages.frame import TITLE, sentence
from telemetry.service.pages.rounds import PER_PAGE, Slice
from telemetry.service.routes.parameters import CursorQuery, RunIdPath
from telemetry.service.routes.read import read_run, read_runs
from telemetry.service.standing import account_of, metrics_in
from telemetry.store.base import Store
from telemetry.writer import Failures

REFRESH_S: Final = 10
"""How soon a page without scripts asks again."""
RUNS_PER_PAGE: Final = 25
PageQuery = Annotated[int, Query(ge=1, le=10**6)]


def page_router(
    store: Store,
    readers: Readers,
    *,
    api: str,
    owner: Owner | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> APIRouter:
    """The routes; a browser that may not read is led to the form. ``api``: where the interface is."""
    router = APIRouter()
    failures = Failures()

    def answer(request: Request, make: Callable[[], Response]) -> Response:
        if "authorization" not in request.headers and wants_html(request):
            readers.check_url(request)
            if not readers.admits(request):
                return RedirectResponse("/login", 303)
        readers(request)
        try:
            return make()
        except (RunNotFound, RunDeleted) as error:
            if not wants_html(request):
                raise
            return _gone(error)
        except StoreError as error:
            failures.note("page", str(error))
            said = "The record cannot be read just now; the server's log says why."
            return document(TITLE, sentence(TITLE, said), status=503, refresh_s=REFRESH_S)

    # Plain defs: they read the store, so they belong in threads and not in the loop.
    @router.get("/")
    def runs(request: Request, cursor: CursorQuery = None) -> Response:
        def make() -> Response:
            found = read_runs(store, RUNS_PER_PAGE, cursor, owner, clock())
            later = "" if cursor is None else f"&cursor={cursor}"
            address = f"{api}/runs?limit={RUNS_PER_PAGE}{later}"
            body = all_runs.runs_page(_as_answered(found), address)
            return document(TITLE, body, refresh_s=REFRESH_S, scripts=(all_runs.SCRIPT,))

        return answer(request, make)

    @router.get("/runs/{run_id}")
    def run(request: Request, run_id: RunIdPath, page: PageQuery = 1) -> Response:
        def make() -> Response:
            found = store.run(run_id)
            body = one_run.run_page(*_run_with_rounds(store, found, page, owner, clock()))
            going_on = found.ended_at is None
            return document(
                f"{found.info.run_name} · {TITLE}",
                body,
                refresh_s=REFRESH_S if going_on else None,
                scripts=(CHARTS, one_run.SCRIPT),
            )

        return answer(request, make)

    return router


def _run_with_rounds(
    store: Store, run: StoredRun, page: int, owner: Owner | None, now: datetime
) -> tuple[Any, Slice]:
    """A run as the interface answers it, with its account; and one page of its rounds."""
    rows = list(store.rounds(run.run_id, closed_only=False))
    closed = [row for row in rows if row.closed]
    item = read_run(store, run, owner, now) | {"account": dict(account_of(run, closed))}
    last = {row.round: row for row in closed if row.round > 0}
    view = RunView(ExposedRun(run=run, open_round=None, rounds=tuple(last.values())), now, owner)
    columns = dict.fromkeys(
        (metric.name, metric.split) for row in rows for metric in metrics_in(view, row)
    )
    newest_first = rows[::-1][(page - 1) * PER_PAGE : page * PER_PAGE]
    shown = [_as_answered(counted_members(row, row.tracked)) for row in newest_first]
    return _as_answered(item), Slice(shown, page, len(rows), tuple(columns))


def _as_answered(value: Any) -> Any:
    """What a program that asks the interface would hold."""
    return json.loads(json_text(value))


def _gone(error: RunNotFound | RunDeleted) -> Response:
    if isinstance(error, RunDeleted):
        said = f"This run was deleted on {error.deleted_at:%Y-%m-%d %H:%M} UTC."
        return document(TITLE, sentence("Deleted", said), status=410)
    return document(TITLE, sentence("No such run", "There is no run of this id here."), status=404)
