"""How people write label names: the same words in other ways, and names that say nothing.

Two tables of plain functions. An episode picks one entry by its number, so all its names are written alike; the features
of every name in every way of writing are computed once, see `metatext.features.encode_tasks`.
"""

from __future__ import annotations

from collections.abc import Callable


def pascal(name: str) -> str:
    """``refund not showing up`` -> ``RefundNotShowingUp``; capitals inside a word stay."""
    return "".join(word[:1].upper() + word[1:] for word in name.split())


def letters(number: int) -> str:
    """0, 1, ... -> a, b, ..., z, aa, ab, ..., as the columns of a spreadsheet."""
    text = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        text = chr(ord("a") + letter) + text
    return text


STYLES: tuple[Callable[[str], str], ...] = (
    str,  # as it is
    lambda name: "_".join(name.split()),
    lambda name: "_".join(name.upper().split()),
    lambda name: "-".join(name.lower().split()),
    lambda name: ".".join(name.lower().split()),
    pascal,
    str.upper,
    lambda name: f"about: {name}",
    lambda name: f"category: {name}",
    lambda name: f"This text is about {name}.",
)
"""name -> the same name written in another way; the first leaves it as it is."""

MEANINGLESS: tuple[Callable[[int], str], ...] = (
    str,
    lambda number: f"class {number}",
    lambda number: f"LABEL_{number}",
    lambda number: f"C{number:02d}",
    lambda number: f"group {number + 1}",
    lambda number: f"label_{letters(number)}",
    lambda number: f"class {letters(number).upper()}",
    lambda number: letters(number).upper(),
)
"""0, 1, ... -> a name that says nothing of the class that bears it, each number another one."""
