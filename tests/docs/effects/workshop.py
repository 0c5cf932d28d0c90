"""The runs that the entries compare: `convo train` on the same tiny config, in this process.

The settings of an entry come on top of `BASE`, as `--set`. Settings that lead to the same config
share one run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from convo_cli.config.load import apply_overrides, load_config
from convo_cli.runs.directory import RunDirectory
from tests.commands import make_workplace, run_here, settings
from tests.docs.effects.observed import Observed, Passes

PEAK = 1e-3
STEPS = 6
BATCH = 4
BASE: Mapping[str, Any] = {
    "data.validation": [],
    "model.scratch.dropout": 0.0,
    "training.device": "cpu",
    "training.max_steps": STEPS,
    "training.batch_size": BATCH,
    "training.learning_rate": PEAK,
    "training.warmup_steps": 0,
    "logging.tensorboard": False,
    "checkpoints.every_steps": STEPS,
    "checkpoints.keep": 9,
    "logging.plots": False,
}
"""Settings of every run, on top of `tests.commands.TINY`; checkpoints at step 0 and the end."""

VALIDATION: Mapping[str, Any] = {
    "data.validation": ["valid.jsonl"],
    "evaluation.reply_dialogues": 0,
}
ONE_STEP: Mapping[str, Any] = {"training.max_steps": 1, "training.schedule": "constant"}
"""Checkpoint 1 holds the weights and optimizer averages after one update at the peak rate."""
PRETRAINED: Mapping[str, Any] = {"model.scratch": None, "model.pretrained": "models/first"}
ADAPTED: Mapping[str, Any] = {**PRETRAINED, "model.lora.rank": 4}
NAMED: Mapping[str, Any] = {
    "data.train": ["named.jsonl"],
    "data.validation": ["named.jsonl"],
    "evaluation.reply_dialogues": 2,
}
"""Dialogues between a narrator, a guest and a waiter."""
THINKING: Mapping[str, Any] = {
    "data.train": ["thinking.jsonl"],
    "data.validation": ["thinking.jsonl"],
    "evaluation.reply_dialogues": 1,
}
"""Dialogues with reasoning."""
MAPPED: Mapping[str, Any] = {
    "data.train": ["mapped.jsonl"],
    "data.validation": ["mapped.jsonl"],
    "evaluation.reply_dialogues": 1,
    "data.columns.turns": "chat.talk",
    "data.columns.speaker": "who",
    "data.columns.text": "body",
    "data.columns.system": "brief",
}
"""Dialogues under keys that convo does not know."""
PAIRS: Mapping[str, Any] = {
    "data.train": ["pairs.jsonl"],
    "data.validation": ["pairs.jsonl"],
    "evaluation.reply_dialogues": 1,
    "data.columns.user": "asked",
    "data.columns.assistant": "told",
    "data.columns.history": "before",
}
"""Pairs with earlier pairs, under keys that convo does not know."""


class Workshop:
    """Makes each run in a folder once."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_workplace(folder)
        self._seen: dict[str, Observed] = {}
        _write_data(folder)
        config = apply_overrides(load_config(folder / "config.yaml"), _pairs(BASE))
        self._base = config.model_dump(mode="json", exclude={"name"})

    def observe(self, changes: Mapping[str, Any]) -> Observed:
        """The run with these settings on top of the base."""
        if str(changes.get("model.pretrained", "")).startswith(("models/", "acme/")):
            self._make_models()
        changes = {key: value for key, value in changes.items() if not self._has(key, value)}
        key = json.dumps(changes, sort_keys=True)
        if key not in self._seen:
            self._seen[key] = self._train(changes)
        return self._seen[key]

    def _train(self, changes: Mapping[str, Any]) -> Observed:
        values = {"name": f"run-{len(self._seen)}", "output_dir": "runs", **BASE, **changes}
        if "model.scratch" in values:
            values = {
                key: value for key, value in values.items() if not key.startswith("model.scratch.")
            }
        run = RunDirectory(self._folder / values["output_dir"] / values["name"])
        hub = self._folder / "hub"
        with (
            _watched_model() as passes,
            mock.patch("huggingface_hub.constants.HF_HUB_CACHE", str(hub)),
            # It has its own tests, no key changes it, and it is a third of these runs.
            mock.patch("convo_cli.training.run.require_readable"),
        ):
            result = run_here(
                self._folder, "train", "config.yaml", "--json", *settings(*_pairs(values))
            )
        return Observed(self._folder, result, run, passes)

    def _has(self, key: str, value: Any) -> bool:
        """Return whether the base has this value already."""
        found: Any = self._base
        for name in key.split("."):
            if not isinstance(found, dict) or name not in found:
                return False
            found = found[name]
        return bool(found == value)

    def _make_models(self) -> None:
        """Make two models, with dropout, as folders and as revisions of a cached hub id."""
        if (self._folder / "models").exists():
            return
        trained = self.observe({"model.scratch.dropout": 0.3})
        cached = self._folder / "hub/models--acme--tiny"
        (self._folder / "models").mkdir()
        (cached / "snapshots").mkdir(parents=True)
        (cached / "refs").mkdir()
        for step, name, revision in ((0, "first", "main"), (STEPS, "second", "v2")):
            commit = str(step) * 40
            (self._folder / "models" / name).symlink_to(trained.run.checkpoint(step))
            (cached / "snapshots" / commit).symlink_to(trained.run.checkpoint(step))
            (cached / "refs" / revision).write_text(commit)


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _write_data(folder: Path) -> None:
    named = [
        {"from": "narrator", "value": "A café."},
        {"from": "guest", "value": "What do you have today?"},
        {"from": "waiter", "value": "Soup and bread, and tea."},
    ]
    echo = ["Say it.", "one two three four five six"]
    turns = ["And then?", "Then we walked on.", "How far?", "To the next town."] * 2
    thinking = [
        {"role": "user", "content": "What is two and two?"},
        {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two make four."},
    ]
    story = ["Tell me a story.", "one two three four five six " * 9]
    talk = [{"who": "user", "body": "Is it open?"}, {"who": "assistant", "body": "Until six."}]
    mapped = {"chat": {"talk": talk}, "brief": "You sell bread."}
    pairs = {"asked": "And now?", "told": "Now it is.", "before": [["Is it open?", "Not yet."]]}
    data = {"named": named, "echo": echo, "long": turns, "thinking": thinking, "story": story}
    data |= {"mapped": mapped, "pairs": pairs}
    for name, dialogue in data.items():
        (folder / f"{name}.jsonl").write_text(
            f"{json.dumps(dialogue, ensure_ascii=False)}\n" * 3, encoding="utf-8"
        )


@contextmanager
def _watched_model() -> Iterator[Passes]:
    """Record what the model computes in training; torch.compile compiles nothing but counts."""
    passes = Passes()

    def look(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training and type(module).__name__ == "GPT2MLP":
            is_autocast = torch.is_autocast_enabled("cpu")
            passes.rows.append(inputs[0].shape[0])
            passes.dtypes.add(torch.get_autocast_dtype("cpu") if is_autocast else None)
            passes.is_deterministic.add(torch.are_deterministic_algorithms_enabled())

    def compile_nothing(function: Any, **options: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            passes.num_compiled += 1
            return function(*arguments, **keywords)

        return call

    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        with mock.patch("torch.compile", compile_nothing):
            yield passes
    finally:
        hook.remove()
        torch.use_deterministic_algorithms(was_deterministic)
