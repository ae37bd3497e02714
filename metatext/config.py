"""The settings of metatext: flat, frozen dataclasses whose values are checked where they are made.

Every field carries a sentence of help, which is also what ``--help`` of a recipe prints. A value of another type is
converted where nothing is lost (``"1e-4"`` from a YAML file is a float) and refused where something would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .settings import Checked, ConfigError, Range, option


@dataclass(frozen=True)
class EncoderConfig(Checked):
    """Which pretrained encoder reads the texts, and how its token states become one vector."""

    name: str = option("embedded", "'embedded' (all-MiniLM-L6-v2), a Hub id, or a local folder", flag="encoder")
    revision: str | None = option(None, "branch, tag or commit of the encoder on the Hub", flag="encoder_revision")
    pooling: Literal["auto", "mean", "words", "cls", "max", "last"] = option(
        "auto",
        "how token states become one vector; words: their mean without [CLS], [SEP] and the like, punctuation counts a quarter; auto: as the "
        "model's sentence-transformers files say, else mean",
    )
    max_length: int | None = option(None, "tokens kept of a text; none: the model's own limit", low=4)
    prompt: str | None = option(None, "text put before every input; none: the model's own default prompt")
    batch_tokens: int | None = option(
        None, "tokens (padding included) in one batch of the encoder; none: what suits the device", low=16
    )
    tuning: Literal["frozen", "lora", "full"] = option(
        "frozen", "what of the encoder learns: nothing, low-rank updates of its linear layers (Hu et al. 2022), all of it"
    )
    lora_rank: int = option(16, "rank of the updates (tuning lora)", low=1)
    lora_alpha: float = option(32.0, "the updates count alpha / rank times (tuning lora)", low=0.0)
    lora_targets: tuple[str, ...] = option((), "names of the linear layers that get an update; none: all of them (tuning lora)")
    dropout: float = option(
        0.0, "of a trained encoder, in every place where its architecture has one", flag="encoder_dropout", low=0.0, high=0.9
    )
    pretrained_share: float = option(
        0.0,
        "above 0 the pretrained encoder keeps reading beside the trained one, and of every cosine of two texts it makes this share: "
        "what it knew is not forgotten, vectors are twice as long and reading takes twice as long; 0: the trained one alone",
        low=0.0,
        high=0.9,
    )
    pretrained_pooling: Literal["same", "mean", "words", "cls", "max", "last"] = option(
        "same", "how the states of that pretrained encoder become one vector (pretrained_share above 0); same: as pooling says"
    )
    memory_tokens: int | None = option(
        None,
        "tokens (padding included) whose activations a trained encoder keeps for the backward pass; batches beyond are computed "
        "a second time instead; none: what suits the device",
        low=0,
    )
    gradient_checkpointing: bool = option(
        False,
        "a trained encoder keeps one activation per layer and computes the others a second time: less memory, a third slower",
    )


@dataclass(frozen=True)
class LanguageConfig(Checked):
    """Which pretrained language model writes the answers of tasks of kind generation, what of it learns, and its soft prompt."""

    name: str | None = option(
        None,
        "'smollm2' (SmolLM2-135M-Instruct, from a package), a Hub id, or a local folder of a causal or sequence-to-sequence model; none: "
        "no task of kind generation",
        flag="language_model",
    )
    revision: str | None = option(None, "branch, tag or commit of it on the Hub", flag="language_revision")
    tuning: Literal["frozen", "lora"] = option(
        "frozen", "what of it learns: nothing, or low-rank updates of its linear layers", flag="language_tuning"
    )
    lora_rank: int = option(8, "rank of these updates", flag="language_lora_rank", low=1)
    lora_alpha: float = option(16.0, "they count alpha / rank times", flag="language_lora_alpha", low=0.0)
    lora_targets: tuple[str, ...] = option(
        (), "names of the linear layers that get one; none: all of them", flag="language_lora_targets"
    )
    prompt_length: int = option(16, "vectors of a task's soft prompt", low=1)
    prompt_rank: int = option(16, "rank of what a task's examples and description add to the prompt that all tasks share", low=1)
    max_input_tokens: int = option(256, "tokens kept of an input", low=1)
    max_target_tokens: int = option(256, "tokens that a target may have; a longer one is an error", low=1)
    context_tokens: int | None = option(
        None, "tokens of the context that the baseline `prompted` fills with examples; none: the model's own window", low=64
    )
    batch_tokens: int | None = option(
        None, "tokens (padding included) in one batch of it; none: what suits the device", flag="language_batch_tokens", low=16
    )
    memory_tokens: int | None = option(
        None,
        "tokens (padding included) whose activations it keeps for the backward pass; batches beyond are computed a second time instead; "
        "none: what suits the device",
        flag="language_memory_tokens",
        low=0,
    )


@dataclass(frozen=True)
class HeadConfig(Checked):
    """Which meta-network head turns a task representation into task parameters."""

    name: str = option(
        "gp",
        "the meta-network head: gp, prototype, ridge, metanet, attention, inner_loop, or one of your own in metatext.heads.HEADS",
        flag="head",
    )
    rank: int = option(0, "rank of the learned residual map of the features; 0: features as they are", low=0)
    hidden_dim: int = option(64, "width of the hidden layer of the head `metanet`", low=1)
    token_dim: int = option(32, "width of a class's token in the head `attention`", low=1)
    dropout: float = option(0.0, "dropout inside the heads `metanet` and `attention`", low=0.0, high=0.9)
    generated: bool = option(
        True, "in the heads `gp` and `attention` a meta-network sets the sharpness of a task's probabilities"
    )
    inner_steps: int = option(5, "gradient steps on the support in the head `inner_loop`", low=0)
    first_order: bool = option(False, "the head `inner_loop` takes its inner gradients as constants in the outer gradient")
    encoder_steps: int = option(
        0,
        "gradient steps on the encoder's low-rank updates for every task in the head `inner_loop` (MAML, Finn et al. 2017; needs "
        "tuning lora); 0: the features stay (ANIL)",
        low=0,
    )
    checkpoint_steps: bool = option(
        False, "steps on the encoder keep no activations and are computed again, twice, for the backward pass: memory of one step"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder_steps and self.name != "inner_loop":
            raise ConfigError(
                f"encoder_steps: only the head 'inner_loop' takes gradient steps on the encoder, got {self.encoder_steps} with the "
                f"head {self.name!r}; choose inner_loop, or leave encoder_steps at 0"
            )


@dataclass(frozen=True)
class EpisodeConfig(Checked):
    """The shape of an episode. Ranges are inclusive and drawn anew for every episode."""

    n_way: Range = option(
        (2, 16),
        "classes per episode, few as often as many; a task with fewer classes than a range allows uses what it has",
        low=2,
    )
    k_shot: Range = option(
        (0, 16),
        "support rows per class, or where labels are no classes (multilabel, regression, span), in all; 0: the label names alone",
        low=0,
    )
    max_support: int | None = option(
        None, "support rows per episode beyond which more ways mean fewer shots, never fewer than k_shot's lowest", low=1
    )
    n_query: int = option(8, "query rows per class, or where labels are no classes, in all", low=1)
    n_outside: int = option(
        0,
        "query rows per episode from classes that are not in it (they train `confidence`); of spans, questions asked of another row's "
        "context, which has no answer",
        low=0,
    )
    fewer_ways: bool = option(False, "a task with fewer classes than n_way plays with all of its own")
    unbalanced: float = option(0.0, "share of episodes in which every class draws a number of shots of its own", low=0, high=1)
    name_dropout: float = option(0.0, "share of episodes that hide the label names (never at 0 shots)", low=0, high=1)
    name_noise: float = option(
        0.0,
        "share of episodes whose label names say nothing, or name something else (classifications only, never at 0 shots)",
        low=0,
        high=1,
    )
    name_variation: float = option(
        0.0, "share of episodes whose label names are written in another way, such as snake_case", low=0, high=1
    )
    other_names: float = option(
        0.0,
        "share of episodes of a task with other_label_names that show some of these instead of its own names (as far as name_dropout and "
        "name_noise leave these)",
        low=0,
        high=1,
    )
    description_dropout: float = option(0.0, "share of episodes that hide the task's name or description", low=0, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name_dropout + self.name_noise > 1:
            raise ConfigError(
                f"name_noise: must be at most 1 together with name_dropout, got {self.name_noise} + {self.name_dropout}; "
                f"an episode hides its names or shows such that say nothing"
            )

    @property
    def needs_varied_names(self) -> bool:
        """Whether episodes show names in other ways of writing, or such that say nothing."""
        return self.name_noise + self.name_variation > 0


@dataclass(frozen=True)
class TrainConfig(Checked):
    """The outer loop. Names are those of ``transformers.TrainingArguments`` where the meaning is equal."""

    output_dir: str = option("runs/metatext", "folder for the best head, checkpoints, metrics and the learning curve")
    seed: int = option(0, "everything that is drawn at random follows from it", low=0)
    meta_steps: int = option(1000, "outer steps", low=1)
    meta_batch_size: int = option(16, "episodes per outer step, over all processes and accumulation steps", low=1)
    meta_lr: float = option(1e-3, "peak learning rate of the head", low=0.0)
    encoder_lr: float = option(
        5e-5,
        "peak learning rate of a trained encoder; LoRA wants ten times as much as full tuning; 0: it stays as it is, and reads each text once",
        low=0.0,
    )
    language_lr: float = option(5e-4, "peak learning rate of the low-rank updates of a language model", low=0.0)
    weight_decay: float = option(0.0, "decoupled weight decay, not applied to vectors and scalars", low=0.0)
    warmup_ratio: float = option(0.05, "share of the steps over which the learning rate rises", low=0.0, high=1.0)
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = option("cosine", "learning-rate schedule")
    max_grad_norm: float = option(1.0, "largest norm of the gradient of the mean loss of an episode; 0: no clipping", low=0.0)
    gradient_accumulation_steps: int = option(
        1,
        "parts a process works through one after the other per outer step; episodes of a like size go together and are padded to "
        "the largest of them, so with a wide range of n_way or k_shot 4 to 8 parts are several times as fast as one",
        low=1,
    )
    task_size_exponent: float = option(0.5, "a task is drawn in proportion to (rows ** this); 0: all alike", low=0.0, high=1.0)
    max_text_tokens: int | None = option(
        None, "tokens of a text that an encoder reads while it learns; none: as many as it reads afterwards", low=4
    )
    task_weights: tuple[str, ...] = option((), "name=factor: these tasks are drawn so many times as often as their size says")
    kind_weights: tuple[str, ...] = option((), "kind=factor: the losses of tasks of this kind count so many times")
    distillation: float = option(
        0.0,
        "weight of a second loss that keeps a trained encoder near a teacher: the mean squared difference of their cosines between "
        "the texts of an episode",
        low=0.0,
    )
    distillation_teacher: str | None = option(
        None, "that teacher, a larger encoder for example: a Hub id or a local folder; none: the encoder as it was pretrained"
    )
    distillation_tasks: tuple[str, ...] = option((), "tasks whose episodes have that loss; none: all")
    encoder_share: float = option(
        1.0, "what is evaluated and kept is the pretrained encoder plus this share of what it learned", low=0.0, high=1.0
    )
    logging_steps: int = option(25, "steps between two points of the training curve", low=1)
    eval_steps: int = option(200, "steps between two evaluations on the unseen tasks", low=1)
    eval_episodes: int = option(64, "episodes per unseen task and evaluation during training", low=2)
    early_stopping_patience: int | None = option(None, "evaluations without a better one before training stops", low=1)
    save_steps: int = option(200, "steps between two checkpoints", low=1)
    save_total_limit: int = option(2, "checkpoints kept", low=1)
    overwrite_output_dir: bool = option(False, "start anew although output_dir holds a run")
    report_to: tuple[str, ...] = option((), "Accelerate trackers, e.g. tensorboard")


@dataclass(frozen=True)
class FinetuneConfig(Checked):
    """Gradient steps on one task, after adapting to it. Names are those of ``transformers.TrainingArguments`` where the meaning is equal."""

    what: Literal["lora", "full", "params"] = option(
        "lora",
        "what learns: low-rank updates of the encoder, all of its weights, or the task's own parameters alone, on frozen features",
    )
    num_train_epochs: int = option(10, "passes over the examples, fewer where training stops early", low=1)
    per_device_train_batch_size: int = option(16, "examples per step and process", low=1)
    learning_rate: float | None = option(
        None, "peak learning rate of the task parameters; none: 1e-3 alone, 1e-2 beside an encoder that learns", low=0.0
    )
    encoder_lr: float | None = option(None, "peak learning rate of the encoder; none: 5e-4 for lora, 1e-4 for full", low=0.0)
    weight_decay: float = option(0.01, "decoupled weight decay of what is added: the residual, low-rank updates", low=0.0)
    warmup_ratio: float = option(
        0.1, "share of the steps over which the learning rates rise, before they fall linearly", low=0.0, high=1.0
    )
    max_grad_norm: float = option(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    lora_rank: int = option(8, "rank of the updates (lora, of an encoder that was frozen so far)", low=1)
    lora_alpha: float = option(16.0, "the updates count alpha / rank times (likewise)", low=0.0)
    eval_share: float = option(
        0.2, "share of every class's examples that is held out: it stops and judges training", low=0.01, high=0.5
    )
    metric_for_best_model: Literal["loss", "accuracy", "macro_f1"] = option(
        "loss", "figure on the held-out examples that stops training and decides whether it was worth while"
    )
    refit: bool = option(True, "what pays is learned anew from all examples, for as many epochs as the held-out ones found best")
    early_stopping_patience: int | None = option(3, "epochs without a better one before training stops; none: never", low=1)
    class_weights: tuple[str, ...] = option(
        (), "'balanced': the examples of each class count alike, taken together; or label=factor; none: all examples count alike"
    )
    seed: int = option(0, "what is held out and the order of the examples follow from it", low=0)
