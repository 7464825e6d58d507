"""What Flower expects of, and does to, a process that is not one of its own."""

from __future__ import annotations

import logging
import os
from typing import Final

from flwr.supercore import telemetry as flower_telemetry
from flwr.supercore.logger import FLOWER_LOGGER, console_handler
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID: Final = 0
"""The sender of the server's messages; clients count from 1."""
_RUN_ID: Final = 1
_BANNERS: Final = ("DEPRECATED FEATURE", "FEATURE UPDATE", "UNSUPPORTED FEATURE")


def prepare_flower_process() -> None:
    """Make Flower usable and quiet in this process. Call once, before the first message.

    - Flower's messages need the identity of a run, which its own programs set.
    - Flower's usage statistics are off, here and in child processes.
    - Flower's console handler prints what the root logger prints again: it goes.
    - Banners about the protocol's age are for who writes clients, not for a server's log.

    Not for a ServerApp's process, where Flower has set all of this itself.
    """
    TaskIdentity.run_id = _RUN_ID
    TaskIdentity.task_id = _RUN_ID
    TaskIdentity.node_id = SERVER_NODE_ID
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    flower_telemetry.FLWR_TELEMETRY_ENABLED = "0"  # was read when Flower was imported
    FLOWER_LOGGER.removeHandler(console_handler)
    if _no_banners not in FLOWER_LOGGER.filters:
        FLOWER_LOGGER.addFilter(_no_banners)


def _no_banners(record: logging.LogRecord) -> bool:
    return not (isinstance(record.msg, str) and record.msg.startswith(_BANNERS))
