"""The noise of a round's privacy mechanism, in a table that no view reads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; rounds that are stored already have no noise on record."""
    op.create_table(
        "round_noise",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("noise_stdv", sa.Double(), nullable=False),
        sa.Column("distance", sa.Double()),
        sa.CheckConstraint(
            "noise_stdv >= 0 AND distance >= 0", name=op.f("ck_round_noise_never_negative")
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "round", "attempt"],
            ["rounds.run_id", "rounds.round", "rounds.attempt"],
            name=op.f("fk_round_noise_rounds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "round", "attempt", name=op.f("pk_round_noise")),
    )
