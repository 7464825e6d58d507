"""The two data sources of our own: Prometheus, and the PostgreSQL views."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from fedserver.dashboards.items import POSTGRES_UID, PROMETHEUS_UID, DataSource
from fedserver.errors import ConfigError, Problem

SCRAPE_INTERVAL: Final = "5s"
"""That of prometheus/prometheus.yml: Grafana's own guess of 15 s would make rates too coarse."""
_SSLMODES: Final = ("require", "verify-ca", "verify-full", "disable")


def prometheus_source(url: str) -> DataSource:
    """Prometheus, at the address where Grafana reaches it. Raises `ConfigError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise _wrong("--prometheus-url", "is no address, e.g. http://prometheus:9090")
    return DataSource(
        {
            "uid": PROMETHEUS_UID,
            "name": "FL telemetry (Prometheus)",
            "type": "prometheus",
            "access": "proxy",
            "url": url,
            "jsonData": {"httpMethod": "POST", "timeInterval": SCRAPE_INTERVAL},
        }
    )


def postgres_source(url: str, password: str | None, *, renew: bool = False) -> DataSource:
    """The database, at the address where Grafana reaches it. Raises `ConfigError`."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    sslmode = query.pop("sslmode", "require")
    database = unquote(parts.path.strip("/"))
    problem = None
    if parts.scheme != "postgresql" or not parts.hostname or not parts.username or not database:
        problem = "is no postgresql://role@host:port/database"
    elif parts.password is not None:
        problem = "holds a password; name its variable with --postgres-password-variable"
    elif query:
        problem = f"has {', '.join(sorted(query))}; only sslmode may stand after ?"
    elif sslmode not in _SSLMODES:
        problem = f"sslmode {sslmode[:32]!r}: choose of {', '.join(_SSLMODES)}"
    if problem is not None:
        raise _wrong("--postgres-url", problem)
    host = parts.hostname or ""
    return DataSource(
        {
            "uid": POSTGRES_UID,
            "name": "FL telemetry (PostgreSQL)",
            "type": "grafana-postgresql-datasource",
            "access": "proxy",
            "url": f"{f'[{host}]' if ':' in host else host}:{parts.port or 5432}",
            "user": unquote(parts.username or ""),
            "jsonData": {"database": database, "sslmode": sslmode, "postgresVersion": 1500},
        },
        secrets={} if password is None else {"password": password},
        renew=renew,
    )


def _wrong(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path, text, "")])
