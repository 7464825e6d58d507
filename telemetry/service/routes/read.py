"""``GET /runs`` and what is below it: runs, rounds, reports of clients, exports.

JSON answers carry an ``ETag``; asked again with it (``If-None-Match``), what has not changed is a 304
without a body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field, TypeAdapter

from telemetry.domain import Owner, ReportRecord, StoredRun, utc_now
from telemetry.exporters import FORMATS
from telemetry.exporters.run_json import counted_members, json_text, public_members
from telemetry.exporters.samples import RunView
from telemetry.service.guards import Readers
from telemetry.service.routes.parameters import (
    DEFAULT_LIMIT,
    CursorQuery,
    FromQuery,
    LimitQuery,
    RunIdPath,
    cursor_of,
    read_cursor,
)
from telemetry.service.standing import Account, SoFar, account_of, so_far
from telemetry.service.streaming import exported
from telemetry.store.base import Store

_RunCursor: Final = TypeAdapter(tuple[datetime, str])
_RoundCursor: Final = TypeAdapter(
    tuple[Annotated[int, Field(ge=0, lt=2**31)], Annotated[int, Field(ge=0, lt=2**31)]]
)
_ReportCursor: Final = TypeAdapter(
    tuple[
        Annotated[int, Field(ge=0, lt=2**31)],
        Annotated[int, Field(ge=0, lt=2**31)],
        Annotated[int, Field(ge=0, lt=2**31)],
    ]
)

_UNCHANGED: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "It is what the ETag in If-None-Match stands for."}
}
_EXPORTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {form.media_type: {} for form in FORMATS.values()}}
}


class Run(BaseModel):
    """A run: ``run`` are its facts, the totals are sums over its closed rounds, ``so_far`` counts the
    open one, too."""

    run_id: str
    status: str
    reason: str | None
    ended_at: datetime | None
    last_seen_at: datetime
    pruned_at: datetime | None
    sha256: str | None
    run: dict[str, Any]
    totals_of_closed_rounds: dict[str, Any]
    so_far: SoFar


class RunPage(BaseModel):
    """Runs, newest start first; ``next`` is the cursor of the next page."""

    runs: list[Run]
    next: str | None


class RoundPage(BaseModel):
    """Rounds by number and attempt, the open one included."""

    rounds: list[dict[str, Any]]
    next: str | None


class ReportPage(BaseModel):
    """Reports of closed rounds; ``client`` is a pseudonym."""

    reports: list[dict[str, Any]]
    next: str | None


def read_router(
    store: Store,
    readers: Readers,
    *,
    owner: Owner | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> APIRouter:
    """The routes. Plain functions: they read the store, so they belong in threads.

    ``owner`` is the FL server that answers, where it is one.
    """
    router = APIRouter(tags=["read"], dependencies=[Depends(readers)])

    @router.get("/runs", response_model=RunPage, responses=_UNCHANGED)
    def get_runs(
        request: Request, limit: LimitQuery = DEFAULT_LIMIT, cursor: CursorQuery = None
    ) -> Response:
        """Runs, newest start first."""
        return _json(request, read_runs(store, limit, cursor, owner, clock()))

    @router.get("/runs/{run_id}", response_model=Run, responses=_UNCHANGED)
    def get_run(request: Request, run_id: RunIdPath) -> Response:
        """One run with its totals, and how it stands."""
        return _json(request, read_run(store, store.run(run_id), owner, clock()))

    @router.get("/runs/{run_id}/method", response_model=Account, responses=_UNCHANGED)
    def get_method(request: Request, run_id: RunIdPath) -> Response:
        """How its figures came about, in sentences and in members. It reads every closed round."""
        run = store.run(run_id)
        return _json(request, dict(account_of(run, store.rounds(run_id))))

    @router.get("/runs/{run_id}/rounds", response_model=RoundPage, responses=_UNCHANGED)
    def get_rounds(
        request: Request,
        run_id: RunIdPath,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
        from_round: FromQuery = None,
    ) -> Response:
        """Its rounds, by number and attempt. Energies in kWh at the meter, emissions in kg CO2eq."""
        first = None if from_round is None else (from_round, 1)
        start = read_cursor(_RoundCursor, cursor) or first
        rows = store.rounds(run_id, closed_only=False, start=start)
        found = _taken(rows, limit + 1)
        after = None if len(found) <= limit else (found[limit].round, found[limit].attempt)
        items = [counted_members(row, row.tracked) for row in found[:limit]]
        return _json(request, _page("rounds", items, after))

    @router.get("/runs/{run_id}/clients", response_model=ReportPage, responses=_UNCHANGED)
    def get_clients(
        request: Request,
        run_id: RunIdPath,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Response:
        """What its clients reported, under their pseudonyms."""
        start = read_cursor(_ReportCursor, cursor)
        number, attempt, passed = (0, 0, 0) if start is None else start
        rows = store.reports(run_id, start=(number, attempt))
        found = _taken(islice(_numbered(rows), passed, None), limit + 1)
        after = None if len(found) <= limit else found[limit][0]
        items = [
            {"round": key[0], "attempt": key[1], **public_members(row)}
            for key, row in found[:limit]
        ]
        return _json(request, _page("reports", items, after))

    @router.get("/runs/{run_id}/export", response_class=StreamingResponse, responses=_EXPORTED)
    async def get_export(
        run_id: RunIdPath,
        format_name: Annotated[
            str,
            Query(
                alias="format",
                description=f"One of: {', '.join(FORMATS)}.",
                json_schema_extra={"enum": list(FORMATS)},
                pattern=f"^({'|'.join(FORMATS)})$",
            ),
        ] = "csv",
    ) -> StreamingResponse:
        """The run as a file, streamed: its closed rounds."""
        form = FORMATS[format_name]
        return StreamingResponse(
            await exported(store, run_id, form),
            media_type=form.media_type,
            headers={"Content-Disposition": f'attachment; filename="{run_id}{form.suffix}"'},
        )

    return router


def _numbered(
    rows: Iterator[tuple[int, int, ReportRecord]],
) -> Iterator[tuple[tuple[int, int, int], ReportRecord]]:
    """Each report with its round, attempt and place in that round: a cursor names no connection."""
    last, place = (-1, -1), 0
    for number, attempt, row in rows:
        place = place + 1 if last == (number, attempt) else 0
        last = number, attempt
        yield (number, attempt, place), row


def _taken(rows: Iterator[Any], count: int) -> list[Any]:
    found = list(islice(rows, count))
    close = getattr(rows, "close", None)
    if close is not None:  # a generator over a cursor: let go of it now
        close()
    return found


def read_runs(
    store: Store, limit: int, cursor: str | None, owner: Owner | None, now: datetime
) -> dict[str, Any]:
    """A `RunPage`. Raises 422 for a cursor that is none of ours."""
    found = store.page_of_runs(limit + 1, read_cursor(_RunCursor, cursor))
    after = None if len(found) <= limit else (found[limit].info.started_at, found[limit].run_id)
    exposed = store.latest(found[:limit], max_rounds=1)
    return _page("runs", [_run(RunView(one, now, owner)) for one in exposed], after)


def read_run(store: Store, run: StoredRun, owner: Owner | None, now: datetime) -> dict[str, Any]:
    """A `Run`."""
    return _run(RunView(store.latest([run], max_rounds=1)[0], now, owner))


def _run(view: RunView) -> dict[str, Any]:
    run = view.exposed.run
    return {
        "run_id": run.run_id,
        "status": run.status,
        "reason": run.reason,
        "ended_at": run.ended_at,
        "last_seen_at": run.last_seen_at,
        "pruned_at": run.pruned_at,
        "sha256": run.sha256,
        "run": public_members(run.info),
        "totals_of_closed_rounds": counted_members(run.totals, run.info.tracked),
        "so_far": so_far(view).model_dump(),
    }


def _page(name: str, items: list[dict[str, Any]], after: Any) -> dict[str, Any]:
    return {name: items, "next": None if after is None else cursor_of(after)}


def _json(request: Request, value: Any) -> Response:
    body = json_text(value).encode()
    # Weak: what a proxy or we compress is no other version of it.
    tag = f'W/"{sha256(body).hexdigest()[:32]}"'
    known = request.headers.get("if-none-match", "")
    if tag in (one.strip() for one in known.split(",")):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, media_type="application/json", headers={"ETag": tag})
