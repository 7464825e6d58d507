"""`SuperLinkGrid`: Flower's own grid, with limits, reasons and an order.

Flower's ``send_and_receive`` returns the replies that came, in the order in which they came, and
says nothing of the others. Our loop wants one reply a message, in the order of the messages, and a
node that is still at an earlier message left alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from flwr.app import ArrayRecord, Error, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedserver.transport.base import (
    GridListener,
    NoInitialModel,
    NullListener,
    RoundGrid,
    TooFewClients,
    teller,
)
from fedserver.transport.messages import plain, server_round
from telemetry.domain import Phase
from telemetry.writer import Failures

logger = logging.getLogger(__name__)

INITIAL_MODEL: Final = "query.initial_model"
"""Type of the message that asks a client for a model to begin with."""
SAY_WAITING_S: Final = 30.0
_POLL_S: Final = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Pauses between two looks for replies; the last one repeats."""
_PHASES: Final[dict[str, Phase]] = {MessageType.TRAIN: "train", MessageType.EVALUATE: "evaluate"}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A message that waits for its reply, by the id under which the SuperLink keeps it."""

    message: Message
    phase: Phase | None
    round_number: int


class SuperLinkGrid(RoundGrid):
    """The nodes of a SuperLink for `fedserver.loop`; ``grid`` is the one that a ServerApp is given.

    Sizes of messages and addresses of clients stay with the SuperLink. One thread trains.
    ``failures`` counts what the ``listener`` raises.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        listener: GridListener | None = None,
        failures: Failures | None = None,
        clock: Callable[[], float] = time.time,
        say_waiting_s: float = SAY_WAITING_S,
    ) -> None:
        self._grid = grid
        self._listener = listener or NullListener()
        self._tell = teller(failures)
        self._clock = clock
        self._say_waiting_s = say_waiting_s
        self._count = 0
        self._end: float | None = None
        self._given: list[int] = []
        self._overdue: dict[str, _Asked] = {}

    def require(self, count: int, timeout_s: float | None) -> None:
        """From now on `get_node_ids` waits until ``count`` nodes are free; see `RoundGrid`."""
        self._count = count
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._given = []

    def get_node_ids(self) -> list[int]:
        """The free nodes, sorted, once there are as many as required. Raises `TooFewClients`.

        Within one phase the list stays the same: strategies first count and then sample.
        """
        if not self._given:
            self._given = self._wait_for_free(self._count)
        return list(self._given)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """One reply a message, in their order; an error with a reason where none came in time."""
        asked = list(messages)
        replies: dict[int, Message] = {}
        waiting = self._push(asked, replies)
        end = None if timeout is None else time.monotonic() + timeout
        for pause in _pauses(end):
            self._collect(waiting, asked, replies)
            if not waiting:
                break
            time.sleep(pause)
        for message_id, place in waiting.items():
            self._overdue[message_id] = self._asked(asked[place])
            reason = f"no answer within {timeout:g} s"
            replies[place] = _error(asked[place], ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason)
        self._given = []
        ordered = [replies[place] for place in range(len(asked))]
        for message, reply in zip(asked, ordered, strict=True):
            phase = _PHASES.get(message.metadata.message_type)
            if reply.has_error() and phase is not None:
                self._tell(
                    self._listener.failed, message.metadata.dst_node_id, phase, reply.error.reason
                )
        return ordered

    def initial_arrays(self, timeout_s: float) -> ArrayRecord:
        """The model of the first client that has one, asked one after another by `INITIAL_MODEL`.

        Raises `NoInitialModel` once each node that is there was asked, and `TooFewClients`.
        """
        nodes = self._wait_for_free(max(1, self._count))
        for node in nodes:
            question = Message(RecordDict(), node, INITIAL_MODEL)
            (reply,) = self.send_and_receive([question], timeout=timeout_s)
            if not reply.has_error():
                for record in reply.content.values():
                    if isinstance(record, ArrayRecord) and record:
                        return record
            logger.info("client %d has no model to begin with", node)
        raise NoInitialModel(len(nodes))

    # --- inside --------------------------------------------------------------------------------

    def _wait_for_free(self, count: int) -> list[int]:
        begin = said = time.monotonic()
        while True:
            self._look_for_late_replies()
            connected = sorted(self._grid.get_node_ids())
            busy = {asked.message.metadata.dst_node_id for asked in self._overdue.values()}
            free = [node for node in connected if node not in busy]
            now = time.monotonic()
            if len(free) >= count:
                return free
            if self._end is not None and now >= self._end:
                raise TooFewClients(len(free), count, now - begin)
            if now - said >= self._say_waiting_s:
                said = now
                self._tell(self._listener.waiting, len(connected), count)
            left = _POLL_S[-1] if self._end is None else self._end - now
            time.sleep(min(_POLL_S[-1], max(left, 0.0)))

    def _push(self, asked: list[Message], replies: dict[int, Message]) -> dict[str, int]:
        """Send; the place of each message by the SuperLink's id, an error at once for the others."""
        at = self._clock()
        for message in asked:
            phase = _PHASES.get(message.metadata.message_type)
            if phase is not None:
                self._tell(self._listener.sent, message.metadata.dst_node_id, phase, at, None)
        ids = list(self._grid.push_messages(asked)) if asked else []
        waiting: dict[str, int] = {}
        for place, message in enumerate(asked):
            message_id = ids[place] if place < len(ids) else None
            if message_id:
                waiting[message_id] = place
            else:
                reason = "the SuperLink did not take the message"
                replies[place] = _error(message, ErrorCode.NODE_UNAVAILABLE, reason)
        return waiting

    def _collect(
        self, waiting: dict[str, int], asked: list[Message], replies: dict[int, Message]
    ) -> None:
        """Take what has come; late replies of earlier messages too."""
        for reply in self._grid.pull_messages([*waiting, *self._overdue]):
            place = waiting.pop(reply.metadata.reply_to_message_id, None)
            if place is None:
                self._late(reply)
                continue
            message = asked[place]
            phase = _PHASES.get(message.metadata.message_type)
            if phase is not None:
                node = message.metadata.dst_node_id
                self._tell(self._listener.replied, node, phase, self._clock(), None)
            replies[place] = _in_place_of(message, reply)

    def _look_for_late_replies(self) -> None:
        if self._overdue:
            for reply in self._grid.pull_messages(list(self._overdue)):
                self._late(reply)

    def _late(self, reply: Message) -> None:
        asked = self._overdue.pop(reply.metadata.reply_to_message_id, None)
        if asked is not None and asked.phase is not None and reply.has_content():
            self._tell(self._listener.late, reply, asked.phase, asked.round_number)

    def _asked(self, message: Message) -> _Asked:
        phase = _PHASES.get(message.metadata.message_type)
        return _Asked(message, phase, server_round(message.content))


def _pauses(end: float | None) -> Iterable[float]:
    """How long to sleep after each look for replies; there is one look at the end itself."""
    for count in range(2**31):
        left = _POLL_S[-1] if end is None else end - time.monotonic()
        yield max(0.0, min(_POLL_S[min(count, len(_POLL_S) - 1)], left))
        if left <= 0:
            return


def _in_place_of(message: Message, reply: Message) -> Message:
    """The reply as an answer of the node that was asked: an error may come from the SuperLink."""
    if not reply.has_error():
        return reply
    reason = plain(reply.error.reason or "") or f"error {reply.error.code}"
    return _error(message, reply.error.code, reason)


def _error(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code, reason), reply_to=message)
