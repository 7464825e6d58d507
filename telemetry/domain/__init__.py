"""The records: what is known of a run, a round, a client's part in it and its report.

Every record is frozen and validated where it enters. Units stand in the names. ``None`` means
*unknown* and never zero. Sums are properties of `RoundRecord`, computed nowhere else; `RoundSummary`
is their flat, stored form, which exporters read.

Sources: the accounting rules are those of ``docs/accounting.md``; emissions are kg CO2eq as
codecarbon gives them, energies kWh at the meter (before PUE).
"""

from __future__ import annotations

from telemetry.domain.columns import Columns
from telemetry.domain.delivery import PendingRound, PendingRun, RunEnd
from telemetry.domain.energy import emissions_kg, metered_part
from telemetry.domain.estimates import communication_kg
from telemetry.domain.evidence import canonical_json, sha256_of
from telemetry.domain.exact import Rest
from telemetry.domain.parts import (
    Factors,
    Histogram,
    Imputation,
    Lap,
    NoiseRecord,
    ParticipantRecord,
    ReportRecord,
)
from telemetry.domain.round import RoundRecord
from telemetry.domain.rowless import RowlessRound
from telemetry.domain.run import ExposedRun, Owner, RunInfo, RunTotals, StoredRun, added
from telemetry.domain.summary import RoundSummary
from telemetry.domain.times import UTC_TEXT_LENGTH, utc_text, utc_texts
from telemetry.domain.vocabulary import (
    CLIENT_BUCKETS_G,
    COMPLETE_METERED_SHARE,
    GRAMS_PER_KG,
    JOULES_PER_KWH,
    ROUND_STATUSES,
    SERVER_PHASES,
    STRICT,
    Component,
    Count,
    FiniteFloat,
    NonNegative,
    OnBudget,
    Outcome,
    Phase,
    Record,
    RejectionReason,
    ReportOutcome,
    RoundStatus,
    RunId,
    RunStatus,
    Scope,
    Sensor,
    ServerPhase,
    ShortText,
    field_names,
    sum_known,
    utc_now,
)

__all__ = [
    "CLIENT_BUCKETS_G",
    "COMPLETE_METERED_SHARE",
    "GRAMS_PER_KG",
    "JOULES_PER_KWH",
    "ROUND_STATUSES",
    "SERVER_PHASES",
    "STRICT",
    "UTC_TEXT_LENGTH",
    "Columns",
    "Component",
    "Count",
    "ExposedRun",
    "Factors",
    "FiniteFloat",
    "Histogram",
    "Imputation",
    "Lap",
    "NoiseRecord",
    "NonNegative",
    "OnBudget",
    "Outcome",
    "Owner",
    "ParticipantRecord",
    "PendingRound",
    "PendingRun",
    "Phase",
    "Record",
    "RejectionReason",
    "ReportOutcome",
    "ReportRecord",
    "Rest",
    "RoundRecord",
    "RoundStatus",
    "RoundSummary",
    "RowlessRound",
    "RunEnd",
    "RunId",
    "RunInfo",
    "RunStatus",
    "RunTotals",
    "Scope",
    "Sensor",
    "ServerPhase",
    "ShortText",
    "StoredRun",
    "added",
    "canonical_json",
    "communication_kg",
    "emissions_kg",
    "field_names",
    "metered_part",
    "sha256_of",
    "sum_known",
    "utc_now",
    "utc_text",
    "utc_texts",
]
