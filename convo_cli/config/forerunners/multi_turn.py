"""Conversion of config.yaml and args.yaml of multi-turn-chatbot-GPT2."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from convo_cli.config.forerunners.documented import MULTI_TURN_FORMAT
from convo_cli.config.forerunners.notes import (
    ENCODED_ONCE,
    ONE_DEVICE,
    Rule,
    apply_rules,
    is_one_of,
    whole_batch,
)
from convo_cli.config.forerunners.old_config import OldConfig
from convo_cli.config.forerunners.trainer_devices import is_index
from convo_cli.config.habits import device_of
from convo_cli.config.places import clipped

_METRICS = ("ppl", "bleu2", "bleu4", "nist2", "nist4")
"""Metrics that the forerunner documents and convo reports."""
_RULES = {
    "workers": Rule(ENCODED_ONCE),
    "common": Rule("loss, validation loss and learning rate are always logged"),
    "yaml_file": Rule("it names the file of this config"),
    "is_rank_zero": Rule(ONE_DEVICE),
    "port": Rule("the processes of a run meet at a free port"),
    "world_size": Rule("training.devices gives the number of processes"),
    "rank": Rule(ONE_DEVICE),
    "vocab_size": Rule("it follows from the tokenizer"),
    "save_dir": Rule("the run directory is output_dir/name"),
}
_NEEDED = ("pretrained_model", "max_len", "batch_size", "steps", "lr0")


def convert_multi_turn(old: OldConfig) -> None:
    """Set the values of convo and answer the keys of a multi-turn-chatbot-GPT2 config."""
    old.new_values |= MULTI_TURN_FORMAT
    old.require(*_NEEDED)
    num_gpus = _map_device(old)
    _map_data(old)
    old.map("seed", {"seed": old.get("seed", 0)})
    old.map("deterministic", {"deterministic": old.get("deterministic", True)})
    old.map("project", {"output_dir": old.get("project", "outputs/gpt2")})
    note = "an existing run is refused, not numbered"
    old.map("name", {"name": old.get("name", "daily_dialog_chatbot")}, note)
    old.map("pretrained_model", {"model.pretrained": old.get("pretrained_model")})
    note = "longer dialogues become several windows, and nothing is padded to this length"
    old.map("max_len", {"dialogue.max_length": old.get("max_len")}, note)
    _map_training(old, num_gpus)
    _map_evaluation(old)
    apply_rules(old, "", _RULES)


def _map_device(old: OldConfig) -> int:
    """Set training.device and training.devices, and return the number of GPUs."""
    device = old.get("device", "cpu")
    if isinstance(device, list) and len(device) > 1 and all(map(is_index, device)):
        values = {"training.device": "cuda", "training.devices": device}
        old.map("device", values, whole_batch(len(device)))
        return len(device)
    if named := device_of(device):
        old.map("device", {"training.device": named})
    else:
        old.wrong("device", "cpu, mps or the list of a GPU, such as [0]")
    return 1


def _map_data(old: OldConfig) -> None:
    old.require_section("dailydialog_dataset")
    old.require_section("CUSTOM")
    is_daily = old.get("dailydialog_train", False)
    custom = {
        "data.train": "CUSTOM.train_data_path",
        "data.validation": "CUSTOM.validation_data_path",
        "data.test": "CUSTOM.test_data_path",
    }
    if is_one_of(is_daily, (True,)):
        base = old.get("dailydialog_dataset.path", "data/")
        if not isinstance(base, str):
            old.wrong("dailydialog_dataset.path", "text")
        folder = PurePosixPath(str(base)) / "dailydialog"
        names = {"train": "train", "validation": "valid", "test": "test"}
        files = {f"data.{key}": str(folder / f"{name}.jsonl") for key, name in names.items()}
        note = "DailyDialog as one JSON list of utterances a line, instead of pickles"
        old.map("dailydialog_train", files, note)
        old.map("dailydialog_dataset.path", files, "the folder of these files")
        for key in custom.values():
            old.not_needed(key, "dailydialog_train is true")
        return
    if not is_one_of(is_daily, (False, None)):
        old.wrong("dailydialog_train", "True or False")
    old.not_needed("dailydialog_train", "the files are those of CUSTOM")
    old.not_needed("dailydialog_dataset.path", "the files are those of CUSTOM")
    if not old.is_given("data.train"):
        old.require("CUSTOM.train_data_path")
    for new_key, key in custom.items():
        file = old.get(key)
        old.map(key, {new_key: [] if file in (None, "") else file})


def _map_training(old: OldConfig, num_gpus: int) -> None:
    batch = old.whole("batch_size", 60, at_least=1)
    sizes = {"training.batch_size": batch * num_gpus}
    if num_gpus > 1:
        sizes["training.micro_batch_size"] = batch
    old.map("batch_size", sizes)
    note = "exactly this number, not rounded up to whole epochs"
    old.map("steps", {"training.max_steps": old.get("steps")}, note)
    warmup = old.whole("warmup_steps", 0)
    old.map("warmup_steps", {"training.warmup_steps": warmup})
    old.map("lr0", {"training.learning_rate": old.get("lr0")})
    old.map("lrf", {"training.min_lr_ratio": old.get("lrf", 0.1)})
    schedule = old.get("scheduler_type", "cosine")
    note = "the cosine begins after the warm-up" if schedule == "cosine" and warmup else ""
    old.map("scheduler_type", {"training.schedule": schedule}, note)
    until = old.get("train_user_turn_mask_step", 0.0)
    old.map("train_user_turn_mask_step", {"dialogue.user_turns_until": until})


def _map_evaluation(old: OldConfig) -> None:
    patience = old.get("patience")
    patience = None if is_one_of(patience, (0,)) else patience
    note = "one evaluation an epoch; only the loss counts, not the metric"
    old.map("patience", {"evaluation.early_stopping.patience": patience}, note)
    shown = old.get("prediction_print_n", 10)
    note = "replies of an evaluation, not of each batch"
    old.map("prediction_print_n", {"evaluation.show_samples": shown}, note)
    metrics: Any = old.get("metrics", [])
    names = metrics if isinstance(metrics, list) else [metrics]
    if not all(isinstance(name, str) for name in names):
        old.wrong("metrics", "a list of names")
    elif unknown := [name for name in names if name not in _METRICS]:
        others = clipped(", no ".join(unknown))
        note = f"no {others}; there are bleu-2, bleu-4, nist-2, nist-4 and perplexity"
        old.unsupported("metrics", note, ("evaluation.metric",))
        return
    note = "all five are reported; bleu-4 has the largest weight in the forerunner's best metric"
    old.map("metrics", {"evaluation.metric": "bleu-4"}, note)
