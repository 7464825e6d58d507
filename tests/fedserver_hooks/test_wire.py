"""Reports are taken out of replies, and nothing else is touched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedserver_hooks.wire import split_flat, take_report


def content(**extra: object) -> RecordDict:
    """A reply's content with arrays, metrics and another record."""
    return RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(np.arange(6, dtype=np.float32).reshape(2, 3))}),
            "metrics": MetricRecord({"num-examples": 10, "loss": 0.5}),
            "note": ConfigRecord({"emissions": "of somebody else's app", "n": 1}),
            **extra,  # type: ignore[dict-item]
        }
    )


def _metrics(records: RecordDict) -> MetricRecord:
    record = records["metrics"]
    assert isinstance(record, MetricRecord)
    return record


def snapshot(records: RecordDict) -> dict[str, object]:
    """Everything in it, to the byte."""
    return {
        name: {k: (v.dtype, v.shape, v.data) for k, v in record.items()}
        if isinstance(record, ArrayRecord)
        else dict(record.items())
        for name, record in records.items()
    }


def test_a_record_of_ours_is_taken_whole_and_nothing_else_changes() -> None:
    """The ``emissions`` ConfigRecord goes; arrays, metrics, other records and their order stay."""
    reply = content(emissions=ConfigRecord({"schema": 1, "emissions_kg": 0.5, "country": "ESP"}))
    report, metrics = take_report(reply)
    assert report == {"schema": 1, "emissions_kg": 0.5, "country": "ESP"}
    assert metrics is reply["metrics"]
    assert list(reply) == ["arrays", "metrics", "note"]
    assert snapshot(reply) == snapshot(content())


@pytest.mark.parametrize("value", [0.25, 0, -1.0, math.inf])
def test_a_bare_metric_is_taken_out_of_the_metrics(value: float) -> None:
    """A number among the fit metrics is a report too, whatever it is worth."""
    reply = content()
    _metrics(reply)["emissions"] = value
    report, _ = take_report(reply)
    assert report == {"emissions_kg": value}
    assert snapshot(reply) == snapshot(content())


def test_the_record_wins_over_a_bare_metric_and_both_go() -> None:
    """A client that sends both reported once."""
    reply = content(emissions=ConfigRecord({"emissions_kg": 1.0}))
    _metrics(reply)["emissions"] = 2.0
    assert take_report(reply)[0] == {"emissions_kg": 1.0}
    assert snapshot(reply) == snapshot(content())


def test_a_metric_record_of_that_name_is_taken_whole() -> None:
    """Flower ends a run over a second MetricRecord, so it must not stay behind."""
    reply = content(emissions=MetricRecord({"emissions": 0.5}))
    assert take_report(reply)[0] == {"emissions_kg": 0.5}
    assert snapshot(reply) == snapshot(content())


def test_without_a_report_the_reply_is_untouched() -> None:
    """Nothing is invented."""
    reply = content()
    assert take_report(reply) == (None, reply["metrics"])
    assert snapshot(reply) == snapshot(content())


def test_flat_metrics_give_the_record_a_message_client_would_have_sent() -> None:
    """``emissions`` and ``emissions.<field>`` become one record; the rest stays in order."""
    record, rest = split_flat(
        {
            "accuracy": 0.5,
            "emissions": 0.001,
            "emissions.energy_kwh": 0.01,
            "emissions.country": "ESP",
            "emissions.emissions_kg": 99.0,
            "emissions.unheard_of": 1,
            "loss": 0.1,
        }
    )
    assert record is not None
    assert dict(record) == {"emissions_kg": 0.001, "energy_kwh": 0.01, "country": "ESP"}
    assert list(rest.items()) == [("accuracy", 0.5), ("loss", 0.1)]


@pytest.mark.parametrize("value", [True, "0.5", b"\x01", math.nan, -1, 10**30])
def test_a_bad_flat_value_arrives_as_it_is(value: bool | str | bytes | float) -> None:
    """What it is worth is judged elsewhere, in one place."""
    record, rest = split_flat({"emissions": value})
    assert record is not None
    assert record["emissions_kg"] is value
    assert rest == {}


@given(st.dictionaries(st.text(max_size=12), st.one_of(st.integers(), st.floats(), st.text())))
def test_metrics_without_emissions_pass_unchanged(
    metrics: dict[str, int | float | str],
) -> None:
    """No report, no change."""
    plain = {k: v for k, v in metrics.items() if not k.startswith("emissions")}
    assert split_flat(plain) == (None, plain)
