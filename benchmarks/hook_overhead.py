"""The hook's own time, as a share of Flower's bare ``aggregate_train``.

Both sides in one run: the time of the inner FedAvg call is taken inside the outer one, so what is
divided is (outer − inner) ÷ inner of the *same* call. Whole call ÷ bare call, timed one after the
other, scatters by half on a shared machine. The meter is off: it has a budget of its own
(``benchmarks/metering.py``). Each reply carries a full report of 16 fields.

Target: at most 0.05 at 10, 100, 1,000 and 10,000 replies.
"""

from __future__ import annotations

import gc
import logging
import os
import statistics
import sys
import time
from collections.abc import Iterable
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from fedserver_hooks.meter import NullMeter
from fedserver_hooks.recorder import RoundRecorder
from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_run

CASES = [(10, 100_000, 101), (100, 100_000, 25), (1_000, 100_000, 5), (10_000, 10_000, 3)]
"""Replies, float32 parameters a model, repetitions."""
MOST = 0.05


class TimedFedAvg(FedAvg):
    """FedAvg that notes how long its own aggregation took."""

    seconds = 0.0

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """Flower's, timed."""
        begin = time.perf_counter()
        try:
            return super().aggregate_train(server_round, replies)
        finally:
            self.seconds = time.perf_counter() - begin


def replies(count: int, weights: np.ndarray[Any, Any]) -> list[Message]:
    """That many replies, each with a model, metrics and a full report."""
    made = []
    for node in range(count):
        instruction = Message(RecordDict(), dst_node_id=node, message_type="train")
        report: dict[str, Any] = {
            "schema": 1, "emissions_kg": 1.74e-4, "energy_kwh": 1e-3, "cpu_kwh": 6e-4,
            "gpu_kwh": 3e-4, "ram_kwh": 1e-4, "duration_s": 12.5,
            "started_at": "2026-01-02T03:04:05.000001Z",
            "ended_at": "2026-01-02T03:04:17.500001Z", "country": "ESP",
            "carbon_intensity_g_per_kwh": 174.0, "sensor": "rapl", "scope": "machine",
            "host_id": f"{node:012x}", "client_name": f"client-{node}",
            "tracker": "codecarbon 3.3.2",
        }  # fmt: skip
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(weights)}),
                "metrics": MetricRecord({"num-examples": 10 + node % 7, "loss": 0.5}),
                "emissions": ConfigRecord(report),
            }
        )
        made.append(Message(content, reply_to=instruction))
    return made


def hook_share(count: int, size: int, repetitions: int) -> tuple[float, float]:
    """Median of hook ÷ bare, and the bare call's median in milliseconds."""
    weights = np.random.default_rng(0).normal(size=size).astype(np.float32)
    shares, bare = [], []
    for _ in range(repetitions):
        inner = TimedFedAvg()
        book = RoundRecorder(make_run(), InMemoryStore(), NullMeter())
        hook = EmissionsStrategy(inner, book)
        book.start()
        book.begin_round(1)
        batch = replies(count, weights)
        book.sent("train", [reply.metadata.src_node_id for reply in batch])
        gc.collect()
        begin = time.perf_counter()
        hook.aggregate_train(1, batch)
        outer = time.perf_counter() - begin
        shares.append((outer - inner.seconds) / inner.seconds)
        bare.append(inner.seconds * 1000)
        book.finish("completed")
        recorded = book.store.round(book.run.run_id, 1)
        assert len(recorded.accepted) == count, "the hook must really have recorded every report"
    return statistics.median(shares), statistics.median(bare)


def main() -> int:
    """Print a row a case; 1 if one misses the target."""
    logging.disable(logging.WARNING)  # the meter is off on purpose
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
    print(f"{'replies':>8} {'parameters':>11} {'bare ms':>9} {'hook ÷ bare':>12}   at most {MOST}")
    missed = False
    for count, size, repetitions in CASES:
        share, bare_ms = hook_share(count, size, repetitions)
        verdict = "ok" if share <= MOST else "MISSED"
        missed |= share > MOST
        print(f"{count:>8,} {size:>11,} {bare_ms:>9.1f} {share:>12.4f}   {verdict}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
