"""The platform's way: everything as text in variables, and ``python3 server.py``."""

from __future__ import annotations

import http.cookiejar
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedserver.config import ConfigError, load_config
from fedserver.platform_variables import STRATEGIES, below, from_platform
from fedserver.server import TOKEN_VARIABLE, endpoints, keep_read_token
from fedserver.sources import Layer
from tests.fedserver.clients import ROOT, ClientThread, Script, wait_until

FORM: dict[str, str] = {
    "FEDERATED_ROUNDS": "2",
    "FEDERATED_METRIC": "accuracy",
    "FEDERATED_MIN_FIT_CLIENTS": "2",
    "FEDERATED_MIN_AVAILABLE_CLIENTS": "2",
    "FEDERATED_STRATEGY": "Federated Averaging (FedAvg)",
    "MU_FEDPROX": "1",
    "FEDAVGM_SERVER_FL": "1",
    "FEDAVGM_SERVER_MOMENTUM": "0",
    "DP": "False",
    "METRIC_PRIVACY": "False",
    "NOISE_MULT": "1",
    "SAMPLED_CLIENTS": "2",
    "CLIP_NORM": "0.1",
    "CODE_CARBON": "True",
    "NOMAD_DC": "iisas-ai4eosc",
}
"""What the form sends when one changes almost nothing."""


def values(**variables: str) -> dict[str, Any]:
    """The options that these variables stand for."""
    platform = from_platform(variables)
    assert platform.layer.problems == ()
    return dict(platform.layer.values)


def test_the_form_as_it_comes_is_a_configuration() -> None:
    """All its variables at once, each in its place and named as the source."""
    loaded = load_config(None, FORM, {})
    config = loaded.config
    assert (config.rounds, config.metrics, config.track_emissions) == (2, ("accuracy",), True)
    assert (config.clients.min_fit, config.clients.min_available) == (2, 2)
    assert (config.strategy.name, config.privacy) == ("FedAvg", None)
    assert config.emissions.country == "SVK"
    assert loaded.sources["rounds"] == "FEDERATED_ROUNDS"
    assert loaded.sources["emissions.country"] == "NOMAD_DC"
    assert loaded.sources["round_timeout_s"] == "default"


def test_the_two_least_numbers_of_clients_are_not_mixed_up() -> None:
    """The server of before took each for the other."""
    form = {"FEDERATED_MIN_FIT_CLIENTS": "3", "FEDERATED_MIN_AVAILABLE_CLIENTS": "5"}
    loaded = load_config(None, form, {})
    assert (loaded.config.clients.min_fit, loaded.config.clients.min_available) == (3, 5)
    assert loaded.sources["clients.min_fit"] == "FEDERATED_MIN_FIT_CLIENTS"
    assert loaded.sources["clients.min_available"] == "FEDERATED_MIN_AVAILABLE_CLIENTS"


def test_without_variables_nothing_is_said() -> None:
    """Empty ones count as not there; every option keeps its own default."""
    assert values() == {}
    assert values(FEDERATED_ROUNDS="", DP=" ", NOMAD_DC="") == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("f1", ["f1"]),
        ("['accuracy', 'f1']", ["accuracy", "f1"]),
        ('["auc"]', ["auc"]),
        ("accuracy, f1", ["accuracy", "f1"]),
    ],
)
def test_metrics_are_a_name_or_a_python_list(text: str, names: list[str]) -> None:
    """As people wrote them until now."""
    assert values(FEDERATED_METRIC=text)["metrics"] == names


@pytest.mark.parametrize(("text", "name"), STRATEGIES.items())
def test_each_name_of_a_strategy_in_the_form_is_known(text: str, name: str) -> None:
    """In both spellings where there are two, and by the short name alone."""
    assert values(FEDERATED_STRATEGY=text)["strategy"]["name"] == name
    assert values(FEDERATED_STRATEGY=name)["strategy"]["name"] == name


def test_only_the_options_of_the_chosen_strategy_are_set() -> None:
    """FedProx has mu, FedAvgM rate and momentum, with the form's defaults where they are empty."""
    extra = {"MU_FEDPROX": "0.5", "FEDAVGM_SERVER_FL": "0.1"}
    fed_prox = values(FEDERATED_STRATEGY="FedProx strategy (FedProx)", **extra)
    assert fed_prox["strategy"] == {"name": "FedProx", "proximal_mu": 0.5}
    assert values(FEDERATED_STRATEGY="FedAvgM", **extra)["strategy"] == {
        "name": "FedAvgM",
        "server_learning_rate": 0.1,
        "server_momentum": 0.0,
    }
    assert values(FEDERATED_STRATEGY="FedAdam", **extra)["strategy"] == {"name": "FedAdam"}


@pytest.mark.parametrize(
    ("flags", "mechanism"),
    [
        ({"DP": "True"}, "central-dp"),
        ({"DP": "True", "METRIC_PRIVACY": "False"}, "central-dp"),
        ({"DP": "True", "METRIC_PRIVACY": "True"}, "metric-privacy"),
    ],
)
def test_privacy_is_switched_on_by_text(flags: dict[str, str], mechanism: str) -> None:
    """The word True is true: the server of before compared it with a boolean, and never found it."""
    assert values(**flags, NOISE_MULT="0.1", CLIP_NORM="0.5", SAMPLED_CLIENTS="3")["privacy"] == {
        "mechanism": mechanism,
        "noise_multiplier": 0.1,
        "clipping_norm": 0.5,
        "num_sampled_clients": 3,
    }


def test_metric_privacy_alone_is_a_warning() -> None:
    """It means something only together with DP, and nobody must think otherwise."""
    platform = from_platform({"METRIC_PRIVACY": "True", "DP": "False"})
    assert "privacy" not in platform.layer.values
    assert "nothing is made private" in platform.notes[0]
    assert platform.notes[0] in load_config(None, {"METRIC_PRIVACY": "True"}, {}).notes


@pytest.mark.parametrize(
    ("centre", "country"),
    [("iisas-ai4eosc", "SVK"), ("psnc-ai4eosc", "POL"), ("ifca-ai4eosc", "ESP"), ("new", "ESP")],
)
def test_the_data_centre_is_a_country(centre: str, country: str) -> None:
    """Spain unless it is known to be elsewhere."""
    assert values(NOMAD_DC=centre)["emissions"] == {"country": country}


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("FEDERATED_ROUNDS", "0", "1 or more"),
        ("FEDERATED_ROUNDS", "five", "whole number"),
        ("FEDERATED_ROUNDS", "2.0", "whole number"),
        ("FEDERATED_MIN_FIT_CLIENTS", "1", "2 or more"),
        ("FEDERATED_MIN_AVAILABLE_CLIENTS", "-2", "2 or more"),
        ("FEDERATED_METRIC", "['accuracy', 3]", "['accuracy', 'f1']"),
        ("FEDERATED_METRIC", "[accuracy", "['accuracy', 'f1']"),
        ("FEDERATED_STRATEGY", "FedProxx", "'FedProx strategy (FedProx)'"),
        ("MU_FEDPROX", "-1", "0 or more"),
        ("FEDAVGM_SERVER_FL", "nan", "0 or more"),
        ("FEDAVGM_SERVER_MOMENTUM", "inf", "0 or more"),
        ("DP", "yes", "True or False"),
        ("METRIC_PRIVACY", "1", "True or False"),
        ("NOISE_MULT", "0", "1e-05 or more"),
        ("SAMPLED_CLIENTS", "1", "2 or more"),
        ("CLIP_NORM", "0.01", "0.1 or more"),
        ("CODE_CARBON", "on", "True or False"),
    ],
)
def test_a_value_out_of_range_names_variable_value_and_choices(
    variable: str, text: str, words: str
) -> None:
    """Before anything starts, whether or not the option would have been used."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, FORM | {variable: text}, {})
    said = str(caught.value)
    assert said.startswith(f"{variable}: {text!r} must be ")
    assert words in said


def test_everything_wrong_is_told_at_once() -> None:
    """Two mistakes in the form, one list."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"FEDERATED_ROUNDS": "x", "DP": "x"}, {})
    assert [problem.path for problem in caught.value.problems] == ["FEDERATED_ROUNDS", "DP"]


def test_the_form_stands_below_everything_else(tmp_path: Path, monkeypatch: Any) -> None:
    """Command line over FEDSERVER_ over file over form; beside a file only on the platform."""
    monkeypatch.chdir(tmp_path)
    keep_read_token({}, tmp_path)
    file = tmp_path / "server.yaml"
    file.write_text("rounds: 7\n")
    form = FORM | {"FEDERATED_ROUNDS": "9"}
    assert load_config(None, form, {}).config.rounds == 9
    assert load_config(file, form, {}).config.track_emissions is False
    there = load_config(file, form, {}, on_platform=True).config
    assert (there.rounds, there.track_emissions) == (7, True)
    variables = form | {"FEDSERVER_ROUNDS": "8"}
    assert load_config(file, variables, {}, on_platform=True).config.rounds == 8
    assert load_config(file, variables, {"rounds": 3}, on_platform=True).config.rounds == 3


def test_another_strategy_does_not_take_the_options_of_the_forms_own() -> None:
    """FedProx in the form and FedAvg in a file is FedAvg without mu, not an error."""
    form = from_platform({"FEDERATED_STRATEGY": "FedProx", "DP": "True"}).layer
    assert "strategy" not in below(form, Layer({"strategy": {"name": "FedAvg"}})).values
    kept = below(form, Layer({"strategy": {"proximal_mu": 0.1}})).values
    assert kept["strategy"] == {"name": "FedProx", "proximal_mu": 1.0}
    assert "privacy" not in below(form, Layer({"privacy": None})).values
    environ = {"FEDERATED_STRATEGY": "FedProx", "FEDSERVER_STRATEGY__NAME": "FedAvg"}
    assert load_config(None, environ, {}).config.strategy.name == "FedAvg"


@pytest.mark.parametrize("name", sorted(set(STRATEGIES.values())))
def test_each_strategy_of_the_form_can_be_configured_by_the_form_alone(name: str) -> None:
    """Its options have the names that the strategy knows."""
    extra = {"FEDERATED_STRATEGY": name, "MU_FEDPROX": "0.5", "FEDAVGM_SERVER_MOMENTUM": "0.9"}
    strategy = load_config(None, FORM | extra, {}).config.strategy
    assert strategy.name == name
    if name == "FedProx":
        assert strategy.model_dump()["proximal_mu"] == 0.5
    if name == "FedAvgM":
        assert strategy.model_dump()["server_momentum"] == 0.9


def test_a_deployment_is_open_with_a_warning(tmp_path: Path, monkeypatch: Any) -> None:
    """Its ports are the platform's; anonymous clients are its way, and the log says so."""
    monkeypatch.chdir(tmp_path)
    keep_read_token({}, tmp_path)
    loaded = load_config(None, FORM, {}, on_platform=True)
    http = loaded.config.telemetry.http
    assert loaded.config.server.address == "0.0.0.0:5000"
    assert loaded.config.server.tls == "terminated-by-proxy"
    assert (http.host, http.port, http.read_token()) == (
        "0.0.0.0", 6006, (tmp_path / "read-token").read_text().strip(),
    )  # fmt: skip
    assert any("whoever can reach it" in note for note in loaded.notes)
    with pytest.raises(ConfigError, match="allow_anonymous"):
        load_config(None, FORM, {"server.allow_anonymous": False}, on_platform=True)


def test_any_host_name_needs_a_token() -> None:
    """Otherwise a page in somebody's browser could read what is served here."""
    with pytest.raises(ConfigError, match=r"allowed_hosts: \"\*\" answers to every name"):
        load_config(None, {}, {"telemetry.http.allowed_hosts": ["*"]})


# --- the token for /metrics ------------------------------------------------------------------------


def test_a_read_token_is_made_once_for_this_user_only(tmp_path: Path) -> None:
    """It stays the same when the server starts again, and may be chosen."""
    path = keep_read_token({}, tmp_path)
    assert path is not None
    made = path.read_text()
    assert len(made.strip()) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    keep_read_token({}, tmp_path)
    assert path.read_text() == made
    keep_read_token({TOKEN_VARIABLE: "chosen-by-its-owner"}, tmp_path)
    assert path.read_text() == "chosen-by-its-owner\n"


@pytest.mark.parametrize("token", ["short", "sixteen letters and more"])
def test_a_poor_read_token_is_refused_without_being_shown(tmp_path: Path, token: str) -> None:
    """The message names the variable, never the value."""
    with pytest.raises(ConfigError, match=TOKEN_VARIABLE) as caught:
        keep_read_token({TOKEN_VARIABLE: token}, tmp_path)
    assert token not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_token_file_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    """Where the environment names a file no other is made."""
    environ = {"FEDSERVER_TELEMETRY__HTTP__READ_TOKEN_FILE": "somewhere"}
    assert keep_read_token(environ, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_endpoint_to_share_is_said_as_far_as_it_is_known() -> None:
    """Inside by address and port, outside by the dashboard's endpoint; elsewhere the port."""
    environ = {"NOMAD_HOST_ADDR_fedserver": "10.0.0.7:24001", "NOMAD_JOB_ID": "1a2b"}
    outside, inside = endpoints(environ, "0.0.0.0:5000")
    assert "fedserver-1a2b" in outside
    assert "443" in outside
    assert "10.0.0.7:24001" in inside
    assert endpoints({}, "0.0.0.0:5000")[1].endswith("port 5000")


# --- the whole way -------------------------------------------------------------------------------


class Process:
    """``python3 server.py`` with the platform's variables and nothing of ours."""

    def __init__(self, program: str, folder: Path, environ: Mapping[str, str], *args: str) -> None:
        self.lines: list[str] = []
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        self.process = subprocess.Popen(
            [sys.executable, program, *args],
            cwd=folder, env=kept | dict(environ), text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as errors:
            self.lines += errors

    @property
    def log(self) -> str:
        """What it said so far."""
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches."""
        wait_until(
            lambda: re.search(pattern, self.log) is not None or self.process.poll() is not None, 60
        )
        found = re.search(pattern, self.log)
        assert found is not None, f"no {pattern!r} in\n{self.log}"
        return found

    def wait(self) -> int:
        """Its exit code."""
        code = self.process.wait(60)
        self._reader.join(5)
        return code


@contextmanager
def started(
    program: str, folder: Path, environ: Mapping[str, str], *args: str
) -> Iterator[Process]:
    """A server's process, gone afterwards."""
    server = Process(program, folder, environ, *args)
    try:
        yield server
    finally:
        server.process.kill()
        server.wait()


def scrape(url: str, token: str | None, host: str) -> tuple[int, str]:
    """Status and text of a page, asked for by the name that the ingress passes on."""
    assert url.startswith("http://")
    request = urllib.request.Request(url, headers={"Host": host})  # noqa: S310 - checked above
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - likewise
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def as_on_the_page(folder: Path, port: int) -> int:
    """Status of docs/platform.md's own curl command, sent from the server's working directory."""
    page = (ROOT / "docs/platform.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\$ (curl .*)$", page, re.MULTILINE)
    curl, option, header, url = shlex.split(line.replace(":6006/", f":{port}/"))
    assert (curl, option) == ("curl", "-H")
    name, _, value = header.partition(": ")
    value = re.sub(r"\$\(cat ([\w-]+)\)", lambda m: (folder / m[1]).read_text().strip(), value)
    request = urllib.request.Request(url, headers={name: value})  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - likewise
        return int(answer.status)


def read_as_a_person(url: str, token: str, host: str) -> tuple[int, str]:
    """The page as a browser gets it that logs in with that token, through the ingress."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    # Without the ingress's X-Forwarded-Proto: the cookie would be Secure, and this is plain HTTP.
    opener.addheaders = [("Host", host), ("Accept", "text/html")]
    form = urllib.parse.urlencode({"token": token}).encode()
    try:
        with opener.open(url, timeout=5) as answer:
            assert answer.url == f"{url}login"
        with opener.open(f"{url}login", form, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def port_is_free(port: int) -> bool:
    """Whether the platform's own port can be taken here."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def test_with_the_platforms_variables_only_a_training_runs_to_its_artefacts(
    tmp_path: Path,
) -> None:
    """`python3 fedserver/server.py`: page and /metrics on port 6006 behind a token, then the files."""
    environ = FORM | {
        "NOMAD_JOB_ID": "1a2b-3c",
        "NOMAD_HOST_ADDR_fedserver": "10.0.0.7:24001",
        TOKEN_VARIABLE: "a-token-for-the-scraper",
        "VAULT_TOKEN": "hvs.secret-of-the-deployment",
    }
    settings = [] if port_is_free(5000) else ["--set", "server.address=0.0.0.0:0"]
    if not port_is_free(6006):
        settings += ["--set", "telemetry.http.port=0"]
    with started(str(ROOT / "fedserver/server.py"), tmp_path, environ, *settings) as server:
        port = server.wait_for(r"clients may connect to 0\.0\.0\.0:(\d+)").group(1)
        monitor = server.wait_for(r"metrics at http://0\.0\.0\.0:(\d+)/metrics").group(1)
        page = f"http://127.0.0.1:{monitor}/"
        url = f"{page}metrics"
        host = "monitor-1a2b-3c.ifca-deployments.cloud.ai4eosc.eu"
        slow = Script(fit="hang", hang_s=0.5, metrics={"emissions": 1e-7})
        with ClientThread(f"127.0.0.1:{port}", slow), ClientThread(f"127.0.0.1:{port}", slow):
            server.wait_for("round 1/2 completed")
            assert scrape(url, None, host)[0] == 401
            assert scrape(url, "another-token-entirely", host)[0] == 401
            assert scrape(page, None, host)[0] == 401
            assert read_as_a_person(page, "another-token-entirely", host)[0] == 401
            status, text = scrape(url, "a-token-for-the-scraper", host)
            assert as_on_the_page(tmp_path, int(monitor)) == 200
            shown, seen = read_as_a_person(page, "a-token-for-the-scraper", host)
            server.wait_for(r"run \S+ completed")
        assert status == 200
        assert "fl_emissions_co2eq_grams_total" in text
        assert shown == 200
        assert ">digits<" in seen  # the run, in the list
        assert "modelled" in seen
        server.process.send_signal(signal.SIGTERM)  # it lingers for the last scrape
        assert server.wait() == 0
        log = server.log
    assert "fedserver-1a2b-3c" in log
    assert "10.0.0.7:24001" in log
    assert "whoever can reach it" in log
    assert "a-token-for-the-scraper" not in log
    assert "hvs.secret" not in log
    (results,) = (tmp_path / "runs").iterdir()
    assert sorted(p.name for p in results.iterdir()) == ["footprint.csv", "model.npz", "run.json"]


def test_from_inside_its_folder_a_mistake_in_the_form_is_one_message(tmp_path: Path) -> None:
    """`cd fedserver; python3 server.py`: exit 2, the variable named, no traceback, no hidden module."""
    program = ROOT / "fedserver"
    environ = FORM | {"FEDERATED_ROUNDS": "none", TOKEN_VARIABLE: "short"}
    with started("server.py", program, environ) as server:
        assert server.wait() == 2
        assert server.log.startswith(f"error: {TOKEN_VARIABLE}: must have 16 characters")
    environ = FORM | {
        "FEDERATED_ROUNDS": "none",
        "FEDSERVER_TELEMETRY__HTTP__READ_TOKEN_FILE": str(tmp_path / "token"),
    }
    with started("server.py", program, environ) as server:
        assert server.wait() == 2
        assert "FEDERATED_ROUNDS: 'none' must be a whole number of 1 or more" in server.log
        assert "Traceback" not in server.log
