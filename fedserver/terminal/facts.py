"""What a display has to know of a run when it begins."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fedserver.assemble import Server
from fedserver.config import ServerConfig
from fedserver_hooks.events import Node
from telemetry.domain import RoundSummary, StoredRun

_EVERYWHERE: Final = frozenset({"0.0.0.0", "[::]", "::", "*", ""})  # noqa: S104 - compared with


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is fixed about a run, and what a resumed one has behind it."""

    run: StoredRun
    rounds: tuple[RoundSummary, ...]
    """Closed before this server began."""
    planned: int
    needed: int
    """Clients without which no round begins."""
    endpoint: str
    name: Callable[[Node], str]
    """What a client is called now."""


def facts_of(config: ServerConfig, server: Server) -> Facts:
    """Of a server that listens. Raises `StoreError`."""
    recorder = server.recorder
    run_id, store = recorder.run.run_id, recorder.store
    return Facts(
        run=store.run(run_id),
        rounds=tuple(store.rounds(run_id)),
        planned=config.rounds,
        needed=config.cohort.needed_to_train,
        endpoint=endpoint(config, server.grid.address),
        name=recorder.names.name,
    )


def endpoint(config: ServerConfig, address: str) -> str:
    """What to share: where clients connect to, and what they need for it."""
    host, _, port = address.rpartition(":")
    everywhere = f"port {port} of this machine, {socket.gethostname()}"
    where = everywhere if host in _EVERYWHERE else address
    needs = []
    if config.server.tls is not None:
        needs.append("TLS")
    if config.server.auth == "tokens":
        needs.append("a token")
    return f"{where}  (with {' and '.join(needs)})" if needs else where
