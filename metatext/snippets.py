"""Code that a model card shows: how to use what a repo holds, and how it was trained."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from .config import EncoderConfig, EpisodeConfig, HeadConfig, TrainConfig
from .settings import to_dict

EXAMPLES = {
    "classification": """clf = model.adapt(
    ["where is my parcel", "I want my money back", "parcel still not here", "please refund me"],
    ["delivery", "refund", "delivery", "refund"],
)
print(clf.predict(["give me my cash back"]), clf.predict_proba(["give me my cash back"]))""",
    "multilabel": """clf = model.adapt(
    ["my card was stolen in Rome", "how is the weather in Rome", "please block my card"],
    [["card", "travel"], ["weather", "travel"], ["card"]],
    kind="multilabel",
)
print(clf.predict(["is it sunny in Paris?"]), clf.predict_proba(["is it sunny in Paris?"]))""",
    "regression": """clf = model.adapt(
    ["wonderful, we will come again", "cold food and rude waiters", "it was fine"],
    [5, 1, 3],
    kind="regression",
)
print(clf.predict(["not bad at all"]))""",
    "span": """clf = model.adapt(
    [
        {
            "question": "Who sent it?",
            "context": "The parcel was sent by Ada on Monday.",
            "answers": {"text": ["Ada"], "answer_start": [23]},
        }
    ],
    kind="span",
)
print(clf.predict([{"question": "When does it open?", "context": "The shop opens at nine."}]))""",
    "generation": """clf = model.adapt(
    ["gonna be late, sorry", "thx for the help!"],
    ["I apologise; I shall be late.", "Thank you for your assistance."],
    kind="generation",
    description="Rewrite the informal sentence in formal English.",
)
print(clf.predict(["can't come today, sick"]))""",
}

ROWS = {
    "text": '"a text to judge"',
    "pair": '("a first text", "and a second one")',
    "span": '{"question": "When does it open?", "context": "The shop opens at nine."}',
}
"""What a classifier is asked, by kind, else by whether it is a pair of texts."""


def snippet(config: Mapping[str, Any], repo_id: str, revision: str | None = None) -> str:
    """Python that loads the repo and answers."""
    wanted = f'"{repo_id}"' + (f', revision="{revision}"' if revision else "")
    if config["content"] == "head":
        return f"import metatext as mt\n\nmodel = mt.MetaModel.from_pretrained({wanted})\n{EXAMPLES[config['kinds'][0]]}"
    row = ROWS.get(config["task"]["kind"]) or ROWS["pair" if config["task"]["pairs"] else "text"]
    return f"import metatext as mt\n\nclf = mt.AdaptedModel.from_pretrained({wanted})\nprint(clf.predict([{row}]))"


def train_command(config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The command ``metatext train`` with every setting of a run that is not the default."""
    words = ["metatext", "train", "--tasks_dir", "folder/of/corpora", "--tasks", *settings["tasks"]]
    words += ["--eval_tasks", *settings["eval_tasks"]] if settings["eval_tasks"] else []
    given = {EncoderConfig: config["encoder"], HeadConfig: config["head"]}
    given |= {EpisodeConfig: settings["episodes"], TrainConfig: settings["train"]}
    for cls, values in given.items():
        defaults = to_dict(cls())
        for item in dataclasses.fields(cls):
            value = values.get(item.name)
            # the encoder says what it found in its own files; a command needs its name and how it was trained
            resolved = cls is EncoderConfig and item.name in ("pooling", "max_length", "prompt")
            if value is None or resolved or (value == defaults[item.name] and item.name != "seed"):
                continue
            words += [f"--{item.metadata['flag'] or item.name}", *map(_word, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
