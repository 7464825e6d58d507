"""What is left to say after a soak: every difference between what was recorded and what arrived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from telemetry.store import Store, open_store
from telemetry.verify import verify_run
from tests.fedserver.hook_times import BARRIER_S, longest_of
from tests.service_double import assert_same_run


def differences(service_url: str, server_url: str) -> Iterator[str]:
    """Run by run and row by row; and what either store says against itself."""
    with closing(open_store(service_url)) as there, closing(open_store(server_url)) as here:
        recorded = [run.run_id for run in here.runs()]
        arrived = [run.run_id for run in there.runs()]
        if sorted(recorded) != sorted(arrived):
            yield f"recorded were {sorted(recorded)}, and {sorted(arrived)} arrived"
        for run_id in recorded:
            yield from _of_run(there, here, run_id)


def _of_run(there: Store, here: Store, run_id: str) -> Iterator[str]:
    try:
        assert_same_run(there, here, run_id)
    except Exception as error:  # noqa: BLE001 - whatever makes them differ
        yield f"run {run_id}: {type(error).__name__}: {error}"[:2000]
    else:
        for store in (there, here):
            found = verify_run(store, run_id).differences
            yield from (f"{store.url}: run {run_id}: {difference}" for difference in found)
    yield from _gaps(here, run_id)


def _gaps(here: Store, run_id: str) -> Iterator[str]:
    """Rounds that are missing: none but the open one may be lost, and that is played again."""
    run = here.run(run_id)
    numbers = sorted({row.round for row in here.rounds(run_id)})
    if numbers != list(range(len(numbers))):
        yield f"run {run_id} has the rounds {numbers}"
    if run.status == "completed" and len(numbers) != (run.info.rounds_planned or 0) + 1:
        yield f"run {run_id} is completed with {len(numbers)} rounds"


def recorded(server_urls: Sequence[str]) -> tuple[int, int]:
    """How many runs and closed rounds there are."""
    runs = rounds = 0
    for url in server_urls:
        with closing(open_store(url)) as store:
            found = store.runs()
            runs += len(found)
            rounds += sum(len(list(store.rounds(run.run_id))) for run in found)
    return runs, rounds


def held_up(folders: Sequence[Path]) -> tuple[str, bool]:
    """The longest call into the hook of all servers, in words, and whether it kept to the barrier."""
    longest = max(map(longest_of, folders), key=lambda call: call.held_s)
    return str(longest), longest.held_s <= BARRIER_S
