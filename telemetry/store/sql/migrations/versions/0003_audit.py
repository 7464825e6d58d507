"""Estimates, marks, budgets, seals and tombstones; the views show them at their ends (``0003_views.sql``)."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

from telemetry.store.sql.types import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ESTIMATES = (
    "communication_emissions_kg_estimated",
    "imputed_emissions_kg",
    "imputed_low_emissions_kg",
    "imputed_high_emissions_kg",
)


def upgrade() -> None:
    """Add the columns; what is stored already has no budget, no estimate, no mark and no seal."""
    for view in ("v_client_round", "v_round", "v_run"):
        op.execute(sa.text(f"DROP VIEW {view}"))
    _columns(
        "runs",
        sa.Column("impute_missing", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("budget_kg", sa.Double()),
        sa.Column("on_budget", sa.Text(), nullable=False, server_default="warn"),
        sa.Column("client_rows", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("sha256", sa.Text()),
    )
    _columns("run_totals", *(sa.Column(name, sa.Double()) for name in _ESTIMATES))
    _columns(
        "rounds",
        sa.Column("client_rows", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("impute_missing", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("imputed_low_emissions_kg", sa.Double()),
        sa.Column("imputed_high_emissions_kg", sa.Double()),
        sa.Column("imputed_clients", sa.BigInteger()),
        sa.Column("reports_flagged", sa.BigInteger()),
        sa.Column("flagged_emissions_kg", sa.Double()),
        sa.Column("evidence_sha256", sa.Text()),
    )
    _columns("round_phases", sa.Column("machine_kwh", sa.Double()))
    _columns(
        "reports",
        sa.Column("looks_cumulative", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("outlier", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "deleted_runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=False),
        sa.Column("sha256", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_deleted_runs")),
    )
    views = Path(__file__).with_name("0003_views.sql").read_text(encoding="utf-8")
    for statement in views.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))


def _columns(table: str, *columns: sa.Column[object]) -> None:
    for column in columns:
        op.add_column(table, column)
