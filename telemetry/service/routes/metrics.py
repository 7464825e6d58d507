"""``/metrics``: the Prometheus page, or OpenMetrics where the scraper asks for it."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_KINDS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {kind: {} for kind in ("text/plain", "application/openmetrics-text")}}
}


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """The route over ``registry``."""
    router = APIRouter()

    # A plain def: the collector reads the store, so it belongs in a thread and not in the loop.
    @router.get("/metrics", response_class=Response, responses=_KINDS)
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return router
