"""What many servers and their services survive together: a database that is down, full disks, kills.

In each: no call into the hook blocks for longer than the barrier, the model is that of a training
without faults, and at the end the service holds exactly what the servers recorded.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from telemetry.store import open_store
from telemetry.testing import OWNER
from tests.fedserver.clients import Script, wait_until
from tests.fedserver.scraping import Scraper
from tests.fedserver.servers import ServerProcess
from tests.fedserver.services import (
    ServiceProcess,
    check_same,
    flushed,
    limit_files,
    model_of,
    play,
    timed,
)
from tests.postgres import DURABLE, postgres_server
from tests.telemetry.test_delivery import record

CheckCalls = Callable[[Path], None]
FIT_S = 0.3
FLEET = tuple(
    Script(add=add, examples=examples, metrics=metrics, fit="hang", hang_s=FIT_S)
    for add, examples, metrics in ((0.1, 7, {"emissions": 1e-7}), (0.7, 13, {}))
)
OPTIONS: dict[str, Any] = {"seed": 5, "round_timeout_s": 60, "clients__wait_timeout_s": 120}
DOWN_S = 30.0
PATIENCE_S = 120.0


def train_quickly(folder: Path, rounds: int) -> bytes:
    """The model of a training that nothing disturbs."""
    folder.mkdir()
    fleet = tuple(Script(**{**script.__dict__, "fit": "good"}) for script in FLEET)
    with ServerProcess(folder, 2, rounds=rounds, **OPTIONS) as server, ExitStack() as stack:
        play(server, stack, fleet)
        assert server.wait(PATIENCE_S) == 0, server.log
    return model_of(folder)


@contextmanager
def training(folder: Path, rounds: int, service: str, **options: Any) -> Iterator[ServerProcess]:
    """A server that trains slowly and delivers, its calls measured."""
    folder.mkdir(exist_ok=True)
    found: dict[str, Any] = OPTIONS | {"rounds": rounds, "telemetry__service_url": service}
    with timed(folder, 2, **(found | options)) as server, ExitStack() as stack:
        play(server, stack, FLEET)
        yield server


def delivered(store_url: str, rounds: int) -> Callable[[], bool]:
    """Whether each run of a service's store has so many rounds by now."""

    def enough() -> bool:
        with closing(open_store(store_url)) as store:
            runs = store.runs()
            return bool(runs) and all(len(list(store.rounds(run.run_id))) >= rounds for run in runs)

    return enough


@pytest.mark.slow
def test_postgresql_stopped_for_half_a_minute(tmp_path: Path, check_calls: CheckCalls) -> None:
    """It crashes while two servers train and deliver, and comes back: nothing lost, nothing twice."""
    rounds = 110
    model = train_quickly(tmp_path / "undisturbed", rounds)
    folders = [tmp_path / name for name in ("a", "b")]
    with postgres_server(DURABLE) as postgres:
        store_url = postgres.url(postgres.create_database())
        with ServiceProcess(tmp_path, store_url=store_url) as service, ExitStack() as stack:
            servers = [
                stack.enter_context(training(folder, rounds, service.url)) for folder in folders
            ]
            wait_until(delivered(store_url, 3), PATIENCE_S)
            postgres.stop("immediate")
            down_at = time.monotonic()
            for server in servers:
                server.wait_for("the service answered 503", DOWN_S)
            assert httpx.get(f"{service.url}/readyz").status_code == 503
            assert httpx.get(f"{service.url}/healthz").status_code == 200
            time.sleep(max(0.0, down_at + DOWN_S - time.monotonic()))
            assert all(server.process.poll() is None for server in servers), "they still train"
            postgres.start()
            assert [server.wait(PATIENCE_S) for server in servers] == [0, 0]
        with ServiceProcess(tmp_path, store_url=store_url) as service:
            for folder in folders:
                assert model_of(folder) == model
                flushed(folder, service.url)
        check_same(store_url, *folders)
    for folder in folders:
        check_calls(folder)


class FullDisk:
    """A file system of its own that is filled up and freed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Not a byte is left."""
        with self._filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)

    def free(self) -> None:
        """There is room again."""
        self._filler.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[FullDisk | None]:
    """A file system of 8 MiB in memory; None where this user may not mount one."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield FullDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_of_the_service(tmp_path: Path, check_calls: CheckCalls) -> None:
    """It answers 503 and is not ready; when there is room again, all arrives.

    A real file system where one may be mounted, else a limit on the size of files.
    """
    rounds = 24
    model = train_quickly(tmp_path / "undisturbed", rounds)
    server_folder = tmp_path / "server"
    with small_disk(tmp_path / "disk") as disk, ExitStack() as stack:
        service = stack.enter_context(ServiceProcess(tmp_path / "disk"))
        server = stack.enter_context(training(server_folder, rounds, service.url))
        wait_until(delivered(service.store_url, 3), PATIENCE_S)
        if disk is None:
            limit_files(service.process, 4096)
        else:
            disk.fill()
        server.wait_for("the service answered 503", PATIENCE_S)
        assert httpx.get(f"{service.url}/readyz").status_code == 503
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        time.sleep(2)
        assert server.process.poll() is None, "it still trains"
        if disk is None:
            limit_files(service.process)
        else:
            disk.free()
        assert server.wait(PATIENCE_S) == 0, server.log
        assert model_of(server_folder) == model
        flushed(server_folder, service.url)
        assert service.stop() == 0
        said = service.log.read_text()
        assert "the disk is full" in said or disk is None
        check_same(service.store_url, server_folder)
    check_calls(server_folder)


@pytest.mark.slow
def test_a_full_disk_of_a_server_that_delivers(tmp_path: Path, check_calls: CheckCalls) -> None:
    """No file of its own can grow for some rounds; they are kept in memory and arrive, too."""
    rounds = 24
    model = train_quickly(tmp_path / "undisturbed", rounds)
    folder = tmp_path / "server"
    with ServiceProcess(tmp_path) as service, training(folder, rounds, service.url) as server:
        wait_until(delivered(service.store_url, 3), PATIENCE_S)
        limit_files(server.process, 4096)
        server.wait_for("WARNING telemetry", PATIENCE_S)
        time.sleep(2)
        limit_files(server.process)
        assert server.wait(PATIENCE_S) == 0, server.log
        assert model_of(folder) == model
        flushed(folder, service.url)
        check_same(service.store_url, folder)
    check_calls(folder)


@pytest.mark.slow
def test_eight_servers_and_two_services_that_are_killed(
    tmp_path: Path, check_calls: CheckCalls
) -> None:
    """Over one PostgreSQL; two of the servers share a SQLite file.

    Each run has one source, no counter ever falls, and every round is there once.
    """
    rounds = 12
    model = train_quickly(tmp_path / "undisturbed", rounds)
    names = "abcdefgh"
    folders = {name: tmp_path / name for name in names}
    shared = {"telemetry__database_url": f"sqlite:///{folders['a'] / 'telemetry.db'}"}
    with postgres_server(DURABLE) as postgres, ExitStack() as stack:
        store_url = postgres.url(postgres.create_database())
        services = [
            stack.enter_context(ServiceProcess(tmp_path, store_url=store_url, name=name))
            for name in ("one", "two")
        ]
        servers: dict[str, ServerProcess] = {}
        sources: dict[str, list[Callable[[], str | None]]] = {
            "service": [lambda s=service: f"{s.url}/metrics" for service in services]  # type: ignore[misc]
        }
        for place, name in enumerate(names):
            options = shared if name == "b" else {}
            url = services[place // 4].url
            server = stack.enter_context(training(folders[name], rounds, url, **options))
            servers[name] = server
            sources[name] = [lambda s=server: s.metrics_url]  # type: ignore[misc]
        with Scraper(sources) as scraper:
            for service in services:
                wait_until(delivered(store_url, 2), PATIENCE_S)
                service.kill()
                time.sleep(1)
                service.start()
            codes = {name: server.wait(PATIENCE_S) for name, server in servers.items()}
            assert set(codes.values()) == {0}, codes
            for name, folder in folders.items():
                assert model_of(folder) == model
                if name != "b":
                    flushed(folder, services[names.index(name) // 4].url)
            scraper.look()
        scraper.check()
        assert scraper.scrapes > 20
        assert set(map(frozenset, scraper.runs.values())) == {frozenset({"service"})}
        assert len(scraper.runs) == len(names)
        check_same(store_url, *(folder for name, folder in folders.items() if name != "b"))
    for folder in folders.values():
        check_calls(folder)


@pytest.mark.slow
def test_no_counter_falls_when_a_server_is_killed_and_goes_on(
    tmp_path: Path, check_calls: CheckCalls
) -> None:
    """A server without a service is the source of its run, before the kill and after it."""
    rounds = 12
    model = train_quickly(tmp_path / "undisturbed", rounds)
    folder = tmp_path / "server"
    folder.mkdir()
    now: list[ServerProcess] = []
    options: dict[str, Any] = OPTIONS | {"rounds": rounds, "telemetry__http__linger_s": 2}

    def metrics() -> str | None:
        return now[-1].metrics_url if now and now[-1].process.poll() is None else None

    with Scraper({"server": [metrics]}, every_s=0.05) as scraper:
        for at, kill in enumerate(("round 3/12", "round 7/12", None)):
            arguments = ("--resume", "latest") if at else ()
            with timed(folder, 2, arguments=arguments, **options) as server, ExitStack() as stack:
                assert server.metrics_url
                now.append(server)
                play(server, stack, FLEET)
                if kill is None:
                    assert server.wait(PATIENCE_S) == 0, server.log
                else:
                    server.wait_for(kill, PATIENCE_S)
                    server.signal(signal.SIGKILL)
                    assert server.wait() == -signal.SIGKILL
    scraper.check()
    assert len(scraper.runs) == 1
    assert scraper.counters > 20
    assert model_of(folder) == model
    check_calls(folder)


@pytest.mark.slow
def test_of_two_servers_on_one_file_each_run_has_one_source(
    tmp_path: Path, check_calls: CheckCalls
) -> None:
    """Each shows its own; what ended before is shown by that whose run began first, and by no other.

    Also when that one is killed and goes on: no counter falls.
    """
    rounds = 12
    model = train_quickly(tmp_path / "undisturbed", rounds)
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with closing(open_store(url)) as store:
        record(store, "of-before")
        store.release("of-before", OWNER)
    options: dict[str, Any] = OPTIONS | {
        "rounds": rounds,
        "telemetry__database_url": url,
        "telemetry__http__linger_s": 2,
    }
    now: dict[str, ServerProcess] = {}

    def metrics(name: str) -> str | None:
        server = now.get(name)
        return server.metrics_url if server and server.process.poll() is None else None

    def begin(stack: ExitStack, name: str, *arguments: str) -> ServerProcess:
        (tmp_path / name).mkdir(exist_ok=True)
        server: ServerProcess = stack.enter_context(
            timed(tmp_path / name, len(FLEET), arguments=arguments, **options)
        )
        assert server.metrics_url
        now[name] = server
        play(server, stack, FLEET)
        return server

    sources: dict[str, list[Callable[[], str | None]]] = {
        name: [partial(metrics, name)] for name in ("first", "second")
    }
    with Scraper(sources, every_s=0.1) as scraper, ExitStack() as stack:
        with ExitStack() as killed:
            first = begin(killed, "first")
            second = begin(stack, "second")
            first.wait_for("round 4/12", PATIENCE_S)
            wait_until(lambda: len(scraper.runs) == 3, PATIENCE_S)
            before = {run_id: set(names) for run_id, names in scraper.runs.items()}
            first.signal(signal.SIGKILL)
            assert first.wait() == -signal.SIGKILL
        (run,) = (path.name for path in (tmp_path / "first" / "runs").iterdir())
        first = begin(stack, "first", "--resume", run)
        assert [server.wait(PATIENCE_S) for server in (first, second)] == [0, 0], first.log
    scraper.check(handed_over=True)  # what a server let go of at its end, the other shows
    assert scraper.counters > 20
    assert len(scraper.runs) == 3
    assert before.pop("of-before") == {"first"}
    assert before.pop(run) == {"first"}
    assert list(before.values()) == [{"second"}]
    for name in now:
        assert model_of(tmp_path / name) == model
        check_calls(tmp_path / name)
