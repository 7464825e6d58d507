"""The ``privacy`` section of a configuration: what it takes, what it refuses, what it says."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from fedserver.config import load_config
from fedserver.errors import ConfigError
from fedserver.options import ClientsConfig, ServerConfig
from fedserver.privacy import MECHANISMS, AccountingConfig, CentralDpConfig, names

PRIVACY = {
    "mechanism": "central-dp",
    "noise_multiplier": 1,
    "clipping_norm": 0.5,
    "num_sampled_clients": 2,
}
ACCOUNTING = {"weights": "equal", "accounting": {"delta": 1e-5, "population": 10}}


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """As the command line gives them."""
    return {f"privacy.{key}": value for key, value in values.items()}


def problems(**overrides: Any) -> dict[str, str]:
    """What is wrong with the section and these options, by path; the accountant counts as there."""
    values = flat(PRIVACY) | {path.replace("__", "."): v for path, v in overrides.items()}
    try:
        load_config(None, {}, {path: v for path, v in values.items() if v != "left out"})
    except ConfigError as error:
        found = {problem.path: problem.text for problem in error.problems}
        return {path: text for path, text in found.items() if "pip install" not in text}
    return {}


def accounted(**overrides: Any) -> dict[str, str]:
    """The same with accounting that could be true."""
    return problems(**{**{f"privacy.{k}": v for k, v in ACCOUNTING.items()}, **overrides})


@pytest.mark.parametrize("mechanism", names())
def test_each_mechanism_is_chosen_by_its_name(mechanism: str) -> None:
    """From file, command line or environment alike."""
    config = load_config(None, {}, flat({**PRIVACY, "mechanism": mechanism})).config
    assert type(config.privacy) in MECHANISMS
    assert config.privacy is not None
    assert config.privacy.mechanism == mechanism
    environ = {f"FEDSERVER_PRIVACY__{key.upper()}": str(v) for key, v in PRIVACY.items()}
    environ["FEDSERVER_PRIVACY__MECHANISM"] = mechanism
    assert load_config(None, environ, {}).config.privacy == config.privacy


def test_privacy_can_be_taken_back() -> None:
    """null on the command line holds over the section of a layer below."""
    environ = {f"FEDSERVER_PRIVACY__{key.upper()}": str(v) for key, v in PRIVACY.items()}
    loaded = load_config(None, environ, {"privacy": "null"})
    assert loaded.config.privacy is None
    assert loaded.sources["privacy"] == "command line"
    environ["FEDSERVER_PRIVACY__ACCOUNTING__DELTA"] = "1e-5"
    loaded = load_config(None, environ, {"privacy.accounting": "null"})
    assert loaded.config.privacy is not None
    assert loaded.config.privacy.accounting is None


@pytest.mark.parametrize(
    ("overrides", "path", "text"),
    [
        (
            {"mechanism": "dp"},
            "mechanism",
            '"dp" is no privacy mechanism; choices: central-dp, met',
        ),
        ({"mechanism": "centraldp"}, "mechanism", "did you mean central-dp? choices: central-dp"),
        (
            {"mechanism": "left out"},
            "mechanism",
            "is missing; choices: central-dp, metric-privacy, ",
        ),
        ({"clipping_norm": "left out"}, "clipping_norm", "is missing"),
        ({"clipping_norm": 0}, "clipping_norm", "0 must be greater than 0"),
        ({"noise_multiplier": 0}, "noise_multiplier", "0 must be at least 1e-05"),
        ({"noise_multiplier": "much"}, "noise_multiplier", '"much" must be a number'),
        ({"num_sampled_clients": 0}, "num_sampled_clients", "0 must be at least 1"),
        ({"num_sampled_clients": 2.5}, "num_sampled_clients", "2.5 must be a whole number"),
        (
            {"mechanism": "metric-privacy", "num_sampled_clients": 1},
            "num_sampled_clients",
            "1 must be at least 2",
        ),
        ({"weights": "size"}, "weights", "is not one of the choices: 'examples' or 'equal'"),
        ({"noise": 1}, "noise", "unknown key; choices: accounting, clipping_norm, mechanism"),
        ({"publish_distance": True}, "publish_distance", "central-dp measures no distance"),
        ({"accounting": {"delta": 1e-5}}, "accounting.population", "is missing"),
        ({"accounting": {"delta": 1, "population": 9}}, "accounting.delta", "must be less than 1"),
        ({"accounting": 3}, "accounting", "must be a section with keys"),
        ({"clipping_norm": 1e308, "noise_multiplier": 1e308}, "noise_multiplier", "noise infinite"),
    ],
)
def test_a_wrong_value_is_named(overrides: dict[str, Any], path: str, text: str) -> None:
    """Path, value and what it should be."""
    found = problems(**{f"privacy.{key}": value for key, value in overrides.items()})
    assert list(found) == [f"privacy.{path}"]
    assert text in found[f"privacy.{path}"]


def test_a_section_that_is_none_is_named() -> None:
    """One problem, with an example."""
    with pytest.raises(ConfigError) as refused:
        load_config(None, {}, {"privacy": 3})
    (problem,) = refused.value.problems
    assert str(problem).startswith(
        "privacy: must be a section with keys, as in {mechanism: central-dp, …}, or null"
    )


@pytest.mark.parametrize(
    ("overrides", "path", "text"),
    [
        ({"privacy.weights": "examples"}, "privacy.weights", "cannot be accounted for"),
        (
            {"clients.min_fit": 3},
            "clients.min_fit",
            "under privacy.accounting a round trains exactly",
        ),
        (
            {"privacy.accounting": {"delta": 1e-5, "population": 1}},
            "privacy.accounting.population",
            "1 is fewer than privacy.num_sampled_clients 2",
        ),
        (
            {"privacy.mechanism": "metric-privacy"},
            "privacy.accounting",
            "its noise depends on the clients' models",
        ),
    ],
)
def test_what_cannot_be_accounted_for_stops_the_start(
    overrides: dict[str, Any], path: str, text: str
) -> None:
    """Each with the reason and the way out."""
    assert accounted() == {}
    found = accounted(**overrides)
    assert list(found) == [path]
    assert text in found[path]
    assert "choices: " in found[path] or "population" in path


def test_only_means_can_be_accounted_for() -> None:
    """By the strategy's name: an optimiser on the server is not what the accountant knows."""
    private = CentralDpConfig(
        noise_multiplier=1.0,
        clipping_norm=1.0,
        num_sampled_clients=2,
        weights="equal",
        accounting=AccountingConfig(delta=1e-5, population=10),
    )

    def refused(name: str) -> list[str]:
        strategy = ServerConfig().strategy.model_copy(update={"name": name})
        config = ServerConfig().model_copy(update={"strategy": strategy, "privacy": private})
        return [path for path, text in private.contradictions(config) if "pip install" not in text]

    assert refused("FedAdam") == ["privacy.accounting"]
    assert refused("FedAvg") == refused("FedProx") == []


def test_accounting_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback of an import: the command to run."""
    monkeypatch.setitem(sys.modules, "dp_accounting", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r'pip install "fedserver-telemetry\[dp\]"'):
        load_config(None, {}, flat({**PRIVACY, **ACCOUNTING}))


@pytest.mark.parametrize(
    ("weights", "strategy", "label"),
    [
        ("equal", "FedAvg", "central-dp"),
        ("equal", "FedProx", "central-dp"),
        ("examples", "FedAvg", "central-dp (no formal guarantee)"),
        ("equal", "FedAdam", "central-dp (no formal guarantee)"),
        ("equal", "FedAvgM", "central-dp (no formal guarantee)"),
    ],
)
def test_the_record_says_where_there_is_no_guarantee(
    weights: Any, strategy: str, label: str
) -> None:
    """Unequal weights, and whatever is not a mean."""
    private = CentralDpConfig(
        noise_multiplier=1.0, clipping_norm=1.0, num_sampled_clients=2, weights=weights
    )
    assert private.label(strategy) == label
    accounted = private.model_copy(
        update={"accounting": AccountingConfig(delta=0.01, population=9)}
    )
    if label == "central-dp":
        assert accounted.label(strategy) == "central-dp (accounted at delta 0.01)"


def test_what_a_person_must_know_is_said() -> None:
    """A guarantee that is not there, a seed, a fleet that is larger than it reads."""
    private = CentralDpConfig(noise_multiplier=1.0, clipping_norm=1.0, num_sampled_clients=4)
    config = ServerConfig(privacy=private, seed=3)
    gap, seed, fleet = private.notes(config)
    assert gap.startswith("privacy central-dp: no formal guarantee: privacy.weights examples lets")
    assert seed.startswith("seed 3 makes the noise predictable")
    assert fleet.endswith("num_sampled_clients 4: a round waits for 4 clients")
    assert config.cohort.needed_to_train == 4
    good = private.model_copy(update={"weights": "equal", "num_sampled_clients": 2})
    assert list(good.notes(ServerConfig(privacy=good))) == []


def test_a_round_never_draws_fewer_clients_than_the_noise_is_made_for() -> None:
    """And exactly so many where they are accounted for."""
    private = CentralDpConfig(noise_multiplier=1.0, clipping_norm=1.0, num_sampled_clients=4)
    assert private.cohort(ClientsConfig(min_fit=2)).min_fit == 4
    assert private.cohort(ClientsConfig(min_fit=6, fraction_fit=0.5)) == ClientsConfig(
        min_fit=6, fraction_fit=0.5
    )
    exact = private.model_copy(update={"accounting": AccountingConfig(delta=0.01, population=9)})
    cohort = exact.cohort(ClientsConfig(min_fit=2, fraction_fit=0.5))
    assert cohort.min_fit == 4
    assert int(1_000_000 * cohort.fraction_fit) == 0 < cohort.fraction_fit
