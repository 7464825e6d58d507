"""Run by Alembic for each command; the connection comes from `telemetry.store.sql.schema`.

A revision that rebuilds a table in SQLite (``batch_alter_table``) drops the views that read it
first and makes them again afterwards.
"""

from __future__ import annotations

import logging

from alembic import context

from telemetry.store.sql.schema import VERSION_TABLE
from telemetry.store.sql.tables import metadata

# Alembic tells at INFO which database it talks to: no news for a run's log.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    # Said to be unsafe for SQLite because its driver commits before DDL; ours begins by itself.
    transactional_ddl=True,
    on_version_apply=context.config.attributes["told"],
)
with context.begin_transaction():
    context.run_migrations()
