"""The faults of a soak: what each does, to whom and for how long, drawn from a seed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.fedserver.services import ServiceProcess, limit_files
from tests.postgres import PostgresServer
from tests.soak.fleet import FULL_BYTES, Trainee
from tests.soak.proxy import FaultyProxy

RESTART_S: Final = 1.0


@dataclass(frozen=True)
class Place:
    """A service, and the proxy before it that servers deliver to."""

    name: str
    service: ServiceProcess
    proxy: FaultyProxy


@dataclass(frozen=True)
class Scene:
    """Everything that a fault may befall. The first two services are over ``postgres``."""

    postgres: PostgresServer
    places: Sequence[Place]
    trainees: Sequence[Trainee]
    ended: threading.Event
    """Set when no fault is to last any longer."""


@dataclass(frozen=True)
class Fault:
    """One fault that is to come."""

    at_s: float
    kind: str
    seconds: float
    target: int

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.kind}"


def schedule(seed: int, count: int, seconds: float) -> list[Fault]:
    """So many faults at random moments; each kind comes before one comes for the third time."""
    dice = random.Random(seed)
    first, last = min(15.0, seconds / 6), seconds * 0.9
    moments = sorted(dice.uniform(first, last) for _ in range(count))
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += dice.sample([*KINDS, *OFTEN], len(KINDS) + len(OFTEN))
    down_s = min(30.0, seconds / 6)
    return [
        Fault(
            at_s=at,
            kind=kind,
            seconds=down_s if kind == "PostgreSQL stops" else dice.uniform(2.0, 12.0),
            target=dice.randrange(1000),
        )
        for at, kind in zip(moments, kinds, strict=False)
    ]


class Director:
    """Lets faults happen when their time has come. One at a time to the same target."""

    def __init__(self, scene: Scene, faults: Sequence[Fault], say: Callable[[str], None]) -> None:
        self._scene = scene
        self._faults = faults
        self._say = say
        self._began = time.monotonic()
        self._locks: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._play, args=(fault,), daemon=True) for fault in faults
        ]
        self.happened: Counter[str] = Counter()
        self.problems: list[str] = []

    def start(self) -> None:
        """From now on."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until all of them are over."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self.problems.append("a fault does not end")

    def _play(self, fault: Fault) -> None:
        self._scene.ended.wait(max(0.0, self._began + fault.at_s - time.monotonic()))
        try:
            KINDS[fault.kind](self, fault)
        except Exception as error:  # noqa: BLE001 - told at the end, with the rest
            self.problems.append(f"{fault.kind}: {type(error).__name__}: {error}"[-2000:])

    def _told(self, fault: Fault, what: str) -> None:
        self.happened[fault.kind] += 1
        self._say(f"{time.monotonic() - self._began:6.1f} s  {what}")

    def _while_only_mine(self, target: str, act: Callable[[], None]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._locks[target])
            self._locks[target] = 1
        try:
            act()
        finally:
            with self._changed:
                self._locks[target] = 0
                self._changed.notify_all()

    def _last(self, seconds: float) -> None:
        self._scene.ended.wait(seconds)

    # --- to FL servers ---------------------------------------------------------------------------

    def kill_server(self, fault: Fault) -> None:
        """kill -9 in whatever phase it is; it is started again and goes on."""
        trainee = self._scene.trainees[fault.target % len(self._scene.trainees)]
        deadline = time.monotonic() + 30.0
        while trainee.process() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        self._told(fault, f"kill -9 of server {trainee.name}: {trainee.kill()}")

    def fill_server_disk(self, fault: Fault) -> None:
        """Its database cannot be written."""
        trainee = self._scene.trainees[fault.target % len(self._scene.trainees)]

        def fill() -> None:
            process = trainee.process()
            if process is None or process.poll() is not None:
                self._told(fault, f"full disk of server {trainee.name}: there is none just now")
                return
            self._told(fault, f"full disk of server {trainee.name} for {fault.seconds:.1f} s")
            trainee.fill_disk(process)
            self._last(fault.seconds)
            with suppress(ProcessLookupError):  # it has ended, or was killed
                limit_files(process)

        self._while_only_mine(f"disk of {trainee.name}", fill)

    # --- to services -----------------------------------------------------------------------------

    def kill_service(self, fault: Fault) -> None:
        """kill -9, in the middle of whatever it writes; back a little later."""
        place = self._place(fault)

        def kill() -> None:
            self._told(fault, f"kill -9 of service {place.name}, for {fault.seconds:.1f} s")
            place.service.kill()
            self._last(fault.seconds)
            self._started_again(place)

        self._while_only_mine(place.name, kill)

    def freeze_service(self, fault: Fault) -> None:
        """It stands still without a word, its connections open."""
        place = self._place(fault)

        def freeze() -> None:
            self._told(fault, f"service {place.name} stands still for {fault.seconds:.1f} s")
            os.kill(place.service.process.pid, signal.SIGSTOP)
            self._last(fault.seconds)
            os.kill(place.service.process.pid, signal.SIGCONT)

        self._while_only_mine(place.name, freeze)

    def fill_service_disk(self, fault: Fault) -> None:
        """Its database cannot be written; of the service over SQLite."""
        place = self._scene.places[-1]

        def fill() -> None:
            self._told(fault, f"full disk of service {place.name} for {fault.seconds:.1f} s")
            limit_files(place.service.process, FULL_BYTES)
            self._last(fault.seconds)
            limit_files(place.service.process)

        self._while_only_mine(place.name, fill)

    def stop_postgres(self, fault: Fault) -> None:
        """It crashes, and is started again after half a minute."""

        def stop() -> None:
            self._told(fault, f"PostgreSQL stops for {fault.seconds:.1f} s")
            self._scene.postgres.stop("immediate")
            self._last(fault.seconds)
            self._scene.postgres.start()

        self._while_only_mine("postgres", stop)

    def misbehave(self, what: str) -> Callable[[Fault], None]:
        """What a service's answers are like for a while."""

        def act(fault: Fault) -> None:
            place = self._place(fault)

            def answer() -> None:
                words = f"service {place.name} answers {what!r} for {fault.seconds:.1f} s"
                self._told(fault, words)
                place.proxy.always = what
                self._last(fault.seconds)
                place.proxy.always = None

            self._while_only_mine(f"answers of {place.name}", answer)

        return act

    def _place(self, fault: Fault) -> Place:
        return self._scene.places[fault.target % len(self._scene.places)]

    def _started_again(self, place: Place) -> None:
        """Also where its database is down just now: whoever looks after it tries again and again."""
        for _ in range(90):
            try:
                return place.service.start()
            except AssertionError:
                time.sleep(RESTART_S)
        raise AssertionError(f"service {place.name} does not start")


def _answers(what: str) -> Callable[[Director, Fault], None]:
    return lambda director, fault: director.misbehave(what)(fault)


KINDS: Final[dict[str, Callable[[Director, Fault], None]]] = {
    "kill -9 of a server": Director.kill_server,
    "kill -9 of a service": Director.kill_service,
    "PostgreSQL stops": Director.stop_postgres,
    "full disk of a service": Director.fill_service_disk,
    "full disk of a server": Director.fill_server_disk,
    "a service stands still": Director.freeze_service,
    "500": _answers("500"),
    "429": _answers("429 in 1"),
    "time-outs": _answers("hang"),
    "garbage": _answers("garbage"),
    "slowly": _answers("drip"),
    "answers that are lost": _answers("close after"),
}
"""Kind → what does it."""
OFTEN: Final = ("kill -9 of a server", "kill -9 of a service")
"""These twice as often as the others: what they hit depends most on the moment."""
