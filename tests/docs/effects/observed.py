"""What a run shows: its output, the files in its directory, and what its model computed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from tests.commands import Result, run_here


@dataclass
class Passes:
    """What the model's blocks were asked to compute while training."""

    rows: list[int] = field(default_factory=list)
    """Rows of each call of a transformer block."""
    dtypes: set[torch.dtype | None] = field(default_factory=set)
    """Arithmetic of autocast; None: the weights' own."""
    is_deterministic: set[bool] = field(default_factory=set)
    num_compiled: int = 0
    """Calls of what `torch.compile` returned."""


@dataclass(frozen=True)
class Observed:
    """One run of `convo train`."""

    folder: Path
    result: Result
    run: RunDirectory
    passes: Passes

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        assert self.result.code == 0, self.result.err
        return list(read_metrics(self.run.metrics))

    def events(self, name: str) -> list[dict[str, Any]]:
        """The records of metrics.jsonl of one kind."""
        return [record for record in self.records if record["event"] == name]

    @property
    def started(self) -> dict[str, Any]:
        return self.events("run_started")[0]

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self.events("step")

    @property
    def rates(self) -> list[float]:
        return [step["learning_rate"] for step in self.steps]

    @property
    def evaluated(self) -> list[int]:
        """The steps that were evaluated."""
        return [record["step"] for record in self.events("evaluation")]

    @property
    def answer(self) -> dict[str, Any]:
        """The result on stdout."""
        assert self.result.code == 0, self.result.err
        return self.result.json

    @property
    def samples(self) -> list[dict[str, Any]]:
        assert self.result.code == 0, self.result.err
        return list(read_metrics(self.run.samples))

    @property
    def first_roles(self) -> set[str]:
        """Who speaks first in the dialogues that were replied to."""
        return {sample["history"][0]["role"] for sample in self.samples}

    def shown(self, pattern: str) -> list[str]:
        """The first group, or the whole match, of the lines on stderr that begin so."""
        return re.findall(f"^{pattern}", self.result.err, flags=re.MULTILINE)

    def file(self, step: int, name: str) -> Path:
        assert self.result.code == 0, self.result.err
        return self.run.checkpoint(step) / name

    def json(self, step: int, name: str) -> Any:
        return json.loads(self.file(step, name).read_text(encoding="utf-8"))

    def weights(self, step: int) -> dict[str, torch.Tensor]:
        return load_file(self.file(step, "model.safetensors"))

    def adapter(self, step: int) -> dict[str, torch.Tensor]:
        return load_file(self.file(step, "adapter_model.safetensors"))

    def loaded(self, name: str) -> dict[str, torch.Tensor]:
        """The weights of one of the pretrained models."""
        return load_file(self.folder / "models" / name / "model.safetensors")

    def update(self, step: int = 1) -> dict[str, torch.Tensor]:
        """What the updates up to this step added to the weights."""
        before, after = self.weights(0), self.weights(step)
        return {name: after[name] - before[name] for name in before}

    def moments(self, kind: str, step: int = 1) -> dict[str, torch.Tensor]:
        """AdamW's averages: exp_avg of the gradients, exp_avg_sq of their squares."""
        tensors = load_file(self.file(step, "optimizer.safetensors"))
        return {
            key.partition("|")[0]: tensor
            for key, tensor in tensors.items()
            if key.endswith(f"|{kind}")
        }

    def tokens(self, text: str) -> list[str]:
        """The text in the pieces of the run's tokenizer."""
        return Tokenizer.from_file(str(self.file(0, "tokenizer.json"))).encode(text).tokens

    def chat(self, *options: object) -> Result:
        """The reply of `convo chat` to one message."""
        assert self.result.code == 0, self.result.err
        return run_here(self.folder, "chat", self.run.path, *options, stdin=b"Hello!\n")

    @cached_property
    def replies(self) -> list[str]:
        """The replies to the same message with four seeds."""
        return [self.chat("--seed", seed).out for seed in range(4)]

    @property
    def greedy_reply(self) -> str:
        return self.chat("--temperature", 0).out


def gap(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """The largest difference between tensors of the same names and shapes; otherwise infinity."""
    shapes = [
        {name: tensor.shape for name, tensor in tensors.items()} for tensors in (first, second)
    ]
    if shapes[0] != shapes[1]:
        return float("inf")
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def norm(tensors: Mapping[str, torch.Tensor]) -> float:
    """The norm of all tensors as one vector."""
    return float(torch.stack([tensor.norm() for tensor in tensors.values()]).norm())
