"""Make further tasks of corpora that are there, or of texts in a file: classes put together, pairs of one class, questions beside answers.

What:   a corpus for `meta_train.py` of each entry of YAML files: a text, or two, and its label per line. An entry has `of`, a corpus or
        several; at will `label`, the column of their labels, and `most`, rows of a class (2000); and one of
          classes  {name: [label, label]}: classes put together
          pairs    [name, name]: two texts of one class, or of different classes
          answers  [name, name]: a question and the text around its answer, or around another one's
          asked    true: texts that answer one question alone, by this question
          sides    [name, name]: the inputs of written answers, and the answers
          sources  {name: [corpus, corpus]}: where a text is from; without `of`
          written  {label: [text, text]}: the texts, or pairs [text, text], stand there themselves; without `of`
Needs:  the corpora that the files name.
Launch: python recipes/more_tasks.py recipes/more_tasks.yaml --tasks_dir path/to/corpora --output_dir path/to/corpora
        python recipes/more_tasks.py recipes/written/*.yaml --output_dir path/to/corpora  # tasks that were written for this project
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from derived.forms import FEWEST, FORMS, Rows, chosen

import metatext as mt
from metatext.rows import DataError
from metatext.settings import MetatextError, check_is, nearest
from metatext.storage import write_text
from metatext.yaml_files import read_yaml

MOST = 2000  # rows of a class where an entry does not say how many
OF_KIND = {
    "classes": "classification",
    "pairs": "classification",
    "answers": "span",
    "asked": "span",
    "sides": "generation",
    "sources": None,
    "written": None,
}
KEYS = ("of", "label", "most", *FORMS)


def form_of(name: str, entry: object) -> str:
    """Which form an entry has.

    Raises:
        DataError: it is no entry.
    """
    check_is(entry, Mapping, name, "write of: and a form below it", DataError)
    for key in entry:
        if key not in KEYS:
            raise DataError(f"{name}: unknown key {key!r}{nearest(key, KEYS, end='.')} Known keys: {', '.join(KEYS)}")
    found = [form for form in FORMS if form in entry]
    if len(found) != 1:
        raise DataError(f"{name}: expected one of {', '.join(FORMS)}, got {' and '.join(found) or 'none'}")
    (form,), names = found, entry[found[0]]
    expected = {"classes": Mapping, "sources": Mapping, "written": Mapping, "asked": bool}.get(form, list)
    check_is(names, expected, f"{name}: {form}", "--help shows what it is", DataError)
    if expected is list and len(names) != 2:
        raise DataError(f"{name}: {form}: expected two names, got {len(names)}")
    for key in {"sources": ("of",), "written": ("of", "label")}.get(form, ()):
        if key in entry:
            raise DataError(f"{name}: {form} says itself what it is made of; leave {key}: out")
    check_is(entry.get("most", MOST), int, f"{name}: most", "write how many rows of a class", DataError)
    return form


def make(name: str, entry: Mapping, tasks_dir: Path) -> Rows:
    """The rows of one entry, in an order that its name decides.

    Raises:
        MetatextError: no such corpus can be made.
    """
    form = form_of(name, entry)
    of = [corpus for own in entry[form].values() for corpus in own] if form == "sources" else entry.get("of", [])
    columns = {"label": entry["label"]} if "label" in entry else None
    tasks = [mt.load_task(tasks_dir / corpus, split=None, columns=columns) for corpus in ([of] if isinstance(of, str) else of)]
    if not tasks and form != "written":
        raise DataError(f"{name}: of names no corpus")
    kind = OF_KIND[form]
    for task in tasks:
        if kind not in (None, task.kind):
            raise DataError(f"{name}: {form} are made of corpora of kind {kind}, {task.name} is one of kind {task.kind}")
    most, rng = entry.get("most", MOST), random.Random(name)
    fewest = 1 if form == "written" else FEWEST  # those that stand there are taken as they are
    try:
        rows = chosen(FORMS[form](entry[form], tasks, most, rng), most, rng, fewest)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if not rows:
        small = f"; {', '.join(task.name for task in tasks)} are too small for it" if tasks else ""
        raise DataError(f"{name}: no class has {fewest} rows{small}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="YAML files: {name of a corpus: {of: corpus, form: names}}")
    parser.add_argument("--tasks_dir", default=".", type=Path, help="the folder of the corpora that it names")
    parser.add_argument("--output_dir", required=True, type=Path, help="a folder for each new corpus is made in it")
    options = parser.parse_args()
    try:
        made = {}
        for file in options.files:
            entries = read_yaml(file, DataError)
            check_is(entries, Mapping, file, "write the name of a corpus and below it of: and a form", DataError)
            if twice := made.keys() & entries.keys():
                raise DataError(f"{file}: {', '.join(sorted(twice))} stands in a file before it too; give one another name")
            made |= {name: make(name, entry, options.tasks_dir) for name, entry in entries.items()}
    except (MetatextError, OSError) as error:
        parser.error(str(error))
    for name, rows in made.items():
        keys = ("text", "label") if len(rows[0]) == 2 else ("text", "text_pair", "label")
        lines = [json.dumps(dict(zip(keys, row, strict=True)), ensure_ascii=False) for row in rows]
        (options.output_dir / name).mkdir(parents=True, exist_ok=True)
        write_text(options.output_dir / name / "train.jsonl", "".join(f"{line}\n" for line in lines))
        counts = Counter(row[-1] for row in rows).most_common()
        print(f"{name}: {len(rows)} rows, {', '.join(f'{label} ({n})' for label, n in counts)}")


if __name__ == "__main__":
    main()
