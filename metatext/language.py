"""The pretrained language model that writes texts behind a soft prompt: likelihoods of targets, and greedy answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import tuning
from .config import LanguageConfig
from .decoding import greedy, target_likelihoods
from .layout import PADDED, SOFT, Layout
from .loading import Access, LanguageError, fingerprint, load_language
from .rows import DataError
from .settings import to_dict
from .tokens import activation_room, batches

if TYPE_CHECKING:
    from .tasks import Task

ANSWER_TOKENS = 64  # of an answer at most, where nothing else is said
START = "Write the answer that the task asks for, in the manner of its examples."  # where soft prompts begin


class LanguageModel(nn.Module):
    """A causal or sequence-to-sequence language model that reads a soft prompt before an input.

    Attributes:
        config: what was asked for.
        layout: how a row stands before it.
        dim: D, the length of its token vectors.
        decodes: whether it is a sequence-to-sequence model.
        fingerprint: of the pretrained weights, in hex.
        reference: (name, revision) to write down.
        learned: of a copy that `frozen` made, the weights by which it differs from the pretrained model.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, revision: str | None, config: LanguageConfig):
        super().__init__()
        self.fingerprint = fingerprint(model)
        self.model = model.float().requires_grad_(False)
        self.config = config
        self.decodes = bool(model.config.is_encoder_decoder)
        self.dim = model.get_input_embeddings().embedding_dim
        self.reference = (config.name, revision)
        if tokenizer.eos_token_id is None:
            raise LanguageError(f"the language model {config.name!r} has no end token, so no answer would end; give another one")
        self.layout = Layout(tokenizer, config, self.decodes)
        if not self.decodes:
            self._check_output_layer()
        if config.tuning == "lora":
            self.model = tuning.add_low_rank(self.model, config, "language_lora_targets")
        self.learned: dict[str, Tensor] = {}
        self._frozen = tuning.FrozenCopy()
        self.eval()

    @classmethod
    def load(
        cls, config: LanguageConfig | str, *, expected_fingerprint: str | None = None, access: Access = Access()
    ) -> LanguageModel:
        """Load a pretrained language model.

        Args:
            config: a `LanguageConfig`, or its ``name``.
            expected_fingerprint: the weights that a saved head was trained on.
            access: how the Hub is asked.

        Raises:
            LanguageError: nothing of that name can be loaded, or its weights have another fingerprint.
        """
        config = config if isinstance(config, LanguageConfig) else LanguageConfig(config)
        found = cls(*load_language(config, access), config)
        if expected_fingerprint and found.fingerprint != expected_fingerprint:
            raise LanguageError(
                f"the language model {config.name!r} has weights {found.fingerprint[:12]}, but the head was trained on {expected_fingerprint[:12]}; "
                f"load the one named in its config.json, at its revision"
            )
        return found

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def is_tuned(self) -> bool:
        """Whether any of its weights learn."""
        return self.config.tuning != "frozen"

    @property
    def scale(self) -> float:
        """Standard deviation of the numbers in its token vectors."""
        return float(self.model.get_input_embeddings().weight.detach().std())

    @property
    def batch_tokens(self) -> int:
        """Padded tokens in one batch: as configured, else what was fastest."""
        return self.config.batch_tokens or (1024 if self.device.type == "cpu" else 16_384)

    @property
    def memory_tokens(self) -> int:
        """Padded tokens whose activations are kept: as configured, else those that fit `activation_room`."""
        if self.config.memory_tokens is not None:
            return self.config.memory_tokens
        layers = getattr(self.model.config, "num_hidden_layers", 12)
        return int(
            activation_room(self.device) / (100 * layers * self.dim)
        )  # about 25 numbers of four bytes per layer and feature

    def describe(self) -> dict[str, Any]:
        """What config.json says of it: its name and revision, its fingerprint, and what decides answers and weights."""
        name, revision = self.reference
        kept = ("prompt_length", "prompt_rank", "max_input_tokens", "max_target_tokens")
        lora = ("tuning", "lora_rank", "lora_alpha", "lora_targets") if self.is_tuned else ()
        settings = {key: value for key, value in to_dict(self.config).items() if key in (*kept, *lora)}
        return {"name": name, "revision": revision, "fingerprint": self.fingerprint, **settings}

    def train(self, mode: bool = True) -> LanguageModel:
        """As of any module, but without dropout."""
        super().train(mode)
        self.model.eval()
        return self

    def tuned_tensors(self) -> dict[str, Tensor]:
        """The weights that learn, by name: what is to be saved beside the pretrained ones."""
        return {name: p.detach() for name, p in tuning.tuned(self.model).items()}

    def load_tuned(self, tensors: Mapping[str, Tensor]) -> None:
        """Put weights of `tuned_tensors` in place.

        Raises:
            LanguageError: they are not those of this architecture and tuning; the first that differs is named.
        """
        tuning.put(self.model, tensors, LanguageError, f"the language model {self.config.name!r} (tuning {self.config.tuning})")

    def frozen(self) -> LanguageModel:
        """A frozen one with the weights of this moment, low-rank updates merged; itself if it is frozen. The same object is returned
        until a weight changes."""
        if not self.is_tuned:
            return self
        return self._frozen.get(self.model, lambda: self._freeze(self.tuned_tensors()))

    def pretrained(self) -> LanguageModel:
        """The language model as it was before it learned, frozen; itself if it is frozen."""
        if not self.is_tuned:
            return self
        return self._freeze({name: t * 0 if "lora_B" in name else t for name, t in self.tuned_tensors().items()})

    def _freeze(self, weights: Mapping[str, Tensor]) -> LanguageModel:
        copied = copy.deepcopy(self)
        copied.load_tuned(weights)
        copied.learned = {name: tensor.detach().clone() for name, tensor in weights.items()}
        copied.config = replace(self.config, tuning="frozen")
        copied.model = tuning.merge(copied.model).eval().requires_grad_(False)
        return copied

    def start(self) -> Tensor:
        """(m, D) where the soft prompt that all tasks share begins: the token vectors of a sentence, repeated or cut."""
        ids = self.layout.numbers([START], 64)[0] or [self.layout.end]
        ids = [ids[i % len(ids)] for i in range(self.config.prompt_length)]
        return self.model.get_input_embeddings()(torch.tensor(ids, device=self.device)).detach().clone().float()

    def check_targets(self, task: Task) -> None:
        """Raises `DataError` where a target of a task has more tokens than ``max_target_tokens``, and names its row."""
        limit = self.config.max_target_tokens
        for row, numbers in enumerate(self.layout.numbers(task.targets.tolist(), None)):
            if len(numbers) > limit:
                raise DataError(
                    f"task {task.name!r}: row {row} of column 'target' has {len(numbers)} tokens, max_target_tokens is {limit}; "
                    f"raise it, or shorten or drop the row",
                    row=row,
                )

    def likelihood(self, prompt: Tensor, query: Tensor, query_y: Tensor) -> Tensor:
        """Log-likelihood of every target token given the tokens before it, with gradients to the prompt and to the weights that learn.

        Logits over the vocabulary are made for target tokens only, and of a causal model never kept: they are computed again in the
        backward pass, as are batches beyond `memory_tokens` altogether.

        Args:
            prompt: (b, m, D) the soft prompt of each episode.
            query: (b, q, t) of `Layout.tokenize`; rows that are all `PADDED` are passed over.
            query_y: (b, q, t) bool, the tokens of targets.

        Returns:
            (b, q, t), float32 or wider, 0 where there is no target token.
        """
        b, q, t = query.shape
        rows, target = query.reshape(b * q, t), query_y.reshape(b * q, t)
        values, places, kept = [], [], 0
        for numbers in self._batches((rows != PADDED).sum(1), self.batch_tokens):
            width = int((rows[numbers] != PADDED).sum(1).max())
            part = rows[numbers, :width], target[numbers, :width]
            kept += part[0].numel()
            again = torch.is_grad_enabled() and kept > self.memory_tokens
            given = prompt[numbers // q], *part
            values.append(checkpoint(self._read, *given, use_reentrant=False) if again else self._read(*given))
            row, column = part[1].nonzero(as_tuple=True)
            places.append(numbers[row] * t + column)
        if not values:
            return prompt.new_zeros(b, q, t)
        found = torch.cat(values)
        return found.new_zeros(b * q * t).index_put((torch.cat(places),), found).reshape(b, q, t)

    def _read(self, prompt: Tensor, rows: Tensor, target: Tensor) -> Tensor:
        return target_likelihoods(self.model, lambda rows: self._embed(prompt, rows), rows, target)

    def _embed(self, prompt: Tensor, rows: Tensor) -> Tensor:
        """(n, m, D), (n, t) -> (n, t, D): token vectors, the soft prompt in its place; whatever where a token is padded."""
        vectors = self.model.get_input_embeddings()(rows.clamp_min(0))
        return vectors.masked_scatter((rows == SOFT)[..., None], prompt.to(vectors.dtype))

    @torch.no_grad()
    def write(self, prompt: Tensor, query: Tensor, query_y: Tensor, max_new_tokens: int = ANSWER_TOKENS) -> np.ndarray:
        """The most probable next token, again and again, until the end token: (b, q) object, a text for each row.

        Args:
            prompt, query, query_y: as of `likelihood`; targets are not looked at.
            max_new_tokens: tokens of an answer at most.
        """
        b, q, t = query.shape
        rows = query.masked_fill(query_y, PADDED).reshape(b * q, t)
        lengths, texts = (rows != PADDED).sum(1), np.full(b * q, "", object)
        budget = 8 * self.batch_tokens  # little is kept without gradients
        for numbers in self._batches(lengths + max_new_tokens * (lengths > 0), budget):
            width = int(lengths[numbers].max())
            # padded on the left: all rows go on in the same column
            column = torch.arange(width, device=rows.device) - (width - lengths[numbers])[:, None]
            part = rows[numbers].gather(1, column.clamp_min(0)).masked_fill(column < 0, PADDED)
            vectors = self._embed(prompt[numbers // q], part)
            found = greedy(self.model, vectors, (part != PADDED).long(), self.layout.end, max_new_tokens)
            texts[numbers.cpu().numpy()] = list(map(self.layout.read, found))
        return texts.reshape(b, q)

    @torch.no_grad()
    def write_prompted(
        self,
        description: str | None,
        examples: Sequence[tuple[str, str]],
        inputs: Sequence[str],
        max_new_tokens: int = ANSWER_TOKENS,
    ) -> list[str]:
        """Answers without a soft prompt: the description and the examples stand in the context as text, in the form of its chat template
        where it has one; the last examples are left out where they do not fit its window (or ``context_tokens``)."""
        given = self.layout.numbers([text for text, _ in examples], self.config.max_input_tokens)
        shown = [(self.layout.tokenizer.decode(numbers), answer) for numbers, (_, answer) in zip(given, examples)]
        room = self._window() - self.config.max_input_tokens - max_new_tokens
        while True:
            before, after = self.layout.prompted(description, shown)
            head, tail = self.layout.numbers([before, after], None)
            if len(head) + len(tail) <= room or not shown:
                break
            shown.pop()
        suffixes = [[*numbers, *tail] for numbers in self.layout.numbers(inputs, self.config.max_input_tokens)]
        answers = self._continue(head[-max(room - len(tail), 1) :], suffixes, max_new_tokens)
        return answers if self.layout.chats else [answer.split("\n")[0].strip() for answer in answers]

    def _continue(self, head: list[int], suffixes: list[list[int]], limit: int) -> list[str]:
        """What follows texts that begin alike; a causal model reads their beginning once."""
        past = None
        if not self.decodes and head:
            past = self.model(
                input_ids=torch.tensor([head], device=self.device), use_cache=True, logits_to_keep=1
            ).past_key_values
            past.batch_repeat_interleave(len(suffixes))
        rows = suffixes if past is not None else [[*head, *row, *([self.layout.end] if self.decodes else [])] for row in suffixes]
        width = max(map(len, rows))
        ids = torch.tensor([[PADDED] * (width - len(row)) + row for row in rows], device=self.device)
        mask = (ids != PADDED).long()
        if past is not None:
            mask = torch.cat([mask.new_ones(len(rows), len(head)), mask], 1)
        vectors = self.model.get_input_embeddings()(ids.clamp_min(0))
        return list(map(self.layout.read, greedy(self.model, vectors, mask, self.layout.end, limit, past)))

    def _batches(self, lengths: Tensor, budget: int) -> Iterator[Tensor]:
        """Numbers of rows in batches of at most ``budget`` padded tokens (one row at least), longest first; rows of length 0 are in none."""
        known = lengths.cpu().numpy()  # once: a question to the GPU for every batch would wait for the batch before
        there = np.flatnonzero(known)
        for rows in batches(known[there], budget):
            yield torch.from_numpy(there[rows]).to(lengths.device)

    def _window(self) -> int:
        """How many tokens its context may have."""
        shape = self.model.config
        own = getattr(shape, "max_position_embeddings", None) or getattr(shape, "n_positions", None) or 512
        return min(own, self.config.context_tokens or own)

    @torch.no_grad()
    def _check_output_layer(self) -> None:
        """Likelihoods are made of the last states and the output layer alone."""
        ids = torch.tensor([[self.layout.end, self.layout.end]])
        own = self.model.get_output_embeddings()(self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        if not torch.allclose(own, self.model(input_ids=ids, use_cache=False).logits, atol=1e-4):
            raise LanguageError(
                f"the language model {self.config.name!r} ({self.model.config.model_type}) changes its logits behind the output layer, "
                f"which metatext does not follow; give one that does not, such as a Llama, GPT-2, Qwen or T5 model"
            )
