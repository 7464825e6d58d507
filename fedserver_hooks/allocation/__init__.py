"""The server's share of a machine that it does not have to itself.

`choose` finds the share, `AllocatedMeter` applies it to what a meter of the whole machine shows. The
rules, and why they are so, are in ``docs/accounting.md``.
"""

from __future__ import annotations

from fedserver_hooks.allocation.meter import AllocatedMeter
from fedserver_hooks.allocation.scope import ScopeUnavailable, ServerScope, choose

__all__ = ["AllocatedMeter", "ScopeUnavailable", "ServerScope", "choose"]
