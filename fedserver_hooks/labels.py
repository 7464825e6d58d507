"""Names that are each held by one at a time: a second taker of ``name`` gets ``name#2``."""

from __future__ import annotations

import heapq
import re
from dataclasses import dataclass, field
from typing import Final

_NUMBER: Final = re.compile(r"[2-9]|[1-9][0-9]{1,8}")
"""As `Labels` itself writes them: ``x#01`` is somebody's own name and no number of ``x``."""


@dataclass(slots=True)
class _Numbers:
    """The numbers of one name. Below ``fresh`` each is taken, or was returned to ``returned``."""

    fresh: int = 1
    returned: list[int] = field(default_factory=list)
    """A heap. A number in it may have been taken since, by whoever asked for ``name#3`` itself."""
    in_heap: set[int] = field(default_factory=set)


class Labels:
    """Who holds which label. The lowest free number is given, in O(log n) amortised.

    A server may have thousands of clients of one name: nothing here walks through the holders.
    """

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._numbers: dict[str, _Numbers] = {}

    def take(self, holder: str, name: str) -> str:
        """The lowest free label of ``name``, which ``holder`` has from now on instead of its own."""
        self.release(holder)
        numbers = self._numbers.setdefault(name, _Numbers())
        label = self._next(name, numbers)
        while label in self._holders:
            label = self._next(name, numbers)
        self._holders[label] = holder
        self._labels[holder] = label
        return label

    def release(self, holder: str) -> None:
        """The holder's label is free; a no-op without one."""
        label = self._labels.pop(holder, None)
        if label is None:
            return
        del self._holders[label]
        self._return(label, 1)
        name, _, number = label.rpartition("#")
        if _NUMBER.fullmatch(number):
            self._return(name, int(number))

    def _next(self, name: str, numbers: _Numbers) -> str:
        """The lowest label that may be free; each number comes once until it is returned."""
        if numbers.returned:
            number = heapq.heappop(numbers.returned)
            numbers.in_heap.remove(number)
        else:
            number, numbers.fresh = numbers.fresh, numbers.fresh + 1
        return name if number == 1 else f"{name}#{number}"

    def _return(self, name: str, number: int) -> None:
        numbers = self._numbers.get(name)
        if numbers is None or number >= numbers.fresh or number in numbers.in_heap:
            return
        heapq.heappush(numbers.returned, number)
        numbers.in_heap.add(number)
