"""Imports go one way, light packages stay light, and what a package names can be had."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import telemetry

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "telemetry": {"telemetry"},
    "fedserver_hooks": {"telemetry", "fedserver_hooks"},
    "fedserver": {"telemetry", "fedserver_hooks", "fedserver"},
    "grafana": {"telemetry", "grafana"},  # no package that is installed: it writes the dashboards
}
OURS = frozenset(MAY_IMPORT)
NEVER = {"telemetry": {"flwr", "codecarbon"}}


def modules(package: str) -> list[Path]:
    """Source files of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    """telemetry ← fedserver_hooks ← fedserver, and telemetry knows neither Flower nor codecarbon."""
    found = modules(package)
    assert found
    for path in found:
        names = imported(path)
        assert not names & (OURS - MAY_IMPORT[package]), path
        assert not names & NEVER.get(package, set()), path


def test_flowers_internals_are_used_in_one_place() -> None:
    """Anything of Flower below its public names stands in fedserver/transport only."""
    public = {
        "flwr", "flwr.app", "flwr.serverapp", "flwr.serverapp.strategy", "flwr.serverapp.exception",
        "flwr.clientapp", "flwr.client", "flwr.common", "flwr.server", "flwr.server.strategy",
        "flwr.server.client_manager", "flwr.server.client_proxy",
    }  # fmt: skip
    for package in MAY_IMPORT:
        for path in modules(package):
            if "transport" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                for name in _modules_named(node):
                    if name.split(".")[0] == "flwr":
                        assert name in public, f"{path}: {name}"


def _modules_named(node: ast.AST) -> list[str]:
    """Modules that a statement imports, or imports from."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("telemetry", ["sqlalchemy", "fastapi", "prometheus_client", "flwr", "codecarbon"]),
        ("fedserver_hooks", ["sqlalchemy", "fastapi", "prometheus_client", "flwr", "codecarbon"]),
        ("fedserver_hooks.strategy", ["sqlalchemy", "fastapi", "prometheus_client", "codecarbon"]),
        (
            "fedserver_hooks.client",
            ["sqlalchemy", "fastapi", "prometheus_client", "flwr.serverapp", "flwr"],
        ),
    ],
)
def test_light_packages_stay_light(module: str, banned: list[str]) -> None:
    """Importing it in a fresh process loads none of these."""
    code = (
        f"import sys, {module}\n"
        f"loaded = [name for name in {banned!r} if name in sys.modules]\n"
        "sys.exit(repr(loaded) if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if module == "fedserver_hooks.strategy":  # Flower itself brings a web framework and a database
        return _only_through_flower(module)
    assert done.returncode == 0, done.stderr
    return None


def _only_through_flower(module: str) -> None:
    """What Flower does not load by itself, our module does not load either."""
    code = (
        "import sys, flwr.serverapp.strategy\n"
        "before = set(sys.modules)\n"
        f"import {module}\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "bad = new & {'sqlalchemy', 'fastapi', 'prometheus_client', 'codecarbon', 'alembic'}\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["telemetry", "fedserver_hooks"])
def test_all_is_what_can_be_imported(package: str) -> None:
    """``__all__`` is sorted, every name in it exists, and lazy names are listed."""
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module._HOME) <= set(module.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = module.nothing_of_that_name


def test_every_name_of_every_all_exists() -> None:
    """In each module that says what it offers."""
    found = 0
    for package in MAY_IMPORT:
        root = importlib.import_module(package)
        for place in pkgutil.walk_packages(root.__path__, f"{package}."):
            if "migrations" not in place.name and not place.name.endswith("__main__"):
                module = importlib.import_module(place.name)
                for name in getattr(module, "__all__", ()):
                    assert hasattr(module, name), f"{place.name}: {name}"
                    found += 1
    assert found > 100


def test_every_module_can_be_imported() -> None:
    """No module waits for a name that is gone."""
    for package in MAY_IMPORT:
        root = importlib.import_module(package)
        for found in pkgutil.walk_packages(root.__path__, f"{package}."):
            if "migrations" not in found.name and not found.name.endswith("__main__"):
                importlib.import_module(found.name)


def test_docs_name_files_that_exist() -> None:
    """A path in the architecture page is a file or folder of this repository."""
    import re

    text = (ROOT / "docs" / "architecture.md").read_text()
    for name in re.findall(r"`((?:telemetry|fedserver_hooks|fedserver|tests)/[\w./<>]+)`", text):
        if "<" not in name:
            assert (ROOT / name).exists(), name
    assert telemetry.__doc__
