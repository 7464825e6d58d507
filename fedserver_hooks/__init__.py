"""What plugs into any Flower server or client.

Names are loaded when they are first used: importing this package loads neither a database layer nor
a web framework, and on a client not Flower's server side either.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedserver_hooks.client import emissions_mod, track_emissions
    from fedserver_hooks.legacy import with_emissions
    from fedserver_hooks.meter import CodeCarbonMeter, Meter, NullMeter, ReplayMeter
    from fedserver_hooks.metrics import serve_metrics
    from fedserver_hooks.recorder import RoundRecorder
    from fedserver_hooks.strategy import EmissionsStrategy

__all__ = [
    "CodeCarbonMeter",
    "EmissionsStrategy",
    "Meter",
    "NullMeter",
    "ReplayMeter",
    "RoundRecorder",
    "emissions_mod",
    "serve_metrics",
    "track_emissions",
    "with_emissions",
]

_HOME = {
    "CodeCarbonMeter": "meter",
    "EmissionsStrategy": "strategy",
    "Meter": "meter",
    "NullMeter": "meter",
    "ReplayMeter": "meter",
    "RoundRecorder": "recorder",
    "emissions_mod": "client",
    "serve_metrics": "metrics",
    "track_emissions": "client",
    "with_emissions": "legacy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
