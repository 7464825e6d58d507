"""Bars, sparklines, clocks, and text that strangers sent."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fedserver.terminal.signs import (
    BLOCKS,
    UNKNOWN,
    bar,
    clock,
    fitted,
    inert,
    padded,
    sparkline,
    visible,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0:00"),
        (7.9, "0:07"),
        (754, "12:34"),
        (3723, "1:02:03"),
        (2 * 86400 + 3 * 3600 + 240, "2 d 03:04"),
    ],
)
def test_a_clock_shows_whole_seconds(seconds: float, text: str) -> None:
    """Rounded down; nothing is negative."""
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "────"), (0, "────"), (0.5, "━━──"), (0.625, "━━╸─"), (1, "━━━━"), (7, "━━━━")],
)
def test_a_bar_is_as_long_as_its_share(share: float | None, text: str) -> None:
    """In half cells; unknown is none of it, and more than all is all."""
    assert bar(share, 4, "green").plain == text


def test_a_sparkline_tells_zero_from_unknown() -> None:
    """Zero is the lowest block, unknown is a dot: never one for the other."""
    assert sparkline([0.0, None, 1.0, 4.0, 8.0], 10, from_zero=True) == "▁·▂▅█"


def test_a_sparkline_shows_the_last_values() -> None:
    """As many as there is room for; from the least of them where they are no amounts."""
    assert sparkline([9.0, 0.8, 0.86, 0.9], 3, from_zero=False) == "▁▅█"
    assert sparkline([], 3, from_zero=True) == ""
    assert sparkline([1.0], 0, from_zero=True) == ""
    assert sparkline([None, None], 3, from_zero=True) == "··"


@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=20),
    st.integers(0, 20),
    st.booleans(),
)
def test_a_sparkline_has_a_sign_for_each_value(
    values: list[float | None], cells: int, from_zero: bool
) -> None:
    """Whatever the values: one cell each, and a dot exactly where nothing is known."""
    shown = sparkline(values, cells, from_zero=from_zero)
    last = values[-cells:] if cells else []
    assert [sign == UNKNOWN for sign in shown] == [value is None for value in last]
    assert set(shown) <= {*BLOCKS, UNKNOWN}


HOSTILE = {
    "colours": "\x1b[31mred\x1b[0m",
    "C1 control": "\x9b2J",
    "bell and backspace": "a\x07\x08b",
    "title": "\x1b]0;owned\x07",
    "right to left override": "abc\u202edef",
    "isolates": "\u2066a\u2069",
    "zero width": "a\u200bb\ufeff",
    "joined emoji": "👩\u200d💻",
    "paragraph separator": "a\u2029b",
    "tag characters": "a\U000e0041",
    "lone surrogate": "a\udc80",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_terminal_would_obey_is_only_shown(name: str) -> None:
    """Controls, formats and the like become a replacement sign, one each; nothing is swallowed."""
    shown = inert(HOSTILE[name])
    assert "\ufffd" in shown or name in ("paragraph separator",)
    assert all(unicodedata.category(sign)[0] != "C" for sign in shown)


def test_letters_of_any_script_stay() -> None:
    """Names are names; markup of ours is no markup of theirs."""
    for name in ("Krankenhaus Köln", "מרכז רפואי", "東京病院", "[bold red]x[/]", "a/b #2"):
        assert inert(name) == name


def test_marks_do_not_pile_up() -> None:
    """Two on a letter are some people's name, fifty are a joke."""
    assert inert("Z" + "\u0300" * 50) == "Z" + "\u0300" * 2
    assert inert("e\u0301") == "\u00e9"


def test_lines_of_the_log_keep_their_line_breaks() -> None:
    """A traceback stays one; what else would move the cursor does not."""
    assert visible("Traceback:\n\tx\x1b[2J\r") == "Traceback:\n    x\ufffd[2J\ufffd"
    assert inert("two\nlines\tand more") == "two lines and more"


@given(st.text(max_size=30), st.integers(0, 12))
def test_fitted_text_is_never_wider(text: str, cells: int) -> None:
    """Wide signs, too: cut to what there is room for, or filled up to it."""
    text = inert(text)
    assert cell_len(fitted(text, cells)) <= cells
    assert cell_len(padded(text, cells)) == cells
    assert fitted(text, 1000) == text


def test_what_is_cut_ends_in_an_ellipsis() -> None:
    """So that nobody takes it for all of it."""
    assert fitted("hospital", 5) == "hosp…"
    assert fitted("東京病院", 4) == "東…"
    assert fitted("hospital", 8) == "hospital"
    assert fitted("x", 0) == ""
