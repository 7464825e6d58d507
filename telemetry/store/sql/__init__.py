"""The store in a SQL database: tables, migrations, and what is special about SQLite."""

from __future__ import annotations
