"""Code that a model card shows: how to use what a repo holds, and how it was trained."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from .config import EncoderConfig, EpisodeConfig, HeadConfig, LanguageConfig, TrainConfig
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


def flags(config: Any, cls: type | None = None) -> dict[str, Any]:
    """The flags of settings that are not the default; of a config, or of such values as `to_dict` gives, for the class ``cls``."""
    cls, values = (type(config), to_dict(config)) if cls is None else (cls, config)
    defaults = to_dict(cls())
    return {
        item.metadata["flag"] or item.name: values[item.name]
        for item in dataclasses.fields(cls)
        if values.get(item.name) not in (None, defaults[item.name])
    }


def train_command(config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The command ``metatext train`` with every setting of a run that is not the default.

    What model and loop do not tell, such as where the tasks come from, stands in ``settings["flags"]``; a run that was begun in Python, or
    before that was written there, is taken to have its tasks in one folder.
    """
    told = settings.get("flags")
    if not told:
        began = str((settings.get("warm_start") or {}).get("name") or "")
        told = {"tasks_dir": "folder/of/corpora", "tasks": [*settings["tasks"]], "eval_tasks": [*settings["eval_tasks"]]}
        told |= {"warm_start": began.split(", ") if began else []}
    # the encoder says what it found in its own files; a command needs its name and how it was trained
    encoder = {key: value for key, value in config["encoder"].items() if key not in ("pooling", "max_length", "prompt")}
    found = {**told, **flags(encoder, EncoderConfig), **flags(config["head"], HeadConfig)}
    found |= flags(config.get("language") or {}, LanguageConfig)
    found |= {**flags(settings["episodes"], EpisodeConfig), **flags(settings["train"], TrainConfig)}
    return shell_command("train", {**found, "seed": settings["train"]["seed"]})


def shell_command(command: str, found: Mapping[str, Any]) -> str:
    """``metatext COMMAND`` with these flags, as `flags` gives them, for a shell."""
    words = ["metatext", command]
    for flag, value in found.items():
        if value != []:
            words += [f"--{flag}", *map(_word, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
