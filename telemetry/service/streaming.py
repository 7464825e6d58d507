"""An export as a stream: written in a thread, sent as it is written, in constant memory."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Final

from starlette.concurrency import run_in_threadpool

from telemetry.exporters import Format
from telemetry.store.base import Store

logger = logging.getLogger(__name__)

CHUNK_CHARACTERS: Final = 64 * 1024
CHUNKS_AHEAD: Final = 4
_LOOK_S: Final = 0.5


class _Abandoned(Exception):
    """Whoever read the export went away."""


class _Pipe(io.TextIOBase):
    """A file to write to, whose other end is a queue of chunks; None or an error is the last."""

    def __init__(self) -> None:
        self.chunks: Queue[bytes | BaseException | None] = Queue(CHUNKS_AHEAD)
        self.abandoned = Event()
        self._parts: list[str] = []
        self._size = 0

    def write(self, text: str) -> int:
        """Keep text until there is a chunk of it."""
        self._parts.append(text)
        self._size += len(text)
        if self._size >= CHUNK_CHARACTERS:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Hand over what was kept."""
        if self._parts:
            chunk = "".join(self._parts).encode()
            self._parts, self._size = [], 0
            self.put(chunk)

    def put(self, chunk: bytes | BaseException | None) -> None:
        """Wait for room; raises `_Abandoned` once nobody reads."""
        while not self.abandoned.is_set():
            try:
                return self.chunks.put(chunk, timeout=_LOOK_S)
            except Full:
                continue
        raise _Abandoned


async def exported(store: Store, run_id: str, form: Format) -> AsyncIterator[bytes]:
    """The chunks of an export. What goes wrong before the first is raised here, as the store's error.

    What goes wrong later breaks the stream off: its receiver sees that it is not complete.
    """
    pipe = _Pipe()
    Thread(
        target=_write, args=(store, run_id, form, pipe), name="telemetry-export", daemon=True
    ).start()
    first = await run_in_threadpool(pipe.chunks.get)
    if isinstance(first, BaseException):
        raise first
    return _rest(pipe, first)


async def _rest(pipe: _Pipe, chunk: bytes | BaseException | None) -> AsyncIterator[bytes]:
    try:
        while chunk is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
            chunk = await run_in_threadpool(pipe.chunks.get)
    finally:
        pipe.abandoned.set()


def _write(store: Store, run_id: str, form: Format, pipe: _Pipe) -> None:
    try:
        try:
            form.write(store, run_id, pipe)  # type: ignore[arg-type]  # all that it needs is write
            pipe.flush()
        except _Abandoned:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of the thread: the reader is told
            pipe.put(error)
        else:
            pipe.put(None)
    except _Abandoned:
        logger.debug("the reader of an export went away")
