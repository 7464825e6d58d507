"""Reads a page strictly: what a browser would quietly mend is an error here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

VOID: Final = frozenset({"br", "hr", "meta", "link", "img", "input"})


@dataclass
class Node:
    """An element with its attributes, its children and the text directly and further within."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    inside: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text within, white space as it stands."""
        return "".join(part if isinstance(part, str) else part.text for part in self.inside)

    @property
    def children(self) -> list[Node]:
        """Elements directly within."""
        return [part for part in self.inside if isinstance(part, Node)]

    def all(self, tag: str | None = None, **attributes: str) -> Iterator[Node]:
        """Elements within, at any depth; ``_`` stands for ``-``, ``class_`` for one class of several."""
        for child in self.children:
            if (tag is None or child.tag == tag) and all(
                _has(child, name, value) for name, value in attributes.items()
            ):
                yield child
            yield from child.all(tag, **attributes)

    def one(self, tag: str | None = None, **attributes: str) -> Node:
        """The only such element."""
        (found,) = self.all(tag, **attributes)
        return found


def _has(node: Node, name: str, value: str) -> bool:
    if name == "class_":
        return value in node.attributes.get("class", "").split()
    return node.attributes.get(name.replace("_", "-")) == value


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute stands twice: {attrs}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self._open[-1].inside.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert any(node.tag == "svg" for node in self._open), f"<{tag}/> outside SVG"
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> where <{self._open[-1].tag}> is open"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].inside.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")

    def close(self) -> None:
        super().close()
        assert self._open == [self.root], [node.tag for node in self._open]


def read_html(text: str) -> Node:
    """The page's root element."""
    assert text.startswith("<!doctype html>\n")
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.root.one("html")
