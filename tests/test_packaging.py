"""The package as it is installed: what it needs, what it holds, what the lock says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("telemetry", "fedserver_hooks", "fedserver")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lock() -> str:
    """requirements.lock."""
    return lock_of("requirements.lock")


def lock_of(name: str) -> str:
    """A lock's text."""
    return (ROOT / name).read_text(encoding="utf-8")


def declared(project: dict[str, Any], *extras: str) -> list[Requirement]:
    """What the base and the extras ask for, extras of our own followed."""
    own = canonicalize_name(project["project"]["name"])
    pending = [Requirement(line) for line in project["project"]["dependencies"]]
    for extra in extras:
        lines = project["project"]["optional-dependencies"][extra]
        pending += [Requirement(line) for line in lines]
    found = []
    while pending:
        requirement = pending.pop()
        if canonicalize_name(requirement.name) == own:
            pending += declared(project, *requirement.extras)
        else:
            found.append(requirement)
    return found


def locked(lock: str) -> dict[str, list[str]]:
    """Name → versions in the lock; several where they depend on the Python version."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ]+)", lock, re.MULTILINE):
        versions.setdefault(name, []).append(version)
    return versions


def test_the_lock_satisfies_what_is_declared(project: dict[str, Any], lock: str) -> None:
    """Every declared requirement is locked, at versions within its range."""
    requirements = declared(project, "demo", "dp", "postgres", "grafana")
    requirements += [Requirement(line) for line in project["dependency-groups"]["dev"]]
    requirements += [Requirement(line) for line in project["build-system"]["requires"]]
    versions = locked(lock)
    for requirement in requirements:
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{requirement.name} is not locked: run `make lock`"
        assert all(requirement.specifier.contains(version) for version in found), requirement


def test_the_lock_of_simulations_adds_to_the_lock_of_everybody(
    project: dict[str, Any], lock: str
) -> None:
    """Both can be installed together: what stands in both has the same versions."""
    versions, more = locked(lock), locked(lock_of("requirements-simulation.lock"))
    for requirement in declared(project, "simulation"):
        found = more[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in found), requirement
    assert {name: more[name] for name in more if name in versions} == {
        name: versions[name] for name in more if name in versions
    }
    assert "ray" in more
    assert "ray" not in versions


def test_the_image_holds_what_is_tested_and_no_more(project: dict[str, Any], lock: str) -> None:
    """The versions of the lock that the tests run with; no tool of those who change the project."""
    versions, image = locked(lock), locked(lock_of("requirements-image.lock"))
    assert image.items() <= versions.items()
    for requirement in declared(project, "demo", "dp", "postgres", "grafana"):
        assert canonicalize_name(requirement.name) in image, "run `make lock`"
    tools = [Requirement(line).name for line in project["dependency-groups"]["dev"]]
    # httpx delivers to the service, and Flower itself asks for uv.
    assert not {canonicalize_name(name) for name in tools} - {"httpx", "uv"} & image.keys()
    build = locked(lock_of("requirements-build.lock"))
    assert build.items() <= versions.items()
    assert "hatchling" in build


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("requirements.lock", 50),
        ("requirements-simulation.lock", 50),
        ("requirements-image.lock", 50),
        ("requirements-build.lock", 3),
    ],
)
def test_a_lock_pins_content_and_names_no_place(name: str, least: int) -> None:
    """Each entry has hashes, and nothing says where to download from."""
    lock = lock_of(name)
    entries = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]
    assert len(entries) > least
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|index-url|find-links|trusted-host|@ file|^-", lock, re.MULTILINE)


def test_the_base_needs_neither_flower_nor_codecarbon(project: dict[str, Any]) -> None:
    """Whoever reads records installs pydantic only; the client's extra brings codecarbon alone."""
    assert {requirement.name for requirement in declared(project)} == {"pydantic"}
    assert {requirement.name for requirement in declared(project, "client")} == {
        "pydantic",
        "codecarbon",
    }
    assert "flwr" not in {requirement.name for requirement in declared(project, "service")}


def test_the_wheel_holds_the_packages_whole(tmp_path: Path) -> None:
    """Types, template, licence and dashboards, and it finds them; no tests, no benchmarks."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copytree(ROOT / "grafana" / "dashboards", tmp_path / "grafana" / "dashboards")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert "fedserver/templates/server.yaml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    boards = {path.name for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
    assert boards == {
        name.rpartition("/")[2] for name in names if name.startswith("fedserver/dashboards/json/")
    }
    assert boards
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    look = (
        "from fedserver.dashboards import files; "
        "print(files.__file__, *(board['uid'] for board in files.load_dashboards()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", look],
        cwd=installed, env={"PYTHONPATH": str(installed)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    place, *uids = found.stdout.split()
    assert place.startswith(str(installed))
    assert {f"{uid}.json" for uid in uids} == boards
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == set(PACKAGES)


def test_continuous_integration_runs_make_test() -> None:
    """The script of continuous integration can be started and calls the documented target."""
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text(encoding="utf-8").splitlines()
