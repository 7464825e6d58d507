"""The tables, as SQLAlchemy describes them.

Columns bear the names of the fields of `telemetry.domain`'s records, with ``Factors`` flattened
into the row it belongs to. NULL is *unknown*, never zero. Energies are kWh at the meter, emissions
kg CO2eq, times UTC. What is made in a database is made by the migrations; a test holds both equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, get_args

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    false,
    text,
    true,
)

from telemetry.domain import (
    SERVER_PHASES,
    Outcome,
    Phase,
    RejectionReason,
    RoundStatus,
    RunStatus,
    Scope,
    Sensor,
    ServerPhase,
)
from telemetry.store.sql.types import UtcDateTime

ENDED_STATUSES: Final = tuple(s for s in get_args(RoundStatus) if s != "running")

metadata: Final = MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, choices: Any, *, extra: str = "") -> CheckConstraint:
    """A column that holds one word of a `Literal` of the domain (or is NULL)."""
    listed = ", ".join(f"'{choice}'" for choice in get_args(choices))
    return CheckConstraint(f"{column} IN ({listed}){extra}", name=column)


def _never_negative(*columns: str) -> CheckConstraint:
    """Columns that are NULL or at least 0: a negative amount is a fault, whoever wrote it."""
    return CheckConstraint(" AND ".join(f"{c} >= 0" for c in columns), name="never_negative")


def _key(*, primary: bool = True) -> Iterable[Column[Any]]:
    """The columns that name a round."""
    yield Column("run_id", Text, primary_key=primary)
    yield Column("round", Integer, primary_key=primary)
    yield Column("attempt", Integer, primary_key=primary)


def _of_round() -> ForeignKeyConstraint:
    key = ("run_id", "round", "attempt")
    return ForeignKeyConstraint(key, [f"rounds.{c}" for c in key], ondelete="CASCADE")


def _factors() -> Iterable[Column[Any]]:
    """`telemetry.domain.Factors`, flat."""
    yield Column("server_carbon_intensity_g_per_kwh", Double, nullable=False)
    yield Column("intensity_source", Text, nullable=False)
    yield Column("intensity_year", Integer)
    yield Column("country", Text)
    yield Column("pue", Double, nullable=False)
    yield Column("server_scope", Text, nullable=False)
    yield Column("server_sensor", Text, nullable=False)
    yield Column("server_share", Double)
    yield Column("network_kwh_per_gb", Double)
    yield Column("impute_missing", Boolean, nullable=False, server_default=false())


def _factor_checks() -> Iterable[CheckConstraint]:
    yield _one_of("server_scope", Scope)
    yield _one_of("server_sensor", Sensor)
    yield CheckConstraint("pue >= 1", name="pue")
    yield CheckConstraint("server_share BETWEEN 0 AND 1", name="server_share")


def _phase_energies() -> Iterable[Column[Any]]:
    """The server's energy by phase, before the clients on its host are split off."""
    for phase in SERVER_PHASES:
        yield Column(f"{phase}_energy_kwh", Double)


def _amounts(*names: str) -> Iterable[Column[Any]]:
    for name in names:
        yield Column(name, Double)


def _counts(*names: str, nullable: bool = False) -> Iterable[Column[Any]]:
    for name in names:
        yield Column(name, BigInteger, nullable=nullable)


_PHASE_ENERGIES: Final = tuple(f"{phase}_energy_kwh" for phase in SERVER_PHASES)
_REPORT_COUNTS: Final = (
    "reports_accepted",
    "reports_rejected",
    "reports_repeated",
    "reports_late",
)
_SUMS: Final = (
    "server_energy_kwh",
    "clients_energy_kwh",
    "server_emissions_kg",
    "clients_emissions_kg",
    "total_emissions_kg",
)

_ESTIMATES: Final = (
    "communication_emissions_kg_estimated",
    "imputed_emissions_kg",
    "imputed_low_emissions_kg",
    "imputed_high_emissions_kg",
)

runs: Final = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("run_name", Text, nullable=False),
    Column("flower_run_id", Text),
    Column("started_at", UtcDateTime, nullable=False),
    Column("rounds_planned", Integer),
    Column("strategy", Text, nullable=False),
    Column("privacy", Text, nullable=False),
    Column("tracked", Boolean, nullable=False),
    *_factors(),
    Column("server_host_id", Text),
    Column("tracker", Text),
    Column("value_metric", Text, nullable=False),
    Column("lower_is_better", Boolean, nullable=False, server_default=false()),  # as its name says
    Column("budget_kg", Double),
    Column("on_budget", Text, nullable=False, server_default="warn"),
    Column("client_rows", Boolean, nullable=False, server_default=true()),
    Column("metric_names", Text, nullable=False),  # JSON list
    Column("software", Text, nullable=False),  # JSON object
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("ended_at", UtcDateTime),
    Column("owner", Text),  # host/pid/token; NULL once released
    Column("last_seen_at", UtcDateTime, nullable=False),
    Column("sha256", Text),  # seal of an ended run; NULL while it runs
    Column(
        "writer", Text
    ),  # whose token delivers the run to a service; NULL where a server writes it
    Column("pruned_at", UtcDateTime),
    _one_of("status", RunStatus),
    CheckConstraint("(status = 'running') = (ended_at IS NULL)", name="ended"),
    _never_negative("rounds_planned", "server_carbon_intensity_g_per_kwh", "network_kwh_per_gb"),
    *_factor_checks(),
    Index(None, "started_at", "run_id"),
)

run_totals: Final = Table(
    "run_totals",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    *_counts(*(f"rounds_{status}" for status in ENDED_STATUSES)),
    *_amounts(*_SUMS),
    *_phase_energies(),
    *_counts(*_REPORT_COUNTS, "reports_without_host"),
    *_counts("bytes_to_clients", "bytes_from_clients", nullable=True),
    *_amounts(*_ESTIMATES),
    Column("client_histogram", Text, nullable=False),  # JSON {"counts": [...], "sum_g": ...}
    # JSON {sum: [...]}: what rounding left out of it, greatest first.
    Column("rests", Text, nullable=False, server_default="{}"),
    _never_negative(*_SUMS, *_PHASE_ENERGIES, *_REPORT_COUNTS),
)

rounds: Final = Table(
    "rounds",
    metadata,
    *_key(),
    Column("revision", Integer, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("tracked", Boolean, nullable=False),
    Column("client_rows", Boolean, nullable=False, server_default=true()),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=False),
    # Not checked: where a wall clock was set back, the round's energy is worth more than its length.
    Column("duration_s", Double, nullable=False),
    *_counts("connected", nullable=True),
    *_counts("participants"),
    *_counts("reported", "missing", "rejected", nullable=True),
    *_counts("failed"),
    Column("coverage", Double),
    Column("complete", Boolean),
    *_counts("evaluate_reported", "reports_without_host", nullable=True),
    *_counts(*_REPORT_COUNTS),
    *_amounts("metered_share", "host_energy_kwh", "server_energy_kwh", "clients_energy_kwh"),
    *_counts("clients_energy_reports", nullable=True),
    *_amounts(
        "server_emissions_kg",
        "clients_emissions_kg",
        "total_emissions_kg",
        "cumulative_emissions_kg",
        "clients_reported_emissions_kg",
    ),
    *_factors(),
    *_counts("bytes_to_clients", "bytes_from_clients", nullable=True),
    *_amounts(*_ESTIMATES, "estimated_total_emissions_kg"),
    *_counts("imputed_clients", "reports_flagged", nullable=True),
    *_amounts("flagged_emissions_kg", "privacy_epsilon"),
    Column("evidence_sha256", Text),  # of the rows in the tables below; NULL where none are kept
    *_phase_energies(),
    Column("client_histogram", Text, nullable=False),  # JSON, as in run_totals
    # JSON objects: a round is then one row to whoever streams it; SQL reads training_metrics.
    Column("train_metrics", Text, nullable=False),
    Column("evaluate_metrics", Text, nullable=False),
    Column("sequence", Integer),  # as its server closed the run's rounds; NULL where it did not say
    ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
    _one_of("status", RoundStatus, extra=" AND NOT (closed AND status = 'running')"),
    _never_negative(
        "round",
        "revision",
        "connected",
        "metered_share",
        "host_energy_kwh",
        *_SUMS,
        "cumulative_emissions_kg",
        "clients_reported_emissions_kg",
        "server_carbon_intensity_g_per_kwh",
        "network_kwh_per_gb",
        "bytes_to_clients",
        "bytes_from_clients",
        "privacy_epsilon",
        *_PHASE_ENERGIES,
    ),
    CheckConstraint("attempt >= 1", name="attempt"),
    CheckConstraint("coverage BETWEEN 0 AND 1", name="coverage"),
    *_factor_checks(),
)

round_phases: Final = Table(
    "round_phases",
    metadata,
    *_key(),
    Column("lap", Integer, primary_key=True),  # counts from 0 within the round
    Column("phase", Text, nullable=False),
    Column("wall_s", Double, nullable=False),
    Column("metered_s", Double, nullable=False),
    *_amounts("energy_kwh", "cpu_kwh", "gpu_kwh", "ram_kwh"),
    Column("prorated", Boolean, nullable=False),
    Column("reason", Text),
    Column("machine_kwh", Double),
    _of_round(),
    _one_of("phase", ServerPhase),
    _never_negative("wall_s", "metered_s", "energy_kwh", "cpu_kwh", "gpu_kwh", "ram_kwh"),
)

training_metrics: Final = Table(
    "training_metrics",
    metadata,
    *_key(),
    Column("split", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Double, nullable=False),
    _of_round(),
    _one_of("split", Phase),
)

# A table of its own: whoever may read rounds and views does not read this along.
round_noise: Final = Table(
    "round_noise",
    metadata,
    *_key(),
    Column("noise_stdv", Double, nullable=False),
    Column("distance", Double),
    _of_round(),
    _never_negative("noise_stdv", "distance"),
)

participants: Final = Table(
    "participants",
    metadata,
    *_key(),
    Column("node_id", Text, primary_key=True),
    Column("position", Integer, nullable=False),  # place in the round's record, from 0
    Column("client", Text, nullable=False),
    Column("train", Boolean, nullable=False),
    Column("outcome", Text),
    Column("reason", Text),
    *_counts("examples", nullable=True),
    Column("sent_at", UtcDateTime),
    Column("replied_at", UtcDateTime),
    Column("loopback", Boolean),
    *_counts("bytes_to", "bytes_from", nullable=True),
    _of_round(),
    _one_of("outcome", Outcome),
    _never_negative("examples", "bytes_to", "bytes_from"),
    # Clustered by key: a round's clients lie together, in the order in which they are streamed.
    sqlite_with_rowid=False,
)

reports: Final = Table(
    "reports",
    metadata,
    *_key(),
    Column("node_id", Text, primary_key=True),
    Column("phase", Text, primary_key=True),
    Column("reported_round", Integer, primary_key=True),
    Column("position", Integer, nullable=False),  # place in the round's record, from 0
    Column("client", Text, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("rejection", Text),
    Column("rejected_value", Text),
    *_amounts("emissions_kg", "energy_kwh", "cpu_kwh", "gpu_kwh", "ram_kwh", "duration_s"),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("country", Text),
    Column("carbon_intensity_g_per_kwh", Double),
    Column("sensor", Text),
    Column("scope", Text),
    Column("host_id", Text),
    Column("tracker", Text),
    Column("schema_version", BigInteger),
    Column("dropped_fields", Text),
    Column("on_server_host", Boolean, nullable=False),
    *_amounts("counted_energy_kwh", "counted_emissions_kg"),
    Column("looks_cumulative", Boolean, nullable=False, server_default=false()),
    Column("outlier", Boolean, nullable=False, server_default=false()),
    _of_round(),
    _one_of("phase", Phase),
    _one_of("rejection", RejectionReason),
    _one_of("sensor", Sensor),
    _never_negative(
        "reported_round",
        "emissions_kg",
        "energy_kwh",
        "cpu_kwh",
        "gpu_kwh",
        "ram_kwh",
        "duration_s",
        "carbon_intensity_g_per_kwh",
        "counted_energy_kwh",
        "counted_emissions_kg",
    ),
    sqlite_with_rowid=False,
)

# What is left of a run that was deleted: its id is never given to another.
deleted_runs: Final = Table(
    "deleted_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("deleted_at", UtcDateTime, nullable=False),
    Column("sha256", Text),  # the seal that the run had: whoever has it can tell what was deleted
)

# A token itself is nowhere: whoever reads this table learns no secret.
api_tokens: Final = Table(
    "api_tokens",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("label", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # words with a space between
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Index(
        "ix_api_tokens_live_label",
        "label",
        unique=True,
        sqlite_where=text("revoked_at IS NULL"),
        postgresql_where=text("revoked_at IS NULL"),
    ),
)

# What each service that runs are delivered to has acknowledged.
run_deliveries: Final = Table(
    "run_deliveries",
    metadata,
    Column("service", Text, primary_key=True),  # its URL
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("ended_at", UtcDateTime),  # the end that it knows; NULL while it knows none
    # That nothing is left to tell; kept, so that the many old runs need not be looked through.
    Column("complete", Boolean, nullable=False),
)

round_deliveries: Final = Table(
    "round_deliveries",
    metadata,
    Column("service", Text, primary_key=True),
    *_key(),
    _of_round(),
)
