"""``/readyz``: whether the database can be read and written just now. Open to everybody."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from telemetry.errors import StoreError
from telemetry.service.ingest import Ingest
from telemetry.service.problems import problem
from telemetry.store.base import Store

logger = logging.getLogger(__name__)

WAIT_S: Final = 3.0


def ready_router(store: Store, ingest: Ingest) -> APIRouter:
    """The route. It says no more than yes or no; why not stands in the log."""
    router = APIRouter(tags=["state"])

    @router.get("/readyz", responses={503: {"description": "The database cannot be used."}})
    async def readyz() -> Response:
        """200 while the database answers and the last delivery could be written, else 503."""
        try:
            async with asyncio.timeout(WAIT_S):
                await run_in_threadpool(store.check)
        except TimeoutError:
            return _not("the database does not answer")
        except StoreError as error:
            logger.warning("not ready: %s", error)
            return _not("the database cannot be read")
        if ingest.problem is not None:
            return _not("the last delivery could not be written")
        return JSONResponse({"status": "ok"})

    return router


def _not(why: str) -> Response:
    return problem(503, why, {"Retry-After": "5"})
