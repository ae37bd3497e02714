"""Values between commas or tabs: what parts them, which rows cannot be parted rightly, and which columns hold numbers."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .catalogue import SCORE_COLUMNS
from .rows import DataError
from .settings import check_is

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv")
MARKS = {",": "a comma", ";": "a semicolon", "|": "a bar", "\t": "a tab"}
"""What may stand between the values of a row, and how messages call it."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
"""How a file may begin, and the encoding that it has then, whatever is said of it; the first that fits, for the marks of UTF-32 go on where
those of UTF-16 end."""
NUMBERS = {
    "int64": r"^\s*[+-]?[0-9]+\s*$",
    "float64": r"^\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|(?i:inf|infinity))\s*$",
    "bool": "^(True|TRUE|true|False|FALSE|false)$",
}
"""What a column is read as when all of its cells look so; the same as pandas takes for numbers."""


@dataclass(frozen=True)
class Opening:
    """How a csv begins.

    Attributes:
        path: of the file.
        encoding: of its texts.
        mark: what parts the values of a row.
        line: the text of the header.
        header, first: the values of the header and of the row below it; [] where there is none.
    """

    path: Path
    encoding: str
    mark: str
    line: str
    header: list[str]
    first: list[str]


def read_opening(path: Path, encoding: str) -> Opening:
    """The beginning of a csv. Its values are parted by a tab in a tsv; else by what parts the header: a comma, or where that leaves one
    column, what a spreadsheet may write instead of it.

    Raises:
        DataError: the first line is none of the table.
    """
    with _open(path, encoding) as file:
        for mark in "\t" if path.suffix.lower() == ".tsv" else (*MARKS, ","):
            file.seek(0)
            rows = _rows(file, mark)
            header, lines, _ = next(rows, ([], [], 0))
            if header == ["sep=", ""]:
                raise DataError(f"{path}: its first line, sep={mark}, is for Excel alone; delete it")
            if len(header) > 1:
                break
        return Opening(path, file.encoding, mark, "".join(lines), header, next(rows, ([], [], 0))[0])


def csv_options(opening: Opening) -> dict[str, Any]:
    """With what options `datasets` reads every cell of a csv as the text that stands there, an empty one as missing: that a column holds
    numbers shows at its end only, and 007 or 1.50 is more than a number.

    Raises:
        DataError: rows that would be parted wrongly without a word.
    """
    import pandas as pd
    from datasets import Features, Value

    width = _width(opening)
    if len(opening.first) > width:  # pandas would drop the first ones
        check_widths(opening, width)
    options = {"sep": opening.mark, "header": 0, "keep_default_na": False, "na_values": [""]}  # "NA" may be a text or a label
    names = [
        str(name) for name in pd.read_csv(io.StringIO(opening.line), nrows=0, **options).columns
    ]  # it renames what comes twice
    if width > len(opening.header):
        names = ["Unnamed: 0", *names]  # as pandas calls a column without a name
    features = Features({name: Value("string") for name in names})
    return {**options, "names": names, "features": features, "encoding": opening.encoding}


@contextlib.contextmanager
def _open(path: Path, encoding: str) -> Iterator[TextIO]:
    """A csv as text; its values may be of any length."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with open(path, "rb") as raw, io.TextIOWrapper(raw, _encoding(raw, encoding), newline="") as file:
            yield file
    finally:
        csv.field_size_limit(limit)


def _encoding(raw: io.BufferedReader, said: str) -> str:
    """What a file is written in: what its byte order mark says, else what is said of it."""
    start = raw.peek(4)
    return next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), said)


def _rows(file: TextIO, mark: str) -> Iterator[tuple[list[str], list[str], int]]:
    """The rows of a csv: values, the lines that they stand in, and the number of the last of these."""
    lines: list[str] = []
    reader = csv.reader((lines.append(line) or line for line in file), delimiter=mark)
    for values in reader:
        if values:
            yield values, [*lines], reader.line_num
        lines.clear()


def _width(opening: Opening) -> int:
    """How many values a row may have: as many as the header, or one more where each row begins with its number, for which the header has no
    column, as R and pandas may write it."""
    width = len(opening.header)
    if len(opening.first) == width + 1:
        with _open(opening.path, opening.encoding) as file:
            rows = itertools.islice(_rows(file, opening.mark), 1, None)
            if all(values[0] in (str(i), str(i + 1)) for i, (values, *_) in enumerate(rows)):
                return width + 1
    return width


def check_widths(opening: Opening, width: int) -> None:
    """Raises `DataError` where a row has more than ``width`` values."""
    with _open(opening.path, opening.encoding) as file:
        for i, (values, lines, last) in enumerate(itertools.islice(_rows(file, opening.mark), 1, None)):
            if len(values) > width:
                raise DataError(
                    f"{opening.path}: row {i} (line {last - len(lines) + 1} of the file) has {len(values)} values, the header {len(opening.header)} "
                    f"columns ({', '.join(opening.header)}); put a text that holds {MARKS[opening.mark]} in quotation marks, and take away one "
                    f"that ends a row",
                    row=i,
                )


def check_encoding(encoding: Any) -> None:
    """Raises `DataError` where this is no name of an encoding of texts."""
    check_is(encoding, str, "encoding", "write encoding='cp1252'", DataError)
    try:
        " ".encode(encoding)
    except (LookupError, ValueError):
        raise DataError(
            f"encoding: expected the name of an encoding of texts, such as utf-8, utf-16, cp1252 or latin-1, got {encoding!r}"
        ) from None


def warn_of_utf8(path: Path, encoding: str) -> None:
    """Say that a file is likely UTF-8 and not of this encoding: other texts beyond ASCII are hardly ever UTF-8 by chance. Its first MB is
    looked at."""
    with open(path, "rb") as raw:
        own, start = _encoding(raw, encoding), raw.read(2**20)
    if own != encoding or codecs.lookup(own).name == "utf-8" or start.isascii():
        return
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
        if word := re.search(r"\w*[^\W\x00-\x7f]\w*|[^\x00-\x7f]", text):
            logger.warning(
                "%s: read as %s, but what it holds is UTF-8: %r is read as %r; leave the encoding out for this file",
                path,
                encoding,
                word[0][:20],
                word[0][:20].encode().decode(encoding, "replace"),
            )


def check_bytes(path: Path, encoding: str) -> None:
    """Raises `DataError` where the bytes of a file are no text of this encoding."""
    with open(path, "rb") as raw:
        own = _encoding(raw, encoding)
        decoder = codecs.getincrementaldecoder(own)()
        for number, line in enumerate(raw, 1):
            try:
                decoder.decode(line, final=not raw.peek(1))
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(own, "replace")[-20:]
                other = ", or say what it is written in, as in encoding='cp1252' or encoding='latin-1' (--encoding in the shell)"
                other = other if path.suffix.lower() in SUFFIXES else ""
                raise DataError(
                    f"{path}: line {number}: byte {error.start + 1} (0x{error.object[error.start]:02X}, behind {before!r}) is no "
                    f"{own.removesuffix('-sig').upper()}; save the file as UTF-8{other}"
                ) from None


def check_quotes(opening: Opening, n: int | None = None) -> None:
    """Raises `DataError` where a text that runs over several lines goes on behind the quotation mark that ends it, or never ends: it began
    with one that was meant as it is, and all rows in between have become one. ``n``: how many rows are looked at; None: all."""
    value = re.compile(
        rf'(?:"([^"]*(?:""[^"]*)*)("?) *)?([^{opening.mark}\r\n]*)(?:[{opening.mark}\r\n]|$)'
    )  # quoted, its end, what is behind it
    with _open(opening.path, opening.encoding) as file:
        for _, lines, last in itertools.islice(_rows(file, opening.mark), None if n is None else n + 1):  # the header is one
            row = "".join(lines) if len(lines) > 1 else ""
            for found in value.finditer(row):
                quoted, closed, behind = found.groups()
                if quoted and (height := _breaks(quoted)) and (behind or not closed):
                    first = last - len(lines) + 1 + _breaks(row[: found.start()])
                    said = f"line {first}: a text has no quotation mark that ends it"
                    if closed:
                        said = f"line {first + height}: a text goes on behind the quotation mark that ends it, which began in line {first}"
                    raise DataError(
                        f"{opening.path}: {said}; put texts that hold such marks in marks and double those inside, or save as jsonl"
                    )


def why_unread(path: Path, encoding: str) -> DataError | None:
    """What is wrong with a csv that could not be read, where a look at its bytes and rows tells."""
    try:
        check_bytes(path, encoding)
        opening = read_opening(path, encoding)
        check_quotes(opening)
        check_widths(opening, _width(opening))
    except DataError as error:
        return error
    except (OSError, ValueError, csv.Error):  # it is said already
        pass
    return None


def has_long_rows(path: Path, n: int) -> bool:
    """Whether any of the n rows of a file may run over several lines; a look at all of its values would take as long as reading it."""
    with open(path, "rb") as file:
        return sum(1 for line in file if line.strip()) != n + 1


def _breaks(text: str) -> int:
    """How many lines end in a text."""
    return len(re.findall("\r\n|\r|\n", text))


def with_numbers(parts: Sequence[Dataset], texts: Sequence[str] = ()) -> list[Dataset]:
    """Files of one table, of which every cell is a text, with numbers in the columns that hold nothing else and are none of ``texts``.

    One file speaks for the others: names with leading zeros in it stay texts in all, fractions make floats of whole numbers, and a column
    that is empty in one is of the type that it has elsewhere.
    """
    names = {*texts, *(name for part in parts for name in _zero_columns(part))}
    # a table of one column, which no task has, would be without rows in between
    cells = [_texts(part) if len(part.column_names) > 1 else {} for part in parts]
    read = [{name: values if name in names else _numbers(values) for name, values in part.items()} for part in cells]
    for name in {name: None for part in read for name in part}:
        kinds = {str(part[name].type) for part in read if name in part and part[name].null_count < len(part[name])}
        kind = "double" if kinds == {"int64", "double"} else kinds.pop() if len(kinds) == 1 else None
        for part in read:
            if kind and name in part:
                part[name] = part[name].cast(kind)
    return [_with_columns(part, columns) for part, columns in zip(parts, read, strict=True)]


def _with_columns(rows: Dataset, columns: Mapping[str, Any]) -> Dataset:
    """A table of texts with these columns where they are none."""
    order = rows.column_names
    for name, values in columns.items():
        if str(values.type) != "string":
            rows = rows.remove_columns(name).add_column(name, values)
    return rows.select_columns(order)


def _zero_columns(rows: Dataset) -> set[str]:
    """The columns that hold numbers with leading zeros, which are names: 007 is not 7. Not those of scores."""
    import pyarrow.compute as pc

    return {
        name
        for name, values in _texts(rows).items()
        if name.lower() not in SCORE_COLUMNS and pc.any(pc.match_substring_regex(values, "^0[0-9]+$")).as_py()
    }


def _texts(rows: Dataset) -> dict[str, Any]:
    """The columns of texts as arrow has them."""
    import pyarrow as pa

    table = rows.with_format("arrow")[:]
    return {field.name: table.column(field.name) for field in table.schema if pa.types.is_string(field.type)}


def _numbers(values: Any) -> Any:
    """Texts as whole numbers, else numbers, else truth values; themselves where they are none of these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    there = values.drop_null()
    for kind, pattern in NUMBERS.items():
        if len(there) and pc.all(pc.match_substring_regex(there, pattern)).as_py():
            try:
                return pc.cast(pc.utf8_ltrim(pc.utf8_trim_whitespace(values), "+"), kind)
            except pa.ArrowInvalid:  # more digits than a number has: a name
                return values
    return values
