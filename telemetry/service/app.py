"""The HTTP application, wired: what stands before the routes, and the routes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fastapi import Depends, FastAPI
from fastapi.middleware import Middleware
from fastapi.middleware.gzip import GZipMiddleware
from prometheus_client import CollectorRegistry, Counter

from telemetry.errors import OpenAddress
from telemetry.exporters.family import FamiliesCollector
from telemetry.exporters.process_families import AUTH_FAILURES, HTTP_FAMILIES
from telemetry.service import problems
from telemetry.service.guards import HostCheck, ReadAccess, SecurityHeaders, is_loopback
from telemetry.service.requests import CountRequests, Requests
from telemetry.service.routes.health import health_router
from telemetry.service.routes.login import login_router
from telemetry.service.routes.metrics import metrics_router
from telemetry.service.routes.page import Views, page_router

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
    page: Views | None = None,
) -> FastAPI:
    """The application that an FL server embeds: ``/metrics`` over ``registry``, and ``/healthz``.

    With ``read_token`` everything but ``/healthz`` needs it. Requests are answered for the loopback
    names, ``bind_host`` and ``allowed_hosts``. Raises `OpenAddress` where ``bind_host`` can be
    reached from other machines and no read token is given. Adds ``fl_auth_failures_total`` and the
    metrics of requests to the registry, so a registry serves one application; ``auth_failures`` is that
    counter, if there is one.
    ``page`` gives the runs that ``/`` shows to people, who come in by ``/login``; without it neither is
    there.
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
        # No interactive pages: they load scripts from elsewhere.
        openapi_url=None,
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
    if page is not None:
        app.include_router(page_router(page, readers))
        app.include_router(login_router(readers))
    return app
