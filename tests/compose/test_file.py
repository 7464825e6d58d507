"""docker-compose.yml as a text: valid, pinned, without a default password, closed to the outside."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.compose.files import COMPOSE, ROOT, MissingVariable, compose, env_of, made_env, stages

SCHEMA = Path(__file__).parent / "compose-spec.json"
SERVICES: dict[str, dict[str, Any]] = compose(None)["services"]
OURS = {name: s for name, s in SERVICES.items() if s["image"].startswith("fedserver-telemetry")}
ONCE = {"migrate", "tokens"}
CLIENTS = {"client-own-tracker", "client-helper", "client-silent"}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """What `make env` writes."""
    return made_env(tmp_path / "env")


def test_the_file_is_valid_by_the_published_schema(env: dict[str, str]) -> None:
    """The Compose Specification's own (its source stands in README.md beside this file)."""
    validator = Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for document in (compose(None), compose(env)):
        assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)] == []
    broken = compose(env)
    broken["services"]["postgres"]["read_onlyy"] = True
    assert not validator.is_valid(broken)


def test_every_part_that_was_promised_is_there() -> None:
    """Database, service, FL server, Prometheus, Grafana; three clients under the profile demo."""
    always = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert always == {"postgres", "telemetry", "fedserver", "prometheus", "grafana", *ONCE}
    assert set(SERVICES) - always == CLIENTS
    assert all(SERVICES[name]["profiles"] == ["demo"] for name in CLIENTS)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_nothing_that_it_need_not(name: str) -> None:
    """Its files are read-only, it is nobody mighty and cannot become so, its log is bounded."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert not {"cap_add", "privileged", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert re.fullmatch(r"[1-9][0-9]*:[0-9]+", service["user"])
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["pids_limit"] > 0
    assert "docker.sock" not in json.dumps(service)


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name: str) -> None:
    """To a whole version, never to what is newest; ours to the version of this package."""
    repository, _, tag = SERVICES[name]["image"].partition(":")
    if name in OURS:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert (repository, tag) == (project["name"], project["version"])
        assert SERVICES[name]["build"] == "."
        return
    assert re.match(r"v?[0-9]+\.[0-9]+(\.[0-9]+)?(-[a-z]+)?$", tag)


def test_only_loopback_ports_are_published(env: dict[str, str]) -> None:
    """Each once; the database none at all."""
    published = []
    for service in compose(env)["services"].values():
        for port in service.get("ports", ()):
            address, outside, inside = port.rsplit(":", 2)
            assert ip_address(address).is_loopback
            assert outside == inside
            published.append(int(outside))
    assert sorted(published) == [3000, 5000, 9090, 9464]


@pytest.mark.parametrize("name", SERVICES)
def test_what_runs_on_is_watched(name: str) -> None:
    """A health check where something serves; what runs once, or as a client, is waited for instead."""
    service = SERVICES[name]
    assert ("healthcheck" in service) is (name not in ONCE | CLIENTS)
    once = name in ONCE | CLIENTS | {"fedserver"}
    assert service["restart"] == ("no" if once else "unless-stopped")
    for other, how in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
        assert how["condition"] == wanted


def test_the_database_is_reached_by_those_who_need_it_only() -> None:
    """Its network leads nowhere else; clients of a federation see their server alone."""
    document = compose(None)
    assert document["networks"]["database"]["internal"] is True
    within = {name for name, s in SERVICES.items() if "database" in s["networks"]}
    assert within == {"postgres", "migrate", "tokens", "telemetry", "grafana"}
    for name in CLIENTS:
        assert SERVICES[name]["networks"] == ["federation"]
    assert {n for n, s in SERVICES.items() if "federation" in s["networks"]} == CLIENTS | {
        "fedserver"
    }


# --- secrets --------------------------------------------------------------------------------------


def test_nothing_starts_with_a_secret_missing(env: dict[str, str]) -> None:
    """Each by itself stops Compose, and the message says what to do."""
    assert len(env) == 9
    for name in env:
        for broken in ({k: v for k, v in env.items() if k != name}, env | {name: ""}):
            with pytest.raises(MissingVariable, match=f"{name}: run make env"):
                compose(broken)


def test_no_secret_has_a_default_or_stands_in_the_file() -> None:
    """Whatever is called a password or token comes from the environment, and must be there."""
    secret = re.compile(r"(PASSWORD|TOKEN|TOKENS|SECRET)(_[0-9])?$")
    found = 0
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if not secret.search(name):
                continue
            found += 1
            variables = re.findall(r"\$\{[^}]*\}", str(value))
            assert variables
            for variable in variables:
                assert re.fullmatch(r"\$\{[A-Z0-9_]+:\?run make env\}", variable)
            assert not re.search(r"[A-Za-z0-9_-]{20}", re.sub(r"\$\{[^}]*\}", "", str(value)))
    assert found == 16


def test_make_env_writes_for_its_owner_alone_and_never_over_a_file(tmp_path: Path) -> None:
    """Nor through a link; it names what an older file lacks."""

    def make_env() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "-s", "-f", ROOT / "Makefile", "env"],
            cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    (tmp_path / "docker").symlink_to(ROOT / "docker")
    (tmp_path / "docker-compose.yml").symlink_to(COMPOSE)
    old_mask = os.umask(0)
    try:
        first = make_env()
    finally:
        os.umask(old_mask)
    assert first.returncode == 0, first.stderr
    env = tmp_path / ".env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert not any(value in first.stdout + first.stderr for value in env_of(env).values())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".env")] == [".env"]
    before = env.read_bytes()
    assert make_env().returncode == 0
    assert env.read_bytes() == before
    env.write_text("POSTGRES_PASSWORD=mine\nFL_READ_TOKEN=\n")
    lacking = make_env()
    assert lacking.returncode != 0
    assert "lacks: FL_CLIENT_TOKEN_1" in lacking.stderr
    assert "FL_READ_TOKEN" in lacking.stderr
    assert "POSTGRES_PASSWORD" not in lacking.stderr
    assert env.read_text() == "POSTGRES_PASSWORD=mine\nFL_READ_TOKEN=\n"
    env.unlink()
    env.symlink_to(tmp_path / "elsewhere")
    assert make_env().returncode != 0
    assert not (tmp_path / "elsewhere").exists()


def test_git_never_takes_an_env_file(tmp_path: Path) -> None:
    """Nor a draft of one; and no file of the kind is in the repository."""
    for name in (".env", ".env.x1"):
        ignored = ["git", "check-ignore", "-q", name]
        assert subprocess.run(ignored, cwd=ROOT, timeout=20, check=False).returncode == 0
    assert ".env" not in (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()[1] == "*"


def test_secrets_are_drawn_anew_each_time(tmp_path: Path, env: dict[str, str]) -> None:
    """256 bits each, none twice, in the form that its reader wants."""
    other = made_env(tmp_path / "other")
    assert other.keys() == env.keys()
    values = [*env.values(), *other.values()]
    assert len(set(values)) == len(values)
    for name, value in env.items():
        prefix, random = re.fullmatch(r"(fl[tc]_)?([A-Za-z0-9_-]{43})", value).groups()  # type: ignore[union-attr]
        wanted = {"TELEMETRY_WRITE_TOKEN": "flt_", "TELEMETRY_READ_TOKEN": "flt_"}
        wanted |= {f"FL_CLIENT_TOKEN_{n}": "flc_" for n in (1, 2, 3)}
        assert prefix == wanted.get(name)
        assert len(set(random)) > 15


# --- the image ------------------------------------------------------------------------------------


def test_our_services_run_as_the_image_says() -> None:
    """One user; its home, data and programs are where compose and the image look for them."""
    final = stages()[-1]
    assert final.of("USER") == ["10001:10001"]
    assert {service["user"] for service in OURS.values()} == {"10001:10001"}
    assert final.of("WORKDIR") == ["/var/lib/fedserver"]
    assert json.loads(final.of("ENTRYPOINT")[0]) == ["fedserver"]
    mounted = [v for s in OURS.values() for v in s.get("volumes", ())]
    assert mounted == ["fedserver:/var/lib/fedserver"]
    environment = final.environment
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["CODECARBON_TELEMETRY"] == "disabled"
    assert environment["PATH"].startswith("/opt/fedserver/bin:")
    home = environment["HOME"]
    for name, service in OURS.items():  # the image's own files are read-only
        assert any(entry.split(":")[0] == home for entry in service["tmpfs"]), name
