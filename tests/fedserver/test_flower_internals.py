"""What this project uses of Flower beyond its public interface, and where an upgrade would break it."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import fedserver

INTERNALS: dict[str, tuple[str, ...]] = {
    # module:name → parameters that we pass, or attributes that we use
    "flwr.common.constant:ErrorCode": (
        "UNKNOWN",
        "CLIENT_APP_RAISED_EXCEPTION",
        "REPLY_MESSAGE_UNAVAILABLE",
        "NODE_UNAVAILABLE",
    ),
    "flwr.common.constant:SType": ("NUMPY",),
    "flwr.common.serde:metrics_to_proto": ("metrics",),
    # by fedserver_hooks.client_start, which replaces it
    "flwr.compat.client.grpc_client.connection:create_channel": (
        "server_address",
        "insecure",
        "root_certificates",
        "max_message_length",
        "interceptors",
    ),
    "flwr.proto.transport_pb2:ClientMessage": (
        "FromString",
        "FitRes",
        "EvaluateRes",
        "GetParametersRes",
    ),
    "flwr.proto.transport_pb2:Code": ("OK", "Name", "values"),
    "flwr.proto.transport_pb2:Parameters": ("SerializeToString",),
    "flwr.proto.transport_pb2:ServerMessage": (
        "FitIns",
        "EvaluateIns",
        "GetParametersIns",
        "ReconnectIns",
        "SerializeToString",
    ),
    "flwr.supercore.logger:FLOWER_LOGGER": ("removeHandler", "addFilter"),
    "flwr.supercore.logger:console_handler": (),
    "flwr.supercore.task_identity:TaskIdentity": ("_run_id", "_task_id", "_node_id"),
    "flwr.supercore.telemetry:FLWR_TELEMETRY_ENABLED": (),
}
FIELDS = {
    "Parameters": {"tensors", "tensor_type"},
    "ServerMessage": {"fit_ins", "evaluate_ins", "get_parameters_ins", "reconnect_ins"},
    "ClientMessage": {"fit_res", "evaluate_res", "get_parameters_res"},
    "ClientMessage.FitRes": {"status", "parameters", "num_examples", "metrics"},
    "ClientMessage.EvaluateRes": {"status", "loss", "num_examples", "metrics"},
    "ClientMessage.GetParametersRes": {"status", "parameters"},
}
STATE = {
    "FedAdam": ("m_t", "v_t", "current_arrays"),
    "FedYogi": ("m_t", "v_t", "current_arrays"),
    "FedAdagrad": ("m_t", "v_t", "current_arrays"),
    "FedAvgM": ("momentum_vector", "current_arrays", "server_opt"),
}
PUBLIC = ("flwr.app", "flwr.serverapp", "flwr.client", "flwr.clientapp")
STRATEGY_METHODS = {
    "configure_train": ["self", "server_round", "arrays", "config", "grid"],
    "aggregate_train": ["self", "server_round", "replies"],
    "configure_evaluate": ["self", "server_round", "arrays", "config", "grid"],
    "aggregate_evaluate": ["self", "server_round", "replies"],
    "summary": ["self"],
}


@pytest.mark.parametrize("place", INTERNALS)
def test_each_internal_of_flower_is_still_there(place: str) -> None:
    """One case for each; its name says which one an upgrade of Flower took away."""
    module, _, name = place.partition(":")
    found: Any = getattr(import_module(module), name)
    if inspect.isfunction(found):
        assert list(inspect.signature(found).parameters) == list(INTERNALS[place])
    else:
        missing = [attribute for attribute in INTERNALS[place] if not hasattr(found, attribute)]
        assert not missing


@pytest.mark.parametrize("strategy", STATE)
def test_a_strategys_memory_is_where_we_look_for_it(strategy: str) -> None:
    """States of checkpoints are read from these attributes; renamed, they would seem empty."""
    made = getattr(import_module("flwr.serverapp.strategy"), strategy)()
    assert [name for name in STATE[strategy] if name not in vars(made)] == []


def test_flowers_fedopt_still_has_no_aggregation_of_its_own() -> None:
    """If it ever gets one, ours should be compared with it."""
    fedopt = import_module("flwr.serverapp.strategy.fedopt").FedOpt
    assert "aggregate_train" not in vars(fedopt)


@pytest.mark.parametrize("message", FIELDS)
def test_the_protocols_messages_have_the_fields_that_we_read(message: str) -> None:
    """Names of protobuf fields are looked up at run time, so no type checker sees them go."""
    outer, _, inner = message.partition(".")
    descriptor: Any = getattr(import_module("flwr.proto.transport_pb2"), outer).DESCRIPTOR
    if inner:
        descriptor = descriptor.nested_types_by_name[inner]
    assert FIELDS[message] <= set(descriptor.fields_by_name)


def test_the_service_is_called_what_clients_call() -> None:
    """Clients of every version open a stream to this path."""
    proto = import_module("flwr.proto.transport_pb2")
    service = proto.DESCRIPTOR.services_by_name["FlowerService"]
    assert service.full_name == "flwr.proto.FlowerService"
    assert list(service.methods_by_name) == ["Join"]


@pytest.mark.parametrize("method", STRATEGY_METHODS)
def test_a_strategy_has_the_methods_that_wrappers_pass_on(method: str) -> None:
    """The guard delegates each of these, and the loop calls them in Flower's order."""
    strategy = import_module("flwr.serverapp.strategy").Strategy
    parameters = list(inspect.signature(getattr(strategy, method)).parameters)
    assert parameters == STRATEGY_METHODS[method]
    abstract = set(strategy.__abstractmethods__)
    assert abstract == set(STRATEGY_METHODS)


def test_internals_are_used_in_the_transport_only() -> None:
    """Everywhere else the server imports only Flower's public modules, and each internal is named."""
    root = Path(fedserver.__file__).parent
    used = {
        (path.relative_to(root).parts[0], place)
        for path in root.rglob("*.py")
        for place in _internals_in(path)
    }
    assert {part for part, _ in used} == {"transport"}
    named = set(INTERNALS) | {place.partition(":")[0] for place in INTERNALS}
    assert not {place for _, place in used} - named


def _internals_in(path: Path) -> set[str]:
    """What a file imports from Flower's private modules, as ``module:name`` or as a module."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    private = [
        (module, name)
        for module, name in found
        if module.startswith("flwr.") and not module.startswith(PUBLIC)
    ]
    modules = {place.partition(":")[0] for place in INTERNALS}
    return {
        f"{module}.{name}" if f"{module}.{name}" in modules else f"{module}:{name}"
        for module, name in private
    }
