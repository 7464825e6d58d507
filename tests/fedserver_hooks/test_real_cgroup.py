"""On this machine's own kernel: a group of 1 CPU and 1 GiB, and a neighbour that starts and stops."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pytest

from fedserver_hooks.allocation.cgroups import Cgroups

WINDOW_S: Final = 2.0
MOVES: Final = 0.10
GIB: Final = 1024**3
NAME: Final = f"fedserver-test-{os.getpid()}"
SYSTEMD: Final = (
    "--scope", "--quiet", "--collect", "-p", "CPUQuota=100%", "-p", "MemoryMax=1G"
)  # fmt: skip

# Polite: it keeps the CPUs busy, and leaves our own work as it is.
BUSY = "import os; os.nice(10)\nwhile True: pass"
WORKER = """
import json, os, sys, time
from fedserver_hooks.allocation import AllocatedMeter, choose
from fedserver_hooks.allocation.scope import in_words
from fedserver_hooks.meter import CodeCarbonMeter

for procs in sys.argv[2:]:
    with open(procs, "w") as file:
        file.write(str(os.getpid()))
shares = choose("auto")
print(in_words("auto", shares), flush=True)
meter = AllocatedMeter(CodeCarbonMeter(force_cpu_power=200.0, force_ram_power=20.0), shares)
meter.start()
assert meter.wait_ready(60)
for line in sys.stdin:
    before, begun, worked = meter.read(), time.monotonic(), time.process_time()
    while (passed := time.monotonic() - begun) < float(sys.argv[1]):
        if time.process_time() - worked > 0.3 * passed:  # three tenths of a CPU, whoever else works
            time.sleep(0.005)
    used = meter.read().minus(before)
    figures = {"watts": used.energy_kwh * 3.6e6 / passed, "machine": used.machine_kwh * 3.6e6 / passed}
    print(json.dumps(figures), flush=True)
meter.stop()
"""


@pytest.fixture
def limited() -> Iterator[tuple[list[str], list[str]]]:
    """What to put before a command, or the files into which it writes its id, to be limited."""
    cpus, limit = os.cpu_count() or 1, Cgroups().cpu_limit()
    if cpus < 2:
        pytest.skip("this machine has one CPU: a limit of one is none")
    if limit is not None and limit < cpus:
        pytest.skip(f"limited to {limit:g} CPUs ourselves: a neighbour would share that limit")
    made: list[Path] = []
    try:
        try:
            made += _groups()
            yield [], [str(group / "cgroup.procs") for group in made]
        except (OSError, KeyError) as error:
            yield _systemd(f"no group may be made here: {error}"), []
    finally:
        for group in made:
            group.rmdir()


def _groups() -> list[Path]:
    """A limited group in each hierarchy that counts. Raises `OSError` or `KeyError`."""
    here = Cgroups()
    made: list[Path] = []
    try:
        # cpu and cpuacct may be one hierarchy
        parents = [here.groups.get(controller) for controller in ("cpu", "cpuacct", "memory")]
        for parent in dict.fromkeys(parents):
            if parent is not None:
                made.append(_new(parent))
                for file, value in (
                    ("cpu.cfs_quota_us", 100_000),
                    ("cpu.cfs_period_us", 100_000),
                    ("memory.limit_in_bytes", GIB),
                ):
                    if (made[-1] / file).exists():
                        (made[-1] / file).write_text(str(value))
        if not made:
            own = here.groups[""]
            (own / "cgroup.subtree_control").write_text("+cpu +memory")
            made.append(_new(own))
            (made[-1] / "cpu.max").write_text("100000 100000")
            (made[-1] / "memory.max").write_text(str(GIB))
    except BaseException:
        for group in made:
            group.rmdir()
        raise
    return made


def _new(parent: Path) -> Path:
    group = parent / NAME
    group.mkdir()
    return group


def _systemd(why: str) -> list[str]:
    """systemd's way to run in a limited group; skips the test where it has none either."""
    program = shutil.which("systemd-run")
    for whose in ("--system", "--user"):
        if program is not None:
            command = [program, whose, *SYSTEMD]
            if not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
                return command
    pytest.skip(f"{why}; and systemd-run gives none")


def _window(worker: subprocess.Popen[str]) -> dict[str, float]:
    stdin, stdout = _pipes(worker)
    stdin.write("\n")
    stdin.flush()
    figures: dict[str, float] = json.loads(stdout.readline())
    return figures


def _pipes(worker: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    return worker.stdin, worker.stdout


def test_a_real_neighbour_does_not_move_the_figure(limited: tuple[list[str], list[str]]) -> None:
    """codecarbon sees the machine's power rise and fall; our watts stay within 10 %."""
    before, procs = limited
    cpus = os.cpu_count() or 1
    worker = subprocess.Popen(
        [*before, sys.executable, "-c", WORKER, str(WINDOW_S), *procs],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    neighbours: list[subprocess.Popen[bytes]] = []
    try:
        words = _pipes(worker)[1].readline()
        assert words.startswith(f"allocation (1 of {cpus} CPUs, 1.0 of ")
        quiet = [_window(worker)]
        neighbours += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cpus)]
        busy = _window(worker)
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
        quiet.append(_window(worker))
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
        worker.kill()
        worker.wait()
        for pipe in _pipes(worker):
            pipe.close()
    watts = [quiet[0]["watts"], busy["watts"], quiet[1]["watts"]]
    assert busy["machine"] > 150  # of the 200 W that the CPUs take at full load, and 20 W of RAM
    assert max(watts) <= min(watts) * (1 + MOVES), (watts, quiet, busy)
