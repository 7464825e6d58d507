"""``/metrics``: the Prometheus page, or OpenMetrics where the scraper asks for it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """The route over ``registry``."""
    router = APIRouter()

    # A plain def: the collector reads the store, so it belongs in a thread and not in the loop.
    @router.get("/metrics")
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return router
