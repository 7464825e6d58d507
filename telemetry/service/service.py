"""The service that many FL servers deliver to, wired: what stands before the routes, and the routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

from fastapi import Depends, FastAPI
from fastapi.middleware import Middleware
from fastapi.middleware.gzip import GZipMiddleware
from starlette.concurrency import run_in_threadpool

from telemetry.errors import OpenAddress
from telemetry.exporters.family import FamiliesCollector
from telemetry.exporters.process_families import HTTP_FAMILIES, INGEST_FAMILIES, STORE_FAMILIES
from telemetry.exporters.prometheus import (
    DEFAULT_ROUNDS,
    DEFAULT_SERIES,
    EmissionsCollector,
    metrics_registry,
)
from telemetry.service import faults, problems
from telemetry.service.access import ApiAccess, KnownTokens, RateLimit
from telemetry.service.app import API, GZIP_LEVEL, add_pages, auth_failures_counter
from telemetry.service.description import describe
from telemetry.service.guards import HostCheck, SecurityHeaders, is_loopback
from telemetry.service.ingest import Ingest
from telemetry.service.request_log import RequestLog
from telemetry.service.requests import CountRequests, Requests
from telemetry.service.routes.health import health_router
from telemetry.service.routes.metrics import metrics_router
from telemetry.service.routes.read import read_router
from telemetry.service.routes.ready import ready_router
from telemetry.service.routes.write import write_routes
from telemetry.store.base import Store

REQUESTS_PER_S: Final = 500.0
"""Of each token; twice as many at once."""
DEFAULT_RUNS: Final = 20
"""Ended runs on ``/metrics``: more than at one FL server, for many may end at once."""


def create_service(
    store: Store,
    *,
    bind_host: str = "127.0.0.1",
    allowed_hosts: Collection[str] = (),
    open_metrics: bool = False,
    requests_per_s: float = REQUESTS_PER_S,
    metrics_runs: int = DEFAULT_RUNS,
    metrics_rounds: int = DEFAULT_ROUNDS,
    max_series: int = DEFAULT_SERIES,
) -> FastAPI:
    """The application over ``store``; its lifespan starts and ends the threads that it needs.

    Requests are answered for the loopback names, ``bind_host`` and ``allowed_hosts``. Raises
    `OpenAddress` where ``bind_host`` can be reached from other machines and the store has no token,
    `StoreError` where it cannot be read. ``open_metrics`` lets everybody read ``/metrics``; on it are
    all runs that run and the ``metrics_runs`` that ended last, with their last ``metrics_rounds``
    rounds, within ``max_series`` series.
    """
    tokens = KnownTokens(store)
    local = is_loopback(bind_host)
    if tokens.empty and not local:
        raise OpenAddress(bind_host, "make a token (fedserver telemetry tokens create)")
    auth_failures = auth_failures_counter()
    access = ApiAccess(
        tokens,
        auth_failures.inc,
        limit=RateLimit(requests_per_s, 2 * requests_per_s),
        closed=not local,
    )
    ingest = Ingest(store)
    requests = Requests()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tokens.start()
        ingest.start()
        yield
        # After the last request was answered: what is left here, nobody waits for.
        await run_in_threadpool(ingest.close)
        tokens.stop()

    app = FastAPI(
        title="fedserver-telemetry",
        version="1",
        description="Runs, rounds and emissions of federated trainings, delivered by FL servers.",
        openapi_url=f"{API}/openapi.json",
        # No interactive pages: they load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[  # outermost first
            Middleware(CountRequests, requests=requests),
            Middleware(RequestLog),
            Middleware(SecurityHeaders),
            Middleware(HostCheck, names=(bind_host, *allowed_hosts)),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=GZIP_LEVEL),
        ],
    )
    problems.install(app)
    faults.install(app)
    collector = EmissionsCollector(
        store, max_runs=metrics_runs, max_rounds=metrics_rounds, max_series=max_series
    )
    registry = metrics_registry(collector)
    registry.register(auth_failures)
    registry.register(FamiliesCollector(HTTP_FAMILIES, requests))
    registry.register(FamiliesCollector(STORE_FAMILIES, ingest.writes))
    registry.register(FamiliesCollector(INGEST_FAMILIES, ingest))
    # First what is asked for most: routes are tried in turn.
    app.router.routes += write_routes(API, ingest, access)
    app.include_router(health_router())
    app.include_router(ready_router(store, ingest))
    app.include_router(
        metrics_router(registry), dependencies=[] if open_metrics else [Depends(access)]
    )
    app.include_router(read_router(store, access), prefix=API)
    add_pages(app, store, access)
    describe(app)
    return app
