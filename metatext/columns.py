"""What stands in which column of a table: kinds, texts and labels, and what is wrong with them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .catalogue import PAIR_COLUMNS, SCORE_COLUMNS, TARGET_COLUMNS, TEXT_COLUMNS, Known
from .rows import DataError, encode_labels, readable
from .settings import nearest

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

KIND_NAMES = ("classification", "multilabel", "regression", "span", "generation")

ROLES: dict[str, tuple[str, ...]] = {"span": ("question", "context", "answers"), "generation": ("input", "target")}
"""What stands in the columns of a table, where it is not a text or two and a label; a role's usual column bears its name."""
USUAL = {"answers": ("answers", "answer")}
"""Further names of these columns."""
INPUTS: dict[str, tuple[str, ...]] = {"span": ("question", "context"), "generation": ("input",)}
"""Which of these a row shows when it is asked."""
FLAGS = (("text", "question", "input"), ("text_pair", "context"), ("label", "answers", "target"))
"""Roles that one setting of the commands names, by kind; it is called as the first of them."""
TEXTS = ("text", "text_pair", "question", "context", "input", "target")
"""The roles of columns that hold texts."""
JOINABLE = ("text", "text_pair", "question", "input")
"""Roles of which several columns may be named; answers are places in one context, and a target is written as one text."""
Columns = Mapping[str, str | Sequence[str] | None]
"""Role -> column, or the columns whose texts are joined, as a caller names them; None: there is none."""
NUMBER = re.compile(r"\s*[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)?\s*")
"""A text that is a number, or would be with a point for its comma."""


def kind_of(features: Mapping[str, Any], label: str | None = None) -> tuple[str | None, str | None]:
    """The kind of a table from its columns, and the column of its labels; None where nothing is recognised.

    Floats speak of scores, until the rows are seen: pandas makes floats of class numbers too where one is missing.

    Args:
        features: name -> `datasets` feature.
        label: the column of the labels, if it is known.
    """
    from datasets import Value

    names = {n.lower() for n in features}
    answered, labelled = names & {*USUAL["answers"]}, first_column(features, TARGET_COLUMNS)
    if label is None and {"context", "question"} <= names and (answered or not labelled):
        return "span", None
    if label is None and {"input", "target"} <= names and not names & {"label", "labels"}:
        return "generation", None
    column = label or first_column(features, TARGET_COLUMNS) or first_column(features, SCORE_COLUMNS)
    if column is None:
        return None, None
    feature = features[column]
    if not isinstance(feature, Value) and not hasattr(feature, "names"):
        return "multilabel", column
    scores = label is None and column.lower() in SCORE_COLUMNS
    return ("regression" if scores or getattr(feature, "dtype", "").startswith("float") else "classification"), column


def find_columns(
    rows: Dataset, given: Mapping[str, str], name: str, kind: str | None = None, gaps: bool = False
) -> dict[str, str]:
    """Where text, text_pair, label and label_name stand, and the kind: ``kind``, else what the columns speak of; with ``gaps`` a class that
    is missing is no error yet.

    Raises:
        DataError: a column is missing or unknown, or a class and a score could both be the label.
    """
    present = rows.column_names
    check_columns(present, given, name)
    found = {k: v for k, v in given.items() if v is not None}
    if kind is None:
        kind, column = kind_of(rows.features, found.get("label"))
        score = first_column(present, SCORE_COLUMNS)
        if "label" not in found and score and column not in (None, score) and column.lower() not in ("label", "labels"):
            raise DataError(
                f"task {name!r}: {column!r} and {score!r} could both be the label; name it: columns={{'label': {column!r}}}"
            )
        if kind == "multilabel" and not _lists(rows, column):
            kind = "regression" if "label" not in found and column == score else "classification"
        elif kind == "regression" and column.lower() not in SCORE_COLUMNS:
            kind = _floats(rows, column, name, gaps)
        elif kind == "regression" and _words(rows, column):
            kind = "classification"
        if column:
            found["label"] = column
    if kind in ROLES:
        return {**role_columns(present, found, name, ROLES[kind]), "kind": kind}
    found |= text_columns(present, given, name)
    if "label" not in found:
        orders = {"regression": (*SCORE_COLUMNS, *TARGET_COLUMNS), "classification": (*TARGET_COLUMNS, *SCORE_COLUMNS)}
        order = orders.get(kind, TARGET_COLUMNS)
        found["label"] = _pick(present, order, "label", name)
    if "label_name" not in given and found["label"] == "label" and kind in (None, "classification"):
        extra = next((c for c in ("label_name", "label_text") if c in present), None)
        if extra:
            found["label_name"] = extra
    return {**found, "kind": kind or "classification"}


def _lists(rows: Dataset, column: str) -> bool:
    """Whether the first value of a column is a list: json may have texts among numbers, and a column of both has the type of neither."""
    return isinstance(next((value for value in rows.with_format(None)[column] if value is not None), []), list)


def _words(rows: Dataset, column: str) -> bool:
    """Whether a column holds texts none of which is a number: ratings may be "good" and "bad"."""
    if not is_text(rows, column):
        return False
    texts = {value for value in rows.with_format(None)[column] if value is not None}
    return bool(texts) and not any(map(NUMBER.fullmatch, texts))


def _floats(rows: Dataset, column: str, name: str, gaps: bool) -> str:
    """The kind of a column of floats: scores where any has a fraction, else numbers of classes, none of which may be missing but with
    ``gaps``."""
    import pyarrow.compute as pc

    values = rows.with_format("arrow")[:].column(column)
    missing = pc.index(pc.is_null(values, nan_is_null=True), True).as_py()
    there = values.filter(pc.invert(pc.is_null(values, nan_is_null=True)))
    if len(there) and not pc.all(pc.equal(pc.floor(there), there)).as_py():
        return "regression"
    if missing >= 0 and len(there) and not gaps:
        raise DataError(
            f"task {name!r}, column {column!r}: row {missing} has no label; drop the row or label it", row=int(missing)
        )
    return "classification"


def is_text(rows: Dataset, column: str) -> bool:
    """Whether a column holds texts."""
    return getattr(rows.features[column], "dtype", "") in ("string", "large_string")


def read_from(columns: Columns) -> str:
    """What is read from which column, in words."""
    listed = {role: (column,) if isinstance(column, str) else column for role, column in columns.items()}
    return ", ".join(f"{role} from {' and '.join(map(repr, names))}" for role, names in sorted(listed.items(), reverse=True))


def check_columns(present: Sequence[str], given: Columns, name: str) -> None:
    """Raises `DataError` where ``given`` has an unknown role, a column that is not there, or a list of columns that is none of a text."""
    roles = ("text", "text_pair", "label", "label_name", *(role for own in ROLES.values() for role in own))
    for role, column in given.items():
        if role not in roles:
            raise DataError(
                f"task {name!r}: columns has the unknown key {role!r}{nearest(role, roles, end='.')} Known keys: {', '.join(roles)}"
            )
        listed = column if isinstance(column, list) else [column]
        if not listed or (len(listed) > 1 and role not in JOINABLE):
            got = f"only the columns of {', '.join(JOINABLE)} are joined" if listed else "the list is empty"
            raise DataError(f"task {name!r}: columns: expected one column for the {role}, got {column}; {got}")
        for one in listed:
            if (column is listed or one is not None) and one not in present:
                raise DataError(
                    f"task {name!r}: column {one!r} (for the {role}) is not there{nearest(one, present, end='.')} Columns present: {', '.join(present)}"
                )
            if listed.count(one) > 1:
                raise DataError(f"task {name!r}: column {one!r} is named twice for the {role}")


def with_defaults(present: Sequence[str], given: Columns, defaults: Columns, name: str) -> Columns:
    """What a caller names, and for other roles the columns of a classifier's examples, where the table has all of these, be it with other
    capitals or blanks; where it does not, no other is named, which is said.

    Raises:
        DataError: of several columns whose texts are joined some are there, some are not.
    """
    wanted = {role: (named,) if isinstance(named, str) else tuple(named) for role, named in defaults.items() if role not in given}
    wanted = {role: tuple(_alike(column, present) for column in named) for role, named in wanted.items()}
    gone = {role: [column for column in named if column not in present] for role, named in wanted.items()}
    if not any(gone.values()):
        return {**{role: named if len(named) > 1 else named[0] for role, named in wanted.items()}, **given}
    for role, named in wanted.items():
        if 0 < len(gone[role]) < len(named):
            raise DataError(
                f"task {name!r}: the {role} of the examples stood in {' and '.join(map(repr, named))}; {gone[role][0]!r} is not there"
                f"{nearest(gone[role][0], present, end='.')} Columns present: {', '.join(present)}; or name others: {_naming(role)}"
            )
    missing = " and ".join(repr(column) for columns in gone.values() for column in columns)
    logger.warning("%s: no %s, as the examples had; columns are found by their usual names", name, missing)
    return given


def _alike(column: str, present: Sequence[str]) -> str:
    """The column of a table, or the one that differs from it by capitals and blanks alone; itself where there is none or there are several."""
    folded = "".join(column.split()).casefold()
    alike = [other for other in present if "".join(other.split()).casefold() == folded]
    return alike[0] if column not in present and len(alike) == 1 else column


def text_columns(present: Sequence[str], given: Mapping[str, str | None], name: str) -> dict[str, str]:
    """Where text and text_pair stand; what ``given`` names is taken as it is."""
    found = {role: given[role] for role in ("text", "text_pair") if given.get(role)}
    if "text" in found:
        return found
    lower = _by_lower_case(present)
    pair = next((p for p in PAIR_COLUMNS if p[0] in lower and p[1] in lower), None)
    if pair and "text_pair" not in given:
        return {"text": lower[pair[0]], "text_pair": lower[pair[1]]}
    return {"text": _pick(present, TEXT_COLUMNS, "text", name), **found}


def role_columns(present: Sequence[str], given: Mapping[str, str | None], name: str, roles: Sequence[str]) -> dict[str, str]:
    """Where these roles stand, each in the column that ``given`` names, else in one of its own name."""
    return {role: given.get(role) or _pick(present, USUAL.get(role, (role,)), role, name) for role in roles}


def _by_lower_case(names) -> dict[str, str]:
    """Lower-case name -> column; of several the one in lower case, else the first."""
    return {n.lower(): n for n in reversed(list(names))} | {n: n for n in names if n == n.lower()}


def first_column(names, usual: Sequence[str]) -> str | None:
    """The first of the usual column names that is there."""
    lower = _by_lower_case(names)
    return next((lower[candidate] for candidate in usual if candidate in lower), None)


def _pick(names, usual: Sequence[str], role: str, task: str) -> str:
    column = first_column(names, usual)
    if column is not None:
        return column
    if len(names) == 1 and (mark := next((mark for mark in (";", "|", "\t") if mark in names[0]), None)):
        raise DataError(
            f"task {task!r}: one column, {names[0]!r}: its values are separated by {mark!r}; save the file with commas"
        )
    close = next((n for n in names if nearest(n.lower(), (role, *usual[:1]))), None)
    guess = f"; did you mean {close!r}?" if close else "."
    raise DataError(
        f"task {task!r}: no column for the {role} found{guess} Columns present: {', '.join(names)}. "
        f"Expected one of: {', '.join(usual)}; or name it: {_naming(role)}{_headless(names)}"
    )


def _headless(names: Sequence[str]) -> str:
    """What to do about a csv without a header, where a column's name may be the first row's text."""
    text = next((name for name in names if len(name.split()) > 3), None)
    return "" if text is None else f" If {text!r} is a text and no name: the first line of a csv has to name the columns."


def _naming(role: str) -> str:
    """How a caller names the column of a role."""
    flag = next((flag for flag, *others in FLAGS if role in (flag, *others)), None)
    shell = f" (--{flag}_column in the shell{'' if flag == role else '; adapt wants --kind too'})" if flag else ""
    return f"columns={{{role!r}: '<column>'}}{shell}."


def drop_unlabelled(rows: Dataset, columns: Mapping[str, str], known: Known) -> Dataset:
    """Known data sets mark rows without a label (-1); those rows go. Elsewhere a missing label is an error."""
    if not known.drop_unlabelled:
        return rows
    labels = np.asarray(rows.with_format("numpy")[columns["label"]][:])
    return rows.select(np.flatnonzero(labels >= 0))


def check_texts(rows: Dataset, columns: Mapping[str, str], name: str) -> None:
    import pyarrow.compute as pc

    if len(rows) == 0:
        raise DataError(f"task {name!r} has no rows")
    for column in (columns[role] for role in TEXTS if role in columns):
        values = rows.with_format("arrow")[:].column(column)
        if not is_text(rows, column):
            empty = pc.index(pc.is_null(values), True).as_py()
            missing = f" (row {empty} is empty)" if empty >= 0 else ""
            raise DataError(f"task {name!r}: column {column!r} holds {values.type}, expected texts{missing}")
        bad = pc.index(pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0), True), True).as_py()
        if bad >= 0:
            raise DataError(f"task {name!r}: row {bad} of column {column!r} is empty; drop the row or fill it in", row=int(bad))


def read_labels(rows: Dataset, columns: Mapping[str, str], name: str, given, known: Mapping[Any, str]):
    """(targets, labels, label texts) from ClassLabel features, strings, or numbers with or without names."""
    column = columns["label"]
    where = f"task {name!r}, column {column!r}"
    values = rows.with_format(None)[column][:]
    feature = rows.features[column]
    order: Sequence | None = None
    numbers: Sequence = ()
    if hasattr(feature, "names"):
        missing = next((i for i, v in enumerate(values) if v is None or v < 0), None)
        if missing is not None:
            raise DataError(
                f"{where}: row {missing} has no label ({values[missing]!r}); choose a labelled split or drop the row",
                row=int(missing),
            )
        order = feature.names
        values = [feature.names[v] for v in values]
    elif "label_name" in columns and not any(isinstance(v, str) for v in values):
        texts = rows.with_format(None)[columns["label_name"]][:]
        by_number: dict[Any, str] = {}
        for i, (number, text) in enumerate(zip(values, texts, strict=True)):
            if number is None or text is None:
                raise DataError(f"{where}: row {i} has no label ({number!r}, {text!r}); drop the row or label it", row=i)
            if by_number.setdefault(number, text) != text:
                raise DataError(f"{where}: the label {number} has two names, {by_number[number]!r} and (row {i}) {text!r}", row=i)
        numbers = sorted(by_number)
        order = [by_number[number] for number in numbers]
        for number in numbers:
            other = numbers[order.index(by_number[number])]
            if other != number:
                raise DataError(f"{where}: the name {by_number[number]!r} belongs to two labels, {other} and {number}")
        values = texts
    elif any(isinstance(v, float) for v in values):
        bad = next((i for i, v in enumerate(values) if v is None or (isinstance(v, float) and not v.is_integer())), None)
        if bad is not None:
            raise DataError(f"{where}: row {bad} has the label {values[bad]!r}; expected a whole number or text", row=int(bad))
        values = [int(v) if isinstance(v, float) else v for v in values]
    if isinstance(given, Mapping) and order is not None and not set(given) & set(order):
        by_place = dict(zip(numbers or range(len(order)), order))
        if set(given) <= set(by_place):  # {0: "negative"} for a set whose classes also have names
            given = {by_place[number]: text for number, text in given.items()}
    if given is None:
        labels = order if order is not None else values
        if known and all(isinstance(label, (str, int)) and label in known for label in labels):
            given = {label: known[label] for label in (order if order is not None else sorted(set(values), key=str))}
        elif order is not None:
            given = {label: readable(label) for label in order}
    elif order is not None and not isinstance(given, Mapping):
        if len(given) != len(order):
            raise DataError(
                f"task {name!r}: label_names has {len(given)} entries, the data has {len(order)} classes: {list(order)[:20]}"
            )
        given = dict(zip(order, given, strict=True))
    return encode_labels(values, given, where)
