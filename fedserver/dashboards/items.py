"""What a Grafana shall hold, piece by piece: each looks whether it is there, and brings it there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fedserver.dashboards.differences import differences
from fedserver.dashboards.files import Json
from fedserver.dashboards.grafana import Grafana
from fedserver.errors import GrafanaRefused

FOLDER_UID: Final = "federated-learning"
FOLDER_TITLE: Final = "Federated learning"
PROMETHEUS_UID: Final = "fl-prometheus"
POSTGRES_UID: Final = "fl-postgresql"
"""Uids of our own: one called ``prometheus`` may be somebody else's."""
MESSAGE: Final = "fedserver dashboards push"
_KEPT: Final = (
    "name", "type", "access", "url", "user", "database", "basicAuth", "basicAuthUser",
    "withCredentials", "isDefault", "jsonData",
)  # fmt: skip
"""What an update of a data source replaces: the rest of it has to be sent again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How a piece stands in Grafana."""

    there: Any | None
    """What Grafana has; None where it has nothing."""
    differs: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing needs to be done."""
        return self.there is not None and not self.differs


class Item(Protocol):
    """One piece."""

    @property
    def name(self) -> str:
        """What to call it: ``dashboard fl-fleet``."""
        ...

    def look(self, grafana: Grafana, /) -> Finding:
        """How it stands. Raises `GrafanaRefused` and `GrafanaAway`."""
        ...

    def bring(self, grafana: Grafana, found: Finding, /) -> None:
        """Make it so. Raises `GrafanaRefused` and `GrafanaAway`."""
        ...


@dataclass(frozen=True, slots=True)
class DataSource:
    """A data source. Grafana hands out no secret, so one that is there cannot be compared."""

    wanted: Json
    """As ``POST /api/datasources`` takes it, without secrets."""
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    renew: bool = False
    """Send the secrets although nothing else differs."""

    @property
    def uid(self) -> str:
        """Its uid."""
        return str(self.wanted["uid"])

    @property
    def name(self) -> str:
        """What to call it."""
        return f"data source {self.uid}"

    def look(self, grafana: Grafana) -> Finding:
        """By uid."""
        there = grafana.find(f"/datasources/uid/{self.uid}", f"read the {self.name}")
        if there is None:
            return Finding(None)
        differs = list(differences(self.wanted, there))
        known = there.get("secureJsonFields") or {}
        differs += [f"{secret}: not set there" for secret in self.secrets if not known.get(secret)]
        if self.renew and not differs:
            differs = [f"{secret}: is set again" for secret in self.secrets]
        return Finding(there, tuple(differs))

    def bring(self, grafana: Grafana, found: Finding) -> None:
        """Create it, or replace what differs and keep the rest."""
        secret = {"secureJsonData": self.secrets} if self.secrets else {}
        if found.there is None:
            to_do = f"create the {self.name}, which needs the role Admin"
            grafana.change("POST", "/datasources", {**self.wanted, **secret}, to_do)
            return
        to_do = f"change the {self.name}, which needs the role Admin"
        if found.there.get("readOnly"):
            said = " (it is provisioned from a file of Grafana's: change it there)"
            raise GrafanaRefused(grafana.url, to_do, 403, said)
        kept = {key: found.there[key] for key in _KEPT if key in found.there}
        settings = {**(kept.get("jsonData") or {}), **self.wanted.get("jsonData", {})}
        body = {**kept, **self.wanted, "jsonData": settings, **secret}
        grafana.change("PUT", f"/datasources/uid/{self.uid}", body, to_do)


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of our dashboards. People may rename and move it: its uid is what counts."""

    uid: str = FOLDER_UID
    title: str = FOLDER_TITLE

    @property
    def name(self) -> str:
        """What to call it."""
        return f"folder {self.uid}"

    def look(self, grafana: Grafana) -> Finding:
        """By uid."""
        return Finding(grafana.find(f"/folders/{self.uid}", f"read the {self.name}"))

    def bring(self, grafana: Grafana, _: Finding) -> None:
        """Create it."""
        body = {"uid": self.uid, "title": self.title}
        grafana.change("POST", "/folders", body, f"create the {self.name}")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard in our folder. What somebody changed of it in Grafana is overwritten."""

    wanted: Json
    folder_uid: str = FOLDER_UID

    @property
    def uid(self) -> str:
        """Its uid."""
        return str(self.wanted["uid"])

    @property
    def name(self) -> str:
        """What to call it."""
        return f"dashboard {self.uid}"

    def look(self, grafana: Grafana) -> Finding:
        """By uid; number and version are Grafana's own."""
        found = grafana.find(f"/dashboards/uid/{self.uid}", f"read the {self.name}")
        if found is None:
            return Finding(None)
        differs = list(differences(self._ours(), found.get("dashboard", {})))
        folder = found.get("meta", {}).get("folderUid", "")
        differs += differences(self.folder_uid, folder, "folder")
        return Finding(found, tuple(differs))

    def bring(self, grafana: Grafana, _: Finding) -> None:
        """Create or overwrite it."""
        body = {
            "dashboard": {**self._ours(), "id": None},
            "folderUid": self.folder_uid,
            "message": MESSAGE,
            "overwrite": True,
        }
        to_do = f"save the {self.name}, which needs the role Editor"
        grafana.change("POST", "/dashboards/db", body, to_do)

    def _ours(self) -> Json:
        return {key: value for key, value in self.wanted.items() if key not in ("id", "version")}
