"""HTML whose values say where in an answer of the interface they are from.

A page is first written here, and stands without any script. ``static/bind.js`` then renews it from the
same interface: it finds the attributes that are written here and needs to know nothing else of the page.

``data-path``     a path into the answer (``so_far.emissions_kg``, or a JSON list of names), whose value
                  is the element's text, in the form that ``data-as`` names (`formats`)
``data-if``       the element is there only if the value at this path is (not null, false or empty)
``data-unless``   and not if it is
``data-each``     one copy of the element's template for each item at this path
``data-even``     columns of such items, (path, kind) each, whose figures get equally many decimals
``data-together`` likewise, where each column is a list of figures of this one item
``data-link``     the item's run id, for the address of a link
``data-state``    a word at this path, for the style sheet
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from telemetry.service.html import text
from telemetry.service.pages.formats import FACTORS, even, scaled, shown

Path = str | tuple[str, ...]
"""Names with points between them; a tuple where a name may hold points itself."""
_NO_DECIMALS: Final[Mapping[Path, int | None]] = {}


class Bound:
    """Writes values of one answer, or of one item in it; of None for a template."""

    def __init__(self, source: Any, decimals: Mapping[Path, int | None] = _NO_DECIMALS) -> None:
        self._source = source
        self._decimals = decimals

    def at(self, path: Path) -> Any:
        """The value at a path; None where there is none."""
        found = self._source
        for name in _names(path):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def show(self, path: Path, kind: str = "text", unit: str = "") -> str:
        """An element with the value; a figure has the exact one in its markup, in the unit shown."""
        value = self.at(path)
        tag = "data" if kind in FACTORS else "time" if kind == "moment" else "span"
        exact = ""
        if value is not None and kind in FACTORS:
            exact = f' value="{scaled(value, kind)!r}"'
        elif value is not None and kind == "moment":
            exact = f' datetime="{text(value)}"'
        said = f' data-unit="{text(unit)}"' if unit else ""
        words = shown(value, kind, self._decimals.get(path))
        suffix = unit if value is not None else ""
        return f'<{tag} data-path="{_written(path)}" data-as="{kind}"{said}{exact}>{text(words + suffix)}</{tag}>'

    def has(self, path: Path) -> bool:
        """Whether the value is there: not None, not False, not empty."""
        value = self.at(path)
        return bool(value) or (value == 0 and value is not False)

    def when(self, path: Path, body: str, tag: str = "div", **attributes: str) -> str:
        """An element that is there only while the value is."""
        return _element(tag, f' data-if="{_written(path)}"', self.has(path), attributes, body)

    def unless(self, path: Path, body: str, tag: str = "div", **attributes: str) -> str:
        """An element that is there only while the value is not."""
        return _element(
            tag, f' data-unless="{_written(path)}"', not self.has(path), attributes, body
        )

    def together(
        self, tag: str, columns: Sequence[Mapping[Path, str]], body: Callable[[Bound], str]
    ) -> str:
        """An element in which the figures of each of these columns stand below one another."""
        decimals: dict[Path, int | None] = {}
        for column in columns:
            found = even(_scaled_at(path, kind, self._source) for path, kind in column.items())
            decimals |= dict.fromkeys(column, found)
        said = text(json.dumps(list(map(_listed, columns))))
        return f'<{tag} data-together="{said}">{body(Bound(self._source, decimals))}</{tag}>'

    def state(self, path: Path) -> str:
        """A word as a mark, such as a status."""
        value = self.at(path)
        word = "" if value is None else f' data-word="{text(value)}"'
        return f'<span class="mark" data-state="{_written(path)}"{word}>{self.show(path, "words")}</span>'

    def meter(self, path: Path, label: str) -> str:
        """A share of 1 as a bar."""
        value = self.at(path)
        share = "" if value is None else f' value="{min(1.0, value)!r}"'
        return (
            f'<progress max="1" aria-label="{text(label)}" data-share="{_written(path)}"{share}>'
            "</progress>"
        )

    def each(
        self,
        path: Path,
        item: Callable[[Bound], str],
        tag: str,
        even_out: Mapping[Path, str] | None = None,
        **attributes: str,
    ) -> str:
        """An element with one ``item`` for each at the path; ``even_out``: columns of figures."""
        found: Sequence[Any] = self.at(path) or ()
        paths = even_out or {}
        decimals = {
            column: even(map(partial(_scaled_at, column, kind), found))
            for column, kind in paths.items()
        }
        template = f"<template>{item(Bound(None))}</template>"
        items = "".join(item(Bound(one, decimals)) for one in found)
        columns = json.dumps([[_key(column), kind] for column, kind in paths.items()])
        said = f' data-each="{_written(path)}"' + (f' data-even="{text(columns)}"' if paths else "")
        return _element(tag, said, True, attributes, template + items)


def _scaled_at(path: Path, kind: str, item: Any) -> float | None:
    value = Bound(item).at(path)
    return None if value is None else scaled(value, kind)


def _element(tag: str, bound: str, visible: bool, attributes: Mapping[str, str], body: str) -> str:
    said = "".join(f' {name.rstrip("_")}="{text(value)}"' for name, value in attributes.items())
    return f"<{tag}{bound}{said}{'' if visible else ' hidden'}>{body}</{tag}>"


def _names(path: Path) -> Sequence[str]:
    return path.split(".") if isinstance(path, str) else path


def _key(path: Path) -> str:
    return path if isinstance(path, str) else json.dumps(path)


def _listed(paths: Mapping[Path, str]) -> list[tuple[str, str]]:
    return [(_key(path), kind) for path, kind in paths.items()]


def _written(path: Path) -> str:
    return text(_key(path))
