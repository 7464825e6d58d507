"""The Dockerfile, as far as it goes without an engine: what it copies is there, its commands work.

`make test-slow` builds what the image holds, with the Dockerfile's own commands in folders of their own.
Not run: the base image, ``useradd`` of the last stage, and the image as a container.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.compose.files import ROOT, Stage, stages

IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
BUILD, FINAL = stages()


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the context: the last line that matches decides."""
    ignored = False
    for line in IGNORED:
        pattern, keeps = line.removeprefix("!"), line.startswith("!")
        if not pattern or pattern.startswith("#"):
            continue
        parts = re.split(r"(\*\*/|\*)", pattern)
        signs = {"**/": "(?:.*/)?", "*": "[^/]*"}
        regex = "".join(signs.get(part, re.escape(part)) for part in parts).replace(r"\[", "[")
        regex = regex.replace(r"\]", "]")
        if re.fullmatch(f"{regex}(?:/.*)?", path):
            ignored = not keeps
    return ignored


def copied(stage: Stage) -> list[tuple[str, str]]:
    """Source and target of each COPY from the context."""
    pairs = []
    for text in stage.of("COPY"):
        if not text.startswith("--from="):
            *sources, target = text.split()
            pairs += [(source, target) for source in sources]
    return pairs


def test_the_stages_stand_on_the_same_pinned_python() -> None:
    """Slim, of the release of Debian and of the Python that the project is tested with."""
    assert (BUILD.base, BUILD.name) == (FINAL.base, "build") == ("python:${PYTHON}", "build")
    (argument,) = re.findall(r"^ARG PYTHON=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"3\.11\.[0-9]+-slim-bookworm", argument)
    assert FINAL.of("COPY") == ["--from=build /opt/fedserver /opt/fedserver"]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    """And nothing else of the repository is sent to the engine; least of all secrets."""
    sources = {source for source, _ in copied(BUILD)}
    for source in sources:
        path = ROOT / source
        assert path.exists(), source
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        names = [file.relative_to(ROOT).as_posix() for file in files]
        kept = [name for name in names if "__pycache__" not in name]
        assert kept
        assert not [name for name in kept if is_ignored(name)]
    for name in (
        ".env",
        ".git/config",
        "tests/tools.py",
        "telemetry.db",
        "demo/runs/x",
        "docs/a.md",
    ):
        assert is_ignored(name)
    assert is_ignored("telemetry/store/__pycache__/base.cpython-311.pyc")
    allowed = {line[1:] for line in IGNORED if line.startswith("!")}
    assert allowed == {source.rstrip("/") for source in sources}


def test_every_command_of_the_build_is_a_shell_command() -> None:
    """Parsed by the shell; what is installed has hashes, and nothing is compiled or kept back."""
    commands = BUILD.of("RUN") + FINAL.of("RUN")
    for command in commands:
        subprocess.run(["sh", "-n", "-c", command], check=True, timeout=10)
    installs = [command for command in commands if " install " in command and "pip" in command]
    assert len(installs) == 3
    for command in installs:
        by_hash = {"--require-hashes", "--only-binary"} <= set(command.split())
        own = {"--no-deps", "--no-index"} <= set(command.split())
        assert by_hash or own, command
    assert BUILD.environment["PIP_NO_CACHE_DIR"] == "1"
    text = " ".join(commands)
    assert not re.search(r"\b(apt|apt-get|curl|wget|gcc|sudo)\b", text)


def test_the_image_says_how_to_run_and_to_stop_it() -> None:
    """As somebody who is not root, with nothing sent to Flower or codecarbon."""
    assert FINAL.of("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(FINAL.of("CMD")[0]) == ["--help"]
    assert FINAL.steps.index(("USER", "10001:10001")) > max(
        number for number, (kind, _) in enumerate(FINAL.steps) if kind in ("RUN", "COPY")
    )
    assert FINAL.environment["CODECARBON_SAVE_TO_API"] == "false"
    assert FINAL.environment["PYTHONDONTWRITEBYTECODE"] == "1"


# --- built ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in /opt/fedserver of the image, by the Dockerfile's own commands."""
    folder = tmp_path_factory.mktemp("image")
    work, target = folder / "build", folder / "opt-fedserver"
    # The stage's own Python, with the pip that a new one brings along.
    venv.create(folder / "python", with_pip=True)
    kept = {
        key: text for key, text in os.environ.items() if key.startswith(("PIP_", "UV_", "SSL_"))
    }
    environment = {**kept, **BUILD.environment, "HOME": str(folder)}
    environment["PATH"] = f"{folder / 'python' / 'bin'}:/usr/bin:/bin"
    work.mkdir()
    for kind, text in BUILD.steps:
        if kind == "COPY":
            *sources, where = text.split()
            for source in sources:
                put(ROOT / source, work / where / ("" if where != "./" else Path(source).name))
        elif kind == "RUN":
            command = text.replace("/opt/fedserver", str(target)).replace("/build/", f"{work}/")
            done = subprocess.run(
                ["sh", "-c", command], cwd=work, env=environment,
                capture_output=True, text=True, timeout=900, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return target


def put(source: Path, target: Path) -> None:
    """A COPY: only what .dockerignore lets through."""
    if source.is_file():
        shutil.copy(source, target)
        return

    def left_out(folder: str, names: list[str]) -> list[str]:
        within = Path(folder).relative_to(ROOT)
        return [name for name in names if is_ignored((within / name).as_posix())]

    shutil.copytree(source, target, ignore=left_out)


@pytest.mark.slow
def test_what_is_built_trains(built: Path, tmp_path: Path) -> None:
    """`fedserver demo` with what the image holds, and its ENV: emissions of a whole training."""
    environment = {**FINAL.environment, "HOME": str(tmp_path)}
    environment["PATH"] = f"{built / 'bin'}:/usr/bin:/bin"
    done = subprocess.run(
        ["fedserver", "demo", "--metrics-port", "0", "--linger", "0"], env=environment,
        executable=built / "bin" / "fedserver", cwd=tmp_path,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (footprint,) = (tmp_path / "demo" / "runs").glob("*/footprint.csv")
    assert len(footprint.read_text().splitlines()) == 7


@pytest.mark.slow
def test_what_is_built_is_small_and_holds_no_tools(built: Path) -> None:
    """No pip, no compiler, no build backend, no tests; ours is installed as a package."""
    packages = built / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    names = {path.name.split("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {"fedserver_telemetry", "flwr", "psycopg", "scikit_learn", "grafana_api"} <= names
    assert not names & {"pip", "setuptools", "wheel", "hatchling", "pytest", "mypy", "ruff"}
    assert not [path for path in (built / "bin").iterdir() if path.name in ("pip", "uv", "uvx")]
    assert not [path for path in packages.rglob("tests") if path.is_dir()]
    assert list(packages.glob("fedserver/__pycache__/*.pyc"))  # files are read-only at run time
    size = sum(path.lstat().st_size for path in built.rglob("*") if path.is_file())
    assert size < 500e6, f"{size / 1e6:.0f} MB beside the base image"
    look = "import fedserver, telemetry; print(fedserver.__file__)"
    done = subprocess.run(
        [built / "bin" / "python", "-c", look], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(packages))
