"""Which schema a database has, and how it gets this program's.

The revisions lie in ``migrations/versions``. They run in one transaction of the caller's: either
the whole way to the newest revision is gone, or none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, column, inspect, select, table

from telemetry.errors import SchemaUnknown
from telemetry.progress import Tell, nobody

if TYPE_CHECKING:
    from alembic.script import Script

VERSION_TABLE: Final = "telemetry_schema"
"""Not Alembic's usual name: another program's database has that one, too."""
REVISION: Final = "0007"
"""The newest revision; stated, so that opening an up-to-date file loads no Alembic."""
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class State(Enum):
    """What stands in a database."""

    EMPTY = "nothing yet"
    OLDER = "an older schema of ours"
    CURRENT = "this program's schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrations:
    """A chain of revisions and its end."""

    head: str = REVISION
    folders: tuple[Path, ...] = (_MIGRATIONS / "versions",)

    def state(self, connection: Connection, url: str) -> State:
        """What stands in the database.

        Raises:
            SchemaUnknown: tables of another program, or of a newer version of this one.
        """
        found = inspect(connection).get_table_names()
        if not found:
            return State.EMPTY
        if VERSION_TABLE not in found:
            raise SchemaUnknown(url, "is a database of another program; it is left as it is")
        revision = _stored_revision(connection)
        if revision == self.head:
            return State.CURRENT
        if revision in self._known():
            return State.OLDER
        raise SchemaUnknown(
            url,
            f"has schema {revision}, which this version does not know (its newest is "
            f"{self.head}); use the version of this program that wrote it, or a newer one",
        )

    def upgrade(self, connection: Connection, tell: Tell = nobody) -> None:
        """Bring the database to `head`, within the connection's transaction."""
        from alembic import command
        from alembic.config import Config

        done = count(1)
        tell(0, self._missing(connection), "upgrade")
        told = lambda **_: tell(next(done))  # noqa: E731
        config = Config(attributes={"connection": connection, "told": told})
        config.set_main_option("script_location", _escaped(_MIGRATIONS))
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", "\n".join(map(_escaped, self.folders)))
        command.upgrade(config, self.head)

    @staticmethod
    def revision(connection: Connection) -> str | None:
        """The revision of a database that is ours."""
        return _stored_revision(connection)

    def history(self) -> list[tuple[str, str]]:
        """Every revision, oldest first, with what it brought."""
        return [(one.revision, one.doc) for one in reversed(self._revisions())]

    def _missing(self, connection: Connection) -> int:
        """How many revisions the database lacks."""
        names = [revision for revision, _ in self.history()]
        if VERSION_TABLE not in inspect(connection).get_table_names():
            return len(names)
        return len(names) - 1 - names.index(_stored_revision(connection) or "")

    def _known(self) -> frozenset[str]:
        return frozenset(revision.revision for revision in self._revisions())

    def _revisions(self) -> list[Script]:
        from alembic.script import ScriptDirectory

        folders = [str(folder) for folder in self.folders]
        script = ScriptDirectory(str(_MIGRATIONS), version_locations=folders)
        return list(script.walk_revisions())


SHIPPED: Final = Migrations()
"""The revisions that come with this package."""


def _stored_revision(connection: Connection) -> str | None:
    versions = table(VERSION_TABLE, column("version_num"))
    revision: str | None = connection.execute(select(versions.c.version_num)).scalar()
    return revision


def _escaped(path: Path) -> str:
    """A path as a value of Alembic's configuration, where a percent sign interpolates."""
    return str(path).replace("%", "%%")
