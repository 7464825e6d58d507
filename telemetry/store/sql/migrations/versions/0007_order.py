"""The order in which rounds were closed, and what rounding left out of sums; of older rounds, nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; no view reads them."""
    op.add_column("rounds", sa.Column("sequence", sa.Integer()))
    op.add_column("run_totals", sa.Column("rests", sa.Text(), nullable=False, server_default="{}"))
