"""Python's garbage collector in a process that is ours alone."""

from __future__ import annotations

import gc


def leave_what_is_there() -> None:
    """What is there when a server is ready, stays: the collector need not look through it any more.

    It stops every thread while it does: with Flower and codecarbon loaded for 70 ms, each time.
    """
    gc.collect()
    gc.freeze()
