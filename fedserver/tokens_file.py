"""``server.tokens_file``: tokens as text, one a line, kept by somebody else.

The other source of tokens, beside `fedserver.tokens`, for platforms that hand tokens to a server in
a file (ai4flwr reads the same). Read again when it changes and on SIGUSR1.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fedserver.auth import API_PREFIX, MIN_CHARACTERS, KnownToken, digest_of, is_well_formed
from fedserver.tokens import TokenStoreError

logger = logging.getLogger(__name__)

_MAX_BYTES: Final = 4 * 1024**2
_Stamp = tuple[int, int, int]
"""Inode, size in bytes and time of the last change in ns: what tells one content from another."""


class TokenFile:
    """The tokens of a file that may change at any time. May be called from any thread.

    A line is a token, or a token and a label; empty lines and those that begin with ``#`` are
    passed over. Without a label a token is called ``file-`` and 8 hex digits of its SHA-256, which
    is the same name in every run and tells nothing about the token.

    A change is taken once it has stood for one look, so that a file that is being rewritten in place
    does not revoke everybody. A file that cannot be read leaves what was read last in force.
    """

    def __init__(self, path: Path) -> None:
        """Read it. Raises `TokenStoreError` naming the line that is wrong, never its text."""
        self.path = path
        self._lock = threading.Lock()
        self._taken = self._seen = _stamp(path)
        self._tokens = tuple(_read(path))
        self._problem: str | None = None

    def tokens(self) -> list[KnownToken]:
        """The tokens that hold now."""
        with self._lock:
            return list(self._tokens)

    def look(self) -> None:
        """Read it again if it has changed; to be called several times a second."""
        with self._lock:
            self._refresh(settled=True)

    def reload(self) -> None:
        """Read it now, changed or not: somebody says that it is complete."""
        with self._lock:
            self._taken = (0, 0, 0)
            self._refresh(settled=False)

    def _refresh(self, *, settled: bool) -> None:
        try:
            stamp = _stamp(self.path)
            stands = stamp == self._seen or not settled
            self._seen = stamp
            if stamp != self._taken and stands:
                self._taken = stamp
                self._tokens = tuple(_read(self.path))
                logger.info("%s: %d tokens", self.path, len(self._tokens))
            self._problem = None
        except TokenStoreError as error:
            if error.problem != self._problem:
                logger.error("%s; the tokens that were read last still hold", error)
                self._problem = error.problem


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> Iterator[KnownToken]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        lines = text.decode("ascii").splitlines()
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError:
        raise TokenStoreError(path, "holds something else than plain text tokens") from None
    if len(text) > _MAX_BYTES:
        raise TokenStoreError(path, "is too large for a file of tokens")
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _token(path, number, line)


def _token(path: Path, number: int, line: str) -> KnownToken:
    token, *rest = line.split()
    if token.startswith(API_PREFIX):
        problem = f"a token of the HTTP API ({API_PREFIX}…) is none for clients"
    elif len(rest) > 1 or not is_well_formed(token):
        problem = "must be a token, or a token and a label"
    elif len(token) < MIN_CHARACTERS:
        problem = f"a token must have at least {MIN_CHARACTERS} characters"
    else:
        digest = digest_of(token)
        return KnownToken(rest[0][:64] if rest else f"file-{digest.hex()[:8]}", digest)
    raise TokenStoreError(path, f"line {number}: {problem}")


def _unreadable(path: Path, error: OSError) -> TokenStoreError:
    return TokenStoreError(path, f"cannot be read: {(error.strerror or str(error)).lower()}")
