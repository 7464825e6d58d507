"""``/metrics`` and the pages of a program without an HTTP server of its own, beside its training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fedserver_hooks.recorder import RoundRecorder
    from telemetry.service.server import EmbeddedHttp

logger = logging.getLogger(__name__)

MAX_SERIES: Final = 50_000


def serve_metrics(
    recorder: RoundRecorder,
    port: int = 9464,
    *,
    host: str = "127.0.0.1",
    read_token: str | None = None,
    max_series: int = MAX_SERIES,
) -> EmbeddedHttp:
    """Answer Prometheus in a thread of its own, from now until ``stop`` or the program's end.

    Shows ``recorder``'s run and the last ended ones of its store, within ``max_series`` series.
    ``port`` 0 takes a free one, ``url`` of what is returned says which. Raises `HttpAddressError` for
    one that cannot be had, and `OpenAddress` for a ``host`` that other machines reach without a
    ``read_token``. Needs the extra ``service``.
    """
    from telemetry.exporters.family import FamiliesCollector
    from telemetry.exporters.process_families import STORE_FAMILIES
    from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
    from telemetry.service.app import create_app
    from telemetry.service.server import EmbeddedHttp

    collector = EmissionsCollector(
        recorder.store, recorder.owner, facts=recorder, max_series=max_series
    )
    registry = metrics_registry(collector)
    registry.register(FamiliesCollector(STORE_FAMILIES, recorder.writes))
    app = create_app(
        registry,
        read_token=read_token,
        bind_host=host,
        store=recorder.store,
        owner=recorder.owner,
    )
    http = EmbeddedHttp(app, host, port)
    http.start()
    logger.info("metrics at %s/metrics", http.url)
    return http
