"""What the service answers for each of telemetry's own errors."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from telemetry.errors import (
    EndConflict,
    RoundConflict,
    RunDeleted,
    RunExists,
    RunNotFound,
    RunPruned,
    StoreError,
    ValueRefused,
)
from telemetry.service.bounds import BadBody
from telemetry.service.ingest import Busy, WriteFault
from telemetry.service.problems import problem

logger = logging.getLogger(__name__)

RETRY_S: Final = "5"
_SAID: Final[dict[type[Exception], HTTPStatus]] = {
    RunDeleted: HTTPStatus.GONE,
    RunPruned: HTTPStatus.GONE,
    RunExists: HTTPStatus.CONFLICT,
    RoundConflict: HTTPStatus.CONFLICT,
    EndConflict: HTTPStatus.CONFLICT,
}
"""Errors whose text may be told: they name the run that was asked for and nothing else."""


def install(app: FastAPI) -> None:
    """Answer telemetry's errors with problem documents that name what is wrong."""
    app.add_exception_handler(BadBody, _bad_body)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(RunNotFound, _not_found)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(ValueRefused, _refused)
    app.add_exception_handler(WriteFault, _fault)
    app.add_exception_handler(StoreError, _store)
    for kind in _SAID:
        app.add_exception_handler(kind, _said)


def _said(_: Request, error: Exception) -> Response:
    # A deleted run's text names the store; what may be told of it is when.
    if isinstance(error, RunDeleted):
        detail = f"run {error.wanted} was deleted on {error.deleted_at:%Y-%m-%d %H:%M} UTC"
    else:
        detail = str(error)
    return problem(_SAID[type(error)], detail)


def _bad_body(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadBody)
    return problem(error.status, str(error), field=error.member)


def _bad_parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    return problem(422, f"{field}: {first['msg']}", field=field)


def _not_found(_: Request, error: Exception) -> Response:
    assert isinstance(error, RunNotFound)
    return problem(404, "no such run here")


def _busy(_: Request, error: Exception) -> Response:
    return problem(503, str(error), {"Retry-After": "1"})


def _refused(_: Request, error: Exception) -> Response:
    logger.warning("a value was refused: %s", error)
    return problem(422, "the database cannot keep a value in it, or a sum of such values")


def _fault(_: Request, __: Exception) -> Response:
    """The traceback is in the log already."""
    return problem(500, "the service failed at storing this; its log says why")


def _store(_: Request, error: Exception) -> Response:
    logger.warning("answered 503: %s", error)
    return problem(503, "the database cannot be used just now", {"Retry-After": RETRY_S})
