"""DUMMY: stands for the service's 0004 until the branches are merged."""

from __future__ import annotations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing."""
