"""Conversion of a JSON config of convmodel's fit command, as documented and with a dataset_path."""

from __future__ import annotations

import re
from pathlib import Path

from convo_cli.config.forerunners.documented import CONVMODEL_FORMAT
from convo_cli.config.forerunners.notes import (
    ENCODED_ONCE,
    LIVE_VIEW,
    WHOLE_SHUFFLE,
    Rule,
    apply_rules,
    is_one_of,
)
from convo_cli.config.forerunners.old_config import OldConfig
from convo_cli.config.habits import device_of, gpus_of
from convo_cli.config.schema import RUN_NAME
from convo_cli.errors import typeable

_RULES = {
    "save_best_model": Rule("the best checkpoint by loss and the newest are always kept"),
    "show_progress_bar": Rule(LIVE_VIEW),
    "shuffle_buffer_size": Rule(WHOLE_SHUFFLE),
    "num_workers": Rule(ENCODED_ONCE),
    "prefetch_factor": Rule(ENCODED_ONCE),
}


def convert_fit(old: OldConfig) -> None:
    """Set the values of convo and answer the keys of a fit config.

    With a train_file, convmodel used Adam and evaluated after each epoch; with a dataset_path, it
    uses AdamW with PyTorch's decay and evaluates every log_steps.
    """
    has_dataset = old.has("dataset_path") or old.has("model_class")
    old.new_values |= CONVMODEL_FORMAT | {
        "training.weight_decay": 0.01 if has_dataset else 0.0,
        "training.max_grad_norm": None,
    }
    _map_model(old)
    _map_data(old)
    _map_training(old, has_dataset=has_dataset)
    seed = old.get("seed")
    old.map("seed", {"seed": 42 if seed is None else seed}, "always set" if seed is None else "")
    old.map("deterministic", {"deterministic": old.get("deterministic", False)})
    apply_rules(old, "", _RULES)


def _map_model(old: OldConfig) -> None:
    old.require("pretrained_model_or_path")
    old.map("pretrained_model_or_path", {"model.pretrained": old.get("pretrained_model_or_path")})
    path = old.get("model_class")
    name = str(path).rpartition(".")[2]
    if path in (None, "") or name in ("GPT2LMConversationModel", "ConversationModel"):
        old.map("model_class", {"dialogue.template": "convmodel"})
    elif name == "GPT2LMCLConversationModel":
        old.unsupported("model_class", "the language model is trained, without the second head")
    else:
        old.unsupported("model_class", "model.pretrained names any causal language model")
    _map_output(old)
    device = old.get("device")
    if device is None:
        old.map("device", {"training.device": "auto"}, "a GPU if there is one")
    elif (gpus := gpus_of(device)) is not None:
        old.map("device", {"training.device": "cuda", "training.devices": gpus})
    else:
        old.map("device", {"training.device": device_of(device) or device})


def _map_output(old: OldConfig) -> None:
    """Set folder and name of the run from output_path."""
    path = old.get("output_path")
    if path in (None, ""):
        old.not_needed("output_path", "the run directory is runs/convmodel")
    elif not isinstance(path, str) or not re.fullmatch(RUN_NAME, Path(path).name):
        note = (
            "its last part names the run: up to 100 letters, digits, dots, dashes and underscores"
        )
        old.ambiguous("output_path", note)
    else:
        folder, name = str(Path(path).parent), Path(path).name
        note = "the run directory; `convo export` writes the model"
        old.map("output_path", {"output_dir": folder, "name": name}, note)


def _map_data(old: OldConfig) -> None:
    source = old.get("dataset_path")
    if source in (None, ""):
        old.not_needed("dataset_path", "it is not set")
        source = None
    elif not isinstance(source, str):
        old.wrong("dataset_path", "text")
    elif not old.is_given("data.train"):
        folder = Path(source)
        options = [
            f"--{option} {typeable(folder / f'{name}.jsonl')}"
            for option, name in (("train", "train"), ("validation", "validation"))
        ]
        note = f"it names no files; name them: {' '.join(options)}"
        old.ambiguous("dataset_path", note)
    else:
        old.not_needed("dataset_path", "the command line names the files")
    if source is None and not old.is_given("data.train"):
        old.require("train_file")
    if source and not old.has("train_file"):
        return
    for name, key in (("train", "train"), ("valid", "validation"), ("eval", "test")):
        file = old.get(f"{name}_file")
        old.map(f"{name}_file", {f"data.{key}": [] if file in (None, "") else file})


def _map_training(old: OldConfig, *, has_dataset: bool) -> None:
    batch = old.whole("batch_size", 1, at_least=1)
    parts = old.whole("accumulation_steps", 1, at_least=1)
    sizes = {"training.batch_size": batch * parts}
    if parts > 1:
        sizes["training.micro_batch_size"] = batch
    old.map("batch_size", sizes)
    if parts > 1:
        old.map("accumulation_steps", sizes, "training.batch_size counts all examples of a step")
    else:
        old.not_needed("accumulation_steps", "a step has one batch")
    old.map("lr", {"training.learning_rate": old.get("lr", 1e-4)})
    warmup = old.get("warmup_steps", 10_000)
    note = "" if warmup == 10_000 else "convmodel ignored it and always used 10000"
    old.map(
        "warmup_steps", {"training.warmup_steps": warmup, "training.schedule": "constant"}, note
    )
    is_mixed = old.get("use_amp", False)
    if not is_one_of(is_mixed, (True, False)):
        old.wrong("use_amp", "true or false")
    old.map("use_amp", {"training.precision": "fp16" if is_mixed else "fp32"})
    old.map("epochs", {"training.epochs": old.get("epochs", 1)})
    every = old.get("log_steps", 100)
    evaluated = {"evaluation.every_steps": every} if has_dataset else {}
    old.map("log_steps", {"logging.every_steps": every, **evaluated})
    if old.get("max_len") is None:
        old.not_needed("max_len", "null is the context of the model; see dialogue.max_length")
    else:
        old.map("max_len", {"dialogue.max_length": old.get("max_len")})
