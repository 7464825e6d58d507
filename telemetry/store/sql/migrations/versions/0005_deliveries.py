"""What services have acknowledged of the runs that are delivered to them; of older runs, nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from telemetry.store.sql.types import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; no view reads them."""
    op.create_table(
        "run_deliveries",
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("ended_at", UtcDateTime()),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_run_deliveries_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("service", "run_id", name=op.f("pk_run_deliveries")),
    )
    op.create_table(
        "round_deliveries",
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "round", "attempt"],
            ["rounds.run_id", "rounds.round", "rounds.attempt"],
            name=op.f("fk_round_deliveries_rounds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "service", "run_id", "round", "attempt", name=op.f("pk_round_deliveries")
        ),
    )
