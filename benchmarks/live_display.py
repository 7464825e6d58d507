"""What the live display costs: a share of one core while it shows a training, and the training's own time.

A training is played in real time on a pseudo-terminal: rounds of five seconds in which each client
answers once, a line of the log for each round and each failure. The same is played without a display;
what the process takes more of its core with one is the display's. A process of its own reads the
terminal. Then what an event costs the training: a reply told to a recorder with a display and without.

Targets: at most 0.01 of a core with 3 and with 200 clients; at most twice the recorder's own time (a
microsecond or two) an event.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from contextlib import closing

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from fedserver.logs import set_up_logging
from fedserver.terminal.display import LiveDisplay
from fedserver.terminal.facts import Facts
from fedserver_hooks.events import Watch
from fedserver_hooks.meter import NullMeter
from fedserver_hooks.recorder import RoundRecorder
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_run

CLIENTS = (3, 200)
SECONDS = 15.0
ROUND_S = 5.0
EVENTS = 20_000
MOST_CORE = 0.01
MOST_EVENT = 2.0

logger = logging.getLogger("benchmark")


def recorder(watch: Watch | None) -> RoundRecorder:
    """Of a run in memory, without a meter."""
    return RoundRecorder(make_run(), InMemoryStore(), NullMeter(), watch=watch)


def facts(book: RoundRecorder, clients: int) -> Facts:
    """As a server has them."""
    run = book.store.run(book.run.run_id)
    endpoint = "127.0.0.1:5000"
    return Facts(
        run=run, rounds=(), planned=99, needed=clients, endpoint=endpoint, name=book.names.name
    )


def play(book: RoundRecorder, clients: int, seconds: float) -> None:
    """Rounds in real time."""
    book.start()
    for node in range(clients):
        book.seen(node, f"client-{node}", True)
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        book.begin_round(number)
        nodes = list(range(clients))
        book.sent("train", nodes)
        for node in nodes:
            time.sleep(ROUND_S / clients)
            book.replied(node, "train", time.time(), 1000)
            if node % 29 == 3:
                book.failed(node, "layer '0' holds NaN or infinity")
                logger.info("client %d failed", node)
        book.replies("train", [(node, {"emissions_kg": 1e-6}, {}) for node in nodes])
        book.aggregated(True, {"loss": 1 / number})
        book.evaluating()
        book.evaluated({"accuracy": 1 - 1 / number})
        logger.info("round %d completed", number)
    book.finish("completed")


def core_share(clients: int, display: LiveDisplay | None) -> float:
    """CPU seconds of this process a second of a training."""
    book = recorder(None if display is None else display.watch)
    if display is not None:
        display.step("the ports", 3, 3)
        display.training(lambda: facts(book, clients))
    cpu, wall = time.process_time(), time.monotonic()
    play(book, clients, SECONDS)
    share = (time.process_time() - cpu) / (time.monotonic() - wall)
    if display is not None:
        display.close()
    return share


def event_us(watch: Watch | None) -> float:
    """Microseconds of the training's thread for a reply that is told."""
    book = recorder(watch)
    book.start()
    book.begin_round(1)
    gc.collect()
    gc.disable()
    begin = time.perf_counter()
    for node in range(EVENTS):
        book.replied(node, "train", 0.0, 1000)
    took = time.perf_counter() - begin
    gc.enable()
    book.finish("completed")
    return took / EVENTS * 1e6


def main() -> int:
    """Print a row a case; 1 if one misses the target."""
    missed = False
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    reader = subprocess.Popen(
        ["cat"], stdin=master, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.environ.setdefault("TERM", "xterm-256color")
    with closing(os.fdopen(slave, "w", encoding="utf-8")) as terminal:
        plain = set_up_logging(terminal)
        print(f"{'clients':>8} {'without':>9} {'with':>9} {'display':>9}   at most {MOST_CORE}")
        for clients in CLIENTS:
            without = core_share(clients, None)
            with_one = core_share(clients, LiveDisplay(plain))
            share = with_one - without
            missed |= share > MOST_CORE
            verdict = "ok" if share <= MOST_CORE else "MISSED"
            row = f"{clients:>8} {without:>9.4f} {with_one:>9.4f} {share:>9.4f}   {verdict}"
            print(row, flush=True)
        pairs = [(event_us(None), event_us(LiveDisplay(plain).watch)) for _ in range(15)]
        bare, watched = (min(side) for side in zip(*pairs, strict=True))  # undisturbed
        missed |= watched / bare > MOST_EVENT
        verdict = "ok" if watched / bare <= MOST_EVENT else "MISSED"
        print(
            f"\n{'event µs':>8} {bare:>9.2f} {watched:>9.2f}   × {watched / bare:.2f}   {verdict}"
        )
    reader.terminate()
    reader.wait()
    os.close(master)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
