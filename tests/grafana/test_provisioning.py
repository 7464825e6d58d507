"""``grafana/provisioning``: what Grafana reads at its start fits the dashboards, Prometheus and compose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import queries
from grafana.frame import DASHBOARDS, SQL_VARIABLE
from grafana.panels import PROMETHEUS, SQL
from grafana.queries import SCRAPE_INTERVAL_S

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "grafana" / "provisioning"
DATA_SOURCES = {
    one["uid"]: one
    for one in yaml.safe_load((FOLDER / "datasources" / "datasources.yml").read_text())[
        "datasources"
    ]
}
(PROVIDER,) = yaml.safe_load((FOLDER / "dashboards" / "dashboards.yml").read_text())["providers"]


def test_each_kind_of_data_source_that_is_asked_is_there_once() -> None:
    """The variables of the dashboards then choose it by themselves."""
    kinds = [one["type"] for one in DATA_SOURCES.values()]
    assert sorted(kinds) == sorted([PROMETHEUS["type"], SQL["type"]])
    assert SQL_VARIABLE["query"] == SQL["type"]
    offered = {
        variable["query"]
        for uid in DASHBOARDS
        for variable in queries.load(uid)["templating"]["list"]
        if variable["type"] == "datasource"
    }
    assert offered == set(kinds)
    assert [one["uid"] for one in DATA_SOURCES.values() if one.get("isDefault")] == ["prometheus"]


def test_prometheus_is_asked_at_the_pace_of_its_scrapes() -> None:
    """Grafana's ``$__rate_interval`` follows from it."""
    source = DATA_SOURCES["prometheus"]
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    interval = config["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval == f"{SCRAPE_INTERVAL_S:g}s"
    assert source["url"] == "http://prometheus:9090"


def test_the_database_is_read_by_the_role_that_only_reads() -> None:
    """Its password is in no file: Grafana takes it from its environment."""
    source = DATA_SOURCES["postgres"]
    assert (source["url"], source["user"]) == ("postgres:5432", "grafana_reader")
    assert source["jsonData"]["database"] == "telemetry"
    assert source["secureJsonData"] == {"password": "$PG_READER_PASSWORD"}
    text = (FOLDER / "datasources" / "datasources.yml").read_text()
    assert re.findall(r"password: *(\S+)", text) == ["$PG_READER_PASSWORD"]


def test_dashboards_are_found_where_compose_mounts_them() -> None:
    """And can be changed in the repository only: what was changed in a browser would be lost."""
    assert PROVIDER["type"] == "file"
    assert PROVIDER["options"]["path"] == "/var/lib/grafana/dashboards"
    assert PROVIDER["allowUiUpdates"] is False
    assert re.fullmatch(r"[a-z-]{1,40}", PROVIDER["folderUid"])


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yml")), ids=lambda path: path.stem)
def test_nothing_else_is_said(path: Path) -> None:
    """Keys that Grafana does not know are passed over without a word: these are all that we know."""
    known = {
        "apiVersion", "datasources", "providers", "name", "uid", "type", "access", "url", "user",
        "isDefault", "editable", "jsonData", "secureJsonData", "httpMethod", "timeInterval", "database",
        "sslmode", "postgresVersion", "maxOpenConns", "maxIdleConns", "connMaxLifetime", "password",
        "orgId", "folder", "folderUid", "disableDeletion", "allowUiUpdates", "updateIntervalSeconds",
        "options", "path", "foldersFromFilesStructure",
    }  # fmt: skip

    def keys(found: Any) -> set[str]:
        if isinstance(found, dict):
            return set(found).union(*map(keys, found.values()))
        return set().union(*map(keys, found)) if isinstance(found, list) else set()

    assert keys(yaml.safe_load(path.read_text())) <= known
