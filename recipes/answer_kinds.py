"""Make a classification of corpora of questions: what does a question ask for?

What:   "Who ...", "Where ...", "How many ..." say it themselves. Of "What city ..." the answer says it, where it also answers questions
        that do. Written is one corpus, `answer_kinds`, for `meta_train.py`: a text to classify and its label per line.
Needs:  corpora of kind span, whose answers are parts of their contexts.
Launch: python recipes/answer_kinds.py path/to/corpora/qamr path/to/corpora/friendsqa --output_dir path/to/corpora/answer_kinds
"""

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import metatext as mt
from metatext.settings import MetatextError
from metatext.storage import write_text

OPENINGS = {  # how a question begins -> what it asks for
    "who|whose|whom": "a person or a group",
    "where": "a place",
    "when": "a date or a time",
    "how (?:many|much)": "a number or an amount",
    "why": "a reason",
    "how (?:do|did|does|is|was|were|are|can|could|would|will|has|have|had)": "a manner",
}
THING = "a thing"  # what answers no such question, in a word or two without a digit
MOST, MOST_THINGS, FEWEST = 1200, 2500, 12  # questions that open so, of each label; of things; a label of fewer is left out
AGREE = 0.8  # share of the questions with this answer that ask for the same, of two at least


def asks_for(question: str) -> str | None:
    """What the opening of a question says, None where it says nothing."""
    return next((label for opening, label in OPENINGS.items() if re.match(rf"(?:{opening})\b", question.lower())), None)


def label_questions(asked: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Question -> what it asks for, of those of which that is known.

    Args:
        asked: questions, each with its answer.
    """
    votes: dict[str, Counter] = defaultdict(Counter)
    for question, answer in asked:
        if label := asks_for(question):
            votes[answer][label] += 1
    found, seen = defaultdict(set), Counter()
    for question, answer in asked:
        label, known = asks_for(question), votes[answer]
        if label is not None:
            seen[label] += 1
            label = label if seen[label] <= MOST else None
        elif known.total() >= 2 and known.most_common(1)[0][1] >= AGREE * known.total():
            label = known.most_common(1)[0][0]
        elif not known and seen[THING] < MOST_THINGS and len(answer.split()) <= 2 and not re.search(r"\d", answer):
            label = THING
            seen[THING] += 1
        if label is not None:
            found[question].add(label)
    labels = {question: own.pop() for question, own in found.items() if len(own) == 1}
    often = Counter(labels.values())
    return {question: label for question, label in labels.items() if often[label] >= FEWEST}


def questions(task: mt.Task) -> list[tuple[str, str]]:
    """The questions of a span task that have an answer, with the shortest of those."""
    rows = [(row["question"].strip(), row["answers"]["text"]) for row in task.inputs()]
    return [(question, min(texts, key=len).strip(" .,").lower()) for question, texts in rows if texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help="corpora of kind span: folders, files or ids of data sets on the Hub")
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder of the corpus, made where it is missing")
    options = parser.parse_args()
    try:
        loaded = [mt.load_task(name, split=None, kind="span") for name in options.tasks]
    except MetatextError as error:
        parser.error(str(error))
    labels = label_questions([asked for task in loaded for asked in questions(task)])
    if not labels:
        parser.error(f"no kind of answer is asked for by {FEWEST} questions or more: these corpora are too small")
    rows = [json.dumps({"text": question, "label": label}, ensure_ascii=False) for question, label in labels.items()]
    random.Random(0).shuffle(rows)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    write_text(options.output_dir / "train.jsonl", "".join(f"{row}\n" for row in rows))
    counts = ", ".join(f"{label} ({n})" for label, n in Counter(labels.values()).most_common())
    print(f"{len(rows)} questions of {len(loaded)} corpora -> {options.output_dir / 'train.jsonl'}: {counts}")


if __name__ == "__main__":
    main()
