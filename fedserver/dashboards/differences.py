"""What of ours Grafana has otherwise. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_MOST_CHARACTERS: Final = 60


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where ``theirs`` has something else, in words: ``panels[3].title: "a", there "b"``.

    What Grafana adds to an object of ours (an id, a version, a default) or leaves out for being empty
    is no difference; lists are compared whole, so that a panel that somebody added is one.
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key, value in ours.items():
            below = f"{path}.{key}" if path else str(key)
            if key in theirs:
                yield from differences(value, theirs[key], below)
            elif value not in (None, [], {}):
                yield f"{below}: {_short(value)}, missing there"
    elif _is_list(ours) and _is_list(theirs):
        for number, (value, other) in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(value, other, f"{path}[{number}]")
        if len(ours) != len(theirs):
            yield f"{path}: {len(ours)} entries, there {len(theirs)}"
    elif ours != theirs or isinstance(ours, bool) is not isinstance(theirs, bool):
        yield f"{path}: {_short(ours)}, there {_short(theirs)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
