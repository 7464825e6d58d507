"""The HTTP application, wired: what stands before the routes, and the routes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final

from fastapi import Depends, FastAPI
from fastapi.middleware import Middleware
from fastapi.middleware.gzip import GZipMiddleware
from prometheus_client import CollectorRegistry, Counter

from telemetry.domain import Owner, utc_now
from telemetry.errors import OpenAddress
from telemetry.exporters.family import FamiliesCollector
from telemetry.exporters.process_families import AUTH_FAILURES, HTTP_FAMILIES
from telemetry.service import faults, problems
from telemetry.service.description import describe
from telemetry.service.guards import (
    HostCheck,
    ReadAccess,
    Readers,
    SecurityHeaders,
    is_loopback,
)
from telemetry.service.requests import CountRequests, Requests
from telemetry.service.routes.health import health_router
from telemetry.service.routes.login import login_router
from telemetry.service.routes.metrics import metrics_router
from telemetry.service.routes.page import page_router
from telemetry.service.routes.read import read_router
from telemetry.service.routes.static import static_router
from telemetry.store.base import Store

API: Final = "/api/v1"
GZIP_LEVEL: Final = 1
"""A page of 1.3 MB takes 2 ms; level 6 takes 10 ms and makes it little smaller."""


def auth_failures_counter() -> Counter:
    """``fl_auth_failures_total``, in no registry yet: for whoever counts refusals of its own too."""
    return Counter(AUTH_FAILURES.name, AUTH_FAILURES.help, registry=None)


def create_app(
    registry: CollectorRegistry,
    *,
    read_token: str | None = None,
    bind_host: str = "127.0.0.1",
    allowed_hosts: Collection[str] = (),
    auth_failures: Counter | None = None,
    store: Store | None = None,
    owner: Owner | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """The application that an FL server embeds: ``/metrics`` over ``registry``, and ``/healthz``.

    With ``read_token`` everything but ``/healthz`` needs it. Requests are answered for the loopback
    names, ``bind_host`` and ``allowed_hosts``. Raises `OpenAddress` where ``bind_host`` can be
    reached from other machines and no read token is given. Adds ``fl_auth_failures_total`` and the
    metrics of requests to the registry, so a registry serves one application; ``auth_failures`` is that
    counter, if there is one.
    ``store`` holds the runs that programs read below ``/api/v1`` and people at ``/``, who come in by
    ``/login``; without it none of these is there. ``owner`` is the process that answers, as it holds runs.
    """
    if read_token is None and not is_loopback(bind_host):
        raise OpenAddress(bind_host)
    auth_failures = auth_failures or auth_failures_counter()
    registry.register(auth_failures)
    requests = Requests()
    registry.register(FamiliesCollector(HTTP_FAMILIES, requests))
    readers = ReadAccess(read_token, refused=auth_failures.inc)
    app = FastAPI(
        title="fedserver-telemetry",
        version="1",
        description="Runs, rounds and emissions of the federated trainings of one FL server.",
        # No interactive pages: they load scripts from elsewhere.
        openapi_url=None if store is None else f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[  # outermost first
            Middleware(CountRequests, requests=requests),
            Middleware(SecurityHeaders),
            Middleware(HostCheck, names=(bind_host, *allowed_hosts)),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=GZIP_LEVEL),
        ],
    )
    problems.install(app)
    app.include_router(health_router())
    app.include_router(metrics_router(registry), dependencies=[Depends(readers)])
    if store is not None:
        faults.install(app)
        app.include_router(read_router(store, readers, owner=owner, clock=clock), prefix=API)
        add_pages(app, store, readers, owner, clock)
        describe(app)
    return app


def add_pages(
    app: FastAPI,
    store: Store,
    readers: Readers,
    owner: Owner | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """What people are shown: no part of the interface that is described."""
    for router in (
        page_router(store, readers, api=API, owner=owner, clock=clock),
        login_router(readers),
        static_router(),
    ):
        app.include_router(router, include_in_schema=False)
