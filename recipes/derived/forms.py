"""Forms of further tasks: plain functions of a form's names, the tasks it is made of, how many rows of a class, and random numbers.

Each returns rows: (text, label), or (text, text, label) of pairs; `chosen` says which of them a corpus keeps.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import metatext as mt
from metatext.rows import DataError
from metatext.settings import nearest

Rows = list[tuple[str, ...]]
WINDOW = 220  # characters around an answer
FEWEST = 12  # rows of a class: one of fewer is left out


def texts(task: mt.Task) -> list[str]:
    """What a row reads: its text, the first one of a pair, the context of a question."""
    return [row if isinstance(row, str) else row["context"] if isinstance(row, dict) else row[0] for row in task.inputs()]


def labelled(task: mt.Task) -> Rows:
    """The texts of a classification with their labels."""
    return [(text, str(task.labels[i])) for text, i in zip(texts(task), task.targets, strict=True)]


def answered(tasks: Sequence[mt.Task]) -> list[dict]:
    """The rows of span tasks whose question has an answer."""
    return [row for task in tasks for row in task.inputs() if row["answers"]["text"]]


def classes(names: Mapping[str, Sequence], tasks: Sequence[mt.Task], most: int, rng: random.Random) -> Rows:
    """Classes put together: {new name: [label, label]}; rows of other labels are left out."""
    new = {str(label): name for name, labels in names.items() for label in labels}
    rows = [row for task in tasks for row in labelled(task)]
    known = {label for _, label in rows}
    for label in new:
        if label not in known:
            raise DataError(f"{tasks[0].name} has no label {label!r}{nearest(label, known)}")
    return [(text, new[label]) for text, label in rows if label in new]


def pairs(names: Sequence[str], tasks: Sequence[mt.Task], most: int, rng: random.Random) -> Rows:
    """Two texts of one class, named by the first name, or of different classes, by the second."""
    members: dict[str, list[str]] = defaultdict(list)
    for text, label in (row for task in tasks for row in labelled(task)):
        members[label].append(text)
    of = [own for own in members.values() if len(own) > 1]
    if len(of) < 2:
        raise DataError(f"{tasks[0].name}: expected two classes of two texts to make pairs of, got {len(of)}")
    same = [(*rng.sample(rng.choice(of), 2), names[0]) for _ in range(most)]
    return same + [(*map(rng.choice, rng.sample(of, 2)), names[1]) for _ in range(most)]


def answers(names: Sequence[str], tasks: Sequence[mt.Task], most: int, rng: random.Random) -> Rows:
    """A question, and the text around its answer, named by the first name, or around another one's in another context, by the second."""
    rows = answered(tasks)
    rng.shuffle(rows)
    found = []
    for i, row in enumerate(rows[: 2 * most]):
        shown = row if i % 2 == 0 else rng.choice(rows)
        start = max(0, min(shown["answers"]["answer_start"][0] - WINDOW // 2, len(shown["context"]) - WINDOW))
        if i % 2 == 0 or shown["context"] != row["context"]:
            found.append((row["question"], shown["context"][start : start + WINDOW], names[i % 2]))
    return found


def asked(names: bool, tasks: Sequence[mt.Task], most: int, rng: random.Random) -> Rows:
    """Texts that answer one question alone, named by it: what a sentence tells. Those of one or two words say too little."""
    of = defaultdict(set)
    for row in answered(tasks):
        of[row["context"]].add(row["question"])
    return [(text, *questions) for text, questions in of.items() if len(questions) == 1 and len(text.split()) > 2]


def sides(names: Sequence[str], tasks: Sequence[mt.Task], most: int, rng: random.Random) -> Rows:
    """What is rewritten, named by the first name, and what it becomes, by the second."""
    return [
        (text, name) for task in tasks for name, side in zip(names, (task.inputs(), task.targets), strict=True) for text in side
    ]


def sources(names: Mapping[str, Sequence[str]], tasks: Sequence[mt.Task], most: int, rng: random.Random) -> Rows:
    """Where a text is from: {name: [corpus, corpus]}."""
    own = [name for name, corpora in names.items() for _ in corpora]
    return [(text, name) for name, task in zip(own, tasks, strict=True) for text in texts(task)]


def written(names: Mapping[str, Sequence], tasks: Sequence[mt.Task], most: int, rng: random.Random) -> Rows:
    """Texts, or pairs of texts, that stand in the entry itself: {label: [text, text]}.

    Raises:
        DataError: one is no text and no pair of texts, or texts and pairs are mixed.
    """
    rows: list[tuple[tuple, str]] = []
    for label, texts in names.items():
        if not isinstance(texts, list):
            raise DataError(f"{label}: expected a list of texts, got {texts!r}")
        rows += [(tuple(text) if isinstance(text, list) else (text,), str(label)) for text in texts]
    for texts, label in rows:
        if len(texts) not in (1, 2) or not all(isinstance(text, str) and text.strip() for text in texts):
            said = texts[0] if len(texts) == 1 else texts
            raise DataError(f"{label}: {said!r} is no text and no pair of texts; write it in quotes")
        if len(texts) != len(rows[0][0]):
            raise DataError(
                f"{label}: {texts!r}: expected {'a pair' if len(rows[0][0]) == 2 else 'one text'} as in the rows before"
            )
    return [(*texts, label) for texts, label in rows]


def chosen(rows: Rows, most: int, rng: random.Random, fewest: int = FEWEST) -> Rows:
    """Rows in a random order: those whose texts have one label, no more than ``most`` of a class, and none of one with less than ``fewest``."""
    labels = Counter(row[:-1] for row in dict.fromkeys(rows))
    rows = [row for row in dict.fromkeys(rows) if labels[row[:-1]] == 1]
    rng.shuffle(rows)
    seen, kept = Counter(), []
    for row in rows:
        seen[row[-1]] += 1
        kept += [row] if seen[row[-1]] <= most else []
    return [row for row in kept if seen[row[-1]] >= fewest]


FORMS = {form.__name__: form for form in (classes, pairs, answers, asked, sides, sources, written)}
