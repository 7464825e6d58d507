"""A small HTTP server that answers as Grafana's HTTP API reference says; real HTTP, no real Grafana.

Source: the reference for ``/api`` in github.com/grafana/grafana, docs/sources/developers/http_api/
(dashboard.md and annotations.md at 00f489dbba0f, of Grafana 11; folder.md at 05860939c27c) and
docs/sources/developer-resources/api-reference/http-api/api-legacy/ (data_source.md at 0d9cf1d7f688,
other.md at 36e7c4d15d8d, of Grafana 13, where the same endpoints stand). What the reference leaves
open is answered as Grafana's source does: the texts of 401, 403 and 404, and ``readOnly``.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

TOKEN: Final = "glsa_double"
ADMIN: Final = frozenset(
    {
        "datasources:read", "datasources:create", "datasources:write",
        "folders:read", "folders:create",
        "dashboards:read", "dashboards:create", "dashboards:write",
        "annotations:read", "annotations:create", "annotations:write", "annotations:delete",
    }
)  # fmt: skip
EDITOR: Final = frozenset(p for p in ADMIN if not p.startswith("datasources:")) | {
    "datasources:read"
}
VIEWER: Final = frozenset(p for p in ADMIN if p.endswith(":read"))
Json = dict[str, Any]
Answer = tuple[int, Any]


class Refused(Exception):
    """An answer that is no 200."""

    def __init__(self, status: int, body: Any) -> None:
        self.answer = status, body


class GrafanaDouble:
    """What it holds, who may do what, and what goes wrong."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.url = ""
        self.permissions: frozenset[str] = ADMIN
        self.sources: dict[str, Json] = {}
        self.folders: dict[str, Json] = {}
        self.dashboards: dict[str, Json] = {}
        self.annotations: dict[int, Json] = {}
        self.requests: list[tuple[str, str]] = []
        self.plugin_dashboards: set[str] = set()
        self.instead: dict[str, Answer | bytes] = {}
        """Beginning of a path (``POST /api/folders``) to what is answered there."""
        self.last_id = 0
        self._lock = threading.Lock()

    @property
    def changes(self) -> list[tuple[str, str]]:
        """The requests that were no GET."""
        return [request for request in self.requests if request[0] != "GET"]

    def answer(
        self, verb: str, target: str, authorization: str | None, body: Any
    ) -> Answer | bytes:
        """What a request comes to."""
        with self._lock:
            self.requests.append((verb, target))
            line = f"{verb} {target.removeprefix(self.prefix)}"
            for beginning, answer in self.instead.items():
                if line.startswith(beginning):
                    return answer
            if not target.startswith(f"{self.prefix}/api/"):
                return b"<html>not found</html>"
            try:
                return self._route(
                    verb, target.removeprefix(f"{self.prefix}/api"), authorization, body
                )
            except Refused as refused:
                return refused.answer

    def _route(self, verb: str, target: str, authorization: str | None, body: Any) -> Answer:
        parts = urlsplit(target)
        if (verb, parts.path) == ("GET", "/health"):
            return 200, {"commit": "087143285", "database": "ok", "version": "12.4.11"}
        if authorization != f"Bearer {TOKEN}":
            raise Refused(401, {"message": "Invalid API key", "statusCode": 401})
        for route, permission, handler in self._routes():
            match = re.fullmatch(route, f"{verb} {parts.path}")
            if match is not None:
                if permission not in self.permissions:
                    said = (
                        "You'll need additional permissions to perform this action. "
                        f"Permissions needed: {permission}"
                    )
                    raise Refused(403, {"message": said, "title": "Access denied"})
                status, answer = handler(*match.groups(), body=body, query=parse_qs(parts.query))
                return status, deepcopy(answer)
        raise Refused(404, {"message": "Not found"})

    def _routes(self) -> list[tuple[str, str, Any]]:
        uid = "([A-Za-z0-9_-]{1,40})"
        return [
            (f"GET /datasources/uid/{uid}", "datasources:read", self.get_source),
            ("POST /datasources", "datasources:create", self.create_source),
            (f"PUT /datasources/uid/{uid}", "datasources:write", self.update_source),
            (f"GET /folders/{uid}", "folders:read", self.get_folder),
            ("POST /folders", "folders:create", self.create_folder),
            (f"GET /dashboards/uid/{uid}", "dashboards:read", self.get_dashboard),
            ("POST /dashboards/db", "dashboards:create", self.save_dashboard),
            ("GET /annotations", "annotations:read", self.find_annotations),
            ("POST /annotations", "annotations:create", self.create_annotation),
            ("PATCH /annotations/([0-9]+)", "annotations:write", self.patch_annotation),
            ("DELETE /annotations/([0-9]+)", "annotations:delete", self.delete_annotation),
        ]

    def _number(self) -> int:
        self.last_id += 1
        return self.last_id

    # --- data sources ---------------------------------------------------------------------------

    def get_source(self, uid: str, **_: Any) -> Answer:
        """A single data source by uid; secrets only by name."""
        if uid not in self.sources:
            raise Refused(404, {"message": "Data source not found"})
        return 200, self._shown(uid)

    def create_source(self, *, body: Any, **_: Any) -> Answer:
        """A name is unique."""
        if not {"name", "type", "access"} <= body.keys():
            raise Refused(400, {"message": "bad request data"})
        if any(body["name"] == source["name"] for source in self.sources.values()):
            raise Refused(409, {"message": "data source with the same name already exists"})
        uid = body["uid"]
        empty = {
            "typeLogoUrl": "", "password": "", "user": "", "database": "", "basicAuth": False,
            "basicAuthUser": "", "withCredentials": False, "isDefault": False, "jsonData": {},
            "secureJsonData": {}, "readOnly": False,
        }  # fmt: skip
        self.sources[uid] = {**empty, **body, "id": self._number(), "orgId": 1, "version": 1}
        shown = self._shown(uid)
        return 200, {"datasource": shown, "message": "Datasource added", "name": body["name"]}

    def update_source(self, uid: str, *, body: Any, **_: Any) -> Answer:
        """Replaces all but secrets that are not sent."""
        source = self.sources.get(uid)
        if source is None:
            raise Refused(404, {"message": "Data source not found"})
        if source["readOnly"]:
            raise Refused(403, {"message": "Cannot update read-only data source"})
        assert body.get("uid", uid) == uid, "the UID cannot be modified"
        kept = {key: source[key] for key in ("id", "orgId", "uid", "readOnly", "typeLogoUrl")}
        secrets = {**source["secureJsonData"], **body.get("secureJsonData", {})}
        empty = {"user": "", "database": "", "basicAuth": False, "isDefault": False, "jsonData": {}}
        version = source["version"] + 1
        self.sources[uid] = {**empty, **body, **kept, "secureJsonData": secrets, "version": version}
        shown = self._shown(uid)
        return 200, {"datasource": shown, "message": "Datasource updated", "name": body["name"]}

    def _shown(self, uid: str) -> Json:
        source = dict(self.sources[uid])
        secrets = source.pop("secureJsonData")
        return {**source, "secureJsonFields": dict.fromkeys(secrets, True)}

    # --- folders and dashboards -----------------------------------------------------------------

    def get_folder(self, uid: str, **_: Any) -> Answer:
        """A folder by uid."""
        if uid not in self.folders:
            raise Refused(404, {"message": "folder not found", "status": "not-found"})
        return 200, self.folders[uid]

    def create_folder(self, *, body: Any, **_: Any) -> Answer:
        """409 where it is there already."""
        if not body.get("title"):
            raise Refused(400, {"message": "folder title cannot be empty"})
        if body["uid"] in self.folders:
            raise Refused(409, {"message": "a folder with the same uid already exists"})
        self.folders[body["uid"]] = {
            "id": self._number(), "uid": body["uid"], "title": body["title"],
            "url": f"/dashboards/f/{body['uid']}", "hasAcl": False, "canSave": True, "version": 1,
        }  # fmt: skip
        return 200, self.folders[body["uid"]]

    def get_dashboard(self, uid: str, **_: Any) -> Answer:
        """A dashboard by uid, and what is known about it."""
        if uid not in self.dashboards:
            raise Refused(404, {"message": "Dashboard not found"})
        return 200, self.dashboards[uid]

    def save_dashboard(self, *, body: Any, **_: Any) -> Answer:
        """Create or update; 412 with the reason where it cannot be."""
        dashboard = dict(body["dashboard"])
        uid = str(dashboard["uid"])
        there = self.dashboards.get(uid)
        if not dashboard.get("title"):
            raise Refused(
                400, {"message": "Dashboard title cannot be empty", "status": "empty-name"}
            )
        if body.get("folderUid") and body["folderUid"] not in self.folders:
            raise Refused(400, {"message": "folder not found"})
        if uid in self.plugin_dashboards:
            said = "The dashboard belongs to plugin Emissions"
            raise Refused(412, {"message": said, "status": "plugin-dashboard"})
        known = None if there is None else there["dashboard"]["version"]
        if there is not None and not body.get("overwrite") and dashboard.get("version") != known:
            said = "The dashboard has been changed by someone else"
            raise Refused(412, {"message": said, "status": "version-mismatch"})
        version = 1 if there is None else there["dashboard"]["version"] + 1
        number = self._number() if there is None else there["dashboard"]["id"]
        self.dashboards[uid] = {
            "dashboard": {**dashboard, "id": number, "version": version},
            "meta": {
                "folderUid": body.get("folderUid", ""),
                "url": f"/d/{uid}",
                "version": version,
            },
        }
        return 200, {"id": number, "uid": uid, "status": "success", "version": version}

    # --- annotations ----------------------------------------------------------------------------

    def find_annotations(self, *, query: dict[str, list[str]], **_: Any) -> Answer:
        """Several tags are all needed; newest first; 100 unless another limit is given."""
        wanted = set(query.get("tags", ()))
        board = query.get("dashboardUID")
        found = [
            annotation
            for annotation in self.annotations.values()
            if wanted <= set(annotation["tags"])
            and (board is None or annotation["dashboardUID"] == board[0])
        ]
        limit = int(query.get("limit", ["100"])[0])
        return 200, sorted(found, key=lambda one: -one["time"])[:limit]

    def create_annotation(self, *, body: Any, **_: Any) -> Answer:
        """On a dashboard that is there, or of the organisation; without an end it is a point."""
        if not body.get("text"):
            raise Refused(
                400, {"message": "Failed to save annotation: text field should not be empty"}
            )
        board = body.get("dashboardUID", "")
        if board and board not in self.dashboards:
            raise Refused(404, {"message": "Dashboard not found"})
        number = self._number()
        self.annotations[number] = {
            "id": number, "alertId": 0, "dashboardUID": board, "panelId": 0, "userId": 0,
            "newState": "", "prevState": "", "time": body["time"],
            "timeEnd": body.get("timeEnd", body["time"]), "text": body["text"],
            "tags": body.get("tags", []), "data": {},
        }  # fmt: skip
        return 200, {"message": "Annotation added", "id": number}

    def patch_annotation(self, number: str, *, body: Any, **_: Any) -> Answer:
        """Only text, tags, time and timeEnd can be patched."""
        if int(number) not in self.annotations:
            raise Refused(404, {"message": "Annotation not found"})
        assert body.keys() <= {"text", "tags", "time", "timeEnd"}
        self.annotations[int(number)].update(body)
        return 200, {"message": "Annotation patched"}

    def delete_annotation(self, number: str, **_: Any) -> Answer:
        """By id."""
        del self.annotations[int(number)]
        return 200, {"message": "Annotation deleted"}


@contextmanager
def grafana_double(prefix: str = "") -> Iterator[GrafanaDouble]:
    """A double that listens on a free port of the loopback address."""
    double = GrafanaDouble(prefix)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            body = json.loads(text) if text else None
            authorization = self.headers.get("Authorization")
            answer = double.answer(self.command, self.path, authorization, body)
            status, value = (404, answer) if isinstance(answer, bytes) else answer
            sent = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            if status in (301, 302, 307, 308):
                self.send_header("Location", f"{double.url}/elsewhere")
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(sent)))
            with suppress(ConnectionError):  # a client that has given up
                self.end_headers()
                self.wfile.write(sent)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the test's terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    double.url = f"http://127.0.0.1:{server.server_port}{prefix}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
