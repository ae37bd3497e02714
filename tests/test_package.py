"""What holds for the package as a whole: a light import, arrows that point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import metatext

PACKAGE = Path(metatext.__file__).parent

# A file may import from those before it and from its own line; nothing points back.
LEVELS = [
    ["settings"],
    ["config", "storage", "tokens", "snippets", "run_folder", "stopping", "yaml_files"],
    ["pools"],
    [
        "episodes",
        "catalogue",
        "metrics",
        "losses",
        "representation",
        "risk",
        "plots",
        "progress",
        "tuning",
    ],
    ["rows", "columns", "kinds", "calibration", "loading", "text_reader", "episode_features"],
    ["label_names", "card", "hub_errors"],
    ["hub"],
    ["report", "targets", "text_parts", "readings", "usable", "csvs", "folders"],
    ["sources"],
    ["tasks", "encoder"],
    ["task_loading"],
    ["corpora", "inputs", "scoring"],
    ["layout"],
    ["decoding"],
    ["language"],
    ["store", "heads", "windows"],
    ["residual"],
    ["saved", "saved_task"],
    ["spans", "generation"],
    ["questions", "features", "maml"],
    ["examples", "changes", "pipeline", "answering", "teacher"],
    ["crossfit"],
    ["model"],
    ["adapted", "methods"],
    ["rivals", "baselines"],
    ["evaluation"],
    ["objective", "launch", "warm_start"],
    ["shards"],
    ["heldout", "checkpoints"],
    ["run", "fit"],
    ["training", "finetuning"],
    ["sklearn"],
    ["command_settings"],
    ["cli"],
    ["commands"],
    ["__main__"],
]


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, at any depth of its code, for type checkers excepted."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > (1 if path.parent != PACKAGE else 0):
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def test_arrows_point_one_way():
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    files = [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE]
    for path in files:
        own = path.stem if path.parent == PACKAGE else path.parent.name
        for other in imports(path):
            # deferred imports close a cycle on purpose: model.adapt makes an AdaptedModel
            if (own, other) in {("model", "adapted"), ("cli", "__version__"), ("run_folder", "__version__")}:
                continue
            assert level[other] <= level[own], f"{own} imports {other}, which lies above it"


def test_import_is_light():
    code = (
        "import sys, metatext; metatext.EpisodeConfig; "
        "heavy = {'numpy', 'torch', 'transformers', 'datasets', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists():
    for name in metatext.__all__:
        assert getattr(metatext, name) is not None
    assert set(metatext.__all__) <= set(dir(metatext))
