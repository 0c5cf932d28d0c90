"""The configuration as pydantic models: every key with its default, range and meaning.

The string below each field is its documentation: `init-config` writes it as a comment, the JSON
Schema and docs/config.md contain it, and error messages quote the limits. Every model is strict and
frozen: a run's config is resolved once and never changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    field_serializer,
    model_validator,
)
from pydantic.config import JsonDict
from typing_extensions import Self

from convo_cli.config.column_paths import PathSteps, check_path, steps_of
from convo_cli.errors import UsageError, expand_home
from convo_cli.metrics.metric_table import METRICS

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
TemplateName = Literal["auto", "turns", "native", "chatml", "convmodel", "cls-sep"]
TrainOn = Literal["assistant", "all", "last"]
LongTurns = Literal["refuse", "split", "drop"]
Packing = Literal["auto", "on", "off"]
Sharding = Literal["auto", "none", "full"]
Reasoning = Literal["keep", "drop"]
_MODULE = re.compile(r"[A-Za-z_]\w{0,99}(\.\w{1,99}){0,20}", re.ASCII)
RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_MILLION = 1_000_000
"""Largest number of examples of a step."""
_BILLION = 1_000_000_000
"""Largest number of steps, tokens or dialogues; no run needs more."""
DATA_SETS = ("train", "validation", "test")
"""Keys of `data` that name files, in the order in which the files are read."""
_WEIGHTS = (0.001, 1_000)
"""Least and greatest weight of a training file."""
if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(METRICS)]


def _one_or_many(value: Any) -> Any:
    """Turn a single text into a tuple of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _expand_home(path: str) -> str:
    """Replace a leading ``~`` or ``~user`` by the home folder, as a shell does."""
    try:
        return expand_home(path)
    except UsageError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None


def _data_path(path: str) -> str:
    if not path:
        raise ValueError('found ""; allowed: the path of a file or folder')
    return _expand_home(path)


def _path_of(entry: Any) -> Any:
    """Return the path of an entry of data.train, which may have a weight."""
    if not isinstance(entry, dict):
        return entry
    if not isinstance(entry.get("path"), str) or entry.keys() - {"path", "weight"}:
        raise ValueError(
            f"found {json.dumps(entry, default=str)[:60]}; allowed: {{path: FILE, weight: NUMBER}}"
        )
    weight, (least, most) = entry.get("weight", 1), _WEIGHTS
    if type(weight) not in (int, float) or not least <= weight <= most:
        raise ValueError(
            f"weight: found {json.dumps(weight, default=str)[:60]}; allowed: a number from "
            f"{least} to {most:,}"
        )
    return entry["path"]


def _weight_of(entry: Any) -> float:
    return entry.get("weight", 1) if isinstance(entry, dict) else 1


def _devices(value: Any) -> Any:
    """Turn the list of a config into a tuple; refuse what names no devices."""
    names = list(value) if isinstance(value, list | tuple) else None
    numbers, low = ([value], 1) if names is None else (names, 0)
    is_good = all(type(number) is int and low <= number <= 65_535 for number in numbers)
    if value == "auto" or (is_good and numbers and len(set(numbers)) == len(numbers)):
        return value if names is None else tuple(names)
    raise ValueError(
        f"found {json.dumps(value, default=str)[:60]}; allowed: a whole number, 1 to 65,535, a "
        "list of different GPUs such as [0, 2], or auto"
    )


def _micro_batch(value: Any) -> Any:
    """Refuse what is neither a number of examples nor auto."""
    is_number = type(value) is int and 1 <= value <= _MILLION
    if value is None or value == "auto" or is_number:
        return value
    raise ValueError(
        f"found {json.dumps(value, default=str)[:60]}; allowed: auto or a whole number, 1 to "
        f"{_MILLION:,}, or null"
    )


def _modules(value: Any) -> Any:
    """Turn the list of a config into a tuple; refuse what names no modules of a model."""
    names = [value] if isinstance(value, str) else value
    if value != "auto" and not (
        isinstance(names, list | tuple)
        and names
        and all(isinstance(name, str) and _MODULE.fullmatch(name) for name in names)
    ):
        raise ValueError(
            f"found {json.dumps(value, default=str)[:60]}; allowed: a list of names such as "
            "[q_proj, v_proj], or auto"
        )
    return value if value == "auto" else tuple(dict.fromkeys(names))


Devices = Annotated[int | tuple[int, ...] | Literal["auto"], BeforeValidator(_devices)]
MicroBatchSize = Annotated[
    Annotated[int, Field(ge=1, le=_MILLION)] | Literal["auto"] | None,
    BeforeValidator(_micro_batch),
]
Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
PathText = Annotated[str, AfterValidator(_expand_home)]
DataPath = Annotated[str, AfterValidator(_data_path)]
Paths = Annotated[tuple[DataPath, ...], BeforeValidator(_one_or_many)]
ModuleNames = Annotated[tuple[str, ...] | Literal["auto"], BeforeValidator(_modules)]
TrainPaths = Annotated[
    tuple[Annotated[DataPath, BeforeValidator(_path_of)], ...], BeforeValidator(_one_or_many)
]
TRAIN_ITEMS: JsonDict = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "weight": {
                    "type": "number",
                    "default": 1,
                    "minimum": 0.001,
                    "maximum": 1000,
                },
            },
            "required": ["path"],
            "additionalProperties": False,
        },
    ]
}
"""JSON Schema of an entry of data.train."""
ColumnPath = Annotated[str, AfterValidator(check_path)]
"""The path of a value in a line of data, as `column_paths` defines it."""


_RESERVED_VARIABLES = frozenset(
    {
        *("messages", "conversation", "conversations", "tools", "documents", "loop", "namespace"),
        *("add_generation_prompt", "continue_final_message", "chat_template", "tokenize"),
        *("raise_exception", "strftime_now", "return_assistant_tokens_mask", "self"),
    }
)
"""Variables of a chat template that its caller sets; names of special tokens are reserved too."""
_MAX_OPTIONS = 10_000
"""Most characters of all template options as JSON."""
_MAX_OPTION_LEVELS = 8
_MAX_OPTION_NUMBER = 10**18


def _checked_options(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise ValueError(f"{name[:64]!r} is not the name of a variable")
        if name in _RESERVED_VARIABLES or name.endswith(("_token", "_tokens")):
            raise ValueError(f"{name} cannot be set: the program that renders dialogues sets it")
        _check_option(name, value, _MAX_OPTION_LEVELS)
    if len(json.dumps(options)) > _MAX_OPTIONS:
        raise ValueError(f"the options have more than {_MAX_OPTIONS:,} characters")
    return options


def _check_option(name: str, value: Any, levels: int) -> None:
    """Raise ValueError unless a value is one of JSON, within bounds."""
    if isinstance(value, (dict, list)):
        if levels == 0:
            raise ValueError(f"{name} has more than {_MAX_OPTION_LEVELS} levels")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise ValueError(f"{name} has a key that is not text")
        for item in value.values() if isinstance(value, dict) else value:
            _check_option(name, item, levels - 1)
    elif isinstance(value, (int, float)):
        if not abs(value) <= _MAX_OPTION_NUMBER:
            raise ValueError(f"{name} is not a number from -10^18 to 10^18")
    elif not isinstance(value, str) and value is not None:
        raise ValueError(f"{name} is a {type(value).__name__}; write it in quotes")


TemplateOptions = Annotated[dict[str, Any], AfterValidator(_checked_options)]


class Section(BaseModel):
    """A strict, frozen mapping whose field docstrings are its documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True)
class PretrainedModel:
    """A Hugging Face folder or hub id, and the revision of a hub id."""

    source: str
    revision: str | None


@dataclass(frozen=True)
class Steps:
    """The length of a run in optimizer updates."""

    number: int


@dataclass(frozen=True)
class Epochs:
    """The length of a run in passes over the training data."""

    number: float


@dataclass(frozen=True)
class BatchSize:
    """The size of one step."""

    number: int
    unit: Literal["examples", "tokens"]


class SpeakersConfig(Section):
    user: Texts = ("user", "human", "customer", "client", "prompter")
    """Speaker names in the data that mean the user; case is ignored."""
    assistant: Texts = (
        "assistant",
        "gpt",
        "bot",
        "model",
        "chatbot",
        "ai",
        "chatgpt",
        "bing",
        "claude",
        "copilot",
        "gemini",
    )
    """Speaker names in the data that mean the assistant; case is ignored."""
    system: Texts = ("system", "developer")
    """Speaker names in the data that mean the system, which instructs the model; case is
    ignored."""
    keep_names: bool = False
    """Make every other speaker a user and begin each of its texts with its name, as in a chat of
    several people: "Ada: Who has the key?". false: a name without a role is refused."""


class ColumnsConfig(Section):
    turns: ColumnPath | None = None
    """Path of the list of turns in a line; $ is the line itself. With user and assistant, each item
    of the list is a pair. null: the list is under a key that convo knows."""
    speaker: ColumnPath | None = None
    """Path of the speaker's name in a turn; null: a key that convo knows."""
    text: ColumnPath | None = None
    """Path of the text in a turn; null: a key that convo knows."""
    user: ColumnPath | None = None
    """Path of the user's text in a pair, which is the line or an item of turns; or of a list of
    texts that ends with it. null: no pair."""
    assistant: ColumnPath | None = None
    """Path of the assistant's text in a pair; null: no pair."""
    system: ColumnPath | None = None
    """Path of the system text in a line, which may be null; null: the key system, if there is
    one."""
    history: ColumnPath | None = None
    """Path of the earlier turns of a pair in a line, a list of [question, answer] pairs or null;
    null: the key history of the shapes that have one."""

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if (self.user is None) != (self.assistant is None):
            raise ValueError("set both user and assistant, or neither")
        if self.user is not None and (self.speaker is not None or self.text is not None):
            other = "text" if self.speaker is None else "speaker"
            raise ValueError(f"set user and assistant for pairs, or {other} for turns, not both")
        if self.history is not None and self.turns is not None:
            raise ValueError("set history for pairs, or turns for the whole list, not both")
        in_line = ("turns", "system", "history") + (("user", "assistant") if not self.turns else ())
        for names in (in_line, ("speaker", "text"), ("user", "assistant")):
            seen: dict[PathSteps, str] = {}
            for name in names:
                path = getattr(self, name)
                if path is not None and (other := seen.setdefault(steps_of(path), name)) != name:
                    raise ValueError(f"the paths of {other} and {name} are the same: {path}")
        return self


class DataConfig(Section):
    train: TrainPaths = Field(min_length=1, json_schema_extra={"items": TRAIN_ITEMS})
    """JSONL file or list of files to train on, one dialogue a line (.jsonl, .jsonl.gz, .jsonl.zst).
    A folder or a pattern (data/*.jsonl) stands for its files. {path: FILE, weight: 3} passes over
    FILE 3 times in an epoch."""
    validation: Paths = ()
    """Files to evaluate on, given as for data.train, without weights. Empty, without
    data.validation_split: no evaluation, so the best checkpoint is the last one."""
    validation_split: float | None = Field(None, gt=0, lt=1)
    """Share of the training dialogues to hold back for validation, such as 0.05, instead of
    data.validation; null: none. A hash of the first two turns (without the system turn; case,
    width and white space are ignored) chooses them, so dialogues that begin alike are on the same
    side, and new data moves no old dialogue. At least one is held back, and one stays."""
    test: Paths = ()
    """Files, given as for data.validation, to score when the run has finished, with the best
    checkpoint by loss (the last one without validation); the scores are in test.json. Empty: no
    test."""
    first_speaker: Literal["user", "assistant"] = "user"
    """First speaker of a dialogue that is a plain list of texts."""
    speakers: SpeakersConfig = SpeakersConfig()
    """Speaker names in the data, by role."""
    columns: ColumnsConfig = ColumnsConfig()
    """Paths of the values in a line, for shapes that convo does not know. A path is keys joined by
    dots, with [0] for an item of a list and ["odd key"] for any other key: meta.dialog,
    data[0].turns. A line that lacks the path is refused."""
    reasoning: Reasoning | None = None
    """Treatment of the assistant's reasoning (reasoning_content, thinking or reasoning beside the
    text of a turn, or <think>...</think> in it): keep (trained on, between these tags before the
    answer) or drop; null: data with reasoning is refused."""

    _weights: tuple[float, ...] = PrivateAttr(())

    @property
    def weights(self) -> tuple[float, ...]:
        """Return how often an epoch passes over each file of ``train``."""
        return self._weights

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files of all data sets."""
        return tuple(path for name in DATA_SETS for path in getattr(self, name))

    @property
    def has_validation(self) -> bool:
        return bool(self.validation) or self.validation_split is not None

    def of(self, files: Sequence[str]) -> DataConfig:
        """Return a copy in which these are the training files, unsplit, without any others."""
        empty = dict.fromkeys(DATA_SETS, ())
        copy = self.model_copy(update={**empty, "validation_split": None})
        return copy.with_files({"train": tuple(files)}, (1,) * len(files))

    def with_files(
        self, files: Mapping[str, tuple[str, ...]], weights: tuple[float, ...]
    ) -> DataConfig:
        """Return a copy with other files of some data sets, and other weights."""
        copy = self.model_copy(update=dict(files))
        copy._weights = weights
        return copy

    @model_validator(mode="wrap")
    @classmethod
    def _read_weights(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        read = handler(values)
        if isinstance(values, dict):
            read._weights = tuple(map(_weight_of, _one_or_many(values["train"])))
        return read

    @field_serializer("train")
    def _entries(self, train: tuple[str, ...]) -> list[str | dict[str, Any]]:
        """Return the entries of the config; a weight of 1 is left out."""
        return [
            path if weight == 1 else {"path": path, "weight": weight}
            for path, weight in zip(train, self._weights, strict=True)
        ]

    @model_validator(mode="after")
    def _one_validation(self) -> Self:
        if self.validation and self.validation_split is not None:
            raise ValueError(
                "set only one of data.validation_split and data.validation (null or [] for the "
                "other)"
            )
        return self


class TokenizerConfig(Section):
    kind: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece model type, only for model.scratch: a pretrained model has its own
    tokenizer. Choose bpe for llama.cpp, which encodes some texts differently with unigram."""
    vocab_size: int = Field(8000, ge=300, le=1_000_000)
    """Largest number of pieces, including 256 for bytes; little text gives fewer."""
    character_coverage: float = Field(0.9995, ge=0.98, le=1.0)
    """Share of the characters of the training text that get their own piece; the others become
    bytes."""


class ScratchConfig(Section):
    layers: int = Field(6, ge=1, le=200)
    """Number of transformer blocks."""
    width: int = Field(384, ge=8, le=32768)
    """Size of the hidden state; a multiple of heads."""
    heads: int = Field(6, ge=1, le=512)
    """Number of attention heads."""
    context: int = Field(512, ge=16, le=1_048_576)
    """Longest sequence that the model can read, in tokens."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Dropout of embeddings and residuals."""
    attention_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout of attention weights; the fast attention kernels need 0."""

    @model_validator(mode="after")
    def _width_fits_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class LoraSettings(Section):
    rank: int = Field(16, ge=1, le=4096)
    """Rank of an update: each adapted matrix gets two matrices with this inner size."""
    alpha: int = Field(32, ge=1, le=1_000_000)
    """Scale of the updates: the product of the two matrices counts alpha / rank times."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout of the input of the updates."""
    target_modules: ModuleNames = "auto"
    """Matrices to adapt, by the last part of their names, such as [q_proj, v_proj]; auto: all
    matrices of the blocks."""


class ModelConfig(Section):
    pretrained: PathText | None = Field(None, min_length=1)
    """Model to start from: a Hugging Face folder or hub id; null: a new model (model.scratch)."""
    revision: str | None = Field(None, min_length=1)
    """Branch, tag or commit of the hub id; null: the default branch."""
    scratch: ScratchConfig | None = None
    """Size of a new GPT-2; null: the pretrained model (model.pretrained)."""
    lora: LoraSettings | None = None
    """Train small updates (LoRA) beside the weights of the pretrained model, which stay as they
    are; null: train all weights. Needs convo-cli[adapters]."""

    @property
    def origin(self) -> PretrainedModel | ScratchConfig:
        """Return the source of the weights; ValueError if the keys exclude each other."""
        if self.pretrained is not None and self.scratch is None:
            return PretrainedModel(self.pretrained, self.revision)
        if self.scratch is not None and self.pretrained is None:
            return self.scratch
        raise ValueError("set exactly one of model.pretrained and model.scratch")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        origin = self.origin
        if self.revision is not None and not isinstance(origin, PretrainedModel):
            raise ValueError("model.revision needs model.pretrained")
        if self.lora is not None and not isinstance(origin, PretrainedModel):
            raise ValueError(
                "model.lora needs model.pretrained (the weights of a new model are random, and "
                "LoRA does not train them)"
            )
        return self


class DialogueConfig(Section):
    template: TemplateName = "auto"
    """Format of turns as tokens: turns (role token, text, end token), chatml, convmodel
    (<sep>t0<sep>t1<sep>), cls-sep ([CLS] t0 [SEP] t1 [SEP] eos), native (the tokenizer's own chat
    template); auto: native if the tokenizer has a chat template, else turns."""
    template_options: TemplateOptions = {}
    """Values of variables that a native chat template reads, such as enable_thinking: false, by
    name. A new run adds one that switches reasoning off or on, with a notice, if replies cannot be
    trained on without it. They are saved in the exported chat template too."""
    train_on: TrainOn = "assistant"
    """Turns that are trained on: assistant, all (user and assistant), or last (the last assistant
    turn of each dialogue)."""
    user_turns_until: float = Field(0.0, ge=0.0, le=1.0)
    """Fraction of the run (of training.schedule_steps if set) in which user turns are trained on
    too; after it, only the turns of train_on are. 0: never; 1: always."""
    max_length: int = Field(512, ge=16, le=1_048_576)
    """Longest training sequence, in tokens. A longer dialogue becomes several windows, without
    losing targets."""
    long_turns: LongTurns = "refuse"
    """Treatment of a dialogue with a turn that fits no window: refuse (the run does not start),
    split (the turn is trained on in consecutive windows; each repeats the system turn and the
    tokens before it, up to half of max_length; of a long user turn the last tokens that fit are
    context), drop (the dialogue is left out)."""


class TrainingConfig(Section):
    max_steps: int | None = Field(None, ge=1, le=_BILLION)
    """Number of steps (optimizer updates) of the run; null: epochs decides."""
    epochs: float | None = Field(None, gt=0, le=1_000_000)
    """Passes over the training data; null: max_steps decides."""
    batch_size: int | None = Field(16, ge=1, le=_MILLION)
    """Examples in a step (dialogues, or windows of long ones); null: batch_tokens decides."""
    batch_tokens: int | None = Field(None, ge=16, le=_BILLION)
    """Tokens in a step: random examples are added until it has this many; null: batch_size
    decides."""
    micro_batch_size: MicroBatchSize = None
    """Examples in one forward pass; fewer need less memory and give the same gradients, except for
    rounding and dropout. null: all examples of the step; auto: as many as fit in memory, measured
    before step 1. A resume keeps the number that auto chose if it still fits."""
    packing: Packing = "auto"
    """Batches of examples side by side without padding, each attending only to itself: auto (if the
    model supports it, and a check before step 1 finds loss and gradient equal), on (an error if
    not), off (padded batches)."""
    learning_rate: float = Field(5e-4, gt=0, le=10)
    """Peak learning rate of AdamW."""
    schedule: Schedule = "cosine"
    """Shape of the learning rate after warm-up."""
    schedule_steps: int | None = Field(None, ge=1, le=_BILLION)
    """Steps in which the learning rate follows its schedule down to the floor; null: the length of
    the run. A longer resume keeps this number, so the learning rate never rises again."""
    warmup_steps: int = Field(0, ge=0, le=_BILLION)
    """Steps in which the learning rate rises from 0 to its peak; 0: no warm-up."""
    min_lr_ratio: float = Field(0.1, ge=0.0, le=1.0)
    """Floor of the schedule as a fraction of learning_rate."""
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    """Weight decay of AdamW for matrices; biases, norms and embeddings have none."""
    betas: Annotated[tuple[float, float], Field(strict=False)] = (0.9, 0.95)
    """Averaging factors of AdamW, each at least 0 and below 1."""
    epsilon: float = Field(1e-8, gt=0, le=1)
    """Term in the denominator of AdamW."""
    max_grad_norm: float | None = Field(1.0, gt=0, le=1_000_000)
    """Largest norm of the gradient, which is scaled down to it; null: no limit."""
    precision: Precision = "auto"
    """Arithmetic of forward and backward pass: fp32, bf16, fp16 (with a gradient scaler); auto:
    bf16 on a GPU that has it, else fp32. A resume keeps the choice of auto."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """Device of the model: auto (the best at the start of the run; a resume keeps it), cpu, cuda,
    cuda:N or mps."""
    devices: Devices = 1
    """Devices that share each step, with one process for each: a number (GPUs, or processes on a
    CPU), a list of GPUs such as [0, 2], or auto (all GPUs). Under torchrun its own options decide.
    Loss and weights are those of one device, except for rounding and dropout."""
    sharding: Sharding = "auto"
    """Model, gradients and moments on several devices: none (each device has all of them), full
    (each has a part of them, and gathers a block while it computes), auto (full if they would not
    fit a GPU, else none). Loss and weights are the same, except for rounding."""
    gradient_checkpointing: bool = False
    """Compute activations twice: about a third more time, much less memory."""
    compile: bool = False
    """Compile the model with torch.compile, which is faster only on a GPU."""

    @property
    def length(self) -> Steps | Epochs:
        """Return the length of the run; ValueError if the keys exclude each other."""
        if self.max_steps is not None and self.epochs is None:
            return Steps(self.max_steps)
        if self.epochs is not None and self.max_steps is None:
            return Epochs(self.epochs)
        raise ValueError("set exactly one of training.max_steps and training.epochs")

    @property
    def batch(self) -> BatchSize:
        """Return the size of a step; ValueError if the keys exclude each other."""
        if self.batch_size is not None and self.batch_tokens is None:
            return BatchSize(self.batch_size, "examples")
        if self.batch_tokens is not None and self.batch_size is None:
            return BatchSize(self.batch_tokens, "tokens")
        raise ValueError(
            "set exactly one of training.batch_size and training.batch_tokens (null for the other)"
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _, batch = self.length, self.batch
        if (
            isinstance(self.micro_batch_size, int)
            and batch.unit == "examples"
            and self.micro_batch_size > batch.number
        ):
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} is more than batch_size {batch.number}"
            )
        if self.sharding == "full" and self.compile:
            raise ValueError("compile cannot be on with sharding: full")
        if self.devices != 1 and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"device {self.device} is one device; with devices, write device: cuda, cpu or auto"
            )
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must each be at least 0 and below 1")
        return self


class EarlyStoppingConfig(Section):
    patience: int | None = Field(None, ge=1, le=_BILLION)
    """Evaluations without improvement after which the run stops; null: it never stops early."""
    monitor: Literal["loss", "metric"] = "loss"
    """Score that has to improve: loss (validation loss) or metric (evaluation.metric)."""
    min_delta: float = Field(0.0, ge=0.0, le=1_000_000)
    """Smallest change that counts as an improvement."""


class EvaluationConfig(Section):
    every_steps: int | None = Field(None, ge=1, le=_BILLION)
    """Steps between evaluations; null: one an epoch. The last step is always evaluated."""
    max_dialogues: int | None = Field(None, ge=1, le=_BILLION)
    """Validation dialogues of the validation loss; null: all. Test data is always read whole."""
    reply_dialogues: int = Field(32, ge=0, le=1_000_000)
    """Dialogues of the validation data, and of the test data, for which the model generates a
    reply, scored against the real one; 0: none."""
    show_samples: int = Field(3, ge=0, le=1_000_000)
    """Number of these replies shown on the screen; samples.jsonl has all of them."""
    metric: MetricName = "bleu-4"
    """Metric of the replies that chooses the best checkpoint by metric. Each evaluation reports all
    of them."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """Stop before the last step if the scores do not improve."""


class CheckpointsConfig(Section):
    every_steps: int | None = Field(None, ge=1, le=_BILLION)
    """Steps between checkpoints; null: the steps between evaluations. Every evaluation and the last
    step also save one."""
    keep: int = Field(2, ge=1, le=1_000_000)
    """Number of the newest checkpoints on disk, besides the best ones."""
    keep_best: int = Field(1, ge=1, le=1_000_000)
    """Number of the best checkpoints on disk, by evaluation.early_stopping.monitor. The best by
    loss and the best by metric are always on disk."""


class GenerationSettings(Section):
    max_new_tokens: int = Field(64, ge=1, le=1_048_576)
    """Longest reply, in tokens."""
    temperature: float = Field(0.7, ge=0.0, le=10.0)
    """Randomness of sampling; 0: always the likeliest token."""
    top_k: int = Field(0, ge=0, le=1_000_000)
    """Number of likeliest tokens to sample from; 0: all."""
    top_p: float = Field(0.9, gt=0.0, le=1.0)
    """Sum of the probabilities of the likeliest tokens to sample from; 1: all."""
    min_p: float = Field(0.0, ge=0.0, lt=1.0)
    """Smallest probability of a token to sample, as a fraction of the likeliest one's; 0: no
    minimum."""
    repetition_penalty: float = Field(1.0, ge=1.0, le=10.0)
    """Divisor of the scores of tokens that were already used; 1: off."""


class LoggingConfig(Section):
    every_steps: int = Field(10, ge=1, le=_BILLION)
    """Steps between lines of the plain log; metrics.jsonl has every step."""
    tensorboard: bool = True
    """Write TensorBoard events into the run directory."""
    plots: bool = True
    """Draw the run: the learning-rate schedule before step 1, the loss curves at every checkpoint,
    and the page report.html at every evaluation."""


class RunConfig(Section):
    """Complete description of one training run."""

    name: str = Field("convo", pattern=RUN_NAME)
    """Name of the run directory inside output_dir: up to 100 letters, digits, dots, dashes and
    underscores."""
    output_dir: PathText = Field("runs", min_length=1)
    """Folder that holds the run directories."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Seed of new weights, the order of dialogues, dropout, and the choice of validation dialogues
    that get a reply."""
    deterministic: bool = True
    """Use only algorithms that give the same bits in every run."""
    data: DataConfig
    """Files of dialogues, and the roles of their speakers."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The SentencePiece tokenizer of a from-scratch run."""
    model: ModelConfig
    """Model to train: exactly one of pretrained and scratch."""
    dialogue: DialogueConfig = DialogueConfig()
    """Format of dialogues as tokens, and the tokens that are trained on."""
    training: TrainingConfig
    """Steps, batches, learning rate, precision and device."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Scores during training, which need data.validation or data.validation_split."""
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    """Checkpoints that are saved and kept."""
    generation: GenerationSettings = GenerationSettings()
    """Sampling of replies in chat and the default of an export; replies of an evaluation are always
    greedy."""
    logging: LoggingConfig = LoggingConfig()
    """Files and log lines besides checkpoints."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for key in DATA_SETS:
            if "-" in getattr(self.data, key):
                raise ValueError(
                    f"data.{key}: stdin (-) can be read only once, but training reads its data "
                    "several times; write it to a file first"
                )
        origin, batch, length = self.model.origin, self.training.batch, self.dialogue.max_length
        if batch.unit == "tokens" and batch.number < length:
            raise ValueError(
                f"training.batch_tokens {batch.number} is less than dialogue.max_length {length}"
            )
        if isinstance(origin, ScratchConfig) and length > origin.context:
            raise ValueError(
                f"dialogue.max_length {length} is more than model.scratch.context {origin.context}"
            )
        stopping = self.evaluation.early_stopping
        if stopping.patience is not None:
            if not self.data.has_validation:
                raise ValueError(
                    "evaluation.early_stopping.patience needs data.validation or "
                    "data.validation_split"
                )
            if stopping.monitor == "metric" and self.evaluation.reply_dialogues == 0:
                raise ValueError(
                    "evaluation.early_stopping.monitor: metric needs evaluation.reply_dialogues "
                    "above 0"
                )
        if self.dialogue.template_options and (
            isinstance(origin, ScratchConfig) or self.dialogue.template not in ("auto", "native")
        ):
            raise ValueError(
                "dialogue.template_options needs the chat template of a pretrained model "
                "(dialogue.template: native)"
            )
        if isinstance(origin, ScratchConfig) and self.dialogue.template == "native":
            raise ValueError(
                "dialogue.template: native needs model.pretrained (a new tokenizer has no chat "
                "template)"
            )
        return self
