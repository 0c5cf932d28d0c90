"""Conversion of Lightning's callbacks: three become settings, and each other one gets an answer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from convo_cli.config.forerunners.notes import (
    ALWAYS_STOPS,
    DEVICE_IS_LOGGED,
    FITTED_PASSES,
    LIVE_VIEW,
    MODEL_SIZE,
    NO_AVERAGE,
    NOT_SET,
    ONE_DEVICE,
    STEP_STAYS,
    STOP,
    Rule,
    apply_rules,
    is_one_of,
)
from convo_cli.config.forerunners.old_config import OldConfig

_CALLBACKS = "trainer.callbacks"
_PACKAGES = ("pytorch_lightning", "lightning", "")
_NO_CODE = "convo runs no code from a config"
_ALL_WEIGHTS = "all weights are trained"
_WITHOUT_COUNTERPART = {
    "LearningRateMonitor": "the learning rate is always logged",
    "GPUStatsMonitor": DEVICE_IS_LOGGED,
    "DeviceStatsMonitor": DEVICE_IS_LOGGED,
    "ProgressBar": LIVE_VIEW,
    "TQDMProgressBar": LIVE_VIEW,
    "RichProgressBar": LIVE_VIEW,
    "ModelSummary": MODEL_SIZE,
    "RichModelSummary": MODEL_SIZE,
    "OnExceptionCheckpoint": "a run that is stopped is always saved",
}
"""Callbacks whose work convo does in every run."""
_UNSUPPORTED = {
    "Timer": STOP,
    "GradientAccumulationScheduler": "each step has training.batch_size examples",
    "StochasticWeightAveraging": NO_AVERAGE,
    "WeightAveraging": NO_AVERAGE,
    "EMAWeightAveraging": NO_AVERAGE,
    "BackboneFinetuning": _ALL_WEIGHTS,
    "BaseFinetuning": _ALL_WEIGHTS,
    "ModelPruning": _ALL_WEIGHTS,
    "QuantizationAwareTraining": "`convo train` trains in fp32, bf16 or fp16",
    "LambdaCallback": _NO_CODE,
    "LearningRateFinder": "set training.learning_rate",
}
"""Callbacks without a counterpart, and what exists instead."""
_EACH_SAVES = "each evaluation saves a checkpoint"
_FILE_NAME = "a checkpoint is named after its step: step-00001200"
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ModelCheckpoint": {"save_top_k": 1},
    "EarlyStopping": {"patience": 3, "min_delta": 0.0},
}
"""Lightning's defaults of the arguments that become values of convo."""
_CHECKPOINT_RULES = {
    "save_last": Rule("the last checkpoint is always saved"),
    "filename": Rule(_FILE_NAME),
    "auto_insert_metric_name": Rule(_FILE_NAME),
    "verbose": Rule("each checkpoint has its line in the log"),
    "dirpath": Rule(NOT_SET, (None,), "checkpoints are in RUN_DIR/checkpoints"),
    "save_weights_only": Rule(
        "a checkpoint holds the whole state", (None, False), "convo export writes only the model"
    ),
    "save_on_train_epoch_end": Rule(_EACH_SAVES),
    "train_time_interval": Rule(NOT_SET, (None,), "see checkpoints.every_steps"),
    "enable_version_counter": Rule(_FILE_NAME),
    "save_on_exception": Rule("a run that is stopped is always saved"),
}
_STOPPING_RULES = {
    "verbose": Rule("the log says why a run stops"),
    "strict": Rule("the score always exists"),
    "check_finite": Rule(ALWAYS_STOPS),
    "check_on_train_epoch_end": Rule("the score is compared at each evaluation"),
    "log_rank_zero_only": Rule(ONE_DEVICE),
    "stopping_threshold": Rule(NOT_SET, (None,), "see evaluation.early_stopping.patience"),
    "divergence_threshold": Rule(
        "it is not set", (None,), "see evaluation.early_stopping.patience"
    ),
}


def map_callbacks(old: OldConfig) -> None:
    """Answer each callback and its arguments, after the evaluations were mapped."""
    callbacks = old.get(_CALLBACKS)
    if callbacks in (None, []):
        old.not_needed(_CALLBACKS, "there are none")
        return
    items = {_CALLBACKS: callbacks}  # Lightning takes a single callback too
    if isinstance(callbacks, list):
        items = {f"{_CALLBACKS}.{index}": callback for index, callback in enumerate(callbacks)}
        if not any(isinstance(callback, dict | list) for callback in callbacks):
            old.not_needed(_CALLBACKS, "each of them is answered")
    known: dict[str, list[str]] = defaultdict(list)
    for section, callback in items.items():
        name, key = _class_name(callback, section)
        old.require_section(f"{section}.init_args")
        if not name:
            old.wrong(key, "a class_path, with or without init_args")
        elif name in ("ModelCheckpoint", "EarlyStopping"):
            known[name].append(f"{section}.init_args")
            becomes = "checkpoints" if name == "ModelCheckpoint" else "evaluation.early_stopping"
            old.not_needed(key, f"its settings become those of {becomes}")
        elif name in _WITHOUT_COUNTERPART:
            old.not_needed(key, _WITHOUT_COUNTERPART[name])
            _answer_arguments(old, section, callback, is_needed=False)
        elif name == "BatchSizeFinder":
            old.map(key, FITTED_PASSES, STEP_STAYS)
            _answer_arguments(old, section, callback, is_needed=False)
        else:
            instead = _UNSUPPORTED.get(
                name, f"{_NO_CODE}; of callbacks, it has ModelCheckpoint and EarlyStopping"
            )
            old.unsupported(key, instead)
            _answer_arguments(old, section, callback, is_needed=True)
    for name, sections in known.items():
        _refuse_contradictions(old, name, sections)
        for section in sections:
            if name == "ModelCheckpoint":
                _map_checkpoint(old, section)
            else:
                _map_stopping(old, section)


def _class_name(callback: Any, key: str) -> tuple[str, str]:
    """Return the class name of a callback, whole unless it is one of Lightning's, and its key.

    The name is empty if the callback has no class.
    """
    path = callback
    if isinstance(callback, dict) and "class_path" in callback:
        path, key = callback["class_path"], f"{key}.class_path"
    if not isinstance(path, str):
        return "", key
    package, _, name = path.rpartition(".")
    is_lightning = package.partition(".")[0] in _PACKAGES
    return (name if is_lightning else path), key


def _answer_arguments(old: OldConfig, key: str, callback: Any, *, is_needed: bool) -> None:
    arguments = callback.get("init_args") if isinstance(callback, dict) else None
    for name in arguments if isinstance(arguments, dict) else ():
        answer = old.unsupported if is_needed else old.not_needed
        answer(f"{key}.init_args.{name}", "an argument of this callback")


def _refuse_contradictions(old: OldConfig, name: str, sections: list[str]) -> None:
    """Answer the arguments for which two callbacks of one class have different values."""
    first: dict[str, str] = {}
    for section in sections:
        arguments = old.get(section)
        for argument in arguments if isinstance(arguments, dict) else ():
            key = f"{section}.{argument}"
            before = first.setdefault(argument, key)
            if old.get(before) != old.get(key):
                other = f"another {name} has {argument}: {old.shown(before)}"
                old.ambiguous(key, f"{old.shown(key)}, but {other}; convo has one setting")
    _refuse_other_defaults(old, name, sections)


def _refuse_other_defaults(old: OldConfig, name: str, sections: list[str]) -> None:
    """Answer the arguments that another callback of the class has with another default."""
    for argument, default in _DEFAULTS[name].items():
        for section in sections:
            value = old.get(f"{section}.{argument}", default)
            others = [other for other in sections if not old.has(f"{other}.{argument}")]
            if name == "ModelCheckpoint":  # one with another monitor keeps other checkpoints
                monitor = old.get(f"{section}.monitor")
                others = [other for other in others if old.get(f"{other}.monitor") == monitor]
            if others and value != default:
                key = f"{section}.{argument}"
                note = f"{old.shown(key)}, but another {name} has the default, {default}"
                old.ambiguous(key, f"{note}; convo has one setting")


def _map_checkpoint(old: OldConfig, section: str) -> None:
    has_monitor = _map_monitor(old, section)
    key = f"{section}.every_n_train_steps"
    if not is_one_of(old.get(key), (None, 0)):
        steps = old.new_values.get("evaluation.every_steps")
        often = f"every {steps} steps" if steps else "once an epoch"
        note = "" if steps == old.get(key) else f"each evaluation, {often}, saves a checkpoint too"
        old.map(key, {"checkpoints.every_steps": old.get(key)}, note)
    else:
        old.not_needed(key, _EACH_SAVES)
    for name in ("every_n_epochs", "every_n_val_epochs", "period"):
        if old.get(f"{section}.{name}") in (None, 1):
            old.not_needed(f"{section}.{name}", _EACH_SAVES)
        else:
            old.unsupported(f"{section}.{name}", "checkpoints.every_steps counts steps")
    _map_number_kept(old, f"{section}.save_top_k", has_monitor=has_monitor)
    apply_rules(old, section, _CHECKPOINT_RULES)


def _map_number_kept(old: OldConfig, key: str, *, has_monitor: bool) -> None:
    number = old.get(key, 1)
    if number == -1:
        old.map(key, {"checkpoints.keep": 1_000_000}, "all checkpoints are kept")
    elif is_one_of(number, (0,)):
        note = "the newest and the best checkpoint are always saved"
        old.new_values["checkpoints.keep"] = 1
        old.unsupported(key, note, ("checkpoints.keep",))
    elif has_monitor:
        old.map(key, {"checkpoints.keep_best": number})
    else:
        old.map(key, {"checkpoints.keep": number}, "without monitor, the newest are kept")


def _map_monitor(old: OldConfig, section: str) -> bool:
    """Answer monitor and mode, and return whether a score is monitored."""
    key, mode_key = f"{section}.monitor", f"{section}.mode"
    monitor, mode = old.get(key), old.get(mode_key, "min")
    if monitor == "val_loss":
        old.map(key, {"evaluation.early_stopping.monitor": "loss"})
        if mode == "min":
            old.not_needed(mode_key, "the smaller loss is the better one")
        else:
            old.ambiguous(mode_key, "convo keeps the checkpoint with the smallest loss; write min")
        return True
    if monitor is None:
        old.not_needed(key, NOT_SET)
    else:
        old.unsupported(key, "convo monitors loss or evaluation.metric; the loss is used")
    old.not_needed(mode_key, "it belongs to monitor")
    return monitor is not None


def _map_stopping(old: OldConfig, section: str) -> None:
    _map_monitor(old, section)
    patience = old.get(f"{section}.patience", 3)
    old.map(f"{section}.patience", {"evaluation.early_stopping.patience": patience})
    delta = old.get(f"{section}.min_delta", 0.0)
    is_number = isinstance(delta, int | float) and not isinstance(delta, bool)
    delta = abs(delta) if is_number else delta  # as Lightning does
    old.map(f"{section}.min_delta", {"evaluation.early_stopping.min_delta": delta})
    apply_rules(old, section, _STOPPING_RULES)
