"""HTML and SVG put together from elements: text is escaped on its way in, whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final

Content = str | Iterable["str | None"] | None
"""Text, which is escaped; `Html`, which is not; several of them; nothing."""
Attribute = str | int | float | bool | None

_VOID: Final = frozenset({"br", "hr", "meta"})
_SHAPES: Final = frozenset({"line", "rect", "circle", "path", "polyline"})
_NOT_ALLOWED: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Characters that a document must not contain, even escaped, and such as turn around what follows."""


class Html(str):
    """Markup that goes out as it is: made by `element` and `joined` only."""

    __slots__ = ()


def element(tag: str, /, *contents: Content, **attributes: Attribute) -> Html:
    """An element. In names of attributes ``_`` stands for ``-``, and one at the end is dropped.

    Attributes that are None or False are left out, True stands without a value.
    """
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{told}>")
    inside = joined(*contents)
    if tag in _SHAPES and not inside:
        return Html(f"<{tag}{told}/>")
    return Html(f"<{tag}{told}>{inside}</{tag}>")


def joined(*contents: Content) -> Html:
    """Contents one after another."""
    return Html("".join(_parts(contents)))


def said(text: str | None) -> Html:
    """Words from outside, in an element of their own: they cannot turn what stands around them."""
    return element("bdi", " ".join((text or "").split()))


def text_of(text: str) -> Html:
    """Text as markup."""
    return Html(escape(_NOT_ALLOWED.sub("\ufffd", text), quote=True))


def _parts(contents: Iterable[Content]) -> Iterable[str]:
    for content in contents:
        if content is None:
            continue
        if isinstance(content, Html):
            yield content
        elif isinstance(content, str):
            yield text_of(content)
        else:
            yield from _parts(content)


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{text_of(shown)}"'
