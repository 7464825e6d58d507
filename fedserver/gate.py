"""The FL port's doorkeeper: who may connect, and who must go.

Tokens are read from their sources for every new call, so that a revoked one is refused at once; the
connected ones are looked at `LOOK_S` apart. Refusals are logged by label and peer, never by value.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Final

from fedserver.auth import REVOKED, KnownToken, Outcome, verify
from fedserver.tokens import TokenStore, TokenStoreError
from fedserver.tokens_file import TokenFile
from fedserver.transport import Holder, Refused, Unavailable
from telemetry.domain import utc_now

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.25
"""How long a revocation may go unnoticed, and twice as long for a changed file."""

Expel = Callable[[Callable[[Holder], str | None]], Sequence[tuple[Holder, str]]]
"""Ends the connections of those for whom the given function has a reason; returns who went."""


class TokenGate:
    """Lets in who shows a token of ``store`` or ``file``; where both know one, the store decides.

    ``refused`` is called for each refusal. Methods may be called from any thread.
    """

    def __init__(
        self,
        store: TokenStore,
        file: TokenFile | None = None,
        *,
        refused: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._file = file
        self._refused = refused
        self._now = now
        self._lock = threading.Lock()
        self._used: set[bytes] = set()
        self._wake = threading.Event()
        self._reload = self._ending = False
        self._problem: str | None = None

    def tokens(self) -> list[KnownToken]:
        """Every token that is known. Raises `TokenStoreError`."""
        return [*(self._file.tokens() if self._file else ()), *self._store.tokens()]

    def admit(self, metadata: Sequence[tuple[str, str | bytes]], peer: str) -> Holder:
        """Who is calling. Raises `Refused`, or `Unavailable` where that cannot be known now."""
        try:
            verdict = verify(metadata, self.tokens(), self._now())
        except TokenStoreError as error:
            logger.error("a client at %s is sent away: %s", peer, error)
            raise Unavailable("tokens cannot be checked now") from error
        if verdict.outcome is Outcome.VALID and verdict.token is not None:
            with self._lock:
                self._used.add(verdict.token.digest)
            return Holder(verdict.token.label, verdict.token.digest)
        whose = f" ({verdict.token.label})" if verdict.token else ""
        logger.warning("refused a client at %s: %s%s", peer, verdict.problem, whose)
        self._refused()
        raise Refused(verdict.problem)

    @contextmanager
    def watching(self, expel: Expel) -> Iterator[None]:
        """Inside, connected clients whose token does not hold any more are expelled.

        SIGUSR1 reads the token file again (in a program's main thread, where signals can be had).
        """
        thread = threading.Thread(target=self._watch, args=(expel,), name="fl-tokens", daemon=True)
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGUSR1, self._on_signal) if main else None
        thread.start()
        try:
            yield
        finally:
            self._ending = True
            self._wake.set()
            thread.join(2 * LOOK_S)
            if main:
                signal.signal(signal.SIGUSR1, before)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._reload = True  # no lock and no I/O in a signal handler: the thread does it
        self._wake.set()

    def _watch(self, expel: Expel) -> None:
        while not self._ending:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            try:
                self._look(expel)
                self._problem = None
            except TokenStoreError as error:
                if error.problem != self._problem:
                    logger.error("%s; connected clients stay", error)
                    self._problem = error.problem

    def _look(self, expel: Expel) -> None:
        if self._file is not None:
            if self._reload:
                self._reload = False
                self._file.reload()
            else:
                self._file.look()
        known = {token.digest: token for token in self.tokens()}
        now = self._now()

        def reason(holder: Holder) -> str | None:
            token = known.get(holder.key)
            return REVOKED if token is None else token.problem(now)

        for holder, why in expel(reason):
            logger.warning("client %s is disconnected: %s", holder.name, why)
        self._note_use()

    def _note_use(self) -> None:
        with self._lock:
            used, self._used = self._used, set()
        try:
            self._store.used(used, now=self._now())
        except TokenStoreError as error:  # only a date is lost
            logger.info("when tokens were used is not noted: %s", error)
