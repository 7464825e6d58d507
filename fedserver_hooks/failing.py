"""A client whose failure reaches the server: Flower's protocol over `start_client` has no way.

Flower lets an exception end the process, and the server sees a connection that broke. Here the
exception is kept, an answer that says so goes out in its place, and then it is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from flwr.client import Client
from flwr.common import (
    Code,
    EvaluateRes,
    FitRes,
    GetParametersRes,
    GetPropertiesRes,
    Parameters,
    Status,
)

RAISED: Final = "raised "
"""How the status begins; the server's transport knows it."""
MAX_CHARACTERS: Final = 200
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")

_NOTHING: Final = Parameters(tensors=[], tensor_type="")
_REFUSALS: Final[dict[str, Callable[[str], object]]] = {
    "fit": lambda text: FitRes(Status(Code.FIT_NOT_IMPLEMENTED, text), _NOTHING, 0, {}),
    "evaluate": lambda text: EvaluateRes(Status(Code.EVALUATE_NOT_IMPLEMENTED, text), 0.0, 0, {}),
    "get_parameters": lambda text: GetParametersRes(
        Status(Code.GET_PARAMETERS_NOT_IMPLEMENTED, text), _NOTHING
    ),
    "get_properties": lambda text: GetPropertiesRes(
        Status(Code.GET_PROPERTIES_NOT_IMPLEMENTED, text), {}
    ),
}
"""What a client can be asked, and an answer that is none. Any code but OK would do."""


def reporting(make: Callable[[], Any], failed: Callable[[Exception], str]) -> Client:
    """The client of ``make``, but for what it raises: ``failed`` takes it and says what to answer.

    ``make`` gives a ``Client`` or a ``NumPyClient``; if it raises itself, whatever the client is
    asked fails so. What a client lacks is lacking here too.
    """
    try:
        inner: Any = make().to_client()
    except Exception as error:  # noqa: BLE001 is raised later, by whoever is told
        problem = error

        def fail(_: object) -> object:
            raise problem

        return _client({name: _guarded(fail, refuse, failed) for name, refuse in _REFUSALS.items()})
    members: dict[str, Any] = {
        name: _guarded(getattr(inner, name), refuse, failed)
        for name, refuse in _REFUSALS.items()
        if getattr(type(inner), name, None) is not getattr(Client, name)
    }
    if hasattr(inner, "set_context"):  # Flower ≤ 1.16 hands the run's context over like this
        members["set_context"] = lambda _, context: inner.set_context(context)
        members["get_context"] = lambda _: inner.get_context()
    return _client(members)


def safe_text(error: Exception, secrets: Iterable[str] = ()) -> str:
    """Type and message of an exception, fit for another machine's log.

    One line, not long, and without whatever stands in quotation marks: that is where messages show
    data. None of the ``secrets`` is in it.
    """
    message = str(error)
    for secret in secrets:
        message = message.replace(secret, "…")
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    line = _QUOTED.sub("…", line)
    kind = type(error).__name__
    return f"{RAISED}{kind}: {line}"[:MAX_CHARACTERS] if line else f"{RAISED}{kind}"


def _client(members: dict[str, Any]) -> Client:
    made: Client = type("ReportingClient", (Client,), members)()
    return made


def _guarded(
    call: Callable[[Any], object],
    refuse: Callable[[str], object],
    failed: Callable[[Exception], str],
) -> Callable[[object, Any], object]:
    def guarded(_: object, ins: Any) -> object:
        try:
            result = call(ins)
            _check_metrics(getattr(result, "metrics", {}))
        except Exception as error:  # noqa: BLE001 is raised later, by whoever is told
            return refuse(failed(error))
        return result

    return guarded


def _check_metrics(metrics: dict[str, object]) -> None:
    """Raise TypeError for what Flower could not send: it would notice when it is too late to tell."""
    for name, value in metrics.items():
        if not isinstance(value, bool | bytes | float | int | str):
            raise TypeError(
                f"metric {name} is a {type(value).__name__}: write float(…), int(…) or str(…)"
            )
