"""``PUT /runs/{run_id}``, ``POST …/rounds``, ``POST …/finish``: what senders deliver."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from telemetry.service import bodies, examples
from telemetry.service.access import ApiAccess
from telemetry.service.bodies import Received
from telemetry.service.ingest import Ingest
from telemetry.service.reading import Bodies
from telemetry.service.routes.parameters import RunIdPath
from telemetry.store.deliveries import DeliveredEnd, DeliveredRounds, DeliveredRun


def write_router(ingest: Ingest, access: ApiAccess) -> APIRouter:
    """The routes; what they answered is durable."""
    router = APIRouter(tags=["deliver"])
    reader = Bodies()

    @router.post("/runs/{run_id}/rounds", **_body("RoundsBody", examples.ROUNDS))
    async def post_rounds(run_id: RunIdPath, request: Request) -> Received:
        """Deliver up to 100 rounds (16 MiB), all or none. Rounds that are stored already are no news;
        a closed round with other content is a conflict (409)."""
        writer = access.writer(request)
        parse = partial(bodies.take_rounds, run_id=run_id)
        records = await reader.take(request, bodies.MAX_ROUNDS_BYTES, parse)
        stored = await ingest.take(DeliveredRounds(writer=writer, run_id=run_id, records=records))
        return Received(received=len(records), stored=stored)

    @router.put("/runs/{run_id}", **_body("RunBody", examples.RUN))
    async def put_run(run_id: RunIdPath, request: Request) -> Received:
        """Announce a run. The same facts again change nothing; other facts are a conflict (409)."""
        writer = access.writer(request)
        parse = partial(bodies.take_run, run_id=run_id)
        info = await reader.take(request, bodies.MAX_SMALL_BYTES, parse)
        stored = await ingest.take(DeliveredRun(writer=writer, info=info))
        return Received(received=1, stored=stored)

    @router.post("/runs/{run_id}/finish", **_body("FinishBody", examples.FINISH))
    async def post_finish(run_id: RunIdPath, request: Request) -> Received:
        """End a run. ``late_reports`` is a total: said twice it counts once."""
        writer = access.writer(request)
        end = await reader.take(request, bodies.MAX_SMALL_BYTES, bodies.take_finish)
        stored = await ingest.take(
            DeliveredEnd(
                writer=writer,
                run_id=run_id,
                status=end.status,
                ended_at=end.ended_at,
                reason=end.reason,
                late_reports=end.late_reports,
            )
        )
        return Received(received=1, stored=stored)

    return router


def _body(name: str, example: Any) -> dict[str, Any]:
    """How the interface's description tells of a body that is read by hand, from its raw bytes."""
    content = {"schema": {"$ref": f"#/components/schemas/{name}"}, "example": example}
    body = {"required": True, "content": {"application/json": content}}
    return {"openapi_extra": {"requestBody": body}}
