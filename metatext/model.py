"""MetaModel: a pretrained encoder and a meta-network head, and how they adapt to a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .config import EncoderConfig, HeadConfig, LanguageConfig
from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .examples import check_examples, check_served
from .features import EpisodeTexts
from .generation import GenerationTexts
from .heads import NO_LANGUAGE, Head, Logits, check_head, is_untrained, kinds_of, make_head
from .hub import push_folder, read_pretrained
from .kinds import KINDS
from .language import ANSWER_TOKENS, LanguageModel
from .loading import Access
from .maml import adapted_encoder, prepare_inner_loop, read_adapted
from .risk import RiskCurve
from .rows import DataError
from .saved import describe_model, learned_tensors, load_learned, restore_model
from .settings import ConfigError, check_is
from .spans import SpanTexts
from .storage import StorageError, write_folder
from .tasks import Task

if TYPE_CHECKING:
    from .adapted import AdaptedModel

CONTENT = "head"
LOAD = "load a head with MetaModel.from_pretrained; that of a classifier is its `model`"


class MetaModel(nn.Module):
    """An encoder and a head. `forward` gives logits of episodes; `adapt` makes a classifier for one task.

    Attributes:
        encoder: what reads the texts; of its weights those that learn are saved (`EncoderConfig.tuning`), the others are named.
        heads: kind of task -> the meta-network for it, see `metatext.heads`.
        language: what writes the answers of tasks of kind generation; None: the model does not serve them.
        head_config: how the heads were made.
        notes: facts about the training run, kept in config.json as ``training``.
        risk: how often answers of some confidence are wrong, learned on held-out tasks; None for a head that had none.
        threshold: of several labels those with at least this probability are the answer: what served the F1 of held-out tasks best; 0.5 for
            a head that had none.
    """

    def __init__(
        self,
        encoder: Encoder,
        head_config: HeadConfig,
        kinds: Sequence[str] | None = None,
        notes: dict | None = None,
        language: LanguageModel | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.head_config = head_config
        self.language = language
        kinds = kinds_of(head_config, language is not None) if kinds is None else kinds
        self.heads = nn.ModuleDict({kind: make_head(head_config, encoder.dim, kind, language) for kind in kinds})
        if self.adapts_encoder:
            prepare_inner_loop(encoder, head_config)
        self.notes = dict(notes or {})
        self.risk: RiskCurve | None = None
        self.threshold = 0.5

    @classmethod
    def from_encoder(
        cls,
        encoder: EncoderConfig | str | Encoder,
        head: HeadConfig | str = HeadConfig(),
        seed: int = 0,
        language: LanguageConfig | str | LanguageModel | None = None,
    ) -> MetaModel:
        """An untrained head on a pretrained encoder.

        Args:
            encoder: an `EncoderConfig`, its name, or an `Encoder` that is already loaded.
            head: a `HeadConfig` or its name.
            seed: fixes the head's random start.
            language: a `LanguageConfig`, its name, or a `LanguageModel` that is already loaded, for tasks of kind generation; None, or
                a config without a name: none.

        Raises:
            ConfigError: there is no head of that name.
            EncoderError, LanguageError: see `Encoder.load`, `LanguageModel.load`.
        """
        check_is(head, (HeadConfig, str), "head", "write HeadConfig(...) or its name")
        head = HeadConfig(head) if isinstance(head, str) else head
        check_head(head)  # before anything is loaded
        if isinstance(language, LanguageConfig) and language.name is None:
            language = None
        if language is not None and not isinstance(language, LanguageModel):
            language = LanguageModel.load(language)
        encoder = encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(encoder, head, language=language)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of task that it serves: those that it was trained on, or before, all that its head has a form for."""
        return tuple(self.heads)

    def check_kinds(self, kinds: Sequence[str]) -> None:
        """Raises `ConfigError` where the model has no head for one of these kinds."""
        for kind in kinds:
            if kind in self.heads:
                continue
            formed = kind in kinds_of(self.head_config)
            if formed and KINDS[kind].written and self.language is None:
                raise ConfigError(NO_LANGUAGE)
            why = "make a new model for further kinds" if formed else f"the head {self.head_config.name!r} has no form for it"
            raise ConfigError(f"kind {kind!r}: this model serves {', '.join(self.kinds)}; {why}")

    def keep_kinds(self, kinds: Sequence[str]) -> None:
        """Serve these kinds only.

        Raises:
            ConfigError: see `check_kinds`.
        """
        self.check_kinds(kinds)
        for kind in set(self.kinds) - set(kinds):
            del self.heads[kind]
        if not any(KINDS[kind].written for kind in self.kinds):
            self.language = None

    @property
    def head(self) -> Head:
        """The head of its first kind, the only one of most models."""
        return next(iter(self.heads.values()))

    @property
    def device(self) -> torch.device:
        """Where its heads are."""
        return next(self.heads.parameters()).device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MetaModel:
        """As of any module, but the heads stay in float32 at least: a solve has no place in half precision."""
        before = {name: p.data for name, p in self.heads.named_parameters()}
        super()._apply(fn, recurse)
        for name, p in self.heads.named_parameters():
            if p.dtype in (torch.float16, torch.bfloat16):
                p.data = before[name].to(p.device)
                p.grad = None if p.grad is None else p.grad.to(p.dtype)
        return self

    def forward(self, episodes: EpisodeFeatures | EpisodeTexts | SpanTexts | GenerationTexts) -> Logits:
        """Logits of the queries of b episodes of one kind; of generation the log-likelihoods of target tokens. Texts are read with gradients
        to the encoder, in the precision of the context; the head runs in its own: a solve has no place in half precision."""
        episodes = self.read(episodes)
        with torch.autocast(episodes.query.device.type, enabled=False):
            if episodes.kind not in self.heads:
                raise DataError(f"episodes of kind {episodes.kind!r}, but this model serves {', '.join(self.kinds)}")
            head = self.heads[episodes.kind]
            episodes = episodes.to(next(head.parameters()).dtype)
            params = head.adapt(episodes.support)
            if not KINDS[episodes.kind].written:
                return head.logits(params, episodes.query, episodes.query_mask)
        values = self.language.likelihood(params["prompt"], episodes.query, episodes.query_y)
        return Logits(values, values.new_zeros(values.shape[:2]))

    @torch.no_grad()
    def write(self, episodes: EpisodeFeatures | GenerationTexts, max_new_tokens: int = ANSWER_TOKENS) -> np.ndarray:
        """(b, q) object: the texts that the language model writes to the queries of b episodes, "" where padded."""
        episodes = self.read(episodes)
        head = self.heads[episodes.kind]
        with torch.autocast(episodes.query.device.type, enabled=False):
            prompt = head.adapt(episodes.to(next(head.parameters()).dtype).support)["prompt"]
        return self.language.write(prompt, episodes.query, episodes.query_y, max_new_tokens)

    def answers(self, kind: str, values: Tensor) -> Tensor:
        """`Kind.answer` of logits (b, q, ...) as figures take it: of several labels `threshold` is moved to one half."""
        if kind == "multilabel":
            values = values - math.log(self.threshold / (1 - self.threshold))
        return KINDS[kind].answer(values)

    @property
    def adapts_encoder(self) -> bool:
        """Whether every task takes gradient steps on the encoder, so that its episodes must come as texts."""
        return self.head_config.encoder_steps > 0

    def read(self, texts: EpisodeFeatures | EpisodeTexts | SpanTexts | GenerationTexts) -> EpisodeFeatures:
        """The tensors of b episodes as the encoder reads them, each with its own weights where the head adapts them; as they are if they
        were read before."""
        if isinstance(texts, EpisodeFeatures):
            return texts
        if isinstance(texts, GenerationTexts):
            self.check_kinds([texts.source.kind])
            return texts.read(self.encoder, self.language)
        if not self.adapts_encoder:
            return texts.read(self.encoder)
        return read_adapted(self.encoder, self.head, texts, self.head_config.checkpoint_steps)

    def adapt(
        self,
        inputs: Sequence[str | tuple[str, str]] | Task,
        targets: Sequence | None = None,
        *,
        kind: str = "classification",
        label_names: Sequence[str] | Mapping[Any, str] | None = None,
        description: str | None = None,
    ) -> AdaptedModel:
        """A model for one task in one forward pass, no gradient step.

        Args:
            inputs: n texts or pairs of texts; for spans n dicts of ``question``, ``context`` and ``answers`` (SQuAD's ``{"text": [...],
                "answer_start": [...]}``, both empty where there is no answer); or a `Task`, all of whose rows are taken.
            targets: n labels, str or int (an int indexes ``label_names`` when that is a list); of a multilabel task n lists of labels;
                of a regression n numbers on the task's own scale; of generation n texts; for spans None.
            kind: kind of task; must be among `kinds`.
            label_names: list of names, or dict {label: text that the encoder reads}. Labels without examples are
                allowed. None: strings name themselves. Of a regression: {lowest score: text, highest score: text}, the ends of the
                scale; answers stay between them. Without examples they are what is known of it.
            description: one sentence on what the labels mean.

        Raises:
            DataError: inputs and targets do not fit, fewer than two classes, a class with neither row nor name, ...
        """
        from .adapted import AdaptedModel

        given = check_examples(inputs, targets, kind, label_names, description)
        check_served(given.kind, self.kinds, self.language is not None)
        with torch.no_grad():
            takes_steps = self.adapts_encoder and given.rows
            encoder = adapted_encoder(self.encoder, self.head, given) if takes_steps else self.encoder.frozen()
            support = given.support(encoder)
        values = {"encoder": encoder, "scale": given.scale, "columns": inputs.input_columns if isinstance(inputs, Task) else None}
        return AdaptedModel(self, support, given.labels, given.label_names, given.kind, given.pairs, **values)

    describe, tensors, load_tensors = describe_model, learned_tensors, load_learned
    restore = classmethod(restore_model)

    def check_savable(self) -> None:
        """Find out before any work is done whether a saved folder would hold all that was learned.

        Raises:
            StorageError: the encoder is a frozen copy of one that has learned, so that what it learned would be lost.
        """
        if self.encoder.learned and not self.encoder.is_tuned:
            raise StorageError(
                "the encoder is a frozen copy of one that has learned, whose weights would not be saved; save the model that it is a copy of"
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors to ``folder``, atomically: the head, and what was trained of the encoder; the
        pretrained encoder is named, not copied.

        Raises:
            StorageError: see `check_savable`.
        """
        self.check_savable()
        write_folder(folder, {"content": CONTENT, **self.describe()}, self.tensors())

    push_to_hub = push_folder

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo_id: str | Path,
        encoder: Encoder | None = None,
        language: LanguageModel | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> MetaModel:
        """Load a saved head and the encoder that it was trained on, and the language model where it writes texts.

        Args:
            folder_or_repo_id: written by `save_pretrained`; where no such folder is, the name of a head that comes with metatext,
                "metatext-minilm-general" or "metatext-minilm-intent", or the id of a repo on the Hub, "owner/name".
            encoder: reuse this one instead of loading; its fingerprint must be the recorded one, and it must be frozen, as the
                saved one.
            language: the same for the language model.
            revision: branch, tag or commit of the repo.
            token: for a private repo; None: the one that is stored.
            cache_dir: where downloads are kept; None: the Hub's usual cache.
            local_files_only: take what is in the cache, make no network call.

        Raises:
            StorageError: the folder or repo is foreign, incomplete, damaged, or of a newer format; or there is no such folder.
            HubError: the repo cannot be had.
            EncoderError, LanguageError: the encoder or language model cannot be had, or its weights are not those that the head was trained on.
        """
        if is_untrained(str(folder_or_repo_id)):
            raise StorageError(
                f"{folder_or_repo_id} is the name of a head that nobody has trained: MetaModel.from_encoder('embedded', {str(folder_or_repo_id)!r})"
            )
        access = Access(token, cache_dir, local_files_only)
        config, tensors, where = read_pretrained(folder_or_repo_id, CONTENT, revision, access)
        return cls.restore(config, tensors, where, encoder, language, access)


def load_head(name: str) -> MetaModel:
    """A head by its name: untrained, on the embedded encoder, or saved, see `MetaModel.from_pretrained`."""
    return MetaModel.from_encoder("embedded", name) if is_untrained(name) else MetaModel.from_pretrained(name)
