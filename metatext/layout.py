"""How rows stand as token numbers before a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .config import LanguageConfig
from .text_reader import TextReader

PADDED, SOFT = -1, -2  # in place of token numbers: nothing, and a vector of the soft prompt
MARKS = "\ue000", "\ue001"  # stand for the two places of a chat template that are filled in


class Layout:
    """The tokens before the soft prompt, between it and the input, between the input and the target, and the one at the end.

    Causal: what the chat template puts before a system message, the soft prompt in place of that message, the input as the user's,
    the target and the end token; without a template the soft prompt, the input, a separator, the target and the end token.
    Sequence to sequence: soft prompt, input and end token are encoded, target and end token decoded.

    Args:
        tokenizer: of the language model; it has an end token.
        config: gives lengths.
        decodes: whether the model is sequence to sequence.
    """

    def __init__(self, tokenizer: Any, config: LanguageConfig, decodes: bool):
        self.tokenizer, self.config = tokenizer, config
        self.end = int(tokenizer.eos_token_id)
        self.chats = not decodes and bool(tokenizer.chat_template)
        if decodes:
            self.frame = [], [], [self.end]
        elif self.chats:
            messages = [{"role": "system", "content": MARKS[0]}, {"role": "user", "content": MARKS[1]}]
            self.frame = tuple(self.numbers(_split(self._chat(messages), *MARKS), None))
        else:
            separator = self.numbers(["\n"], None)[0]
            unknown = not separator or tokenizer.unk_token_id in separator
            self.frame = [], [], [self.end] if unknown else separator

    def numbers(self, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        """Token numbers of n texts, without special tokens that a tokenizer would add, cut at ``limit``."""
        if not len(texts):
            return []
        plain = [TextReader.plain(text if limit is None else text[: 32 * limit]) for text in texts]
        numbers = self.tokenizer(plain, add_special_tokens=False, verbose=False)["input_ids"]
        return [row[:limit] for row in numbers]

    def tokenize(self, inputs: Sequence[str], targets: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows as token numbers (n, t), `SOFT` where the soft prompt goes and `PADDED` behind the end, and (n, t) bool which of them are
        the target's. Inputs are cut at ``max_input_tokens``, targets at ``max_target_tokens``."""
        before, between, after = self.frame
        head = [*before, *[SOFT] * self.config.prompt_length, *between]
        rows = [[*head, *numbers, *after] for numbers in self.numbers(inputs, self.config.max_input_tokens)]
        if targets is None:
            ends = [[] for _ in rows]
        else:
            ends = [[*numbers, self.end] for numbers in self.numbers(targets, self.config.max_target_tokens)]
        starts, lengths = (np.array([len(a) + f * len(b) for a, b in zip(rows, ends)], np.int64)[:, None] for f in (0, 1))
        column = np.arange(lengths.max(initial=0))
        ids = np.full((len(rows), len(column)), PADDED, np.int64)
        ids[column < lengths] = [number for row, end in zip(rows, ends) for number in (*row, *end)]
        return ids, (column >= starts) & (column < lengths)

    def prompted(self, description: str | None, examples: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """The text before the input and after it where description and examples stand in the context as text: as turns of a chat, or
        as lines."""
        if not self.chats:
            shown = "".join(f"Input: {given}\nOutput: {answer}\n\n" for given, answer in examples)
            return f"{description}\n\n{shown}Input: " if description else f"{shown}Input: ", "\nOutput:"
        messages = [{"role": "system", "content": description}] if description else []
        for given, answer in examples:
            messages += [{"role": "user", "content": given}, {"role": "assistant", "content": answer}]
        return tuple(_split(self._chat([*messages, {"role": "user", "content": MARKS[0]}]), MARKS[0]))

    def read(self, numbers: Sequence[int]) -> str:
        """The text of token numbers, up to the end token."""
        numbers = list(numbers)
        kept = numbers[: numbers.index(self.end)] if self.end in numbers else numbers
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()

    def _chat(self, messages: list[dict[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def _split(text: str, *marks: str) -> list[str]:
    """The parts of a text between marks that stand there once each, in this order."""
    parts = []
    for mark in marks:
        part, _, text = text.partition(mark)
        parts.append(part)
    return [*parts, text]
