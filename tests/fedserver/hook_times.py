"""How long calls into the hook hold up the training, measured inside the server's own process.

As a program (``python tests/fedserver/hook_times.py run -c …``) it is ``fedserver`` with every call of
the recorder timed, as they happen, into the file that ``HOOK_TIMES`` names: what a process that is
killed had measured is there, too.

A machine that is busy with other things stops the whole process now and then. A thread that does
nothing but sleep notices that, and so long as the process itself did not compute meanwhile it is no
fault of telemetry's: `longest_of` takes it off.
"""

from __future__ import annotations

import atexit
import gc
import json
import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "HOOK_TIMES"
BARRIER_S: Final = 0.25
"""What the hook promises (`fedserver_hooks.recorder.BARRIER_S`)."""
NOT_OF_TRAINING: Final = frozenset({"start", "start_quietly", "finish", "delivered", "leftovers"})
"""Before the first client and after the last round; they wait as long as they are told."""
NOT_THE_TRAINING_THREADS: Final = frozenset({"settle", "give_up", "release"})
_LEAST_S: Final = 0.02
_NAP_S: Final = 0.005
_ROOM_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class LongestCall:
    """The call that held the training up for longest."""

    name: str
    wall_s: float
    held_s: float
    """``wall_s`` without the time for which the machine stopped the process."""

    def __str__(self) -> str:
        return (
            f"longest hook call {self.held_s:.3f} s ({self.name}; {self.wall_s:.3f} s by the clock)"
        )


def _longest_call(path: Path) -> LongestCall | None:
    """The longest of a server's calls; None where it was killed before the first."""
    text = path.read_bytes().rstrip(b"\0").decode()
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    stops: list[dict[str, Any]] = [line for line in lines if line["what"] == "stopped"]
    calls = [line for line in lines if line["what"] == "call"]
    found = [
        LongestCall(call["name"], call["s"], call["s"] - _stopped_s(call, stops)) for call in calls
    ]
    return max(found, key=lambda call: call.held_s, default=None)


def _stopped_s(call: dict[str, Any], stops: list[dict[str, Any]]) -> float:
    begin, end = call["at"], call["at"] + call["s"]
    inside = [float(stop["s"]) for stop in stops if stop["at"] < end and stop["until"] > begin]
    longest: float = end - begin
    return min(sum(inside), longest)


def longest_of(folder: Path) -> LongestCall:
    """The longest call of all servers of a folder; raises where nothing was measured."""
    found = [call for path in folder.glob("hook-times*") if (call := _longest_call(path))]
    assert found, f"{folder}: no call was timed"
    return max(found, key=lambda call: call.held_s)


def left_alone(folder: Path) -> int:
    """Objects that the collector left alone in the servers of a folder: the fewest of one that ended."""
    texts = [path.read_bytes().rstrip(b"\0").decode() for path in folder.glob("hook-times*")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return min(int(line["objects"]) for line in lines if line["what"] == "left alone")


# --- in the server's process -----------------------------------------------------------------------


class Times:
    """Writes calls and stops down, a line of JSON each, into memory that is a file.

    A process that is killed leaves it, and one whose disk is full can still write there.
    """

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(_ROOM_BYTES)
            self._memory = mmap.mmap(file.fileno(), _ROOM_BYTES)
        self._lock = threading.Lock()
        self._longest_s = -1.0

    def write(self, **facts: object) -> None:
        with self._lock:
            self._memory.write(json.dumps(facts).encode() + b"\n")

    def timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, timed."""

        @wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                took_s = time.perf_counter() - began
                if took_s > self._longest_s or took_s > _LEAST_S:
                    self._longest_s = max(took_s, self._longest_s)
                    self.write(what="call", name=name, at=began, s=took_s)

        return call

    def watch(self) -> None:
        """Notice when the whole process stands still."""
        while True:
            began, computed = time.perf_counter(), time.process_time()
            time.sleep(_NAP_S)
            now = time.perf_counter()
            stopped_s = now - began - _NAP_S - (time.process_time() - computed)
            if stopped_s > _LEAST_S / 2:
                self.write(what="stopped", at=began, until=now, s=stopped_s)


def main() -> None:
    """``fedserver``, timed."""
    import sys

    from fedserver.cli import main as fedserver
    from fedserver_hooks.recorder import RoundRecorder

    times = Times(Path(os.environ[VARIABLE]))
    for name, method in vars(RoundRecorder).copy().items():
        of_training = name not in NOT_OF_TRAINING | NOT_THE_TRAINING_THREADS
        if callable(method) and not name.startswith("_") and of_training:
            setattr(RoundRecorder, name, times.timed(name, method))
    threading.Thread(target=times.watch, daemon=True).start()
    atexit.register(lambda: times.write(what="left alone", objects=gc.get_freeze_count()))
    sys.argv[0] = "fedserver"
    fedserver()


if __name__ == "__main__":
    main()
