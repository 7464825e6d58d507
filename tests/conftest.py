"""What holds for every test: nothing is sent anywhere, and Hypothesis is quick and repeatable."""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# Read when flwr and codecarbon are imported, so before any test module is.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["CODECARBON_TELEMETRY"] = "disabled"
os.environ["CODECARBON_SAVE_TO_API"] = "false"
# Clients run in threads of the tests, which also start processes: gRPC then ends the new process
# before it has become one, now and then, in its handlers for programs that fork and go on.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

LONGEST: Final = "longest hook call"
"""Property under which a test of faults leaves what it measured (`tests.fedserver.hook_times`)."""

settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile(
    "thorough",
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what each test of faults measured."""
    found = [
        (report.nodeid.rpartition("::")[2], value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == LONGEST
    ]
    if found:
        terminalreporter.section("held up by the hook")
        for test, value in found:
            terminalreporter.write_line(f"{test}: {value}")
