"""What the service needs: who delivers a run, tokens of its interface, and runs whose rounds were pruned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from telemetry.store.sql.types import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; nobody delivered what is stored already, and nothing of it was pruned."""
    op.add_column("runs", sa.Column("writer", sa.Text()))
    op.add_column("runs", sa.Column("pruned_at", UtcDateTime()))
    op.create_table(
        "api_tokens",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("revoked_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_api_tokens")),
    )
    op.create_index(
        op.f("ix_api_tokens_live_label"),
        "api_tokens",
        ["label"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
