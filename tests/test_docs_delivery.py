"""The sizes that ``docs/delivery.md`` names are those of real bodies."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from telemetry.service.bodies import MAX_ROUNDS_BYTES, round_json
from telemetry.testing import START, make_participant, make_report, make_round

DELIVERY = (Path(__file__).parent.parent / "docs" / "delivery.md").read_text()
SOME = 1000


def clients_in_16_mib(body: bytes) -> float:
    """How many clients a round may have whose body with `SOME` of them is this."""
    return MAX_ROUNDS_BYTES / (len(body) / SOME)


def with_every_field() -> bytes:
    """A round of reports as the client helper sends them, on training alone."""
    sent, replied = START + timedelta(seconds=1.234567), START + timedelta(seconds=31.234567)
    participants = [
        replace(
            make_participant(str(number)), examples=1234, sent_at=sent, replied_at=replied,
            loopback=False, bytes_to=1234567, bytes_from=1234567,
        )
        for number in range(SOME)
    ]  # fmt: skip
    reports = [
        make_report(
            str(number), 0.000123456789 * (number + 1), energy_kwh=0.00012345678912,
            cpu_kwh=0.000112345678, gpu_kwh=0.0, ram_kwh=0.000011234567, duration_s=29.123456,
            started_at=sent, ended_at=replied, country="ESP", carbon_intensity_g_per_kwh=174.0,
            sensor="model", scope="process", host_id="0123456789ab", tracker="codecarbon 3.3.2",
            schema_version=1, counted_energy_kwh=0.00012345678912,
        )
        for number in range(SOME)
    ]  # fmt: skip
    whole = {"participants": tuple(participants), "reports": tuple(reports)}
    return round_json(make_round(1).model_copy(update=whole))


def test_the_sizes_at_which_a_round_stays_at_home() -> None:
    """Within a tenth of what is said."""
    found = re.search(
        r"some ([\d,]+) clients whose\s+reports have every field, or ([\d,]+) that", DELIVERY
    )
    assert found is not None
    every_field, bare = (int(number.replace(",", "")) for number in found.groups())
    assert every_field == pytest.approx(clients_in_16_mib(with_every_field()), rel=0.1)
    some = round_json(make_round(1, clients={str(number): 0.0001 for number in range(SOME)}))
    assert bare == pytest.approx(clients_in_16_mib(some), rel=0.1)
