"""Flower's messages as the bytes of its gRPC-bidi protocol, and answers back into records.

A `FitIns` has no names for layers and no record for reports; what it cannot carry is put back here,
so that a strategy cannot tell such a client from a Message-API one. Answers come from other
people's programs: whatever is in them, reading never raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common import serde
from flwr.common.constant import ErrorCode, SType
from flwr.proto.transport_pb2 import ClientMessage, Code, Parameters, ServerMessage
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedserver_hooks.failing import RAISED
from fedserver_hooks.wire import RECORD_KEY, Scalar, split_flat
from telemetry.domain import Phase

GOODBYE: Final[bytes] = ServerMessage(
    reconnect_ins=ServerMessage.ReconnectIns()
).SerializeToString()
"""Tells a client that it is no longer needed: `start_client` returns."""
ASK_PARAMETERS: Final[bytes] = ServerMessage(
    get_parameters_ins=ServerMessage.GetParametersIns()
).SerializeToString()

EXAMPLES_KEY: Final = "num-examples"
"""Under which Flower's strategies look for a reply's weight."""

_SPELLINGS: Final = (("server-round", "server_round"), ("proximal-mu", "proximal_mu"))
"""Message-API strategies write the first, clients of `start_client`'s generation read the second."""
_ANSWER_TO: Final[dict[Phase, str]] = {"train": "fit_res", "evaluate": "evaluate_res"}
_MAX_REASON_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without an update to use: a Flower error code and a plain reason."""

    code: int
    reason: str
    report: ConfigRecord | None = None
    """The energy was spent, whatever came of it."""


# --- to clients ----------------------------------------------------------------------------------


def encode(phase: Phase, content: RecordDict) -> bytes:
    """The protocol's message for a train or evaluate message's content.

    Raises TypeError for a config value that the protocol has no type for.
    """
    parameters = Parameters()
    config: dict[str, Any] = {}
    for record in content.values():
        if isinstance(record, ArrayRecord):
            parameters.tensors.extend(array.data for array in record.values())
            parameters.tensor_type = SType.NUMPY
        elif isinstance(record, ConfigRecord):
            config.update(record)
    scalars: Any = serde.metrics_to_proto(_in_both_spellings(config))
    if phase == "train":
        fit = ServerMessage.FitIns(parameters=parameters, config=scalars)
        message = ServerMessage(fit_ins=fit)
    else:
        evaluate = ServerMessage.EvaluateIns(parameters=parameters, config=scalars)
        message = ServerMessage(evaluate_ins=evaluate)
    return bytes(message.SerializeToString())


def layer_names(content: RecordDict) -> tuple[str, ...]:
    """The names of the layers in the order in which `encode` sends them."""
    return tuple(
        name for record in content.values() if isinstance(record, ArrayRecord) for name in record
    )


def server_round(content: RecordDict) -> int:
    """The round that a message is for, 0 where it does not say."""
    for record in content.values():
        if isinstance(record, ConfigRecord):
            number = record.get("server-round", record.get("server_round"))
            if isinstance(number, int):
                return number
    return 0


def _in_both_spellings(config: Mapping[str, Any]) -> dict[str, Scalar]:
    both = dict(config)
    for kebab, snake in _SPELLINGS:
        for ours, theirs in ((kebab, snake), (snake, kebab)):
            if ours in both:
                both.setdefault(theirs, both[ours])
    for key, value in both.items():
        if not isinstance(value, bool | bytes | float | int | str):
            raise TypeError(
                f"config {key!r}: clients of start_client take no {type(value).__name__}"
            )
    return both


# --- from clients --------------------------------------------------------------------------------


def decode(phase: Phase, data: bytes, names: Sequence[str]) -> RecordDict | Refusal:
    """What a client answered, as a Message-API client would have sent it.

    Records are ``arrays`` (train; with the ``names`` that were sent where their number is the
    same), ``metrics`` (with ``num-examples``) and, if there is a report, ``emissions``.
    """
    answer = _part(data, _ANSWER_TO[phase])
    if isinstance(answer, Refusal):
        return answer
    report, rest = split_flat(_scalars(answer.metrics))
    refusal = _not_well(answer.status)
    if refusal is not None:
        return replace(refusal, report=report)
    content = RecordDict()
    if phase == "train":
        content["arrays"] = _arrays(answer.parameters, names)
    else:
        rest["loss"] = answer.loss
    content["metrics"] = _metrics(rest, answer.num_examples)
    if report is not None:
        content[RECORD_KEY] = report
    return content


def decode_parameters(data: bytes) -> ArrayRecord | Refusal:
    """The initial model in an answer to `ASK_PARAMETERS`: readable and finite, layers numbered."""
    answer = _part(data, "get_parameters_res")
    refusal = answer if isinstance(answer, Refusal) else _not_well(answer.status)
    if refusal is not None:
        return refusal
    try:
        layers = [array.numpy() for array in _arrays(answer.parameters, ()).values()]
        finite = all(bool(np.isfinite(layer).all()) for layer in layers)
    except (ValueError, TypeError, EOFError, OSError) as error:
        return Refusal(ErrorCode.UNKNOWN, f"its parameters cannot be read: {plain(str(error))}")
    if not layers or not finite:
        return Refusal(
            ErrorCode.UNKNOWN, "its parameters hold NaN or infinity" if layers else "none"
        )
    return ArrayRecord(layers)


def plain(text: str) -> str:
    """Someone else's text for our log: one line, printable, not long."""
    line = "".join(c if c.isprintable() else " " for c in text[: 2 * _MAX_REASON_CHARACTERS])
    return " ".join(line.split())[:_MAX_REASON_CHARACTERS]


def _part(data: bytes, expected: str) -> Any:
    """The part of the answer that was asked for, or why it is not there."""
    try:
        message = ClientMessage.FromString(data)
    except DecodeError:
        return Refusal(ErrorCode.UNKNOWN, "the answer cannot be read")
    given = message.WhichOneof("msg")
    if given != expected:
        return Refusal(ErrorCode.UNKNOWN, f"answered {given or 'nothing'} instead of {expected}")
    return getattr(message, expected)


def _not_well(status: Any) -> Refusal | None:
    """What a client says is wrong with it. Not by `serde`: it takes an unknown code for OK."""
    if status.code == Code.OK:
        return None
    if status.message.startswith(RAISED):  # our helper's clients say what it was
        said = f"the client {plain(status.message)}"
    else:
        name = Code.Name(status.code) if status.code in Code.values() else f"code {status.code}"
        words = f": {plain(status.message)}" if status.message else ""
        said = f"the client's status is {name}{words}"
    return Refusal(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, said)


def _scalars(metrics: Mapping[str, Any]) -> dict[str, Scalar]:
    """Flower's flat metrics; a value of no kind, which Flower could not have sent, is left out."""
    return {
        name: getattr(value, kind)
        for name, value in metrics.items()
        if (kind := value.WhichOneof("scalar")) is not None
    }


def _arrays(parameters: Parameters, names: Sequence[str]) -> ArrayRecord:
    tensors = parameters.tensors
    keys: Iterable[str] = names if len(names) == len(tensors) else map(str, range(len(tensors)))
    stype = parameters.tensor_type
    # As in Flower's own bridge type and shape are left open: only the bytes were sent.
    return ArrayRecord(
        {
            key: Array(dtype="", shape=(), stype=stype, data=tensor)
            for key, tensor in zip(keys, tensors, strict=True)
        }
    )


def _metrics(values: Mapping[str, Scalar], examples: int) -> MetricRecord:
    """The numbers among the values. One that does not fit must not cost the others."""
    record = MetricRecord({EXAMPLES_KEY: examples})
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name != EXAMPLES_KEY:
            record[name] = value
    return record
