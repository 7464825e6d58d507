"""Who is connected, who is busy, and who is waited for: the threads' meeting place.

A node is one connection. It is *free* until it is sent a request and again once it has answered,
however late: the protocol allows one request at a time, and a client in ``fit`` cannot be told to
stop. A request that was given up keeps its node busy, so that a hung client is left alone and takes
part again when it answers.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from queue import SimpleQueue
from threading import Condition
from typing import Final, Generic, TypeVar

from fedserver.transport.base import Holder, Stopped, TooFewClients

_SLICE_S: Final = 0.1
"""How long a wait goes without looking at the stop flag: a signal handler sets it without a lock."""
_FAREWELL_S: Final = 0.5
"""How long a client that was told to go may take to hang up."""

T = TypeVar("T")


class State(Enum):
    """What became of a request."""

    WAITING = auto()
    READING = auto()  # the answer is here and counts, whatever the time is when it has been read
    ANSWERED = auto()
    GIVEN_UP = auto()
    LOST = auto()  # the connection went away or was ended, or there was none that could be asked


@dataclass(eq=False, slots=True, weakref_slot=True)
class Request(Generic[T]):
    """One message to one node. ``read`` and ``late`` run in the node's thread and must not raise."""

    read: Callable[[bytes, bool], T]
    """Makes an answer of the bytes; the flag says whether they came in time."""
    late: Callable[[T], None]
    """Takes an answer that nobody waits for any more."""
    state: State = State.WAITING
    answer: T | None = None
    problem: str = ""

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.state not in (State.WAITING, State.READING)


@dataclass(frozen=True, slots=True)
class Hangup:
    """The end of a connection: why the server ends it, None if the client did."""

    reason: str | None = None
    expelled: bool = False
    """Whether the client itself is the reason."""


@dataclass(eq=False, slots=True)
class Node:
    """A connection. ``outbox`` is what its sending thread has to send."""

    number: int
    name: str
    holder: Holder | None = None
    outbox: SimpleQueue[bytes | Hangup] = field(default_factory=SimpleQueue)
    request: Request[object] | None = None
    answered: weakref.ref[Request[object]] | None = None
    """The request that it answered last, while somebody has use for it."""
    leaving: bool = False
    expelled: bool = False

    @property
    def free(self) -> bool:
        """Whether it may be sent a request."""
        return self.request is None and not self.leaving


class Nodes:
    """All connections. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._nodes: dict[int, Node] = {}
        self._count = 0
        self._closed = False
        self._stopping = False

    # --- connections, from their own threads ---------------------------------------------------

    def join(
        self, host: str, announce: Callable[[Node], None], holder: Holder | None = None
    ) -> Node | None:
        """A new node, announced before anyone can ask it; None when no more are taken.

        It is called what its ``holder`` is called, without one ``host`` and a running number.
        """
        with self._changed:
            if self._closed:
                return None
            self._count += 1
            name = f"{host} #{self._count}" if holder is None else holder.name
            node = Node(self._count, name, holder)
        announce(node)
        with self._changed:
            self._nodes[node.number] = node
            self._changed.notify_all()
        return node

    def leave(self, node: Node) -> None:
        """The connection is gone; what was asked of it is lost."""
        with self._changed:
            self._nodes.pop(node.number, None)
            if node.request is not None and node.request.state is State.WAITING:
                node.request.state = State.LOST
                node.request.problem = "the connection closed before the client answered"
            node.leaving = True
            self._changed.notify_all()
        node.outbox.put(Hangup())

    def deliver(self, node: Node, data: bytes) -> None:
        """An answer arrived. Whether in time is decided now; reading it may take longer."""
        with self._changed:
            request = node.request
            if request is None:  # its goodbye, or talk out of turn
                return
            in_time = request.state is State.WAITING
            if in_time:
                request.state = State.READING
        answer = request.read(data, in_time)
        if not in_time:
            request.late(answer)
        with self._changed:
            node.request = None
            if request.state is State.READING:  # else it was expelled meanwhile
                request.answer = answer
                request.state = State.ANSWERED
                node.answered = weakref.ref(request)
            self._changed.notify_all()

    # --- requests ------------------------------------------------------------------------------

    def send(
        self, number: int, body: bytes, request: Request[T], before: Callable[[], None]
    ) -> Request[T]:
        """Ask a node, or mark the request as lost; ``before`` is called just before it goes out."""
        with self._changed:
            node = self._nodes.get(number)
            if node is None or not node.free:
                request.state = State.LOST
                busy = node is not None and not node.leaving
                request.problem = (
                    "the client is still busy with an earlier message"
                    if busy
                    else "the client is not connected"
                )
                return request
            node.request = request  # type: ignore[assignment]  # whatever it makes of the bytes
        before()
        node.outbox.put(body)
        return request

    def settle(self, requests: Iterable[Request[T]], timeout_s: float | None) -> None:
        """Wait until each is settled; those without an answer in time are given up.

        Raises `Stopped`.
        """
        pending = list(requests)
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while pending := [request for request in pending if not request.settled]:
                if self._stopping:
                    raise Stopped
                if end is not None and time.monotonic() >= end:
                    for request in pending:
                        if request.state is State.WAITING:
                            request.state = State.GIVEN_UP
                            request.problem = f"no answer within {timeout_s:g} s"
                    if all(request.settled for request in pending):
                        return
                self._wait(end)

    @property
    def connected(self) -> int:
        """How many there are, free or busy."""
        with self._changed:
            return len(self._nodes)

    def free(self) -> list[int]:
        """Who can be asked now, in order of arrival."""
        with self._changed:
            return self._free()

    def wait_for_free(self, count: int, end: float | None, *, but: Sequence[int] = ()) -> list[int]:
        """Who can be asked (leaving out ``but``), once there are ``count`` of them.

        ``end`` is a time of `time.monotonic`. Raises `TooFewClients` after it, and `Stopped`.
        """
        begin = time.monotonic()
        with self._changed:
            while True:
                if self._stopping:
                    raise Stopped
                free = [number for number in self._free() if number not in but]
                if len(free) >= count:
                    return free
                now = time.monotonic()
                if end is not None and now >= end:
                    raise TooFewClients(len(free), count, now - begin)
                self._wait(end)

    # --- the end -------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Let every wait raise `Stopped`. Safe in a signal handler: no lock is taken."""
        self._stopping = True

    def dismiss(self, goodbye: bytes, grace_s: float) -> None:
        """Tell every free node to go, and busy ones as they become free within ``grace_s``.

        A stop that is asked for meanwhile ends the grace.
        """
        end = time.monotonic() + grace_s
        with self._changed:
            self._closed = True
            told_until = 0.0
            while self._nodes:
                for node in [node for node in self._nodes.values() if node.free]:
                    node.leaving = True
                    node.outbox.put(goodbye)
                    told_until = time.monotonic() + _FAREWELL_S
                busy = any(not node.leaving for node in self._nodes.values())
                polite = any(node.leaving for node in self._nodes.values())
                patient = busy and not self._stopping
                limit = max(end if patient else 0.0, told_until if polite else 0.0)
                if time.monotonic() >= limit:
                    return
                self._wait(limit)

    def expel(self, judge: Callable[[Holder], str | None]) -> list[tuple[Holder, str]]:
        """Hang up on every node whose holder ``judge`` gives a reason for, and on what it answered.

        An answer that is here counts no more as long as others of its phase are waited for.
        """
        expelled: list[tuple[Holder, str]] = []
        with self._changed:
            for node in self._nodes.values():
                reason = None if node.holder is None else judge(node.holder)
                if node.holder is None or reason is None or node.expelled:
                    continue
                node.leaving = node.expelled = True
                answered = None if node.answered is None else node.answered()
                for request in (node.request, answered):
                    if request is not None and request.state is not State.GIVEN_UP:
                        request.state, request.problem = State.LOST, reason
                node.request = None  # whatever it still sends is not listened to
                node.outbox.put(Hangup(reason, expelled=True))
                expelled.append((node.holder, reason))
            self._changed.notify_all()
        return expelled

    def hang_up(self, reason: str) -> None:
        """End every connection, and refuse new ones."""
        with self._changed:
            self._closed = True
            for node in self._nodes.values():
                node.outbox.put(Hangup(reason))

    # --- inside, with the lock held ------------------------------------------------------------

    def _free(self) -> list[int]:
        return sorted(node.number for node in self._nodes.values() if node.free)

    def _wait(self, end: float | None) -> None:
        left = _SLICE_S if end is None else min(_SLICE_S, end - time.monotonic())
        # Past the end an answer may still be being read, which takes a moment.
        self._changed.wait(left if left > 0 else _SLICE_S)
