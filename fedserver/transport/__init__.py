"""How clients that call ``fl.client.start_client(...)`` reach Message-API strategies.

The only package that uses Flower's internals; `tests/fedserver/test_flower_internals.py` names each.
`BidiGrid` is a `flwr.serverapp.Grid` over Flower's gRPC-bidi protocol. From the outside in:

- `grid`: the grid, in Flower messages
- `server`: the gRPC server; two threads a connection, bytes in and bytes out
- `nodes`: who is connected, who is busy, who is waited for; knows neither Flower nor gRPC
- `superlink`: the same kind of grid for clients that come through a SuperLink
- `messages`: Flower messages to the bytes of the protocol and back
- `address`, `process`: what is checked and set before the port opens
"""

from __future__ import annotations

from fedserver.transport.address import check_address
from fedserver.transport.base import (
    AddressError,
    Gate,
    GridListener,
    Holder,
    NoInitialModel,
    NullListener,
    Refused,
    RoundGrid,
    Stopped,
    TooFewClients,
    TransportError,
    Unavailable,
)
from fedserver.transport.grid import BidiGrid
from fedserver.transport.process import prepare_flower_process
from fedserver.transport.server import Certificates
from fedserver.transport.superlink import SuperLinkGrid

__all__ = [
    "AddressError",
    "BidiGrid",
    "Certificates",
    "Gate",
    "GridListener",
    "Holder",
    "NoInitialModel",
    "NullListener",
    "Refused",
    "RoundGrid",
    "Stopped",
    "SuperLinkGrid",
    "TooFewClients",
    "TransportError",
    "Unavailable",
    "check_address",
    "prepare_flower_process",
]
