"""How large a database becomes: bytes for each round and for each client that reports in it.

A SQLite file after its journal was taken in, with a run whose clients send all fields: the difference
between many clients and none, and between rounds and none. There is no target: the sizing table
in docs/scale.md quotes it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.accounting import facts, wire
from telemetry.accounting import account
from telemetry.store import open_store
from telemetry.testing import FACTORS, OWNER, START, make_run

ROUNDS = 20
CLIENTS = 500


def size_of(folder: Path, rounds: int, clients: int) -> int:
    """Bytes of a database with one run of so many rounds."""
    name = f"{rounds}-{clients}.db"
    url = f"sqlite:///{folder}/{name}"
    store = open_store(url)
    record = account(facts([wire(node) for node in range(clients)]))
    store.start_run(make_run(record.run_id, factors=FACTORS), OWNER, START)
    for number in range(1, rounds + 1):
        store.record_round(record.model_copy(update={"round": number, "sequence": number + 1}))
    store.close()
    return sum(file.stat().st_size for file in folder.glob(f"{name}*"))


def main() -> int:
    """Print both sizes."""
    with tempfile.TemporaryDirectory() as folder:
        empty = size_of(Path(folder), 0, 0)
        alone = size_of(Path(folder), ROUNDS, 0)
        whole = size_of(Path(folder), ROUNDS, CLIENTS)
    client, of_round = (whole - alone) / ROUNDS / CLIENTS, (alone - empty) / ROUNDS
    print(
        f"SQLite: {client:.0f} bytes for each client in each round, {of_round:.0f} for each round; a run "
        f"of 100 rounds with 50 clients takes {(client * 50 + of_round) * 100 / 1e6:.1f} MB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
