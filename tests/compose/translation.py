"""From containers to processes of this machine: all that is changed in what compose says.

=====================  =========================================================================
in docker-compose.yml  here
=====================  =========================================================================
``postgres:5432``      the service's own loopback address, the same port: each service gets one of
                       127.0.0.0/8, so that ports are what the file says
``0.0.0.0``            the loopback address of the service that listens
``127.0.0.1``          likewise: within a container it is the container itself
a named volume         a folder, the same for every service that mounts it
a tmpfs                a folder of that service's own
``./file:/path:ro``    a copy of the file, in which names and paths are changed in the same way
``python, fedserver``  those of the virtual environment
``/bin/prometheus``    Debian's Prometheus
``pg_isready``         PostgreSQL's, as the tests find it
``wget … URL``         a GET of the URL
=====================  =========================================================================

Images are not there: what the Dockerfile's ENV and ENTRYPOINT say is read from it, and what the image
of PostgreSQL does at its first start (make a cluster with ``POSTGRES_INITDB_ARGS``, the user, its
password and the database, and ask for the password by TCP) is done by the test.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any

from tests.compose.files import ROOT

FOREIGN = frozenset({"/bin/sh", "/bin/prometheus", "/dev/null"})
"""Paths that are no mount: programs of the images, and what every Unix has."""
_PATH = re.compile(r"(?<![\w.:/-])(/(?:[\w.-]+/)*[\w.-]+)|(?<=sqlite:///)(/[\w./-]+)")


@dataclass
class Mount:
    """A path within a container, and the folder or file that stands for it."""

    inside: str
    here: Path
    kind: str
    """volume, bind or tmpfs."""


@dataclass
class Machine:
    """The containers' stand-in: addresses and folders for the services of a compose document."""

    document: dict[str, Any]
    folder: Path
    addresses: dict[str, str] = field(init=False)
    mounts: dict[str, list[Mount]] = field(init=False)

    def __post_init__(self) -> None:
        random = SystemRandom()
        network = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        services = self.document["services"]
        self.addresses = {name: f"{network}.{n}" for n, name in enumerate(services, start=1)}
        self.mounts = {name: list(self._mounts(name)) for name in services}
        for name, mounts in self.mounts.items():
            for mount in mounts:
                if mount.kind == "bind":
                    self._copy(name, ROOT / mount.here, mount)
                else:
                    mount.here.mkdir(parents=True, exist_ok=True)

    def _mounts(self, name: str) -> list[Mount]:
        service = self.document["services"][name]
        own = self.folder / name
        found = []
        for entry in service.get("tmpfs", ()):
            inside = entry.split(":")[0]
            found.append(Mount(inside, own / inside.strip("/").replace("/", "-"), "tmpfs"))
        for entry in service.get("volumes", ()):
            source, inside, *mode = entry.split(":")
            if source.startswith("./"):
                assert mode == ["ro"], f"{name}: {entry} may be written"
                found.append(Mount(inside, Path(source), "bind"))
            else:
                assert source in self.document["volumes"], f"{name}: no volume {source}"
                found.append(Mount(inside, self.folder / "volumes" / source, "volume"))
        return found

    def _copy(self, name: str, source: Path, mount: Mount) -> None:
        """A bind mount's stand-in. Its text is translated once everything has its place."""
        assert source.exists(), f"{name} mounts {source.relative_to(ROOT)}, which is not there"
        mount.here = self.folder / name / "mounted" / mount.inside.strip("/")
        mount.here.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, mount.here)
        else:
            shutil.copy(source, mount.here)

    def translate_mounted(self, name: str) -> None:
        """Change names and paths in the configuration that a service mounts."""
        for mount in self.mounts[name]:
            if mount.kind == "bind":
                text = mount.here.read_text(encoding="utf-8")
                mount.here.write_text(self.text(name, text, strict=False), encoding="utf-8")

    def text(self, service: str, text: str, *, strict: bool = True) -> str:
        """A text of the file as it holds for a process here.

        Strict: a path that no mount of the service covers is an error, for it would not be there in
        the container.
        """
        return self.paths(service, self.names(service, text), strict=strict)

    def names(self, service: str, text: str) -> str:
        """A text with the names and addresses of services changed."""
        text = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1)(?=[:'/\s]|$)", self.addresses[service], text)
        for name, address in self.addresses.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?=:[0-9])", address, text)
        return text

    def paths(self, service: str, text: str, *, strict: bool = True) -> str:
        """A text with the paths within the container changed."""
        mounts = sorted(self.mounts[service], key=lambda mount: -len(mount.inside))

        def place(match: re.Match[str]) -> str:
            path = match[1] or match[2]
            for mount in mounts:
                if path == mount.inside or path.startswith(f"{mount.inside}/"):
                    return f"{mount.here}{path.removeprefix(mount.inside)}"
            assert path in FOREIGN or not strict, f"{service}: nothing is mounted at {path}"
            return path

        return _PATH.sub(place, text)
