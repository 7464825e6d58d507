"""One Grafana, over its HTTP API, and what it means when it says no.

Every refusal is an error of ours whose text is fit for the person who called: what was tried, what
Grafana said, what to do. The token is in no text.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from fedserver.errors import ConfigError, GrafanaAway, GrafanaRefused, Problem

TIMEOUT_S: Final = 15.0
_NO_GRAFANA: Final = "does not answer as a Grafana does: is it the address of one?"
_MOST_CHARACTERS: Final = 200


class Grafana:
    """Requests as JSON, with a token of a service account. Not for several threads at once."""

    def __init__(self, url: str, token: str) -> None:
        """Nothing is sent yet. Raises `ConfigError` for an address or token that cannot be one."""
        try:
            from grafana_api.grafana_api import GrafanaAPI
        except ModuleNotFoundError as error:
            text = f"{error.name} is not installed: pip install 'fedserver-telemetry[grafana]'"
            raise ConfigError([Problem("", text, "")]) from error
        parts = _parts_of(url)
        prefix = parts.path.strip("/")
        host = parts.hostname or ""
        self.url = url.rstrip("/")
        self._token = token
        self._api = GrafanaAPI(
            token,
            host=f"[{host}]" if ":" in host else host,
            port=parts.port,
            url_path_prefix=f"{prefix}/" if prefix else "",
            protocol=parts.scheme,
            timeout=TIMEOUT_S,
        )
        # A POST that is redirected comes back as a GET, and seems to have worked.
        self._api.s.max_redirects = 0

    def version(self) -> str:
        """Its version. Raises `GrafanaAway` where no Grafana answers."""
        found = self.find("/health", "look at it")
        if not isinstance(found, dict) or not isinstance(found.get("version"), str):
            # Grafana can be told to hide its version; it is a Grafana all the same.
            if isinstance(found, dict) and "database" in found:
                return "of unknown version"
            raise GrafanaAway(self.url, _NO_GRAFANA)
        return str(found["version"])

    def find(self, path: str, to_do: str) -> Any | None:
        """GET; None where it is not there (404)."""
        try:
            return self._call("GET", path, None, to_do)
        except GrafanaRefused as refused:
            if refused.status == 404:
                return None
            raise

    def change(self, verb: str, path: str, body: dict[str, Any] | None, to_do: str) -> Any:
        """POST, PUT, PATCH or DELETE."""
        return self._call(verb, path, body, to_do)

    def _call(self, verb: str, path: str, body: dict[str, Any] | None, to_do: str) -> Any:
        import requests
        from grafana_api.grafana_api import GrafanaException

        try:
            return getattr(self._api, verb)(path, json=body)
        except GrafanaException as error:
            said = self._said(error.response)
            if error.status_code == 401:
                raise GrafanaAway(
                    self.url, f"does not know this token, or no longer{said}: make a new one"
                ) from error
            raise GrafanaRefused(self.url, to_do, error.status_code, said) from error
        except requests.TooManyRedirects as error:
            problem = "redirects elsewhere: give the address that a browser ends up at"
            raise GrafanaAway(self.url, problem) from error
        except requests.exceptions.SSLError as error:
            problem = (
                "has a certificate that is not trusted here (REQUESTS_CA_BUNDLE names a file of "
                "authorities)"
            )
            raise GrafanaAway(self.url, problem) from error
        except requests.Timeout as error:
            problem = f"does not answer within {self._api.timeout:g} s"
            raise GrafanaAway(self.url, problem) from error
        except requests.ConnectionError as error:
            raise GrafanaAway(self.url, "cannot be reached") from error
        except (requests.RequestException, ValueError, TypeError) as error:
            # The package indexes into whatever JSON or text it got.
            raise GrafanaAway(self.url, _NO_GRAFANA) from error

    def _said(self, response: Any) -> str:
        """Grafana's own words, in brackets."""
        message = response.get("message") if isinstance(response, dict) else None
        if not isinstance(message, str) or not message.strip():
            return ""
        text = " ".join(message.split()).replace(self._token, "…")
        return f" (Grafana says: {text[:_MOST_CHARACTERS]})"


def _parts_of(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = "is no address, e.g. https://grafana.example.org or http://127.0.0.1:3000/grafana"
        raise ConfigError([Problem("--url", problem, "")])
    if parts.username is not None or parts.password is not None:
        problem = "holds a user or password; use a token of a service account"
        raise ConfigError([Problem("--url", problem, "")])
    if parts.query or parts.fragment:
        raise ConfigError([Problem("--url", "ends before ? and #", "")])
    return parts
