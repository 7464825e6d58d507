"""Clients of ``fl.client.start_client`` that do as they are told, for tests of a real server.

Flower's own client code on both sides of a socket; only what ``fit`` and ``evaluate`` do is written
down in a `Script`. `ClientThread` is quick to start; `ClientProcess` can die and has an exit code.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when Flower is imported, which is next

import grpc
import numpy as np
from flwr.client import Client, start_client
from flwr.common import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.proto.transport_pb2 import ClientMessage
from flwr.proto.transport_pb2_grpc import FlowerServiceStub

ROOT = Path(__file__).parent.parent.parent
MAX_HOLD_S = 30.0

_PARSING = threading.Lock()
"""NumPy reads an array's header with ``ast``, which in CPython 3.11 fails now and then when several
threads parse at once ("AST constructor recursion depth mismatch", python/cpython issue 106905)."""

Behaviour = Literal[
    "good",
    "hang",  # for `hang_s`, or until the thread's `release` is set; then good
    "die",  # os._exit in the middle of fit
    "freeze",  # stops its own process (SIGSTOP): the socket stays open, nothing answers
    "hold",  # for `hang_s`, and no other thread of Python's runs meanwhile; then good
    "raise",  # the process ends with a traceback
    "status",  # answers that it failed; Flower's client then sends nothing else
    "unwell",  # answers that it failed with a code that lets the rest through
    "nan",
    "shape",
    "broadcast",  # a shape that NumPy would add up without a word
    "layers",  # one layer too many
    "unreadable",
]


@dataclass(frozen=True)
class Script:
    """What a client does. The defaults are a good client: it adds 1 to every weight."""

    fit: Behaviour = "good"
    fit_rounds: tuple[int, ...] | None = None
    """Rounds in which it behaves like that; None: in all."""
    add: float = 1.0
    examples: int = 10
    hang_s: float = MAX_HOLD_S
    metrics: dict[str, Any] = field(default_factory=dict)
    """What it returns from ``fit``, for example ``{"emissions": 1e-6}``."""
    echo: tuple[str, ...] = ()
    """Keys of the config that it returns as metrics ``<key>-echo``."""
    model: tuple[tuple[int, ...], ...] | None = ((3, 2),)
    """Shapes for ``get_parameters``, all zero, float32; None: it has no such method."""
    evaluates: bool = True
    evaluate_metrics: dict[str, Any] = field(default_factory=lambda: {"accuracy": 0.5})
    learns: float = 0.0
    """What its ``evaluate_metrics`` rise by each round."""
    evaluate_examples: int = 10
    loss: float = 0.25

    def to_json(self) -> str:
        """As text for a process; NaN and infinity included."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Script:
        """The inverse of `to_json`."""
        values = json.loads(text)
        if values["model"] is not None:
            values["model"] = tuple(tuple(shape) for shape in values["model"])
        if values["fit_rounds"] is not None:
            values["fit_rounds"] = tuple(values["fit_rounds"])
        return cls(**{**values, "echo": tuple(values["echo"])})


_OK = Status(Code.OK, "")
_FAILED = {
    "status": Status(Code.FIT_NOT_IMPLEMENTED, "told to\nfail"),
    "unwell": Status(Code.GET_PARAMETERS_NOT_IMPLEMENTED, "told to be unwell"),
}


class _Training(Client):
    """Trains as scripted."""

    def __init__(self, script: Script, release: threading.Event, in_fit: threading.Event) -> None:
        self.script = script
        self.release = release
        self.in_fit = in_fit

    def fit(self, ins: FitIns) -> FitRes:
        script = self.script
        rounds = script.fit_rounds
        does: Behaviour = (
            script.fit if rounds is None or ins.config["server_round"] in rounds else "good"
        )
        self.in_fit.set()
        if does == "hang":
            self.release.wait(script.hang_s)
        elif does == "die":
            os._exit(3)
        elif does == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif does == "hold":
            ctypes.PyDLL(None).sleep(int(script.hang_s))  # keeps the interpreter's lock
        elif does == "raise":
            raise RuntimeError("told to raise")
        echo = {f"{key}-echo": ins.config[key] for key in script.echo if key in ins.config}
        return FitRes(
            status=_FAILED.get(does, _OK),
            parameters=_answer(does, ins.parameters, script.add),
            num_examples=script.examples,
            metrics={**script.metrics, **echo},
        )


def _answer(does: Behaviour, sent: Parameters, add: float) -> Parameters:
    with _PARSING:
        received = parameters_to_ndarrays(sent)
    layers = [layer + np.asarray(add, layer.dtype) for layer in received]
    match does:
        case "nan":
            layers[0].flat[0] = np.nan
        case "shape":
            layers[0] = np.zeros((*layers[0].shape, 2), np.float32)
        case "broadcast":
            layers[0] = layers[0][:1]
        case "layers":
            layers.append(layers[0])
        case "unreadable":
            return Parameters([b"no array"] * len(layers), sent.tensor_type)
    return ndarrays_to_parameters(layers)


class _Evaluating:
    script: Script

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        script = self.script
        metrics = script.evaluate_metrics
        if script.learns:
            learnt = script.learns * int(ins.config["server_round"])
            metrics = {name: value + learnt for name, value in metrics.items()}
        return EvaluateRes(_OK, script.loss, script.evaluate_examples, dict(metrics))


class _WithModel:
    script: Script

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        layers = [np.zeros(shape, np.float32) for shape in self.script.model or ()]
        return GetParametersRes(_OK, ndarrays_to_parameters(layers))


def make_client(
    script: Script,
    release: threading.Event | None = None,
    in_fit: threading.Event | None = None,
) -> Client:
    """A client that follows the script. Flower looks at which methods a class has."""
    bases: list[type] = [_WithModel] if script.model is not None else []
    if script.evaluates:
        bases.append(_Evaluating)
    made = type("ScriptedClient", (*bases, _Training), {})
    client: Client = made(script, release or threading.Event(), in_fit or threading.Event())
    return client


class ClientThread(AbstractContextManager["ClientThread"]):
    """A client in a thread of this process. ``release`` ends a hang, ``in_fit`` is set in ``fit``."""

    def __init__(self, address: str, script: Script | None = None) -> None:
        self.release = threading.Event()
        self.in_fit = threading.Event()
        self.error: BaseException | None = None
        self._address = address
        self._client = make_client(script or Script(), self.release, self.in_fit)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            start_client(server_address=self._address, client=self._client, insecure=True)
        except BaseException as error:  # noqa: BLE001 - for the test to look at
            self.error = error

    def wait(self, timeout_s: float = 10.0) -> BaseException | None:
        """Wait until ``start_client`` has returned; what it raised, None if it just returned."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the client is still running"
        return self.error

    def __exit__(self, *_: object) -> None:
        self.release.set()


class ClientProcess(AbstractContextManager["ClientProcess"]):
    """A client in a process of its own, killed at the end of the ``with`` block if need be.

    What it logs is shown with a test that fails.
    """

    def __init__(self, address: str, script: Script | None = None) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fedserver.clients",
                address,
                (script or Script()).to_json(),
            ],
            cwd=ROOT,
        )

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for its end and return its exit code."""
        return self.process.wait(timeout_s)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class RawClient:
    """One stream of the protocol, byte for byte, for what no decent client would send."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._answers: queue.SimpleQueue[ClientMessage | None] = queue.SimpleQueue()
        self.asked = FlowerServiceStub(self._channel).Join(iter(self._answers.get, None))

    def answer(self, message: ClientMessage) -> None:
        """Send this, whatever was asked."""
        self._answers.put(message)

    def close(self) -> None:
        """Go without a word."""
        self.asked.cancel()
        self._channel.close()
        self._answers.put(None)


def wait_until(condition: Any, timeout_s: float = 10.0) -> None:
    """Look every few milliseconds until it holds, where there is no event to wait for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def main() -> None:
    """``python -m tests.fedserver.clients HOST:PORT SCRIPT``: one client."""
    address, script = sys.argv[1:]
    start_client(
        server_address=address, client=make_client(Script.from_json(script)), insecure=True
    )


if __name__ == "__main__":
    main()
