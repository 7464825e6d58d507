"""``PUT /runs/{run_id}``, ``POST …/rounds``, ``POST …/finish``: what senders deliver."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from re import compile as pattern
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from telemetry.service import bodies, examples
from telemetry.service.access import ApiAccess
from telemetry.service.bodies import Received
from telemetry.service.bounds import BadBody
from telemetry.service.ingest import Ingest
from telemetry.service.reading import JSON_TYPE, Bodies
from telemetry.service.routes.parameters import RUN_ID, RunIdPath
from telemetry.store.deliveries import DeliveredEnd, DeliveredRounds, DeliveredRun


class _Handed(APIRoute):
    """Hands its endpoint the run's id and the request, and does nothing else.

    FastAPI describes it as any route; to find its parameters would take a third of the time of the
    round in the body.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What is called for each request."""
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            run_id = request.path_params["run_id"]
            if not _RUN_ID.fullmatch(run_id):
                raise BadBody("run_id", f"String should match pattern '{RUN_ID}'")
            answer: Response = await endpoint(run_id, request)
            return answer

        return handle


_RUN_ID: Final = pattern(RUN_ID)


def write_routes(prefix: str, ingest: Ingest, access: ApiAccess) -> Sequence[BaseRoute]:
    """The routes; what they answered is durable.

    To be put among those of an application as they are: of a router that is included, FastAPI makes the
    handlers anew for each request.
    """
    router = APIRouter(prefix=prefix, tags=["deliver"], route_class=_Handed)
    reader = Bodies()

    @router.post("/runs/{run_id}/rounds", **_answers("RoundsBody", examples.ROUNDS))
    async def post_rounds(run_id: RunIdPath, request: Request) -> Response:
        """Deliver up to 100 rounds (16 MiB), all or none. Rounds that are stored already are no news;
        a closed round with other content is a conflict (409)."""
        writer = access.writer(request)
        parse = partial(bodies.take_rounds, run_id=run_id)
        records = await reader.take(request, bodies.MAX_ROUNDS_BYTES, parse)
        stored = await ingest.take(DeliveredRounds(writer=writer, run_id=run_id, records=records))
        return _received(len(records), stored)

    @router.put("/runs/{run_id}", **_answers("RunBody", examples.RUN))
    async def put_run(run_id: RunIdPath, request: Request) -> Response:
        """Announce a run. The same facts again change nothing; other facts are a conflict (409)."""
        writer = access.writer(request)
        parse = partial(bodies.take_run, run_id=run_id)
        info = await reader.take(request, bodies.MAX_SMALL_BYTES, parse)
        stored = await ingest.take(DeliveredRun(writer=writer, info=info))
        return _received(1, stored)

    @router.post("/runs/{run_id}/finish", **_answers("FinishBody", examples.FINISH))
    async def post_finish(run_id: RunIdPath, request: Request) -> Response:
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
        return _received(1, stored)

    return router.routes


def _received(received: int, stored: int) -> Response:
    said = Received(received=received, stored=stored).model_dump_json()
    return Response(said, media_type=JSON_TYPE)


def _answers(name: str, example: Any) -> dict[str, Any]:
    """How the interface's description tells of a body that is read by hand, from its raw bytes."""
    content = {"schema": {"$ref": f"#/components/schemas/{name}"}, "example": example}
    body = {"required": True, "content": {JSON_TYPE: content}}
    return {"response_model": Received, "openapi_extra": {"requestBody": body}}
