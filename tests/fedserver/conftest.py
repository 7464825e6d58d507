"""Fixtures of tests that measure how long the hook holds a training up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import LONGEST
from tests.fedserver.hook_times import BARRIER_S, longest_of


@pytest.fixture
def check_calls(record_property: Callable[[str, object], None]) -> Callable[[Path], None]:
    """Asserts that no call in any server of a folder held the training up beyond the barrier.

    What was found is told at the end of the session.
    """

    def check(folder: Path) -> None:
        found = longest_of(folder)
        record_property(LONGEST, str(found))
        assert found.held_s <= BARRIER_S, str(found)

    return check
