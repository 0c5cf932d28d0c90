"""Conversion of a LightningCLI config of convmodel: seed_everything, trainer and model."""

from __future__ import annotations

from typing import Any

from convo_cli.config.forerunners.callbacks import map_callbacks
from convo_cli.config.forerunners.documented import CONVMODEL_FORMAT
from convo_cli.config.forerunners.notes import (
    FITTED_PASSES,
    NOT_SET,
    STEP_STAYS,
    apply_rules,
    is_one_of,
)
from convo_cli.config.forerunners.old_config import OldConfig
from convo_cli.config.forerunners.trainer_devices import map_devices
from convo_cli.config.forerunners.trainer_rules import (
    ALL_DATA,
    MODEL_RULES,
    NO_LIMIT,
    TOP_RULES,
    TRAINER_RULES,
)
from convo_cli.config.habits import precision_of

_NO_END = "a run needs an end: write max_epochs or max_steps"
_EPOCHS_OF_LIGHTNING = 1000
_OTHER_PRECISIONS = (64, "64", "64-true", "transformer-engine", "transformer-engine-float16")


def convert_lightning(old: OldConfig) -> None:
    """Set the values of convo and answer the keys of a LightningCLI config."""
    old.new_values |= CONVMODEL_FORMAT | {"training.weight_decay": 0.0}
    old.require_section("trainer")
    old.require_section("model")
    old.map("seed_everything", _seed(old.get("seed_everything")))
    _map_model(old)
    num_gpus = map_devices(old)
    accumulation = _map_batches(old, num_gpus)
    _map_fitting(old)
    _map_length(old)
    _map_numbers(old)
    _map_evaluations(old, accumulation)
    _map_logs(old)
    map_callbacks(old)
    apply_rules(old, "trainer", TRAINER_RULES)
    apply_rules(old, "", TOP_RULES)


def _seed(seed: Any) -> dict[str, Any]:
    return {"seed": 42 if seed is None or isinstance(seed, bool) else seed}


def _map_model(old: OldConfig) -> None:
    old.require("model.pretrained_model_or_path")
    if not old.is_given("data.train"):
        old.require("model.train_file")
    old.map(
        "model.pretrained_model_or_path",
        {"model.pretrained": old.get("model.pretrained_model_or_path")},
    )
    for name, key in (("train", "train"), ("valid", "validation"), ("test", "test")):
        file = old.get(f"model.{name}_file")
        old.map(f"model.{name}_file", {f"data.{key}": [] if file in (None, "") else file})
    old.map("model.lr", {"training.learning_rate": old.get("model.lr", 1e-4)})
    old.map(
        "model.num_warmup_steps",
        {"training.warmup_steps": old.get("model.num_warmup_steps", 10_000)},
    )
    if steps := old.get("model.num_training_steps"):
        old.map(
            "model.num_training_steps",
            {
                "training.schedule": "linear",
                "training.schedule_steps": steps,
                "training.min_lr_ratio": 0.0,
            },
            "the rate falls to 0 at this step and stays there",
        )
    else:
        old.map("model.num_training_steps", {"training.schedule": "constant"})
    apply_rules(old, "model", MODEL_RULES)


def _map_batches(old: OldConfig, num_gpus: int) -> int:
    """Set the sizes of batches and return the batches of a step."""
    batch = old.whole("model.batch_size", 2, at_least=1)
    key = "trainer.accumulate_grad_batches"
    accumulation = 1
    if isinstance(old.get(key), dict):
        old.unsupported(key, "each step has training.batch_size examples")
    elif old.get(key) is not None:
        accumulation = old.whole(key, 1, at_least=1)
    size = batch * accumulation * num_gpus
    old.map("model.batch_size", {"training.batch_size": size})
    if size == batch:
        old.not_needed(key, "a step has one batch")
        return accumulation
    old.map("model.batch_size", {"training.batch_size": size, "training.micro_batch_size": batch})
    old.map(
        key,
        {"training.batch_size": size, "training.micro_batch_size": batch},
        "training.batch_size counts all examples of a step",
    )
    return accumulation


def _map_fitting(old: OldConfig) -> None:
    """Let convo find the size of a pass if Lightning was to find that of a batch."""
    key = "trainer.auto_scale_batch_size"
    if is_one_of(old.get(key), (None, False)):
        old.not_needed(key, NOT_SET)
    elif is_one_of(old.get(key), (True, "power", "binsearch")):
        old.map(key, FITTED_PASSES, STEP_STAYS)
    else:
        old.wrong(key, "true, false, power or binsearch")


def _map_length(old: OldConfig) -> None:
    epochs, steps = old.get("trainer.max_epochs"), old.get("trainer.max_steps")
    has_steps = steps not in (None, -1)
    if has_steps and epochs not in (None, -1):
        given = [old.shown(f"trainer.{name}") for name in ("max_epochs", "max_steps")]
        message = f"max_epochs is {given[0]} and max_steps {given[1]}; convo has one of them"
        for key in ("trainer.max_epochs", "trainer.max_steps"):
            old.ambiguous(key, f"{message}: remove the one that Lightning reaches later")
    elif has_steps:
        old.map("trainer.max_steps", {"training.max_steps": steps})
        old.not_needed("trainer.max_epochs", "max_steps decides")
    elif epochs == -1:
        old.ambiguous("trainer.max_epochs", _NO_END)
    else:
        note = "" if epochs is not None else "Lightning's default"
        old.map(
            "trainer.max_epochs",
            {"training.epochs": _EPOCHS_OF_LIGHTNING if epochs is None else epochs},
            note,
        )
        old.not_needed("trainer.max_steps", "max_epochs decides")


def _map_numbers(old: OldConfig) -> None:
    clip = old.get("trainer.gradient_clip_val")
    clip = None if is_one_of(clip, (0, 0.0)) else clip
    old.map("trainer.gradient_clip_val", {"training.max_grad_norm": clip})
    deterministic = old.get("trainer.deterministic", False)
    note = ""
    if deterministic == "warn":
        deterministic, note = True, "operations without a deterministic algorithm stop the run"
    value = False if deterministic is None else deterministic
    old.map("trainer.deterministic", {"deterministic": value}, note)
    key = "trainer.precision"
    precision = old.get(key)
    named = "fp32" if precision is None else precision_of(precision)
    if named is None and not is_one_of(precision, _OTHER_PRECISIONS):
        old.wrong(key, "16, 32, 64 or bf16, or a name of a later version such as 16-mixed")
    elif named is None or precision in ("16-true", "bf16-true"):
        old.new_values["training.precision"] = named or "fp32"
        note = "weights are always fp32; the forward pass is fp32, bf16 or fp16"
        old.unsupported(key, note, ("training.precision",))
    else:
        old.map(key, {"training.precision": named})


def _map_evaluations(old: OldConfig, accumulation: int) -> None:
    key = "trainer.val_check_interval"
    interval = old.get(key, 1.0)
    if is_one_of(interval, NO_LIMIT):
        old.map(key, {"evaluation.every_steps": None}, "once an epoch")
    elif isinstance(interval, float) and 0 < interval < 1:
        note = "convo evaluates once an epoch, or after evaluation.every_steps"
        old.unsupported(key, note)
    elif (batches := old.whole(key, 1, at_least=1)) % accumulation:
        note = f"{batches} batches are not a whole number of steps; set evaluation.every_steps"
        old.unsupported(key, note)
    else:
        old.map(key, {"evaluation.every_steps": batches // accumulation})
    key = "trainer.limit_val_batches"
    limit = old.get(key)
    if is_one_of(limit, NO_LIMIT):
        old.not_needed(key, ALL_DATA)
    elif isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        dialogues = limit * old.whole("model.batch_size", 2, at_least=1)
        old.map(key, {"evaluation.max_dialogues": dialogues}, "counted in dialogues")
    elif is_one_of(limit, (0, 0.0)):
        old.map(key, {"data.validation": []}, "no evaluation")
    else:
        old.unsupported(key, "evaluation.max_dialogues is a number of dialogues")


def _map_logs(old: OldConfig) -> None:
    if folder := old.get("trainer.default_root_dir"):
        old.map("trainer.default_root_dir", {"output_dir": folder})
    else:
        note = "runs/NAME replaces lightning_logs/version_N"
        old.map("trainer.default_root_dir", {"output_dir": "runs"}, note)
    every = old.get("trainer.log_every_n_steps")
    old.map("trainer.log_every_n_steps", {"logging.every_steps": 50 if every is None else every})
    key = "trainer.logger"
    logger = old.get(key, True)
    if is_one_of(logger, (True, None, False)):
        note = "TensorBoard files are in RUN_DIR/tensorboard, not in lightning_logs/"
        old.map(key, {"logging.tensorboard": logger is not False}, note)
    else:
        note = "convo writes metrics.jsonl and TensorBoard files into the run directory"
        old.unsupported(key, note)
