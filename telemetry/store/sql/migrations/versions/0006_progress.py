"""Which way a run's value metric is better, and views of reports and of progress (``0006_views.sql``)."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

from telemetry.analysis.value import falls

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, as the names of the stored metrics say it, then the views."""
    op.add_column(
        "runs",
        sa.Column("lower_is_better", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    runs = sa.table("runs", sa.column("value_metric"), sa.column("lower_is_better", sa.Boolean()))
    names = op.get_bind().execute(sa.select(runs.c.value_metric).distinct()).scalars().all()
    falling = [name for name in names if falls(name)]
    op.execute(sa.update(runs).where(runs.c.value_metric.in_(falling)).values(lower_is_better=True))
    views = Path(__file__).with_name("0006_views.sql").read_text(encoding="utf-8")
    for statement in views.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))
