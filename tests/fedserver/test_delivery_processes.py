"""FL servers, the service and clients as processes, killed and disturbed: nothing lost, nothing twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from telemetry.domain import SERVER_PHASES, Owner, utc_now
from telemetry.lease import this_process
from telemetry.store import Store, open_store
from telemetry.testing import OWNER, START, make_round, make_run
from tests.fedserver.clients import Script, wait_until
from tests.fedserver.hook_times import left_alone
from tests.fedserver.servers import ServerProcess
from tests.fedserver.services import ENVIRON, ServiceProcess, flush, model_of, play, timed
from tests.service_double import SLOW, ServiceDouble, assert_same
from tests.telemetry.test_delivery import record

REPORTS = Script(add=0.1, examples=7, metrics={"emissions": 1e-7})
SILENT = Script(add=0.7, examples=13)
FLEET = (REPORTS, SILENT)
OPTIONS: dict[str, Any] = {"rounds": 4, "seed": 5}


def both(folder: Path, service: str | Store) -> tuple[Store, Store]:
    """The service's store and the server's."""
    theirs = open_store(service) if isinstance(service, str) else service
    return theirs, open_store(f"sqlite:///{folder / 'telemetry.db'}")


def trained(folder: Path, **options: Any) -> tuple[ServerProcess, bytes]:
    """A whole training, and its model."""
    folder.mkdir(exist_ok=True)
    with timed(folder, 2, **(OPTIONS | options)) as server, ExitStack() as stack:
        play(server, stack, FLEET)
        assert server.wait(90) == 0, server.log
    return server, model_of(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of a training without any service."""
    return trained(tmp_path_factory.mktemp("undisturbed"))[1]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """The real one, without tokens, on this machine."""
    with ServiceProcess(tmp_path) as process:
        yield process


@pytest.mark.slow
def test_a_training_arrives_whole(
    tmp_path: Path, service: ServiceProcess, undisturbed: bytes
) -> None:
    """When the server has ended, the service holds what it recorded; there is nothing to flush."""
    server, model = trained(tmp_path / "server", telemetry__service_url=service.url)
    assert model == undisturbed
    assert "not with the telemetry service" not in server.log
    assert "HTTP Request" not in server.log, "httpx tells of every exchange"
    assert left_alone(tmp_path / "server") > 50_000, "the collector stops a training for 70 ms"
    theirs, ours = both(tmp_path / "server", service.store_url)
    with closing(theirs), closing(ours):
        assert_same(theirs, ours)
    done = flush(tmp_path / "server", service.url)
    assert (done.returncode, done.stdout.split()[0]) == (0, "0"), done.stderr


def scraped(url: str) -> str:
    """``/metrics`` as text."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - of this test
        text: str = answer.read().decode()
    return text


@pytest.mark.slow
def test_the_service_is_the_one_source_of_a_run(tmp_path: Path, service: ServiceProcess) -> None:
    """The FL server's /metrics shows that nothing waits, and no run; the service's shows the run."""
    options: dict[str, Any] = {
        "telemetry__service_url": service.url,
        "telemetry__http__linger_s": 60,
    }
    with ServerProcess(tmp_path, 2, **(OPTIONS | options)) as server, ExitStack() as stack:
        play(server, stack, FLEET)
        server.wait_for("stays up")
        waiting = re.compile(r"^fl_telemetry_undelivered_rounds (\S+)$", re.MULTILINE)

        def nothing_waits() -> bool:
            found = waiting.search(scraped(server.metrics_url))
            return found is not None and float(found.group(1)) == 0

        wait_until(nothing_waits)
        here = scraped(server.metrics_url)
        assert "fl_telemetry_oldest_undelivered_seconds" in here
        assert "run_id=" not in here
        there = scraped(f"{service.url}/metrics")
        assert re.search(r'fl_rounds_total{run_id="[^"]+",status="completed"} 4', there), there
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0


def service_token(service: ServiceProcess, folder: Path, label: str) -> Path:
    """A file with a new write token of the service."""
    command = ["telemetry", "tokens", "create", "--label", label, "--scope", "write"]
    made = subprocess.run(
        [sys.executable, "-m", "fedserver", *command, "--store", service.store_url],
        cwd=folder,
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    path = folder / f"{label}.token"
    path.write_text(made.stdout)
    return path


@pytest.mark.slow
def test_runs_belong_to_the_token_that_delivered_them(
    tmp_path: Path, service: ServiceProcess
) -> None:
    """Without a token nothing is taken; another writer's delivery of the same run is refused."""
    mine, other = (service_token(service, tmp_path, label) for label in ("mine", "other"))
    time.sleep(2)  # a running service knows of a token after a second
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        with closing(open_store(f"sqlite:///{folder / 'telemetry.db'}")) as ours:
            record(ours)
            ours.release(make_run().run_id, OWNER)
    nothing = flush(folders[0], service.url, "--timeout", "0")
    assert nothing.returncode == 1
    assert "answered 401" in nothing.stderr
    done = flush(folders[0], service.url, "--token-file", str(mine))
    assert (done.returncode, done.stdout.split()[0]) == (0, "4"), done.stderr
    refused = flush(folders[1], service.url, "--token-file", str(other))
    assert refused.returncode == 1
    assert "answered 404" in refused.stderr
    for token in (mine, other):
        assert token.read_text().strip() not in nothing.stderr + done.stderr + refused.stderr
    theirs, ours = both(folders[0], service.store_url)
    with closing(theirs), closing(ours):
        assert_same(theirs, ours)


DIES = """
import os, signal
from fedserver_hooks.phases import PhaseLedger
from tests.fedserver.hook_times import main
enter = PhaseLedger.enter
def dying(self, key, phase, now=None):
    instant = enter(self, key, phase, now)
    if key[0] == 2 and phase == {phase!r} or phase == "setup" == {phase!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return instant
PhaseLedger.enter = dying
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("phase", SERVER_PHASES)
def test_a_server_that_is_killed_loses_nothing_that_was_closed(
    tmp_path: Path,
    service: ServiceProcess,
    undisturbed: bytes,
    phase: str,
    check_calls: Callable[[Path], None],
) -> None:
    """In each phase of a round: what its store holds is flushed, row by row, and it goes on.

    The service sees both attempts; the model is that of a training without a fault.
    """
    script = tmp_path / "dies.py"
    script.write_text(DIES.format(phase=phase))
    options: dict[str, Any] = OPTIONS | {"telemetry__service_url": service.url}
    with timed(tmp_path, 2, preload=script, **options) as server, ExitStack() as stack:
        if phase != "setup":
            play(server, stack, FLEET)
        assert server.wait(60) == -signal.SIGKILL
    done = flush(tmp_path, service.url)
    assert done.returncode == 0, done.stderr
    theirs, ours = both(tmp_path, service.store_url)
    with closing(theirs), closing(ours):
        assert_same(theirs, ours)
        (run,) = theirs.runs()
        assert run.status == "interrupted"
        closed = [row.round for row in theirs.rounds(run.run_id)]
        assert closed[:2] == ([0, 1] if phase != "setup" else [0][: len(closed)])

    resume = () if phase == "setup" else ("--resume", "latest")
    with timed(tmp_path, 2, arguments=resume, **options) as server, ExitStack() as stack:
        play(server, stack, FLEET)
        assert server.wait(60) == 0, server.log
    assert model_of(tmp_path) == undisturbed
    check_calls(tmp_path)
    assert flush(tmp_path, service.url).returncode == 0
    theirs, ours = both(tmp_path, service.store_url)
    with closing(theirs), closing(ours):
        assert_same(theirs, ours)
        (run,) = (run for run in theirs.runs() if run.status == "completed")
        played = [(row.round, row.attempt) for row in theirs.rounds(run.run_id)]
        assert {number for number, _ in played} == {0, 1, 2, 3, 4}
        assert ((0, 2) in played) is (phase != "setup")


DIES_AT_THE_END = """
import os, signal, sys
sys.argv[0] = "fedserver"
from fedserver_hooks.recorder import RoundRecorder
RoundRecorder.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from fedserver.cli import main
main()
"""


@pytest.mark.slow
def test_a_server_that_is_killed_after_its_last_round_leaves_its_model(
    tmp_path: Path, undisturbed: bytes
) -> None:
    """It is written before the run is said to have ended."""
    script = tmp_path / "dies.py"
    script.write_text(DIES_AT_THE_END)
    with ServerProcess(tmp_path, 2, preload=script, **OPTIONS) as server, ExitStack() as stack:
        play(server, stack, FLEET)
        assert server.wait(60) == -signal.SIGKILL, server.log
    assert model_of(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["500", "429 in 1", "hang", "garbage", "drip", "close after", SLOW]
)
def test_a_service_that_does_wrong_never_hurts_a_training(
    tmp_path: Path, undisturbed: bytes, fault: str, check_calls: Callable[[Path], None]
) -> None:
    """From the first round to the end: the same model, no call that waits, and all of it later."""
    with ServiceDouble() as double:
        double.always = fault
        server, model = trained(tmp_path, telemetry__service_url=double.url)
        assert model == undisturbed
        check_calls(tmp_path)
        # The first two take longer than the training; an answer that trickles in is an answer.
        told = 0 if fault in ("hang", "drip", SLOW) else 1
        assert server.log.count("WARNING telemetry (delivery)") == told, server.log
        assert ("not with the telemetry service" in server.log) is (fault != SLOW), server.log
        double.always = None
        if fault != SLOW:
            done = flush(tmp_path, double.url)
            assert done.returncode == 0, done.stderr
        ours = open_store(server.store_url)
        with closing(ours):
            assert_same(double.store, ours)


@pytest.mark.slow
def test_a_signal_ends_the_server_soon_although_the_service_hangs(tmp_path: Path) -> None:
    """Within two seconds, with the signal's exit code; the rest is flushed."""
    slow = tuple(Script(fit="hang", hang_s=0.5) for _ in range(2))
    with ServiceDouble() as double:
        double.always = "hang"
        options: dict[str, Any] = OPTIONS | {"telemetry__service_url": double.url, "rounds": 50}
        with ServerProcess(tmp_path, 2, **options) as server, ExitStack() as stack:
            play(server, stack, slow)
            server.wait_for("round 1/50 completed")
            sent = server.signal(signal.SIGTERM)
            assert server.wait(10) == 143
            assert time.monotonic() - sent < 2.0, server.log
        double.always = None
        assert flush(tmp_path, double.url).returncode == 0
        ours = open_store(server.store_url)
        with closing(ours):
            assert_same(double.store, ours)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["real", "a hundred transactions a batch"])
def test_a_service_that_is_killed_in_the_middle_of_batches(tmp_path: Path, kind: str) -> None:
    """Again and again, with parts of a batch stored or not: at the end each round is there once."""
    ours = open_store(f"sqlite:///{tmp_path / 'telemetry.db'}")
    kills = 4
    with (
        closing(ours),
        ServiceProcess(tmp_path, double=() if kind == "real" else ("slow",)) as service,
    ):
        for number in range(3):
            record(ours, f"run-{number}", rounds=120 if kind == "real" else 12)
            ours.release(f"run-{number}", OWNER)
        results: list[subprocess.CompletedProcess[str]] = []
        flushing = threading.Thread(target=lambda: results.append(flush(tmp_path, service.url)))
        flushing.start()
        for kill in range(kills):
            time.sleep(1.2 + 0.3 * kill)
            service.kill()
            time.sleep(0.3)
            service.start()
        flushing.join(120)
        assert results, "flush did not end"
        assert results[0].returncode == 0, results[0].stderr
        with closing(open_store(service.store_url)) as theirs:
            assert_same(theirs, ours)


def dead_owner() -> Owner:
    """A process of this machine that has ended without a word."""
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True)  # fmt: skip
    return replace(this_process(), pid=int(process.stdout))


@pytest.mark.slow
def test_a_run_that_its_server_could_not_let_go_of_is_flushed(tmp_path: Path) -> None:
    """Its disk was full at the end, say; a run of a server that lives is left to it, and told."""
    living = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    with closing(open_store(f"sqlite:///{tmp_path / 'telemetry.db'}")) as ours:
        ours.start_run(make_run(), dead_owner(), utc_now())
        ours.record_round(make_round(1))
        ours.finish_run(make_run().run_id, "completed", START)
        ours.start_run(
            make_run("theirs"), replace(this_process(), pid=living.pid, token="0.a"), utc_now()
        )
        with ServiceDouble() as double:
            done = flush(tmp_path, double.url)
            assert (done.returncode, done.stdout.split()[0]) == (0, "1"), done.stderr
            assert "1 run(s) are left to servers that live" in done.stderr
            assert_same(double.store, ours, [make_run().run_id])
    living.kill()
    living.wait()


@pytest.mark.slow
def test_flush_says_what_is_left(tmp_path: Path) -> None:
    """Exit code 1 where the service is away, or refuses; 2 where it is not told which."""
    with closing(open_store(f"sqlite:///{tmp_path / 'telemetry.db'}")) as ours:
        ours.start_run(make_run(), OWNER, START)
        ours.record_round(make_round(1))
        ours.finish_run(make_run().run_id, "completed", START)
        ours.release(make_run().run_id, OWNER)
    away = flush(tmp_path, "http://127.0.0.1:9", "--timeout", "0")
    assert away.returncode == 1
    assert "cannot be reached" in away.stderr
    assert "they stay in sqlite:///" in away.stderr
    with ServiceDouble() as double:
        double.refused_rounds = {1}
        refused = flush(tmp_path, double.url)
        assert refused.returncode == 1
        assert "not taken by the service" in refused.stderr
        assert "422" in refused.stderr
        double.refused_rounds = set()
        double.token = "flt_right"
        token = tmp_path / "token"
        token.write_text("flt_right\n")
        done = flush(tmp_path, double.url, "--token-file", str(token))
        assert (done.returncode, done.stdout.split()[0]) == (0, "1"), done.stderr
    nowhere = subprocess.run(
        [sys.executable, "-m", "fedserver", "telemetry", "flush"],
        cwd=tmp_path,
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert nowhere.returncode == 2
    assert "telemetry.service_url" in nowhere.stderr
