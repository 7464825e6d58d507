"""Errors as problem documents (RFC 9457): what a client of the HTTP interface gets for every fault."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **members: object
) -> JSONResponse:
    """A problem document; ``members`` are further facts of this kind of problem."""
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}
    return JSONResponse(content, status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem document."""
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _fault)


def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = _DETAILS.get(error.status_code, "{detail}")
    text = detail.format(method=request.method, path=request.url.path, detail=error.detail)
    return problem(error.status_code, text, error.headers)


def _fault(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    """The traceback goes to the log, where Starlette's outermost layer hands it; none to a client."""
    return problem(500, "the server failed to answer; its log says why")


_DETAILS: Final = {
    404: "nothing is served at {path}",
    405: "{method} is not possible at {path}",
}
