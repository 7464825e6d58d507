"""Bounds of a service's database: the quick look at a round and the walk through it agree."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, get_type_hints

import pytest

from telemetry.domain import Lap, ParticipantRecord, ReportRecord, RoundRecord
from telemetry.service.bounds import (
    LAST_YEAR,
    MAX_AMOUNT,
    MAX_NUMBER,
    MAX_WHOLE,
    BadBody,
    check,
    check_round,
)
from telemetry.testing import FACTORS, make_round

ROUND = make_round(1, clients={"1": 0.5, "2": "negative"})
FAR = datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)
OF_ROUND: dict[str, Any] = {
    "round": MAX_NUMBER + 1, "attempt": MAX_NUMBER + 1, "revision": MAX_NUMBER + 1,
    "connected": MAX_WHOLE + 1, "reports_repeated": MAX_WHOLE + 1, "started_at": FAR, "ended_at": FAR,
}  # fmt: skip


def beyond(kind: type[Any]) -> dict[str, Any]:
    """Of each number and time of a kind of record a value that is too great."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        text = str(hint)
        if "float" in text:
            values[name] = MAX_AMOUNT * 10
        elif "int" in text:
            values[name] = MAX_WHOLE + 1
        elif "Aware" in text:
            values[name] = FAR
    return values


def spoilt() -> dict[str, RoundRecord]:
    """Rounds that hold one such value each, by its place."""
    rounds = {
        f"{part}.{name}": ROUND.model_copy(
            update={part: (getattr(ROUND, part)[0], replace(getattr(ROUND, part)[-1], **{name: value}))}
        )
        for part, kind in (
            ("participants", ParticipantRecord), ("reports", ReportRecord), ("laps", Lap),
        )
        for name, value in beyond(kind).items()
    }  # fmt: skip
    for name in ("server_carbon_intensity_g_per_kwh", "pue", "network_kwh_per_gb"):
        too_great: dict[str, Any] = {name: MAX_AMOUNT * 10}
        factors = replace(FACTORS, **too_great)
        rounds[f"factors.{name}"] = ROUND.model_copy(update={"factors": factors})
    for name, value in OF_ROUND.items():
        rounds[name] = ROUND.model_copy(update={name: value})
    return rounds


SPOILT = spoilt()


def test_every_number_and_time_of_a_row_is_looked_at():
    """A field that is new is looked at, too."""
    of_report = {name.removeprefix("reports.") for name in SPOILT if name.startswith("reports.")}
    others = {"node_id", "client", "phase", "late", "accepted", "rejection", "rejected_value",
              "country", "sensor", "scope", "host_id", "tracker", "dropped_fields", "on_server_host",
              "looks_cumulative", "outlier"}  # fmt: skip
    assert of_report == {item.name for item in fields(ReportRecord)} - others


@pytest.mark.parametrize("place", SPOILT)
def test_a_value_beyond_all_measure_is_found_wherever_it_stands(place: str):
    """By the quick look as by the walk, which names it."""
    name = place.rpartition(".")[2]
    for look in (
        lambda record: check(record, "r"),
        lambda record: check_round(record, "r", escaped_nul=False),
    ):
        with pytest.raises(BadBody) as caught:
            look(SPOILT[place])
        assert caught.value.member.endswith(f".{name}")


def test_what_is_great_and_may_be_is_taken():
    """Only the bounds of each field decide, not those of the quick look."""
    great: dict[str, Any] = {"examples": MAX_WHOLE, "bytes_to": MAX_WHOLE}
    participants = tuple(replace(one, **great) for one in ROUND.participants)
    reports = tuple(replace(one, duration_s=MAX_AMOUNT) for one in ROUND.reports)
    record = ROUND.model_copy(update={"participants": participants, "reports": reports})
    check_round(record, "r", escaped_nul=False)


def test_a_nul_is_found_where_the_json_may_hold_one():
    """And the same spelling as part of a text is none."""
    reports = (replace(ROUND.reports[0], tracker="a\0b"),)
    with pytest.raises(BadBody, match=r"r\.reports\.0\.tracker: holds a NUL"):
        check_round(ROUND.model_copy(update={"reports": reports}), "r", escaped_nul=True)
    check_round(ROUND, "r", escaped_nul=True)
