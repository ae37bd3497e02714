"""How people name labels: the same words in other ways, names that say nothing, and other names that say the same.

Two tables of plain functions, and the sets of other names that a task is given. An episode picks one entry by its number, so all its names
are of one sort; the features of every name in every way of writing are computed once, see `metatext.features.encode_tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .rows import DataError, as_list
from .settings import check_is, nearest


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


def other_sets(
    called: str, labels: Sequence, own: Sequence[str | None], others: Mapping[Any, Sequence[str]]
) -> tuple[tuple[str | None, ...], ...]:
    """Sets of other names for all labels of a task, see `Task.with_other_label_names`.

    Args:
        called: the task, in messages.
        labels, own: of the task, and the names that it has.
        others: {label: names}, of every label as many; a label that is missing keeps its own.

    Raises:
        DataError: it is no such dict, there is no such label, not all have as many names, or two labels bear the same name in a set.
    """
    hint = "where a YAML file has it, write it in quotes"
    check_is(others, Mapping, f"{called}: other label names", "write {label: [text, text]}", DataError)
    index = {str(label): i for i, label in enumerate(labels)} | {label: i for i, label in enumerate(labels)}
    given: dict[int, list[str]] = {}
    for label, names in others.items():
        i = index.get(label, index.get(str(label)))
        if i is None:
            near = nearest(str(label), map(str, labels))
            raise DataError(f"{called} has no label {label!r}{near}" + (f"; {hint}" if isinstance(label, bool) else ""))
        of_label = f"{called}: other names of {label!r}"
        if i in given:
            raise DataError(f"{of_label} stand there twice, as of a number and of a text; leave one out")
        given[i] = as_list(names, of_label, "texts", "write [text, text]")
        if not given[i]:
            raise DataError(f"{of_label}: expected a text at least, got none; leave the label out")
        for name in given[i]:
            if not isinstance(name, str) or not name.strip():
                raise DataError(f"{of_label}: expected texts, got {name!r}; {hint}")
    first = next(iter(given), None)
    for i, names in given.items():
        if len(names) != len(given[first]):
            raise DataError(
                f"{called}: {labels[first]!r} has {len(given[first])} other names and {labels[i]!r} {len(names)}; give every label as many, "
                f"for the first ones are shown together, the second ones, and so on"
            )
    n = len(given[first]) if given else 0
    sets = tuple(tuple(given[i][k] if i in given else name for i, name in enumerate(own)) for k in range(n))
    for names in sets:
        bearer: dict[str, int] = {}
        for i, name in enumerate(names):
            other = bearer.setdefault(name.casefold(), i) if name else i
            if other != i and {i, other} & {*given}:  # names of the task's own that are the same are no matter of these
                raise DataError(
                    f"{called}: {labels[other]!r} and {labels[i]!r} would both be called {name!r} in a set of other names; give every class a "
                    f"name of its own (a label that is missing keeps its own)"
                )
    return sets
