"""``python -m tests.soak``: FL servers, clients, services and PostgreSQL as processes, and faults.

Two servers share a SQLite file and deliver to two services on one PostgreSQL, a third has both for
itself, on SQLite. ``SOAK_SECONDS`` (600) is how long they train, ``SOAK_FAULTS`` (20) how many faults
befall them meanwhile, ``SOAK_SEED`` which ones and when (default: drawn, and printed). Then what is
left is flushed and compared. Exit code 1 on any difference.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

# Read when gRPC is loaded, which is next: this process starts others while it has threads of gRPC.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from tests.fedserver.scraping import Scraper
from tests.fedserver.services import ServiceProcess, flush
from tests.postgres import DURABLE, postgres_server
from tests.soak.faults import Director, Place, Scene, schedule
from tests.soak.fleet import RUN_S, Trainee, reference
from tests.soak.proxy import FaultyProxy
from tests.soak.verdict import differences, held_up, recorded

GRACE_S: Final = 600.0
"""What training, flushing and comparing may take on top; then something hangs, and it is ended."""


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)  # noqa: T201 - the program's output


def number(name: str, default: float) -> float:
    """A number of the environment."""
    text = os.environ.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        sys.exit(f"{name} is no number: {text!r}")


def main() -> int:
    """The exit code."""
    logging.getLogger("flwr").setLevel(logging.ERROR)  # it tells of every message
    seconds = number("SOAK_SECONDS", 600.0)
    count = int(number("SOAK_FAULTS", 20))
    seed = int(number("SOAK_SEED", random.SystemRandom().randrange(10**6)))
    say(f"soak: {seconds:g} s, {count} faults, SOAK_SEED={seed}")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        watchdog = threading.Timer(seconds + GRACE_S, _hangs)
        watchdog.daemon = True
        watchdog.start()
        stack.callback(watchdog.cancel)
        problems = soak(folder, stack, seconds, count, seed)
    for problem in problems:
        say(f"DIFFERS  {problem}")
    if problems:
        say(f"verdict: FAILED; what is left is in {folder}; the same again: SOAK_SEED={seed}")
    else:
        shutil.rmtree(folder)
        say("verdict: passed, the services hold exactly what the servers recorded")
    return 1 if problems else 0


def soak(folder: Path, stack: ExitStack, seconds: float, count: int, seed: int) -> list[str]:
    """Train, disturb, flush, compare; what is wrong, in words."""
    model = reference(folder / "undisturbed")
    postgres = stack.enter_context(postgres_server(DURABLE))
    database = postgres.url(postgres.create_database())
    urls = {"north": database, "south": database, "west": f"sqlite:///{folder / 'west.db'}"}
    places = []
    for name, url in urls.items():
        service = stack.enter_context(ServiceProcess(folder, store_url=url, name=name))
        places.append(Place(name, service, stack.enter_context(FaultyProxy(service.url))))
    shared, own = folder / "a-and-b.db", folder / "c.db"
    trainees = [
        Trainee(name, folder / name, store, place.proxy.url, model)
        for name, store, place in zip("abc", (shared, shared, own), places, strict=True)
    ]
    ended = threading.Event()
    scene = Scene(postgres, places, trainees, ended)
    director = Director(scene, schedule(seed, count, seconds), say)
    sources: dict[str, list[Callable[[], str | None]]] = {
        "PostgreSQL": [_metrics(place) for place in places[:2]],
        "SQLite": [_metrics(places[2])],
        **{f"server {trainee.name}": [trainee.metrics_url] for trainee in trainees},
    }
    began = time.monotonic()
    with Scraper(sources, every_s=1.0) as scraper:
        for trainee in trainees:
            trainee.start()
        director.start()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        ended.set()
        director.join(120)
        for trainee in trainees:
            trainee.stop(2 * RUN_S)
        problems = list(_flushed(trainees))
        scraper.look()
    return problems + _judged(director, trainees, scraper, database, urls["west"])


def _metrics(place: Place) -> Callable[[], str | None]:
    return lambda: f"{place.service.url}/metrics"


def _flushed(trainees: list[Trainee]) -> list[str]:
    problems = []
    for trainee in trainees:
        done = flush(trainee.store_url, trainee.service, "--timeout", "60")
        say(f"server {trainee.name}: {done.stdout.strip()}")
        if done.returncode != 0:
            problems.append(f"flush of {trainee.name} left something: {done.stderr.strip()}")
    return problems


def _judged(
    director: Director, trainees: list[Trainee], scraper: Scraper, database: str, west: str
) -> list[str]:
    """What is wrong, in words; what was done is said."""
    runs, rounds = recorded([trainees[0].store_url, trainees[2].store_url])
    done = sum(trainee.completed for trainee in trainees)
    went_on = sum(trainee.resumed for trainee in trainees)
    killed = sum(trainee.killed for trainee in trainees)
    refused = sum(trainee.refused for trainee in trainees)
    say(
        f"{sum(director.happened.values())} faults; {runs} runs with {rounds} rounds, {done} of them "
        f"completed, {went_on} after a kill ({killed} kills of servers), {refused} starts given up on a full disk"
    )
    longest, kept = held_up([trainee.folder for trainee in trainees])
    say(longest)
    say(
        f"{scraper.scrapes} scrapes of {scraper.counters} counters, {scraper.failed} not answered; "
        f"{len(scraper.runs)} runs seen"
    )
    twice = {run: names for run, names in scraper.runs.items() if len(names) > 1}
    return [
        *director.problems,
        *(f"server {one.name}: {problem}" for one in trainees for problem in one.problems),
        *([] if kept else [f"a call held the training up: {longest}"]),
        *(f"a counter fell: {fall}" for fall in scraper.fallen),
        *(f"run {run} has several sources: {sorted(names)}" for run, names in twice.items()),
        *([] if done else ["no run completed"]),
        *differences(database, trainees[0].store_url),
        *differences(west, trainees[2].store_url),
    ]


def _hangs() -> None:
    say("verdict: FAILED; it does not end")
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
