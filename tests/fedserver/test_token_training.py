"""Whole trainings with tokens and TLS, and that no token is left anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedserver.assemble import Server
from fedserver.config import load_config
from fedserver.running import run_server
from fedserver_hooks.meter import ReplayMeter
from telemetry.store import open_store
from tests.fedserver.clients import ROOT, Script
from tests.fedserver.helper_clients import GRPC_RACE, HelperThread, TlsProxy
from tests.fedserver.pki import make_files
from tests.fedserver.servers import WATTS, ServerProcess, settings

pytestmark = pytest.mark.filterwarnings(GRPC_RACE)
GOOD = Script(metrics={"emissions": 1e-7})


def fedserver(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line."""
    return subprocess.run(
        [sys.executable, "-m", "fedserver", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_server_process_with_tokens_and_tls(tmp_path: Path) -> None:
    """Two right clients train, three wrong ones do not, one is revoked in between; tokens made and
    taken back by the command line are in no file and no log of the server."""
    files = make_files(tmp_path / "pki")
    store = tmp_path / "tokens.db"
    made = {
        label: fedserver("tokens", "create", "--label", label, "--store", str(store)).stdout.strip()
        for label in ("hospital-a", "hospital-b", "leaver")
    }
    wrong = "flc_" + "w" * 43
    options = {
        "rounds": 4,
        "server__auth": "tokens",
        "server__tokens_store": str(store),
        "server__tls": files.options,
        "telemetry__http__linger_s": "forever",
    }
    overrides: dict[str, Any] = options
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path, 2, **overrides))

        def client(token: str | None, script: Script = GOOD) -> HelperThread:
            return stack.enter_context(
                HelperThread(
                    server.address, script, root_certificates=files.ca, call_credentials=token
                )
            )

        leaver = client(made["leaver"])
        server.wait_for("client leaver connected")
        for token in (None, wrong):
            assert client(token).refusal().startswith("UNAUTHENTICATED")
        assert fedserver("tokens", "revoke", "leaver", "--store", str(store)).returncode == 0
        assert leaver.refusal() == "UNAUTHENTICATED: token revoked"
        trained = [client(made["hospital-a"]), client(made["hospital-b"])]
        assert [one.wait(60) for one in trained] == [None, None]
        server.wait_for(r"run \S+ completed", 60)
        with urllib.request.urlopen(server.metrics_url, timeout=5) as answer:  # noqa: S310 http
            text = answer.read().decode()
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert samples["fl_auth_failures_total"] == 2
        server.process.terminate()
        assert server.wait() == 0
        log = server.log
    for line in (
        "3 hold",
        "client hospital-a connected",
        "client leaver is disconnected: token rev",
    ):
        assert line in log
    assert "refused a client at 127.0.0.1:" in log
    assert "Traceback" not in log
    secrets = [*made.values(), wrong]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    for secret in secrets:
        assert secret not in log
        assert [path for path in written if secret.encode() in path.read_bytes()] == []
    listed = fedserver("tokens", "list", "--store", str(store)).stdout
    assert [line.split()[1] for line in listed.splitlines()[1:]] == ["valid", "valid", "revoked"]
    assert "never" not in listed.splitlines()[1].split("  ")[3]


def test_names_are_labels_and_a_proxy_says_nothing_of_where_clients_are(tmp_path: Path) -> None:
    """Two live clients of one token are ``hospital-a`` and ``hospital-a#2`` whatever they call
    themselves; behind a proxy on this machine they are not on the server's host."""
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("0123456789abcdef hospital-a\n")
    files = make_files(tmp_path / "pki")
    overrides = {
        "server.auth": "tokens",
        "server.tokens_file": str(tokens),
        "server.tokens_store": str(tmp_path / "tokens.db"),
        "server.tls": "terminated-by-proxy",
    }
    config = load_config(None, {}, settings(tmp_path, 2) | overrides).config
    script = Script(metrics={"emissions": 1e-7, "emissions.client_name": "somebody-else"})
    names: set[str] = set()
    with ExitStack() as stack:

        def start(server: Server, metrics_url: str) -> None:
            proxy = stack.enter_context(TlsProxy(server.grid.address, files))
            for _ in range(2):
                stack.enter_context(
                    HelperThread(
                        proxy.address, script, root_certificates=files.ca,
                        call_credentials="0123456789abcdef",
                    )
                )  # fmt: skip
            server.grid.require(2, 20)
            server.grid.get_node_ids()
            recorder = server.recorder
            stack.callback(lambda: names.update(recorder.names.name(node) for node in (1, 2)))

        outcome = run_server(config, meter=ReplayMeter(WATTS), on_ready=start)
    assert outcome.exit_code == 0
    assert names == {"hospital-a", "hospital-a#2"}
    store = open_store(config.telemetry.database_url)
    record = store.round(outcome.run_id, 1)
    store.close()
    assert [participant.loopback for participant in record.participants] == [False, False]


def test_a_wrong_certificate_ends_the_start_with_2(tmp_path: Path) -> None:
    """One message with the key, no traceback, and no port was opened."""
    files = make_files(tmp_path / "pki")
    overrides: dict[str, Any] = {
        "server__tls": files.options | {"key": str(make_files(tmp_path / "other").key)}
    }
    with ServerProcess(tmp_path, 2, **overrides) as server:
        assert server.wait() == 2
    assert "error: server.tls.key: " in server.log
    assert "is not the key of the certificate" in server.log
    assert "Traceback" not in server.log


def test_a_server_without_any_token_says_how_to_make_one(tmp_path: Path) -> None:
    """It starts: tokens can be made while it runs."""
    overrides: dict[str, Any] = {
        "server__auth": "tokens", "server__tokens_store": str(tmp_path / "t.db")
    }  # fmt: skip
    with ServerProcess(tmp_path, 1, rounds=1, **overrides) as server:
        assert server.address
        assert "there is none: fedserver tokens create --label NAME --store" in server.log
        created = fedserver("tokens", "create", "--label", "a", "--store", str(tmp_path / "t.db"))
        with HelperThread(server.address, GOOD, call_credentials=created.stdout.strip()) as client:
            assert client.wait(60) is None
        assert server.wait() == 0


# --- other versions ------------------------------------------------------------------------------

OLD_CLIENT = """
import sys
from pathlib import Path
import numpy as np
from flwr.client import NumPyClient
from ai4flwr.auth.bearer import BearerTokenAuthPlugin
from fedserver_hooks.client import start_client

class Client(NumPyClient):
    def get_parameters(self, config):
        return [np.zeros((3, 2), np.float32)]
    def fit(self, parameters, config):
        if len(sys.argv) > 4 and config["server_round"] == 2:
            raise RuntimeError("told to raise")
        return [layer + 1 for layer in parameters], 10, {"accuracy": 0.5}
    def evaluate(self, parameters, config):
        return 0.25, 10, {"accuracy": 0.5}

start_client(
    server_address=sys.argv[1],
    client=Client().to_client(),
    root_certificates=Path(sys.argv[2]).read_bytes(),
    call_credentials=BearerTokenAuthPlugin(sys.argv[3]),
    max_wait_time=30,
)
"""


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with Flower 1.13.1 and ai4flwr 0.2.0, from the package index."""
    folder = tmp_path_factory.mktemp("old") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    packages = ("flwr==1.13.1", "ai4flwr==0.2.0", "pydantic>=2.12")
    installed = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    if installed.returncode != 0:
        pytest.skip("the package index has no Flower 1.13.1 or ai4flwr 0.2.0 for this Python")
    return python


@pytest.mark.slow
def test_flower_1_13_with_the_platforms_plugin(tmp_path: Path, old_python: Path) -> None:
    """An old Flower and the real ai4flwr plugin train over TLS, exit 0, and say why they fail."""
    files = make_files(tmp_path / "pki")
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("0123456789abcdef a\nfedcba9876543210 b\n")
    script = tmp_path / "client.py"
    script.write_text(OLD_CLIENT)
    overrides: dict[str, Any] = {
        "rounds": 2,
        "clients__min_fit": 1,
        "server__auth": "tokens",
        "server__tokens_store": str(tmp_path / "tokens.db"),
        "server__tokens_file": str(tokens),
        "server__tls": files.options,
    }
    environ = os.environ | {"PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"}
    with ServerProcess(tmp_path, 2, **overrides) as server, ExitStack() as stack:
        clients = []
        for arguments in (["0123456789abcdef"], ["fedcba9876543210", "raises"]):
            process = subprocess.Popen(
                [str(old_python), str(script), server.address, str(files.ca), *arguments],
                env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            stack.callback(process.kill)
            clients.append(process)
        errors = [process.communicate(timeout=120)[1] for process in clients]
        assert server.wait(60) == 0
        assert clients[0].returncode == 0, errors[0]
        assert "RuntimeError: told to raise" in errors[1]
        assert "0123456789abcdef" not in server.log
    store = open_store(server.store_url)
    record = store.round(store.runs()[0].run_id, 2)
    store.close()
    reasons = [participant.reason for participant in record.participants]
    assert sorted(map(str, reasons)) == ["None", "the client raised RuntimeError: told to raise"]
