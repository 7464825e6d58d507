"""Sums that do not depend on the order in which their parts came.

A sum is kept as the double that is nearest to it and what that rounding leaves out, itself as such
doubles, the greatest first (an expansion; J. R. Shewchuk, *Adaptive Precision Floating-Point Arithmetic
and Fast Robust Geometric Predicates*, 1997). Nothing is ever lost, so that every order gives the same
double, and one that never falls where nothing negative is added.
"""

from __future__ import annotations

from math import fsum, inf, isfinite

Rest = tuple[float, ...]
"""What the rounding of a sum left out; nothing of most sums of few parts."""


def exactly(total: float, rest: Rest, value: float) -> tuple[float, Rest]:
    """The sum ``total`` + ``rest`` + ``value``, rounded once, and the new rest.

    Beyond all numbers it is infinite, and of what is no number it is none; there is no rest then.
    """
    new = total + value
    if not isfinite(new):
        return new, ()
    if not rest:
        # Knuth's TwoSum: what one addition left out, exactly.
        part = new - total
        left = (total - (new - part)) + (value - part)
        return (new, (left,)) if left else (new, ())
    parts = [total, *rest, value]
    try:
        new = fsum(parts)
    except OverflowError:
        return inf, ()
    lefts = []
    parts.append(-new)
    while left := fsum(parts):
        lefts.append(left)
        parts.append(-left)
    return new, tuple(lefts)
