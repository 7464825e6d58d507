"""Whether the process that a run belongs to is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from telemetry.domain import Owner
from telemetry.lease import is_alive, this_process
from tests.tools import missing

_SAY_WHO = "from telemetry.lease import this_process; print(this_process(), flush=True); input()"


@pytest.fixture
def proc():
    """The kernel's word on when a process started, which macOS does not have."""
    if not Path("/proc/self/stat").exists():
        missing("this machine has no /proc")


@pytest.fixture
def child():
    """A process that told who it is and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SAY_WHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process, Owner.parse(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_this_process_is_alive_and_always_the_same():
    """An owner survives being written and read."""
    owner = this_process()
    assert owner == this_process()
    assert owner.pid == os.getpid()
    assert is_alive(Owner.parse(str(owner)))


def test_another_process_of_this_machine_is_seen(child):
    """It is alive, has the same host and another token, and is gone once it ended."""
    process, owner = child
    assert owner.host == this_process().host
    assert owner.token != this_process().token
    assert is_alive(owner)
    process.kill()
    process.wait()
    assert not is_alive(owner)


@pytest.mark.usefixtures("proc")
def test_a_killed_child_is_gone_before_anybody_asks_for_it(child):
    """A zombie writes no more."""
    process, owner = child
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(owner)


@pytest.mark.usefixtures("proc")
def test_a_reused_pid_is_not_the_owner(child):
    """A live process that started at another time is another one."""
    _, owner = child
    tick, _, rest = owner.token.partition(".")
    assert not is_alive(replace(owner, token=f"{int(tick) - 1}.{rest}"))


def test_our_own_pid_with_another_token_is_not_us():
    """It was reused by us."""
    assert not is_alive(replace(this_process(), token="1.other"))


def test_a_process_elsewhere_counts_as_alive():
    """Another machine, boot or container: only its lease can tell."""
    gone = replace(this_process(), pid=2**22 + 1)
    assert not is_alive(gone)
    assert is_alive(replace(gone, host="elsewhere"))


@pytest.mark.parametrize("token", ["0.x", "made-up", ""])
def test_an_owner_that_did_not_say_when_it_started_is_given_the_benefit(child, token: str):
    """Where there is no ``/proc`` a live pid is all there is to know."""
    _, owner = child
    assert is_alive(replace(owner, token=token))
