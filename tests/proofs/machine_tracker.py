"""One codecarbon tracker of the whole machine, apart from all of this project's code, for proofs.

``python -m tests.proofs.machine_tracker``: every quarter of a second, until it is killed, a line
``<epoch seconds> <kWh since the start> <CPU seconds that anybody worked>``.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Thread
from typing import Any, Final

import psutil
from codecarbon import OfflineEmissionsTracker

ROOT: Final = Path(__file__).parent.parent.parent
EVERY_S: Final = 0.25


class Printer:
    """An output handler of codecarbon's, called by ``flush``."""

    def out(self, total: Any, delta: Any) -> None:
        """Print the energy so far."""
        times = psutil.cpu_times()
        possible_s = sum(times) - times.guest - times.guest_nice  # which are in user and nice
        busy_s = possible_s - times.idle - times.iowait - times.steal
        sys.stdout.write(f"{time.time()!r} {float(total.energy_consumed)!r} {busy_s!r}\n")
        sys.stdout.flush()

    def live_out(self, total: Any, delta: Any) -> None:
        """Not asked for."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """There are no tasks."""

    def exit(self) -> None:
        """Nothing to close."""


class MachineTracker(AbstractContextManager["MachineTracker"]):
    """The tracker as a process, and what it has shown."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._times: list[float] = []
        self._energies_kwh: list[float] = []
        self._busy_s: list[float] = []
        self._process = Popen(
            [sys.executable, "-m", "tests.proofs.machine_tracker"],
            cwd=ROOT, env=environ, stdout=PIPE, text=True,
        )  # fmt: skip
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at, energy_kwh, busy_s = map(float, line.split())
            self._energies_kwh.append(energy_kwh)
            self._busy_s.append(busy_s)
            self._times.append(at)

    @property
    def ready(self) -> bool:
        """Whether it measures already."""
        return bool(self._times)

    def shown_until(self) -> float:
        """Epoch seconds of the last line."""
        return self._times[-1]

    def energy_kwh(self, start: float, end: float) -> float:
        """What the whole machine used between two times, epoch seconds."""
        return self._between(self._energies_kwh, start, end)

    def busy_s(self, start: float, end: float) -> float:
        """CPU seconds that anybody on the machine worked between two times."""
        return self._between(self._busy_s, start, end)

    def _between(self, values: Sequence[float], start: float, end: float) -> float:
        return interpolated(self._times, values, end) - interpolated(self._times, values, start)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()


def interpolated(times: Sequence[float], values: Sequence[float], moment: float) -> float:
    """The value at a moment between two lines; a moment outside of all lines is an error."""
    after = bisect_left(times, moment)
    assert 0 < after < len(times), f"{moment} is not within {times[0]} to {times[-1]}"
    share = (moment - times[after - 1]) / (times[after] - times[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


def main() -> None:
    """Measure until killed."""
    tracker = OfflineEmissionsTracker(
        country_iso_code="ESP", tracking_mode="machine", measure_power_secs=60,
        output_methods=[], output_handlers=[Printer()], allow_multiple_runs=True,
        log_level="error",
    )  # fmt: skip
    tracker.start()
    while True:
        tracker.flush()
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
