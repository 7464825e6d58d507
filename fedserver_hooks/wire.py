"""How a report travels in a Flower reply, and how it is taken out again.

Our helpers send a ``ConfigRecord`` under the key ``emissions``; anyone else may return a bare
``emissions`` number (kg CO2eq) among the metrics. Either is removed from the reply before a strategy
sees it, because Flower would average it, and would end the run if only some clients sent it.
Nothing is judged here: what a client's value is worth is for `telemetry.reports` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from telemetry.reports import WIRE_FIELDS

RECORD_KEY: Final = "emissions"
RUN_ID_KEY: Final = "fl-run-id"
_FLAT_PREFIX: Final = f"{RECORD_KEY}."

Scalar = bool | bytes | float | int | str


def take_report(
    content: RecordDict,
) -> tuple[Mapping[str, object] | None, Mapping[str, object] | None]:
    """Remove the report from a reply's content.

    Returns the report's values as sent and the reply's metrics, each None if there is none. Only
    the ``emissions`` record or metric is touched. This is on the training's time for every reply,
    so the records are walked once and nothing is copied: Flower's ``config_records`` and
    ``metric_records`` build a synchronised copy on each call.
    """
    report: Mapping[str, object] | None = None
    metrics: MetricRecord | None = None
    ours = False
    bare: object = None
    for key, record in content.items():
        if key == RECORD_KEY:
            ours = True
            if type(record) is ConfigRecord:
                report = record
            elif type(record) is MetricRecord:
                bare = record.get(RECORD_KEY)
        elif type(record) is MetricRecord:
            metrics = record
            if RECORD_KEY in record:
                bare = record.pop(RECORD_KEY)
    if ours:
        del content[RECORD_KEY]
    if report is None and bare is not None:
        report = {"emissions_kg": bare}
    return report, metrics


def split_flat(metrics: Mapping[str, Scalar]) -> tuple[ConfigRecord | None, dict[str, Scalar]]:
    """Take ``emissions`` and ``emissions.<field>`` out of the flat metrics of a ``FitRes``.

    Returns the record that a Message-API client would have sent (None without any of them) and the
    metrics that are left. Fields that are not on the wire's list are dropped.
    """
    rest: dict[str, Scalar] = {}
    values: dict[str, Scalar] = {}
    for key, value in metrics.items():
        if key == RECORD_KEY:
            values["emissions_kg"] = value
        elif key.startswith(_FLAT_PREFIX):
            if (name := key.removeprefix(_FLAT_PREFIX)) in WIRE_FIELDS and name != "emissions_kg":
                values[name] = value
        else:
            rest[key] = value
    return (ConfigRecord(dict(values)) if values else None), rest
