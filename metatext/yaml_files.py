"""YAML files: plain values, and no key twice."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from .settings import MetatextError


def read_yaml(path: str | Path, error: type[MetatextError], hint: str = "") -> object:
    """What a YAML file holds, as plain Python values.

    A key that stands twice in a mapping is refused: YAML forbids it, but PyYAML takes the last one without a word, and what the first
    one says would count for nothing.

    Args:
        path: of the file.
        error: raised where it is not valid YAML.
        hint: ends the message.

    Raises:
        OSError: the file cannot be opened.
    """
    import yaml  # here: a command without such a file starts sooner

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            first: dict[Hashable, yaml.Node] = {}
            for key, _ in node.value:
                before = first.setdefault((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else key, key)
                if before is not key:
                    said = f"the key {key.value!r} stands there twice, first in line {before.start_mark.line + 1}; keep one"
                    raise yaml.MarkedYAMLError(problem=said, problem_mark=key.start_mark)
            return node

    try:
        with open(path, encoding="utf-8") as file:
            return yaml.load(file, Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as found:
        raise error(f"{path} is not valid YAML: {found}{hint}") from None
