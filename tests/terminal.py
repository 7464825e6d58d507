"""A terminal for tests: a pseudo-terminal, and pyte as the one who looks at it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TextIO

import pyte

ENVIRON = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": "", "CI": "", "NO_COLOR": ""}


class Terminal(AbstractContextManager["Terminal"]):
    """``columns`` × ``rows``; what is written to `stream` (or by a process started in it) is shown.

    With ``deaf`` nothing is taken from it until `listen`: whoever writes more than its buffer holds,
    waits.
    """

    def __init__(self, columns: int = 80, rows: int = 24, *, deaf: bool = False) -> None:
        self._master, self._slave = pty.openpty()
        self._lock = threading.Lock()
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._feed = pyte.ByteStream(self._screen)
        self.written = b""
        self._streams: list[TextIO] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._set_size(columns, rows)
        self._reader = threading.Thread(target=self._read, daemon=True)
        if not deaf:
            self.listen()

    def listen(self) -> None:
        """Take what is written from now on, and what waits."""
        self._reader.start()

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError as error:  # the last writer has gone
                if error.errno in (errno.EIO, errno.EBADF):
                    return
                raise
            with self._lock:
                self.written += data
                self._feed.feed(data)

    # --- for whoever writes ----------------------------------------------------------------------

    def stream(self) -> TextIO:
        """Like stderr of a process in this terminal."""
        raw = io.FileIO(os.dup(self._slave), "w")
        self._streams.append(io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
        return self._streams[-1]

    def start(
        self, command: Sequence[str], *, cwd: Path, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A process with this as its terminal; its size is the terminal's own."""
        env = {**os.environ, **ENVIRON, **(environ or {})}
        self.process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={name: value for name, value in env.items() if value},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )
        return self.process

    # --- for whoever looks -----------------------------------------------------------------------

    def lines(self) -> list[str]:
        """What stands on the screen now, without empty lines at its end."""
        with self._lock:
            return self._shown()

    def _shown(self) -> list[str]:
        shown = [line.rstrip() for line in self._screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def text(self) -> str:
        """`lines` as one text."""
        return "\n".join(self.lines())

    def plain(self) -> str:
        """Everything that was ever written, what was overwritten too, without its escape sequences."""
        with self._lock:
            text = self.written.decode(errors="replace")
        return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text)

    def scrolled(self) -> str:
        """All that ever stood there and was not taken back: what scrolled away, and the screen."""
        with self._lock:
            gone = [
                "".join(row[column].data for column in range(self._screen.columns)).rstrip()
                for row in self._screen.history.top
            ]
            return "\n".join([*gone, *self._shown()])

    @property
    def cursor_hidden(self) -> bool:
        """Whether somebody has forgotten to give it back."""
        with self._lock:
            return bool(self._screen.cursor.hidden)

    def wait_for(self, pattern: str, timeout_s: float = 30.0) -> str:
        """Until the screen shows it; the screen then. What it shows in between may be missed."""
        return self._wait(self.text, pattern, timeout_s)

    def wait_written(self, pattern: str, timeout_s: float = 30.0) -> str:
        """Until it was written, even if it has been overwritten since; all that was, as `plain`."""
        return self._wait(self.plain, pattern, timeout_s)

    def _wait(self, look: Callable[[], str], pattern: str, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while True:
            text = look()
            if re.search(pattern, text):
                return text
            assert time.monotonic() < deadline, f"no {pattern!r} in\n{text}\non\n{self.scrolled()}"
            time.sleep(0.02)

    def resize(self, columns: int, rows: int, *, wraps: bool = False) -> None:
        """As somebody who drags its corner. Long lines are cut, as xterm does.

        With ``wraps`` they are wrapped anew, as most terminals do, the cursor behind the last.
        """
        with self._lock:
            shown = self._shown()
            self._screen.resize(rows, columns)
            if wraps:
                pieces = [
                    line[start : start + columns]
                    for line in shown
                    for start in range(0, max(1, len(line)), columns)
                ]
                self._feed.feed(("\x1b[2J\x1b[H" + "\r\n".join(pieces)).encode())
        self._set_size(columns, rows)

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in self._streams:
            stream.close()
        os.close(self._slave)
        if self._reader.ident is not None:
            self._reader.join(5)
        with contextlib.suppress(OSError):
            os.close(self._master)
