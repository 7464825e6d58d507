"""What telemetry takes of a machine while an FL server waits for clients: CPU time and memory.

Processes wait side by side: Flower's own server (`flwr.server.start_server`, FedAvg), and ``fedserver run``
with all telemetry on: meter, database, writer, HTTP (nobody scrapes). They are left alone until they have
started up; then the CPU time that each takes is read from ``/proc`` at both ends of the watch, and its
resident memory at the end.

Targets: at most 0.5 % of a core and 100 MB (10^6 bytes) more. Python's and Flower's own imports are on both
sides; half of the difference are codecarbon and its pandas. The database is there already, as at every
start but the very first: that one, which loads Alembic to make the tables, stands beside it.

    python benchmarks/idle.py [seconds]     (default: 40)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml

from telemetry.store import open_store

ENVIRON = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "CODECARBON_TELEMETRY": "disabled"}
START_UP_S = 15.0
WATCH_S = 40.0
MOST_CORE_PERCENT = 0.5
MOST_MB = 100.0
FLOWER = """
import flwr as fl
fl.server.start_server(
    server_address="127.0.0.1:0",
    config=fl.server.ServerConfig(num_rounds=1),
    strategy=fl.server.strategy.FedAvg(),
)
"""


@dataclass(frozen=True)
class Taken:
    """What a process has taken by now."""

    cpu_s: float
    resident_mb: float


def taken(process: subprocess.Popen[bytes]) -> Taken:
    """As the kernel counts it; ends the benchmark where the process is gone."""
    if process.poll() is not None:
        raise SystemExit(f"it ended with {process.returncode}: {process.args!r}")
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    # After the name, which may hold anything: user and system time are fields 14 and 15 (proc(5)).
    fields = stat.rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return Taken(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 10**6)


def start(stack: ExitStack, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """A process that is ended with the benchmark."""
    log = stack.enter_context((folder / f"{len(list(folder.iterdir()))}.log").open("wb"))
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=ENVIRON, stdout=log, stderr=log
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def main() -> int:
    """Print both sides and the difference; 1 where a target is missed."""
    watch_s = float(sys.argv[1]) if len(sys.argv) > 1 else WATCH_S
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        config = {
            "track_emissions": True,
            "clients": {"wait_timeout_s": START_UP_S + watch_s + 60},
            "emissions": {"country": "ESP"},
            "server": {"address": "127.0.0.1:0"},
            "telemetry": {"http": {"port": 0}},
        }
        (folder / "server.yaml").write_text(yaml.safe_dump(config))
        open_store(f"sqlite:///{folder / 'used.db'}").close()
        run = ["-m", "fedserver", "run", "--plain", "-c", "server.yaml", "--set"]
        processes = [
            start(stack, ["-c", FLOWER], folder),
            *(
                start(stack, [*run, f"telemetry.database_url=sqlite:///{name}.db"], folder)
                for name in ("used", "new")
            ),
        ]
        time.sleep(START_UP_S)
        before = [taken(process) for process in processes]
        time.sleep(watch_s)
        after = [taken(process) for process in processes]
    percent = [
        100 * (end.cpu_s - begin.cpu_s) / watch_s for begin, end in zip(before, after, strict=True)
    ]
    sides = "Flower's server", "fedserver run", "with a new database"
    for side, share, end in zip(sides, percent, after, strict=True):
        print(f"{side + ':':<20} {share:.2f} % of a core, {end.resident_mb:.1f} MB resident")
    more_percent = percent[1] - percent[0]
    more_mb = after[1].resident_mb - after[0].resident_mb
    print(
        f"telemetry: {more_percent:.2f} % of a core (target: at most {MOST_CORE_PERCENT}) and "
        f"{more_mb:.1f} MB more (target: at most {MOST_MB:.0f})"
    )
    return int(more_percent > MOST_CORE_PERCENT or more_mb > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
