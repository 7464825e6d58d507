"""The first schema: seven tables, and three views that others may rely on (``0001_views.sql``).

What is written here is never changed: a later schema is a later revision.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

from telemetry.store.sql.types import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, then the views on them."""
    _create_runs()
    _create_run_totals()
    _create_rounds()
    _create_round_phases()
    _create_training_metrics()
    _create_participants()
    _create_reports()
    views = Path(__file__).with_name("0001_views.sql").read_text(encoding="utf-8")
    for statement in views.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("run_name", sa.Text(), nullable=False),
        sa.Column("flower_run_id", sa.Text()),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("rounds_planned", sa.Integer()),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("privacy", sa.Text(), nullable=False),
        sa.Column("tracked", sa.Boolean(), nullable=False),
        sa.Column("server_carbon_intensity_g_per_kwh", sa.Double(), nullable=False),
        sa.Column("intensity_source", sa.Text(), nullable=False),
        sa.Column("intensity_year", sa.Integer()),
        sa.Column("country", sa.Text()),
        sa.Column("pue", sa.Double(), nullable=False),
        sa.Column("server_scope", sa.Text(), nullable=False),
        sa.Column("server_sensor", sa.Text(), nullable=False),
        sa.Column("server_share", sa.Double()),
        sa.Column("network_kwh_per_gb", sa.Double()),
        sa.Column("server_host_id", sa.Text()),
        sa.Column("tracker", sa.Text()),
        sa.Column("value_metric", sa.Text(), nullable=False),
        sa.Column("metric_names", sa.Text(), nullable=False),
        sa.Column("software", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("ended_at", UtcDateTime()),
        sa.Column("owner", sa.Text()),
        sa.Column("last_seen_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("(status = 'running') = (ended_at IS NULL)", name=op.f("ck_runs_ended")),
        sa.CheckConstraint(
            "server_scope IN ('machine', 'allocation', 'process', 'unknown')",
            name=op.f("ck_runs_server_scope"),
        ),
        sa.CheckConstraint(
            "server_sensor IN ('rapl', 'nvml', 'mixed', 'model', 'constant', 'unknown')",
            name=op.f("ck_runs_server_sensor"),
        ),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'interrupted', 'stopped_on_budget')",
            name=op.f("ck_runs_status"),
        ),
        sa.CheckConstraint("pue >= 1", name=op.f("ck_runs_pue")),
        sa.CheckConstraint(
            "rounds_planned >= 0 AND server_carbon_intensity_g_per_kwh >= 0 AND network_kwh_per_gb >= 0",
            name=op.f("ck_runs_never_negative"),
        ),
        sa.CheckConstraint("server_share BETWEEN 0 AND 1", name=op.f("ck_runs_server_share")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_index(
        op.f("ix_runs_started_at_run_id"), "runs", ["started_at", "run_id"], unique=False
    )


def _create_run_totals() -> None:
    op.create_table(
        "run_totals",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("rounds_completed", sa.BigInteger(), nullable=False),
        sa.Column("rounds_partial", sa.BigInteger(), nullable=False),
        sa.Column("rounds_failed", sa.BigInteger(), nullable=False),
        sa.Column("rounds_interrupted", sa.BigInteger(), nullable=False),
        sa.Column("server_energy_kwh", sa.Double()),
        sa.Column("clients_energy_kwh", sa.Double()),
        sa.Column("server_emissions_kg", sa.Double()),
        sa.Column("clients_emissions_kg", sa.Double()),
        sa.Column("total_emissions_kg", sa.Double()),
        sa.Column("setup_energy_kwh", sa.Double()),
        sa.Column("configure_energy_kwh", sa.Double()),
        sa.Column("wait_energy_kwh", sa.Double()),
        sa.Column("aggregate_energy_kwh", sa.Double()),
        sa.Column("evaluate_energy_kwh", sa.Double()),
        sa.Column("idle_energy_kwh", sa.Double()),
        sa.Column("reports_accepted", sa.BigInteger(), nullable=False),
        sa.Column("reports_rejected", sa.BigInteger(), nullable=False),
        sa.Column("reports_repeated", sa.BigInteger(), nullable=False),
        sa.Column("reports_late", sa.BigInteger(), nullable=False),
        sa.Column("reports_without_host", sa.BigInteger(), nullable=False),
        sa.Column("bytes_to_clients", sa.BigInteger()),
        sa.Column("bytes_from_clients", sa.BigInteger()),
        sa.Column("client_histogram", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "server_energy_kwh >= 0 AND clients_energy_kwh >= 0 AND server_emissions_kg >= 0 AND clients_emissions_kg >= 0 AND total_emissions_kg >= 0 AND setup_energy_kwh >= 0 AND configure_energy_kwh >= 0 AND wait_energy_kwh >= 0 AND aggregate_energy_kwh >= 0 AND evaluate_energy_kwh >= 0 AND idle_energy_kwh >= 0 AND reports_accepted >= 0 AND reports_rejected >= 0 AND reports_repeated >= 0 AND reports_late >= 0",
            name=op.f("ck_run_totals_never_negative"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_run_totals_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_totals")),
    )


def _create_rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("tracked", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("connected", sa.BigInteger()),
        sa.Column("participants", sa.BigInteger(), nullable=False),
        sa.Column("reported", sa.BigInteger()),
        sa.Column("missing", sa.BigInteger()),
        sa.Column("rejected", sa.BigInteger()),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("coverage", sa.Double()),
        sa.Column("complete", sa.Boolean()),
        sa.Column("evaluate_reported", sa.BigInteger()),
        sa.Column("reports_without_host", sa.BigInteger()),
        sa.Column("reports_accepted", sa.BigInteger(), nullable=False),
        sa.Column("reports_rejected", sa.BigInteger(), nullable=False),
        sa.Column("reports_repeated", sa.BigInteger(), nullable=False),
        sa.Column("reports_late", sa.BigInteger(), nullable=False),
        sa.Column("metered_share", sa.Double()),
        sa.Column("host_energy_kwh", sa.Double()),
        sa.Column("server_energy_kwh", sa.Double()),
        sa.Column("clients_energy_kwh", sa.Double()),
        sa.Column("clients_energy_reports", sa.BigInteger()),
        sa.Column("server_emissions_kg", sa.Double()),
        sa.Column("clients_emissions_kg", sa.Double()),
        sa.Column("total_emissions_kg", sa.Double()),
        sa.Column("cumulative_emissions_kg", sa.Double()),
        sa.Column("clients_reported_emissions_kg", sa.Double()),
        sa.Column("server_carbon_intensity_g_per_kwh", sa.Double(), nullable=False),
        sa.Column("intensity_source", sa.Text(), nullable=False),
        sa.Column("intensity_year", sa.Integer()),
        sa.Column("country", sa.Text()),
        sa.Column("pue", sa.Double(), nullable=False),
        sa.Column("server_scope", sa.Text(), nullable=False),
        sa.Column("server_sensor", sa.Text(), nullable=False),
        sa.Column("server_share", sa.Double()),
        sa.Column("network_kwh_per_gb", sa.Double()),
        sa.Column("bytes_to_clients", sa.BigInteger()),
        sa.Column("bytes_from_clients", sa.BigInteger()),
        sa.Column("communication_emissions_kg_estimated", sa.Double()),
        sa.Column("imputed_emissions_kg", sa.Double()),
        sa.Column("estimated_total_emissions_kg", sa.Double()),
        sa.Column("privacy_epsilon", sa.Double()),
        sa.Column("setup_energy_kwh", sa.Double()),
        sa.Column("configure_energy_kwh", sa.Double()),
        sa.Column("wait_energy_kwh", sa.Double()),
        sa.Column("aggregate_energy_kwh", sa.Double()),
        sa.Column("evaluate_energy_kwh", sa.Double()),
        sa.Column("idle_energy_kwh", sa.Double()),
        sa.Column("client_histogram", sa.Text(), nullable=False),
        sa.Column("train_metrics", sa.Text(), nullable=False),
        sa.Column("evaluate_metrics", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "server_scope IN ('machine', 'allocation', 'process', 'unknown')",
            name=op.f("ck_rounds_server_scope"),
        ),
        sa.CheckConstraint(
            "server_sensor IN ('rapl', 'nvml', 'mixed', 'model', 'constant', 'unknown')",
            name=op.f("ck_rounds_server_sensor"),
        ),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'partial', 'failed', 'interrupted') AND NOT (closed AND status = 'running')",
            name=op.f("ck_rounds_status"),
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_rounds_attempt")),
        sa.CheckConstraint("coverage BETWEEN 0 AND 1", name=op.f("ck_rounds_coverage")),
        sa.CheckConstraint("pue >= 1", name=op.f("ck_rounds_pue")),
        sa.CheckConstraint(
            "round >= 0 AND revision >= 0 AND connected >= 0 AND metered_share >= 0 AND host_energy_kwh >= 0 AND server_energy_kwh >= 0 AND clients_energy_kwh >= 0 AND server_emissions_kg >= 0 AND clients_emissions_kg >= 0 AND total_emissions_kg >= 0 AND cumulative_emissions_kg >= 0 AND clients_reported_emissions_kg >= 0 AND server_carbon_intensity_g_per_kwh >= 0 AND network_kwh_per_gb >= 0 AND bytes_to_clients >= 0 AND bytes_from_clients >= 0 AND privacy_epsilon >= 0 AND setup_energy_kwh >= 0 AND configure_energy_kwh >= 0 AND wait_energy_kwh >= 0 AND aggregate_energy_kwh >= 0 AND evaluate_energy_kwh >= 0 AND idle_energy_kwh >= 0",
            name=op.f("ck_rounds_never_negative"),
        ),
        sa.CheckConstraint("server_share BETWEEN 0 AND 1", name=op.f("ck_rounds_server_share")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_rounds_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "round", "attempt", name=op.f("pk_rounds")),
    )


def _create_round_phases() -> None:
    op.create_table(
        "round_phases",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lap", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("wall_s", sa.Double(), nullable=False),
        sa.Column("metered_s", sa.Double(), nullable=False),
        sa.Column("energy_kwh", sa.Double()),
        sa.Column("cpu_kwh", sa.Double()),
        sa.Column("gpu_kwh", sa.Double()),
        sa.Column("ram_kwh", sa.Double()),
        sa.Column("prorated", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.CheckConstraint(
            "phase IN ('setup', 'configure', 'wait', 'aggregate', 'evaluate', 'idle')",
            name=op.f("ck_round_phases_phase"),
        ),
        sa.CheckConstraint(
            "wall_s >= 0 AND metered_s >= 0 AND energy_kwh >= 0 AND cpu_kwh >= 0 AND gpu_kwh >= 0 AND ram_kwh >= 0",
            name=op.f("ck_round_phases_never_negative"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "round", "attempt"],
            ["rounds.run_id", "rounds.round", "rounds.attempt"],
            name=op.f("fk_round_phases_rounds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "round", "attempt", "lap", name=op.f("pk_round_phases")),
    )


def _create_training_metrics() -> None:
    op.create_table(
        "training_metrics",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "split IN ('train', 'evaluate')", name=op.f("ck_training_metrics_split")
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "round", "attempt"],
            ["rounds.run_id", "rounds.round", "rounds.attempt"],
            name=op.f("fk_training_metrics_rounds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "run_id", "round", "attempt", "split", "name", name=op.f("pk_training_metrics")
        ),
    )


def _create_participants() -> None:
    op.create_table(
        "participants",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("train", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("examples", sa.BigInteger()),
        sa.Column("sent_at", UtcDateTime()),
        sa.Column("replied_at", UtcDateTime()),
        sa.Column("loopback", sa.Boolean()),
        sa.Column("bytes_to", sa.BigInteger()),
        sa.Column("bytes_from", sa.BigInteger()),
        sa.CheckConstraint(
            "outcome IN ('reported', 'missing', 'rejected', 'failed')",
            name=op.f("ck_participants_outcome"),
        ),
        sa.CheckConstraint(
            "examples >= 0 AND bytes_to >= 0 AND bytes_from >= 0",
            name=op.f("ck_participants_never_negative"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "round", "attempt"],
            ["rounds.run_id", "rounds.round", "rounds.attempt"],
            name=op.f("fk_participants_rounds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "run_id", "round", "attempt", "node_id", name=op.f("pk_participants")
        ),
        sqlite_with_rowid=False,
    )


def _create_reports() -> None:
    op.create_table(
        "reports",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("reported_round", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("rejection", sa.Text()),
        sa.Column("rejected_value", sa.Text()),
        sa.Column("emissions_kg", sa.Double()),
        sa.Column("energy_kwh", sa.Double()),
        sa.Column("cpu_kwh", sa.Double()),
        sa.Column("gpu_kwh", sa.Double()),
        sa.Column("ram_kwh", sa.Double()),
        sa.Column("duration_s", sa.Double()),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("ended_at", UtcDateTime()),
        sa.Column("country", sa.Text()),
        sa.Column("carbon_intensity_g_per_kwh", sa.Double()),
        sa.Column("sensor", sa.Text()),
        sa.Column("scope", sa.Text()),
        sa.Column("host_id", sa.Text()),
        sa.Column("tracker", sa.Text()),
        sa.Column("schema_version", sa.BigInteger()),
        sa.Column("dropped_fields", sa.Text()),
        sa.Column("on_server_host", sa.Boolean(), nullable=False),
        sa.Column("counted_energy_kwh", sa.Double()),
        sa.Column("counted_emissions_kg", sa.Double()),
        sa.CheckConstraint("phase IN ('train', 'evaluate')", name=op.f("ck_reports_phase")),
        sa.CheckConstraint(
            "rejection IN ('not_a_number', 'not_finite', 'negative', 'implausible', 'inconsistent')",
            name=op.f("ck_reports_rejection"),
        ),
        sa.CheckConstraint(
            "sensor IN ('rapl', 'nvml', 'mixed', 'model', 'constant', 'unknown')",
            name=op.f("ck_reports_sensor"),
        ),
        sa.CheckConstraint(
            "reported_round >= 0 AND emissions_kg >= 0 AND energy_kwh >= 0 AND cpu_kwh >= 0 AND gpu_kwh >= 0 AND ram_kwh >= 0 AND duration_s >= 0 AND carbon_intensity_g_per_kwh >= 0 AND counted_energy_kwh >= 0 AND counted_emissions_kg >= 0",
            name=op.f("ck_reports_never_negative"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "round", "attempt"],
            ["rounds.run_id", "rounds.round", "rounds.attempt"],
            name=op.f("fk_reports_rounds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "run_id",
            "round",
            "attempt",
            "node_id",
            "phase",
            "reported_round",
            name=op.f("pk_reports"),
        ),
        sqlite_with_rowid=False,
    )
