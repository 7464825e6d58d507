"""What holds for every test: nothing is sent anywhere, and Hypothesis is quick and repeatable."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Read when flwr and codecarbon are imported, so before any test module is.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["CODECARBON_TELEMETRY"] = "disabled"
os.environ["CODECARBON_SAVE_TO_API"] = "false"

settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile(
    "thorough",
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
