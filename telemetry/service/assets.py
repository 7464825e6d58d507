"""The style sheet and scripts of the pages: read once, under an address that changes with them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

FOLDER: Final = Path(__file__).parent / "static"
CHARTS: Final = "vendor/chart.umd.min.js"
MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
)


class Assets:
    """What browsers are given beside the pages. ``version`` is a digest of all of it."""

    def __init__(self, folder: Path = FOLDER) -> None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix in MEDIA_TYPES)
        self._files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        digest = sha256()
        for name, content in self._files.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        self.version: Final = digest.hexdigest()[:16]

    def url(self, name: str) -> str:
        """Where a file is served; KeyError for one that is not there."""
        self._files[name]
        return f"/static/{self.version}/{name}"

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Content and media type of a file."""
        content = self._files.get(name)
        return None if content is None else (content, MEDIA_TYPES[Path(name).suffix])


ASSETS: Final = Assets()
