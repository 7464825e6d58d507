"""The configuration: its defaults, its layers, and every way in which it can be wrong."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedserver import keys, options
from fedserver.checks import contradictions
from fedserver.config import ConfigError, LoadedConfig, describe, load_config
from fedserver.errors import Problem
from fedserver.options import ServerConfig, TelemetryConfig
from fedserver.sources import Layer
from fedserver.strategies import STRATEGIES, StrategyConfig, choice, names
from fedserver.templates import server_yaml
from fedserver_hooks.allocation import ScopeUnavailable, ServerScope
from telemetry.errors import TelemetryError

CONTRACT = """
run_name: digits
seed: null
rounds: 5
round_timeout_s: 600
clients: {min_fit: 2, min_evaluate: 2, min_available: 2, fraction_fit: 1.0,
          fraction_evaluate: 1.0, wait_timeout_s: null, max_failed_rounds: 3}
metrics: [accuracy]
strategy: {name: FedAvg}
privacy: null
model: {initial: null, output_dir: runs}
server: {address: "127.0.0.1:5000", auth: none, allow_anonymous: false, tokens_store: tokens.db,
         tokens_file: null, tls: null, max_message_mb: 512, keepalive_s: 30}
track_emissions: false
emissions: {country: null, region: null, carbon_intensity_g_per_kwh: null, pue: 1.0,
            server_scope: auto, loopback_clients: same_host, network_kwh_per_gb: null,
            impute_missing: false, max_client_power_w: 100000, value_metric: accuracy,
            budget_kg: null, on_budget: warn}
telemetry: {database_url: "sqlite:///telemetry.db", service_url: null, service_token: null,
            service_token_file: null,
            http: {host: 127.0.0.1, port: 9464, read_token_file: null, allowed_hosts: [],
                   linger_s: 15},
            metrics_rounds: 200, metrics_runs: 5, max_series: 50000, client_rows: true}
"""

SECRET = "hush-hush"

Load = Callable[..., LoadedConfig]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads ``text`` as server.yaml in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def load_text(
        text: str | None = None,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, object] | None = None,
    ) -> LoadedConfig:
        path = None
        if text is not None:
            path = Path("server.yaml")
            path.write_text(text, encoding="utf-8")
        return load_config(path, environ or {}, overrides or {})

    return load_text


def refusal(load: Load, *args: Any) -> str:
    """The message with which a configuration is refused."""
    with pytest.raises(ConfigError) as refused:
        load(*args)
    return str(refused.value)


def plain(value: object) -> object:
    """A dumped configuration as YAML would give it: text for paths, lists for tuples."""
    match value:
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case tuple():
            return [plain(item) for item in value]
        case Path():
            return str(value)
    return value


# --- what is right ------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_contract() -> None:
    """Without any source the configuration is the documented one, key by key."""
    assert plain(options.ServerConfig().model_dump()) == yaml.safe_load(CONTRACT)


def test_the_template_is_the_defaults(load: Load) -> None:
    """What `fedserver init` writes loads to exactly what no file at all gives."""
    written = load(server_yaml())
    assert written.config == load().config
    assert "default" not in written.sources.values()


def test_the_template_comments_every_option() -> None:
    """Each line with an option says what it is for."""
    lines = [line for line in server_yaml().splitlines() if ":" in line and line[0] != "#"]
    uncommented = [line for line in lines if " # " not in line and not line.endswith(":")]
    uncommented = [line for line in uncommented if not line.strip().startswith("#")]
    assert uncommented == []
    assert len(lines) >= len([path for path in keys.OPTIONS if not path.startswith("strategy.")])
    assert [name for name in names() if name not in server_yaml()] == []


def test_later_layers_hold_over_earlier_ones(load: Load) -> None:
    """Command line over environment over file over default, and each value names its source."""
    loaded = load(
        "rounds: 1\nclients:\n  min_fit: 1\n  min_evaluate: 1\n  min_available: 1\n",
        {"FEDSERVER_CLIENTS__MIN_EVALUATE": "3", "FEDSERVER_CLIENTS__MIN_AVAILABLE": "3"},
        {"clients.min_available": 4},
    )
    clients = loaded.config.clients
    assert (clients.min_fit, clients.min_evaluate, clients.min_available) == (1, 3, 4)
    assert loaded.sources["rounds"] == "server.yaml:1"
    assert loaded.sources["clients.min_fit"] == "server.yaml:3"
    assert loaded.sources["clients.min_evaluate"] == "FEDSERVER_CLIENTS__MIN_EVALUATE"
    assert loaded.sources["clients.min_available"] == "command line"
    assert loaded.sources["clients.fraction_fit"] == "default"


def test_every_option_has_a_source(load: Load) -> None:
    """check-config shows each option of the schema once; of a section that is null, just that."""
    loaded = load("rounds: 7")
    others = ("strategy.", "privacy.")  # the options of one strategy, and of no mechanism
    shown = [path for path in keys.OPTIONS if not path.startswith(others)]
    assert sorted(loaded.sources) == sorted([*shown, "strategy.name", "privacy"])
    assert list(filter(shown.__contains__, loaded.sources)) == shown
    lines = list(describe(loaded))
    assert len(lines) == len(loaded.sources)
    assert lines[2].split() == ["rounds", "7", "server.yaml:1"]


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("FEDSERVER_ROUNDS", "7", "rounds", 7),
        ("FEDSERVER_ROUND_TIMEOUT_S", "1e2", "round_timeout_s", 100.0),
        ("FEDSERVER_TRACK_EMISSIONS", "true", "track_emissions", True),
        ("FEDSERVER_RUN_NAME", "2026", "run_name", "2026"),
        ("FEDSERVER_RUN_NAME", "{curly", "run_name", "{curly"),
        ("FEDSERVER_EMISSIONS__COUNTRY", "", "emissions.country", None),
        ("FEDSERVER_EMISSIONS", "{country: ESP}", "emissions.country", "ESP"),
        ("FEDSERVER_METRICS", "accuracy, f1", "metrics", ("accuracy", "f1")),
        ("FEDSERVER_METRICS", "[accuracy, f1]", "metrics", ("accuracy", "f1")),
        ("FEDSERVER_TELEMETRY__HTTP__LINGER_S", "forever", "telemetry.http.linger_s", "forever"),
        ("FEDSERVER_TELEMETRY__HTTP__LINGER_S", "0", "telemetry.http.linger_s", 0),
        ("FEDSERVER_STRATEGY__NAME", "FedAvg", "strategy.name", "FedAvg"),
    ],
)
def test_a_variable_gives_a_value(
    load: Load, variable: str, text: str, path: str, value: object
) -> None:
    """Variables are read as YAML, except where the option is text; --set reads the same."""
    loaded = load(None, {variable: text})
    assert loaded.sources[path] == variable
    from_command_line = load(None, {}, {keys_path(variable): text})
    for config in (loaded.config, from_command_line.config):
        found: Any = config
        for name in path.split("."):
            found = getattr(found, name)
        assert found == value


def keys_path(variable: str) -> str:
    """The dotted path that a variable names."""
    return variable.removeprefix("FEDSERVER_").lower().replace("__", ".")


def test_one_metric_needs_no_list(load: Load) -> None:
    """A single name is a list of one."""
    assert load("metrics: f1").config.metrics == ("f1",)


def test_an_emptied_section_means_its_defaults(load: Load) -> None:
    """With every key commented out a section reads as null, and changes nothing."""
    assert load("clients:\ntelemetry:\n  http:\n").config == load().config


def test_files_are_relative_to_the_file_that_names_them(load: Load, tmp_path: Path) -> None:
    """A file's paths start from its folder, all others from the working directory."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file = folder / "fl.yaml"
    file.write_text(
        "model: {output_dir: out}\n"
        "telemetry: {database_url: 'sqlite:///data.db?timeout=5', http: {read_token_file: t}}\n",
        encoding="utf-8",
    )
    (folder / "t").write_text(f"{API_TOKEN}\n", encoding="utf-8")
    config = load_config(file, {}, {}).config
    assert config.model.output_dir == folder / "out"
    assert config.telemetry.database_url == f"sqlite:///{folder}/data.db?timeout=5"
    assert config.telemetry.http.read_token() == API_TOKEN
    assert config.server.tokens_store == tmp_path / "tokens.db"

    over = load_config(file, {"FEDSERVER_MODEL__OUTPUT_DIR": "here"}, {}).config
    assert over.model.output_dir == tmp_path / "here"


def test_a_database_that_is_no_file_stays_as_it_is(load: Load) -> None:
    """Only SQLite files are looked for beside the configuration."""
    assert load("telemetry: {database_url: 'memory://'}").config.telemetry.database_url == (
        "memory://"
    )


def test_clients_that_flower_would_wait_for_are_told(load: Load) -> None:
    """Flower waits for the greater of min_fit and min_available: a note, not an error."""
    loaded = load("clients: {min_fit: 5, min_available: 2}")
    assert loaded.config.clients.needed_to_train == 5
    assert loaded.notes == (
        "clients.min_fit 5 is greater than clients.min_available 2: a round waits for 5 clients",
    )
    assert load("clients: {min_fit: 5, min_available: 5}").notes == ()


def test_evaluation_can_be_left_out(load: Load) -> None:
    """With a share of zero nobody is waited for."""
    assert load("clients: {fraction_evaluate: 0}").config.clients.needed_to_evaluate == 0


def test_open_addresses_are_allowed_where_they_are_asked_for(load: Load, tmp_path: Path) -> None:
    """allow_anonymous opens the FL port, a token file the metrics."""
    (tmp_path / "t").write_text(API_TOKEN, encoding="utf-8")
    config = load(
        "server: {address: '0.0.0.0:5000', allow_anonymous: true}\n"
        "telemetry: {http: {host: '::', read_token_file: t}}\n"
    ).config
    assert config.server.address == "0.0.0.0:5000"
    assert config.telemetry.http.host == "::"


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rounds: "five"', 'rounds: "five" must be a whole number (server.yaml:1)'),
        ("rounds: true", "rounds: true must be a whole number (server.yaml:1)"),
        ("rounds: null", "rounds: null must be a whole number (server.yaml:1)"),
        ("rounds: 2.5", "rounds: 2.5 must be a whole number (server.yaml:1)"),
        ("\nrounds: 0", "rounds: 0 must be at least 1 (server.yaml:2)"),
        ("seed: -1", "seed: -1 must be at least 0 (server.yaml:1)"),
        ("seed: 4294967296", "seed: 4294967296 must be less than 4294967296 (server.yaml:1)"),
        ("round_timeout_s: .inf", "round_timeout_s: Infinity must be a finite number"),
        ("round_timeout_s: .nan", "round_timeout_s: NaN must be"),
        ('round_timeout_s: "600"', 'round_timeout_s: "600" must be a number'),
        ("run_name: 2026", "run_name: 2026 must be text (in quotes, if it looks like a number)"),
        ("run_name: ''", 'run_name: "" must not be empty'),
        ('track_emissions: "yes"', 'track_emissions: "yes" must be true or false'),
        ("track_emissions: yes", 'track_emissions: "yes" must be true or false'),
        ("track_emissions: 1", "track_emissions: 1 must be true or false"),
        ("clients: {fraction_fit: 0}", "clients.fraction_fit: 0 must be greater than 0"),
        ("clients: {fraction_fit: 1.1}", "clients.fraction_fit: 1.1 must be at most 1"),
        ("emissions: {pue: 0.9}", "emissions.pue: 0.9 must be at least 1"),
        ("emissions: {pue: 1.0e+300}", "must be at most 1000000"),
        ("emissions: {network_kwh_per_gb: 1.0e+300}", "must be at most 1000000"),
        ("emissions: {loopback_clients: both}", "the choices: 'same_host' or 'separate'"),
        ("server: {max_message_mb: 4000}", "server.max_message_mb: 4000 must be at most 2047"),
        ("server: {auth: oauth}", "server.auth: \"oauth\" is not one of the choices: 'none'"),
        ("server: {address: localhost}", 'server.address: "localhost" must be host:port'),
        ("server: {address: ':5000'}", 'server.address: ":5000" must be host:port; 0.0.0.0 is'),
        ("server: {address: '127.0.0.1:70000'}", "with a port from 0 to 65535"),
        ("telemetry: {http: {port: -1}}", "telemetry.http.port: -1 must be at least 0"),
        ("telemetry: {http: {linger_s: soon}}", '"soon" must be a number of 0 or more, or forever'),
        ("telemetry: {http: {linger_s: true}}", "true must be a number of 0 or more, or forever"),
        ("telemetry: {database_url: telemetry.db}", "must be a database URL such as sqlite:///"),
        (
            "telemetry: {database_url: 'oracle://x'}",
            "no known kind of store; choices: memory, postgresql, sq",
        ),
        ("metrics: [accuracy, accuracy]", "names one metric twice"),
        ("metrics: [accuracy, 3]", "metrics: 3 must be text"),
        ("metrics: [emissions]", "emissions is no training metric"),
        ("model: {initial: nowhere.npz}", 'nowhere.npz": there is no such file'),
        ("model: {initial: model.h5}", "must be a .npz file, as numpy.savez writes it"),
        ("model: {output_dir: server.yaml}", "is a file, not a directory"),
        ("telemetry: {http: {read_token_file: t}}", "t cannot be read: No such file"),
        ("telemetry: {http: {read_token_file: server.yaml}}", "must hold one token and nothing"),
    ],
)
def test_a_wrong_value_is_named(load: Load, text: str, message: str) -> None:
    """A message has the path, the value, what it should be and where it stands."""
    assert message in refusal(load, text)


def test_a_read_token_that_can_be_guessed_is_refused_without_being_shown(
    load: Load, tmp_path: Path
) -> None:
    """One character less than is needed; one more is taken elsewhere."""
    (tmp_path / "t").write_text("fifteen-letters", encoding="utf-8")
    said = refusal(load, "telemetry: {http: {read_token_file: t}}")
    assert "t must hold a token of 16 characters or more" in said
    assert "fifteen" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("emissions: {contry: ESP}", "emissions.contry: unknown key; did you mean emissions.cou"),
        ("country: ESP", "country: unknown key; did you mean emissions.country? (server.yaml:1)"),
        ("track-emissions: true", "did you mean track_emissions?"),
        ("x: 1", "x: unknown key; choices: clients, emissions, metrics, model, privacy, round_ti"),
        ("strategy: {name: FedAvg, mu: 1}", "strategy.mu: unknown key"),
        (
            "strategy: {name: FedProx, mu: 1}",
            "strategy.mu: unknown key; FedProx has proximal_mu (server.yaml:1)",
        ),
        (
            "strategy: {name: FedAvg, proximal_mu: 1}",
            "FedAvg has no options of its own; proximal_mu is an option of FedProx",
        ),
        (
            "strategy: {name: FedAdam, beta1: 0.5}",
            "strategy.beta1: unknown key; did you mean strategy.beta_1? FedAdam has eta, beta_1, beta",
        ),
        ("strategy: {name: QFedAvg}", "strategy.client_learning_rate: is missing; QFedAvg has no"),
        ("strategy: {name: FedTrimmedAvg, beta: 0.5}", "strategy.beta: 0.5 must be less than 0.5"),
        ("strategy: {name: FedAdam, eta: '1'}", 'strategy.eta: "1" must be a number'),
        (
            "strategy: {name: Krum, num_malicious_nodes: 1}",
            "clients.min_fit: 2: Krum with these options needs 5 clients in every round "
            "(2 × num_malicious_nodes + 3), and a round may train 2; choices: 5 or more",
        ),
        ("strategy: {name: Bulyan}", "Bulyan with these options needs 3 clients"),
        ("strategy: {name: fedavg}", 'strategy.name: "fedavg" is no strategy; did you mean FedAvg'),
        ("strategy: {name: Best}", 'strategy.name: "Best" is no strategy; choices: FedAvg'),
        ("strategy: {name: null}", "strategy.name: is missing; choices: FedAvg"),
        ("strategy: FedAvg", "strategy: must be a section with keys, as in {name: FedAvg}"),
        ("clients: 3", "clients: must be a section with keys, as in {key: value} (server.yaml:1)"),
        ("rounds: 1\nrounds: 2", "rounds: stands twice, first at server.yaml:1 (server.yaml:2)"),
        ("clients: &a {min_fit: *a}", "clients.min_fit: is nested too deeply (server.yaml:1)"),
        ("- rounds", "the file must hold keys and values, as in rounds: 5 (server.yaml)"),
        ("rounds: [1", "not valid YAML: expected ',' or ']', but got '<stream end>' (server.yaml:"),
        ("rounds: 1\n\tx: 2", "not valid YAML: "),
        ("rounds: !!python/name:os.system", "not valid YAML: "),
        ("rounds: !!int five", "not valid YAML: "),
        ("rounds: " + "[" * 5000, "the file is nested too deeply (server.yaml)"),
        ("rounds: 1\n---\nrounds: 2", "not valid YAML: but found another document (server.yaml:2)"),
    ],
)
def test_a_wrong_form_is_named(load: Load, text: str, message: str) -> None:
    """Unknown keys come with the nearest one or the choices, and malformed YAML with its line."""
    assert message in refusal(load, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("emissions: {country: ES}", "emissions.country: unknown country 'ES': did you mean ESP"),
        ("emissions: {country: XXX}", "emissions.country: unknown country 'XXX'"),
        ("emissions: {country: esp}", "emissions.country: unknown country 'esp': did you mean ESP"),
        ("emissions: {country: ESP, region: x}", "emissions.region: unknown region 'x'"),
        (
            "emissions: {region: quebec}",
            "emissions.region: unknown region 'quebec': a region needs",
        ),
        (
            "emissions: {country: XXX, carbon_intensity_g_per_kwh: 20}",
            "emissions.country: unknown country 'XXX'",
        ),
        ("server: {address: '0.0.0.0:5000'}", "server.allow_anonymous: true, or a loopback"),
        ("server: {address: 'fl.example.org:5000'}", '"fl.example.org:5000" is open to other'),
        ("telemetry: {http: {host: 0.0.0.0}}", "choices: telemetry.http.read_token_file, or"),
        ("server: {address: '[::1]:9464'}\ntelemetry: {http: {host: '::1'}}", "9464 is the port"),
        (
            "server: {address: '0.0.0.0:9464', allow_anonymous: true}",
            "telemetry.http.port: 9464 is the port of server.address too",
        ),
        (
            "emissions: {budget_kg: 0.5}",
            "emissions.budget_kg: 0.5: nobody would watch it; choices: track_emissions: true, or",
        ),
        (
            "track_emissions: true\nemissions: {on_budget: stop}",
            'emissions.on_budget: "stop" needs a budget; choices: emissions.budget_kg: a number',
        ),
        ("emissions: {budget_kg: 0}", "emissions.budget_kg: 0 must be greater than 0"),
        ("emissions: {budget_kg: .inf}", "emissions.budget_kg: "),
        ("emissions: {on_budget: halt}", "is not one of the choices: 'warn' or 'stop'"),
        ("emissions: {network_kwh_per_gb: -1}", "-1 must be at least 0"),
        ("emissions: {impute_missing: 1}", "emissions.impute_missing: 1 must be true or false"),
    ],
)
def test_what_cannot_work_is_refused(load: Load, text: str, message: str) -> None:
    """Values that are fine by themselves and cannot work name the way out."""
    assert message in refusal(load, text)


@pytest.mark.parametrize("scope", ["auto", "machine", "allocation", "process"])
def test_every_scope_of_the_server_is_accepted(load: Load, scope: str) -> None:
    """And check-config says what this machine makes of it, where emissions are tracked."""
    loaded = load(f"emissions: {{server_scope: {scope}}}")
    assert len(list(describe(loaded))) == len(loaded.sources)
    loaded = load(f"emissions: {{server_scope: {scope}}}\ntrack_emissions: true")
    *_, last = describe(loaded)
    whole = "the whole machine"
    here = {"auto": f"({whole}|allocation)", "machine": whole}.get(scope, scope)
    assert re.match(f"here, the server's figure is of: {here}", last)


def test_a_scope_that_this_machine_does_not_have_is_refused(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the choices; where nothing is tracked, nothing is metered either."""

    def refuse(scope: ServerScope) -> None:
        raise ScopeUnavailable(scope, "no /proc")

    monkeypatch.setattr("fedserver.checks.choose", refuse)
    text = "emissions: {server_scope: process}"
    assert load(text).config.emissions.server_scope == "process"
    assert refusal(load, f"{text}\ntrack_emissions: true") == (
        "emissions.server_scope: process is not available here: no /proc; "
        "choices: auto, machine (server.yaml:1)"
    )


def test_estimates_and_a_budget_are_taken(load: Load) -> None:
    """From a file, and from the environment."""
    text = """
track_emissions: true
emissions: {network_kwh_per_gb: 0.06, impute_missing: true, budget_kg: 0.012, on_budget: stop}
telemetry: {client_rows: false}
"""
    config = load(text).config
    assert config.emissions.network_kwh_per_gb == 0.06
    assert config.emissions.impute_missing
    assert (config.emissions.budget_kg, config.emissions.on_budget) == (0.012, "stop")
    assert not config.telemetry.client_rows
    environ = {"FEDSERVER_TRACK_EMISSIONS": "true", "FEDSERVER_EMISSIONS__BUDGET_KG": "0.5"}
    assert load(None, environ).config.emissions.budget_kg == 0.5


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("FEDSERVER_TRACK_EMISIONS", "did you mean FEDSERVER_TRACK_EMISSIONS?"),
        ("FEDSERVER_EMISSIONS_COUNTRY", "did you mean FEDSERVER_EMISSIONS__COUNTRY?"),
        ("fedserver_rounds", "did you mean FEDSERVER_ROUNDS?"),
        ("FEDSERVER_ZZZZ", "`fedserver check-config` lists the options"),
    ],
)
def test_an_unknown_variable_is_refused(load: Load, variable: str, message: str) -> None:
    """A misspelt variable stops the start; the message does not repeat its value."""
    said = refusal(load, None, {variable: SECRET})
    assert said == f"unknown environment variable {variable}; {message}"
    assert load(None, {"OTHER_ROUNDS": "x"}).config.rounds == 5


SERVICE_LINKS = {
    "FEDSERVER_SERVICE_HOST": "10.96.0.12",
    "FEDSERVER_SERVICE_PORT": "5000",
    "FEDSERVER_SERVICE_PORT_FL_GRPC": "5000",
    "FEDSERVER_PORT": "tcp://10.96.0.12:5000",
    "FEDSERVER_PORT_5000_TCP": "tcp://10.96.0.12:5000",
    "FEDSERVER_PORT_5000_TCP_PROTO": "tcp",
    "FEDSERVER_PORT_5000_TCP_PORT": "5000",
    "FEDSERVER_PORT_5000_TCP_ADDR": "10.96.0.12",
    "FEDSERVER_METRICS_SERVICE_HOST": "fd00::12",
    "FEDSERVER_METRICS_SERVICE_PORT": "9464",
    "FEDSERVER_METRICS_PORT": "udp://[fd00::12]:9464",
    "FEDSERVER_METRICS_PORT_9464_UDP": "udp://[fd00::12]:9464",
    "FEDSERVER_METRICS_PORT_9464_UDP_PROTO": "udp",
    "FEDSERVER_METRICS_PORT_9464_UDP_PORT": "9464",
    "FEDSERVER_METRICS_PORT_9464_UDP_ADDR": "fd00::12",
}
"""What Kubernetes sets for the services ``fedserver`` and ``fedserver-metrics``."""


def test_variables_of_a_kubernetes_service_are_passed_over(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them, said in one line; ours beside them hold."""
    with caplog.at_level(logging.INFO):
        loaded = load(None, SERVICE_LINKS | {"FEDSERVER_ROUNDS": "7"})
    assert loaded.config == load(None, {"FEDSERVER_ROUNDS": "7"}).config
    (line,) = [record.getMessage() for record in caplog.records]
    assert set(line.partition(": ")[2].split(", ")) == set(SERVICE_LINKS)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FEDSERVER_PORT", "5000"),
        ("FEDSERVER_PORT", "http://10.96.0.12:5000"),
        ("FEDSERVER_PORT", "tcp://somewhere:5000"),
        ("FEDSERVER_PORT_5000_TCP", "tcp://10.96.0.12:5001"),
        ("FEDSERVER_PORT_5000_TCP", "udp://10.96.0.12:5000"),
        ("FEDSERVER_PORT_5000_TCP_PROTO", "udp"),
        ("FEDSERVER_PORT_5000_TCP_PORT", "5001"),
        ("FEDSERVER_PORT_5000_TCP_ADDR", "somewhere"),
        ("FEDSERVER_PORT_5000_TCP_HOST", "10.96.0.12"),
        ("FEDSERVER_PORT_FL_TCP", "tcp://10.96.0.12:5000"),
        ("FEDSERVER_SERVICE_HOST", "0.0.0.0:5000"),
        ("FEDSERVER_SERVICE_PORT", "70000"),
        ("FEDSERVER_SERVICE_PORTS", "5000"),
        ("FEDSERVER_SERVICE_URL", "10.96.0.12"),
        ("FEDSERVER_SERVER__PORT", "tcp://10.96.0.12:5000"),
        ("fedserver_service_host", "10.96.0.12"),
    ],
)
def test_a_variable_that_only_resembles_those_of_a_service_is_refused(
    load: Load, variable: str, value: str
) -> None:
    """Name and value must be as Kubernetes writes them."""
    said = refusal(load, None, SERVICE_LINKS | {variable: value})
    assert said.startswith(f"unknown environment variable {variable};")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FEDSERVER_ROUNDS": "five"}, 'rounds: "five" must be a whole number (FEDSERVER_ROUNDS)'),
        ({"FEDSERVER_ROUNDS": "[1"}, "rounds: cannot be read as a YAML value (FEDSERVER_ROUNDS)"),
        ({"FEDSERVER_STRATEGY__MU": "1"}, "strategy.name: is missing; choices: FedAvg"),
        (
            {"FEDSERVER_STRATEGY__NAME": "FedAvg", "FEDSERVER_STRATEGY__MU": "1"},
            "strategy.mu: unknown key",
        ),
        ({"FEDSERVER_PRIVACY__DELTA": "1"}, "privacy.mechanism: is missing; choices: central-dp"),
        (
            {"FEDSERVER_CLIENTS": "3", "FEDSERVER_CLIENTS__MIN_FIT": "2"},
            "clients.min_fit: clients is given a value of its own (FEDSERVER_CLIENTS__MIN_FIT)",
        ),
    ],
)
def test_a_wrong_variable_is_named(load: Load, environ: dict[str, str], message: str) -> None:
    """The source of a value that the environment gives is the variable."""
    assert message in refusal(load, None, environ)


def test_a_section_is_not_hidden_by_a_later_layer(load: Load) -> None:
    """A value where keys should stand is refused although the environment gives the keys."""
    message = refusal(load, "clients: 3", {"FEDSERVER_CLIENTS__MIN_FIT": "2"})
    assert message == "clients: must be a section with keys, as in {key: value} (server.yaml:1)"


def test_every_problem_is_listed(load: Load) -> None:
    """One start tells all that is wrong, from every source, each once."""
    message = refusal(
        load,
        "rounds: x\nemissions: {contry: ESP}\nprivacy: {mechanism: dp}",
        {"FEDSERVER_SEED": "x", "FEDSERVER_ROUND": "1"},
        {"server.auth": "oauth"},
    )
    first, *lines = message.splitlines()
    assert first == "6 problems in the configuration:"
    paths = sorted(line.split(":")[0].strip() for line in lines)
    assert paths[:5] == ["emissions.contry", "privacy.mechanism", "rounds", "seed", "server.auth"]
    assert paths[5].startswith("unknown environment variable FEDSERVER_ROUND;")


def test_a_file_that_cannot_be_read_is_named(load: Load, tmp_path: Path) -> None:
    """A missing file, a directory and bytes that are no text are three messages."""
    (tmp_path / "bytes.yaml").write_bytes(b"rounds: \xff")
    said = {}
    for name in ("nowhere.yaml", ".", "bytes.yaml"):
        with pytest.raises(ConfigError) as refused:
            load_config(Path(name), {}, {})
        said[name] = str(refused.value)
    assert said == {
        "nowhere.yaml": "nowhere.yaml: there is no such file; `fedserver init` writes one",
        ".": ".: is a directory, not a configuration file",
        "bytes.yaml": "bytes.yaml: is not UTF-8 text",
    }


@pytest.mark.parametrize(
    "text",
    [
        f"telemetry: {{service_token: {SECRET}}}",
        f"telemetry: {{service_token: [{SECRET}]}}",
        f"telemetry: {{service_token: {{a: {SECRET}}}}}",
        f"telemetry: {{service_tokn: {SECRET}}}",
        f"telemetry: {{service_token: *{SECRET}}}",
        f"telemetry: {{service_token: !{SECRET} x}}",
        f"telemetry: {{service_token: '{SECRET}",
        f"telemetry: {SECRET}",
        f"telemetry: {{database_url: 'mysql://user:{SECRET}@host/db'}}",
        f"telemetry: {{database_url: {{postgresql: {SECRET}}}}}",
    ],
)
def test_no_secret_is_repeated(load: Load, text: str) -> None:
    """However wrong the entry is, the message holds neither a token nor a password."""
    assert SECRET not in refusal(load, text)


def test_a_shown_configuration_hides_passwords(load: Load) -> None:
    """check-config prints a database URL without its password."""
    loaded = load(f"telemetry: {{database_url: 'memory://user:{SECRET}@host'}}")
    assert SECRET not in "\n".join(describe(loaded))
    assert "memory://user:***@host" in "\n".join(describe(loaded))


def test_the_error_is_one_of_ours() -> None:
    """Whoever catches TelemetryError or ValueError catches a wrong configuration."""
    assert issubclass(ConfigError, TelemetryError)
    assert issubclass(ConfigError, ValueError)


ANY_YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


@given(
    path=st.sampled_from((*keys.OPTIONS, *sorted(keys.SECTIONS), "x.y.z")),
    value=ANY_YAML,
    as_text=st.booleans(),
)
def test_any_value_is_a_value_or_a_config_error(path: str, value: object, as_text: bool) -> None:
    """Whatever is given for an option, it is taken or refused in words that name the option."""
    text = yaml.safe_dump(value) if as_text else value
    problems = problems_of(lambda: load_config(None, {}, {path: text}))
    assert all(problem.text for problem in problems)
    assert {problem.path.split(".")[0] for problem in problems} <= {path.split(".")[0]}


def problems_of(load: Callable[[], LoadedConfig]) -> Sequence[Problem]:
    """What is wrong, empty for nothing; anything but a ConfigError escapes."""
    try:
        load()
    except ConfigError as error:
        return error.problems
    return ()


@given(text=st.text(max_size=60))
def test_any_file_is_a_configuration_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """No text makes the reader fail in any other way."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert all(problem.text for problem in problems_of(lambda: load_config(path, {}, {})))


# --- strategies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", STRATEGIES, ids=names())
def test_every_strategy_is_built_from_its_defaults(config: type[StrategyConfig]) -> None:
    """Each registered strategy can be named, dumped and built with the clients' numbers."""
    clients = options.ClientsConfig(
        min_fit=3, min_evaluate=4, min_available=5, fraction_fit=0.5, fraction_evaluate=0.25
    )
    name = config.model_fields["name"].default
    given = {"name": name, **config.example}
    chosen = options.ServerConfig.model_validate({"strategy": given}).strategy
    assert type(chosen) is config
    built: Any = chosen.build(clients)
    assert (built.min_train_nodes, built.min_evaluate_nodes, built.min_available_nodes) == (3, 4, 5)
    assert (built.fraction_train, built.fraction_evaluate) == (0.5, 0.25)


def test_a_second_strategy_is_chosen_by_name() -> None:
    """With more than one strategy registered, the name decides whose options are read."""
    from typing import Literal

    from pydantic import TypeAdapter, ValidationError

    from fedserver.strategies.fedavg import FedAvgConfig

    class Other(FedAvgConfig):
        name: Literal["Other"] = "Other"  # type: ignore[assignment]
        mu: float = 0.1

    adapter: TypeAdapter[StrategyConfig] = TypeAdapter(choice((FedAvgConfig, Other)))
    assert adapter.validate_python({"name": "Other", "mu": 0.5}) == Other(mu=0.5)
    assert type(adapter.validate_python({"name": "FedAvg"})) is FedAvgConfig
    with pytest.raises(ValidationError):
        adapter.validate_python({"name": "FedAvg", "mu": 0.5})


# --- the telemetry service -----------------------------------------------------------------------

SERVICE = "telemetry: {service_url: 'https://telemetry.example.org/fl/', "
API_TOKEN = "flt_made-up-for-tests"


def test_a_service_has_a_url_and_a_token(load: Load, tmp_path: Path) -> None:
    """In the file, the environment or a file of its own; it is never shown."""
    (tmp_path / "token").write_text(f"{API_TOKEN}\n")
    loaded = load(SERVICE + "service_token_file: token}")
    assert loaded.config.telemetry.service_url == "https://telemetry.example.org/fl"
    assert loaded.config.telemetry.write_token() == API_TOKEN
    variables = {"FEDSERVER_TELEMETRY__SERVICE_TOKEN": API_TOKEN}
    loaded = load(SERVICE + "}", variables)
    assert loaded.config.telemetry.write_token() == API_TOKEN
    assert API_TOKEN not in "\n".join(describe(loaded))
    assert API_TOKEN not in repr(loaded.config)
    here = load("telemetry: {service_url: 'http://127.0.0.1:9465'}").config.telemetry
    assert here.write_token() is None
    assert load(None).config.telemetry.write_token() is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("telemetry.example.org", "must be an http:// or https:// URL"),
        ("ftp://telemetry.example.org", "must be an http:// or https:// URL"),
        ("https://", "must be an http:// or https:// URL"),
        ("https://a:b@telemetry.example.org", "must hold no user or password"),
        ("https://telemetry.example.org/?token=x", "must end with the host, or a path"),
        ("https://telemetry.example.org:port", "is no URL"),
        ("https://[::1", "is no URL"),
    ],
)
def test_a_service_url_that_cannot_be_is_refused(load: Load, url: str, says: str) -> None:
    """With what is wrong with it."""
    said = refusal(load, None, {}, {"telemetry.service_url": url})
    assert said.startswith("telemetry.service_url: ")
    assert says in said


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (SERVICE + "}", "telemetry.service_url", "is on another machine and needs a token"),
        (
            f"telemetry: {{service_token: {API_TOKEN}}}",
            "telemetry.service_token",
            "is not read while telemetry.service_url is null",
        ),
        (
            SERVICE + f"service_token: {API_TOKEN}, service_token_file: token}}",
            "telemetry.service_token_file",
            "only one can hold",
        ),
        (
            SERVICE + "service_token_file: nowhere}",
            "telemetry.service_token_file",
            "cannot be read",
        ),
        (SERVICE + "service_token: flc_abc}", "telemetry.service_token", "a token of FL clients"),
        (SERVICE + f"service_token: {SECRET}}}", "telemetry.service_token", "begin with flt_"),
        (SERVICE + "service_token: 'flt_a\tb'}", "telemetry.service_token", "begin with flt_"),
    ],
)
def test_what_a_service_needs_is_told_before_the_start(
    load: Load, text: str, path: str, says: str
) -> None:
    """The key and what to do; never the token."""
    said = refusal(load, text)
    assert said.startswith(f"{path}: ")
    assert says in said
    assert SECRET not in said
    assert API_TOKEN not in said


def test_without_rows_of_clients_nothing_can_be_delivered() -> None:
    """The service adds up the rows: a server that keeps none is refused, with both ways out."""
    telemetry = TelemetryConfig(service_url="http://127.0.0.1:9465", client_rows=False)
    problems = list(contradictions(ServerConfig(telemetry=telemetry), Layer({})))
    (found,) = [p for p in problems if p.path == "telemetry.client_rows"]
    assert "choices: telemetry.client_rows: true, or telemetry.service_url: null" in found.text


def test_a_service_that_is_not_encrypted_is_warned_of(load: Load) -> None:
    """Unless it is on this machine."""
    text = "telemetry: {service_url: 'http://telemetry:9465', service_token: flt_x}"
    assert any("is not encrypted" in note for note in load(text).notes)
    loopback = "telemetry: {service_url: 'http://localhost:9465', service_token: flt_x}"
    assert not any("is not encrypted" in note for note in load(loopback).notes)
