"""The description of the interface (OpenAPI), with the bodies that are read by hand."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from telemetry.service.bodies import FinishBody, RoundsBody, RunBody
from telemetry.service.problems import MEDIA_TYPE

_REF: Final = "#/components/schemas/{model}"
_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457). `field` is the member or parameter that is wrong.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
    },
    "example": {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no such run here",
    },
}
_ALWAYS: Final = {
    "400": "The request cannot be read.",
    "401": "A token is needed.",
    "403": "The token has not that scope.",
    "422": "A parameter or a member of the body is wrong; `field` names it.",
    "429": "Too many requests; Retry-After says when to come again.",
    "503": "The database cannot be used just now; what was sent may be sent again.",
}
_OF_A_RUN: Final = {
    "404": "No such run, or one of another writer.",
    "410": "The run was deleted, or its rounds were.",
}
_OF_A_BODY: Final = {
    "408": "The body took too long.",
    "409": "It contradicts what is stored.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
}


def describe(app: FastAPI) -> None:
    """Let ``app.openapi()`` give the whole description."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _description(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    kinds: list[Any] = [(kind, "validation") for kind in (RunBody, RoundsBody, FinishBody)]
    _, schemas = models_json_schema(kinds, ref_template=_REF)
    parts = found.setdefault("components", {})
    parts["schemas"] = {**schemas["$defs"], **parts.get("schemas", {}), "Problem": _PROBLEM}
    for gone in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(gone, None)
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in found["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return found


def _complete(path: str, operation: dict[str, Any]) -> None:
    if not path.startswith("/api/"):
        return
    operation["security"] = [{"token": []}, {}]
    texts = {
        **_ALWAYS,
        **(_OF_A_RUN if "{run_id}" in path else {}),
        **(_OF_A_BODY if "requestBody" in operation else {}),
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    for status, text in texts.items():
        operation["responses"][status] = {"description": text, "content": content}
