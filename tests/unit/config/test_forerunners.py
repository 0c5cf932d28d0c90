"""Conversion of the forerunners' configs: every key is answered, and no value is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.cli.views.config_view import converted_document
from convo_cli.config.forerunners.config_conversion import Conversion, convert
from convo_cli.config.keys import value_of
from convo_cli.config.load import load_config
from convo_cli.config.presets import PRESETS
from convo_cli.config.reading.config_text import parse_config
from convo_cli.errors import ConfigError
from tests.cases import num_examples

SAMPLES = Path(__file__).parents[2] / "fixtures" / "forerunners"
NAMES = sorted(path.name for path in SAMPLES.iterdir())
LIGHTNING = """seed_everything: 7
trainer:
  max_epochs: 2
{trainer}
model:
  pretrained_model_or_path: gpt2
  train_file: a.jsonl
  valid_file: b.jsonl
{model}
"""
FIT = {
    "pretrained_model_or_path": "gpt2",
    "output_path": "model",
    "train_file": "a.jsonl",
    "valid_file": "b.jsonl",
    "accumulation_steps": 1,
}

Converter = Callable[..., Conversion]


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Converter:
    """Converts a text; keyword arguments are files that the command line sets."""
    monkeypatch.chdir(tmp_path)

    def run(text: str, **given: list[str]) -> Conversion:
        Path("old.yaml").write_text(text, encoding="utf-8")
        return convert(Path("old.yaml"), {f"data.{name}": files for name, files in given.items()})

    return run


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


def lightning(trainer: str = "", model: str = "") -> str:
    return LIGHTNING.format(trainer=indented(trainer), model=indented(model))


def indented(lines: str) -> str:
    return "\n".join(f"  {line}" for line in lines.splitlines())


def fit(**changes: Any) -> str:
    return json.dumps(FIT | changes)


def multi_turn(**changes: str) -> str:
    text = sample("multi_turn.yaml")
    for key, value in changes.items():
        text, count = re.subn(rf"^( *{key}:).*$", rf"\1 {value}", text, flags=re.MULTILINE)
        assert count == 1, key
    return text


def undecided(converter: Converter, text: str, **given: list[str]) -> dict[str, str]:
    """The keys that need a decision, with the message of each."""
    with pytest.raises(ConfigError) as caught:
        converter(text, **given)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("nothing was written")
    assert all(problem.line for problem in caught.value.problems if problem.message != "missing")
    return {str(problem.key): problem.message for problem in caught.value.problems}


def leaves(value: Any, path: str = "") -> set[str]:
    """Dotted names of all values that are not sections; a list of plain values is one."""
    items: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = enumerate(value)
    inside = {name for key, inner in items for name in leaves(inner, f"{path}.{key}".lstrip("."))}
    return inside or {path}


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_documented_config_is_answered_once_at_its_place(
    converted: Converter, name: str
) -> None:
    text = sample(name)
    conversion = converted(text, train=["a.jsonl"], validation=["b.jsonl"])
    keys = [answer.key for answer in conversion.answers]
    assert len(set(keys)) == len(keys)
    assert leaves(parse_config(text, name).value) == set(keys) - {"trainer.callbacks"}
    assert {answer.status for answer in conversion.answers} == {"mapped", "not needed"}
    for answer in conversion.answers:
        line = text.splitlines()[answer.place.line - 1][answer.place.column - 1 :]
        last = answer.key.rpartition(".")[2]
        assert line.startswith((last, f'"{last}"')), answer
        assert answer.note or answer.becomes


@pytest.mark.parametrize(
    ("name", "changes", "preset", "differs"),
    [
        (
            "convmodel_lightning.yaml",
            {"max_steps: null": "max_steps: 2410000", "max_epochs: 10": "max_epochs: null",
             "num_training_steps: null": "num_training_steps: 2410000",
             "colorfulscoop/gpt2-small-ja": "gpt2"},
            "convmodel",
            {"training.device", "training.schedule_steps"},
        ),
        ("convmodel_fit.json", {}, "convmodel-fit", {"output_dir", "name"}),
        ("multi_turn.yaml", {}, "multi-turn-gpt2", {"training.device"}),
        ("multi_turn_args.yaml", {}, "multi-turn-gpt2", {"training.device"}),
    ],
)  # fmt: skip
def test_a_preset_has_the_values_of_the_documented_config(
    converted: Converter, name: str, changes: dict[str, str], preset: str, differs: set[str]
) -> None:
    text = sample(name)
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    files: dict[str, list[str]] = {"train": ["a"], "validation": ["b"], "test": ["c"]}
    ours = PRESETS[preset].with_data(**files).config()
    theirs = converted(text, **files).config
    names = leaves(ours.model_dump(mode="json")) | leaves(theirs.model_dump(mode="json"))
    assert {key for key in names if value_of(ours, key) != value_of(theirs, key)} == differs


def test_an_empty_config_has_the_defaults_of_the_forerunner(converted: Converter) -> None:
    config = converted(lightning()).config
    training = config.training
    assert (training.batch_size, training.learning_rate, training.warmup_steps) == (2, 1e-4, 10_000)
    assert (training.schedule, training.precision, training.device) == ("constant", "fp32", "cpu")
    assert (training.max_grad_norm, training.weight_decay, training.betas) == (
        None,
        0,
        (0.9, 0.999),
    )
    assert (config.deterministic, config.dialogue.train_on) == (False, "all")
    assert (config.evaluation.every_steps, config.logging.every_steps) == (None, 50)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gpus: 1", {"training.device": "cuda"}),
        ("gpus: 0", {"training.device": "cpu"}),
        ("gpus: null", {"training.device": "cpu"}),
        ("gpus: []", {"training.device": "cpu"}),
        ("gpus: [0]", {"training.device": "cuda:0"}),
        ("gpus: [3]", {"training.device": "cuda:3"}),
        ("gpus: '2,'", {"training.device": "cuda:2"}),
        (
            "gpus: 2",
            {"training.device": "cuda", "training.devices": 2, "training.batch_size": 4,
             "training.micro_batch_size": 2},
        ),
        ("gpus: [1, 2, 3]", {"training.devices": [1, 2, 3], "training.batch_size": 6}),
        ("gpus: '1, 2'", {"training.device": "cuda", "training.devices": [1, 2]}),
        ("gpus: -1", {"training.devices": "auto", "training.batch_size": 2}),
        ("accelerator: gpu\ndevices: '2'", {"training.devices": 2, "training.batch_size": 4}),
        ("accelerator: gpu\ndevices: [0, 1]", {"training.devices": [0, 1]}),
        ("accelerator: cpu\ndevices: 2", {"training.device": "cpu", "training.devices": 2}),
        ("num_processes: 2", {"training.device": "cpu", "training.devices": 2}),
        (
            "accelerator: ddp_cpu\nnum_processes: 2",
            {"training.device": "cpu", "training.devices": 2, "training.batch_size": 4},
        ),
        ("gpus: 1\nnum_processes: 2", {"training.device": "cuda", "training.devices": 1}),
        ("accelerator: gpu\ndevices: 1", {"training.device": "cuda"}),
        ("accelerator: gpu\ndevices: [1]", {"training.device": "cuda:1"}),
        ("accelerator: cuda\ndevices: '1'", {"training.device": "cuda"}),
        ("accelerator: cpu\ndevices: 1", {"training.device": "cpu"}),
        ("accelerator: mps\ndevices: auto", {"training.device": "mps"}),
        ("accelerator: auto\ndevices: auto", {"training.devices": "auto"}),
        ("accelerator: ddp\ngpus: 1", {"training.device": "cuda"}),
        ("precision: 16", {"training.precision": "fp16"}),
        ("precision: '16'", {"training.precision": "fp16"}),
        ("precision: 16-mixed", {"training.precision": "fp16"}),
        ("precision: bf16", {"training.precision": "bf16"}),
        ("precision: bf16-mixed", {"training.precision": "bf16"}),
        ("precision: 32", {"training.precision": "fp32"}),
        ("precision: 32-true", {"training.precision": "fp32"}),
        ("gradient_clip_val: 0.0", {"training.max_grad_norm": None}),
        ("gradient_clip_val: null", {"training.max_grad_norm": None}),
        ("gradient_clip_val: 0.5", {"training.max_grad_norm": 0.5}),
        ("val_check_interval: 1.0", {"evaluation.every_steps": None}),
        ("val_check_interval: 500", {"evaluation.every_steps": 500}),
        (
            "val_check_interval: 500\naccumulate_grad_batches: 4",
            {"evaluation.every_steps": 125, "training.batch_size": 8,
             "training.micro_batch_size": 2},
        ),
        ("limit_val_batches: 10", {"evaluation.max_dialogues": 20}),
        ("limit_val_batches: 0", {"data.validation": []}),
        ("logger: false", {"logging.tensorboard": False}),
        ("log_every_n_steps: 5", {"logging.every_steps": 5}),
        ("default_root_dir: out", {"output_dir": "out"}),
        ("deterministic: true", {"deterministic": True}),
        ("max_steps: -1", {"training.epochs": 2}),
    ],
)  # fmt: skip
def test_a_trainer_setting_becomes(
    converted: Converter, line: str, expected: dict[str, Any]
) -> None:
    config = converted(lightning(line)).config
    assert {key: value_of(config, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("accelerator: mps\ndevices: 2", "devices", "mps is one device"),
        ("strategy: fsdp", "strategy", "training.sharding"),
        ("precision: 64", "precision", "fp32, bf16 or fp16"),
        ("precision: bf16-true", "precision", "weights are always fp32"),
        ("accelerator: tpu", "accelerator", "Apple's MPS"),
        ("val_check_interval: 0.25", "val_check_interval", "evaluation.every_steps"),
        ("val_check_interval: 3\naccumulate_grad_batches: 2", "val_check_interval", "whole number"),
        ("limit_train_batches: 0.5", "limit_train_batches", "give a smaller file"),
        ("limit_train_batches: 1", "limit_train_batches", "give a smaller file"),
        ("limit_val_batches: 0.5", "limit_val_batches", "evaluation.max_dialogues"),
        ("overfit_batches: 3", "overfit_batches", "give a smaller file"),
        ("check_val_every_n_epoch: 2", "check_val_every_n_epoch", "evaluation.every_steps"),
        ("fast_dev_run: true", "fast_dev_run", "convo train --dry-run"),
        ("gradient_clip_algorithm: value", "gradient_clip_algorithm", "only the norm"),
        ("resume_from_checkpoint: a.ckpt", "resume_from_checkpoint", "convo resume"),
        ("max_time: '00:12:00:00'", "max_time", "convo resume"),
        ("num_nodes: 2", "num_nodes", "use torchrun"),
        ("accumulate_grad_batches: {4: 2}", "accumulate_grad_batches", "training.batch_size"),
        ("logger: {class_path: W}", "logger", "TensorBoard"),
        ("no_such_key: 1", "no_such_key", "not known"),
        ("save_steps: 1", "save_steps", "convo has checkpoints.every_steps"),
    ],
)
def test_an_unsupported_setting_is_listed_with_what_exists_instead(
    converted: Converter, line: str, key: str, words: str
) -> None:
    answers = {answer.key: answer for answer in converted(lightning(line)).answers}
    answer = answers[f"trainer.{key}"]
    assert answer.status == "unsupported"
    assert words in answer.note


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ("max_steps: 5", {"max_epochs": "max_steps 5", "max_steps": "remove the one"}),
        ("gpus: 1\ndevices: 2", {"devices": "2 disagrees with trainer.gpus: 1"}),
        ("gpus: 1\naccelerator: cpu", {"accelerator": "cpu disagrees with trainer.gpus: 1"}),
        ("gpus: 0\naccelerator: gpu", {"gpus": "0 disagrees with trainer.accelerator"}),
        ("gpus: [1, 1]", {"gpus": "a list of different GPUs"}),
        ("gpus: '0'", {"gpus": "write [0] or 0 without quotes"}),
        ("gpus: many", {"gpus": "found many; allowed: a number of GPUs"}),
        ("gpus: true", {"gpus": "found true; allowed: a number of GPUs"}),
        ("precision: 16\nprecision: 32", {"precision": "given twice, first on line 4"}),
        ("precision: &a 16", {"precision": "an anchor (&a) is not allowed"}),
        ("precision: !!python/name:os.system 16", {"precision": "a tag ("}),
        ("val_check_interval: often", {"val_check_interval": "found often"}),
        ("val_check_interval: .nan", {"val_check_interval": "found .nan"}),
        ("accumulate_grad_batches: 0", {"accumulate_grad_batches": "at least 1"}),
        ("gradient_clip_val: [1]", {"gradient_clip_val": "found [1]"}),
        ("deterministic: [1]", {"deterministic": "allowed: true or false"}),
        ("callbacks: 3", {"callbacks": "allowed: a class_path"}),
        ("callbacks: false", {"callbacks": "found false"}),
        ("callbacks: [{x: 1}]", {"callbacks.0": 'found {"x": 1}; allowed: a class_path'}),
        ("callbacks: [{class_path: null}]", {"callbacks.0.class_path": "found null"}),
        (
            "callbacks: [{class_path: X, init_args: [1]}]",
            {"callbacks.0.init_args": "found [1]; allowed: keys with values"},
        ),
        ("gradient_clip_val: false", {"gradient_clip_val": "found false"}),
        ("gradient_clip_val: ''", {"gradient_clip_val": 'found ""'}),
        ("precision: [16]", {"precision": "found [16]; allowed: 16, 32, 64 or bf16"}),
        ("precision: true", {"precision": "found true"}),
        ("gpus: 10000000", {"gpus": "allowed: a number of GPUs"}),
    ],
)
def test_what_needs_a_decision_is_listed_and_nothing_is_guessed(
    converted: Converter, trainer: str, expected: dict[str, str]
) -> None:
    found = undecided(converted, lightning(trainer))
    assert set(found) == {f"trainer.{key}" for key in expected}
    for key, words in expected.items():
        assert words in found[f"trainer.{key}"]


def test_the_end_of_a_run(converted: Converter) -> None:
    endless = lightning().replace("max_epochs: 2", "max_epochs: -1")
    assert "a run needs an end" in undecided(converted, endless)["trainer.max_epochs"]
    training = converted(endless.replace("-1", "-1\n  max_steps: 9")).config.training
    assert (training.max_steps, training.epochs) == (9, None)
    both = undecided(converted, lightning("max_steps: [true]"))["trainer.max_steps"]
    assert both.startswith("max_epochs is 2 and max_steps [true]; convo has one of them")
    for steps in ("null", "-1"):  # -1 is how later versions write null
        length = f"max_epochs: null\n  max_steps: {steps}"
        open_end = converted(lightning().replace("max_epochs: 2", length))
        assert open_end.config.training.epochs == 1000
    note = next(answer.note for answer in open_end.answers if answer.key == "trainer.max_epochs")
    assert note == "Lightning's default"


def callbacks(*lines: str) -> str:
    return "callbacks:\n" + "\n".join(f"  - {line}" for line in lines)


def checkpoint(**arguments: Any) -> str:
    path = "pytorch_lightning.callbacks.ModelCheckpoint"
    return f"{{class_path: {path}, init_args: {json.dumps(arguments)}}}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"monitor": "val_loss", "every_n_train_steps": 7}, {"checkpoints.every_steps": 7}),
        ({"monitor": "val_loss", "save_top_k": 3}, {"checkpoints.keep_best": 3}),
        ({"save_top_k": 3}, {"checkpoints.keep": 3, "checkpoints.keep_best": 1}),
        ({"monitor": "val_loss", "save_top_k": -1}, {"checkpoints.keep": 1_000_000}),
        ({"monitor": "val_loss", "save_top_k": 0}, {"checkpoints.keep": 1}),
    ],
)
def test_settings_of_model_checkpoint(
    converted: Converter, arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    config = converted(lightning(callbacks(checkpoint(**arguments)))).config
    assert {key: value_of(config, key) for key in expected} == expected


def test_checkpoints_between_evaluations_are_noted(converted: Converter) -> None:
    notes = {}
    for interval in (10, 20):
        line = f"val_check_interval: {interval}\naccumulate_grad_batches: 2\n"
        line += callbacks(checkpoint(every_n_train_steps=10))
        answers = converted(lightning(line)).answers
        (answer,) = (answer for answer in answers if "every_n_train" in answer.key)
        notes[interval] = answer.note
    assert notes[20] == ""  # 20 batches are 10 steps
    assert notes[10] == "each evaluation, every 5 steps, saves a checkpoint too"


def test_settings_of_early_stopping(converted: Converter) -> None:
    arguments = "{monitor: val_loss, mode: min, patience: 4, min_delta: -0.5, verbose: true}"
    line = f"{{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {arguments}}}"
    stopping = converted(lightning(callbacks(line))).config.evaluation.early_stopping
    assert (stopping.patience, stopping.monitor, stopping.min_delta) == (4, "loss", 0.5)
    bare = converted(lightning(callbacks("EarlyStopping"))).config
    assert bare.evaluation.early_stopping.patience == 3


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (callbacks("BatchSizeFinder"), "auto"),
        ("accumulate_grad_batches: 4\n" + callbacks("BatchSizeFinder"), "auto"),
        ("auto_scale_batch_size: binsearch", "auto"),
        ("auto_scale_batch_size: true", "auto"),
        ("auto_scale_batch_size: false", None),
    ],
)
def test_a_search_for_the_batch_size_becomes_that_of_a_pass(
    converted: Converter, line: str, size: str | None
) -> None:
    assert converted(lightning(line)).config.training.micro_batch_size == size


def test_two_callbacks_of_a_class_may_agree_but_not_differ(converted: Converter) -> None:
    same = checkpoint(monitor="val_loss", save_top_k=2)
    assert converted(lightning(callbacks(same, same))).config
    other = checkpoint(monitor="val_loss", save_top_k=5)
    found = undecided(converted, lightning(callbacks(same, other)))
    assert found == {
        "trainer.callbacks.1.init_args.save_top_k": "5, but another ModelCheckpoint has "
        "save_top_k: 2; convo has one setting"
    }


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("pytorch_lightning.callbacks.LearningRateMonitor", "not needed", "always logged"),
        ("pytorch_lightning.callbacks.DeviceStatsMonitor", "not needed", "always logged"),
        ("LearningRateMonitor", "not needed", "always logged"),
        ("pytorch_lightning.callbacks.Timer", "unsupported", "convo resume"),
        ("pytorch_lightning.callbacks.StochasticWeightAveraging", "unsupported", "average"),
        ("pytorch_lightning.callbacks.NoSuchCallback", "unsupported", "runs no code"),
        ("mine.callbacks.LearningRateMonitor", "unsupported", "runs no code"),
        ("mine.ModelCheckpoint", "unsupported", "runs no code"),
    ],
)
def test_a_callback_is_answered_with_all_its_arguments(
    converted: Converter, name: str, status: str, words: str
) -> None:
    line = f"{{class_path: {name}, init_args: {{a: 1, b: {{c: [2]}}}}}}"
    answers = {answer.key: answer for answer in converted(lightning(callbacks(line))).answers}
    inside = [answers[f"trainer.callbacks.0.{key}"] for key in ("init_args.a", "init_args.b.c")]
    answer = answers["trainer.callbacks.0.class_path"]
    assert {answer.status, *(part.status for part in inside)} == {status}
    assert words in answer.note


def test_a_null_that_the_second_place_fills_is_no_contradiction(converted: Converter) -> None:
    conversion = converted(lightning(f"callbacks: null\n{callbacks('LearningRateMonitor')}"))
    answer = next(answer for answer in conversion.answers if answer.key == "trainer.callbacks")
    assert "given twice, first on line 4 as null" in answer.note


def test_a_null_that_is_filled_hides_no_unknown_key(converted: Converter) -> None:
    conversion = converted(f"a: null\na: 3\nb: null\nb: {{c: 1}}\nd: null\nd: null\n{lightning()}")
    status = {answer.key: answer.status for answer in conversion.answers}
    assert {status[key] for key in ("a", "b.c", "d")} == {"unsupported"}


def test_a_default_of_one_callback_contradicts_the_value_of_another(converted: Converter) -> None:
    bare = checkpoint(monitor="val_loss", every_n_train_steps=5)
    text = lightning(callbacks(checkpoint(monitor="val_loss", save_top_k=3), bare))
    assert undecided(converted, text) == {
        "trainer.callbacks.0.init_args.save_top_k": "3, but another ModelCheckpoint has the "
        "default, 1; convo has one setting"
    }
    newest = checkpoint(save_top_k=1)
    assert converted(lightning(callbacks(checkpoint(monitor="val_loss", save_top_k=1), newest)))
    stopping = "{class_path: EarlyStopping, init_args: {monitor: val_loss, patience: 5}}"
    found = undecided(converted, lightning(callbacks(stopping, "EarlyStopping")), validation=["b"])
    assert "default, 3" in found["trainer.callbacks.0.init_args.patience"]


@pytest.mark.parametrize("written", ["[EarlyStopping]", "EarlyStopping", "3", "[]"])
def test_a_section_without_keys_is_refused(converted: Converter, written: str) -> None:
    text = f"trainer: {written}\nmodel: {{pretrained_model_or_path: g, train_file: a}}\n"
    assert "allowed: keys with values" in undecided(converted, text)["trainer"]
    text = sample("multi_turn.yaml").replace("CUSTOM:\n", "CUSTOM: {}\nMINE:\n")
    text = text.replace("dailydialog_dataset:\n    path:", f"dailydialog_dataset: {written}\nx:")
    assert "allowed: keys with values" in undecided(converted, text)["dailydialog_dataset"]


def test_a_single_callback_needs_no_list(converted: Converter) -> None:
    section = "callbacks:\n  class_path: EarlyStopping\n  init_args: {patience: 4}"
    for trainer, patience in ((section, 4), ("callbacks: [EarlyStopping]", 3)):
        conversion = converted(lightning(trainer))
        assert conversion.config.evaluation.early_stopping.patience == patience
        assert not conversion.count("unsupported")


def test_a_key_stays_on_its_line_and_is_shortened(converted: Converter) -> None:
    names = ["x\nmodel: {pretrained: evil}\n#", "\x1b[31m", "k" * 5000]
    text = "".join(f"{json.dumps(name)}: 1\n" for name in names if "k" not in name) + lightning()
    conversion = converted(text)
    Path("new.yaml").write_text(converted_document(conversion).text, encoding="utf-8")
    assert load_config(Path("new.yaml")) == conversion.config
    conversion = converted(json.dumps(FIT | {name: {"y": 1} for name in names}))
    assert all(len(answer.name) < 200 for answer in conversion.answers)
    assert all(answer.name.isprintable() for answer in conversion.answers)


def test_a_name_of_digits_is_no_index(converted: Converter) -> None:
    names = ["²", "٣", "9" * 5000, "0"]
    callback = {"class_path": "X", "init_args": dict.fromkeys(names, 1)}
    text = json.dumps(
        {"trainer": {"callbacks": [callback]}, "model": {"pretrained_model_or_path": "gpt2"}}
    )
    answers = converted(text, train=["a"]).answers
    assert {f"trainer.callbacks.0.init_args.{name}" for name in names} <= {
        answer.key for answer in answers
    }


def test_a_dump_of_a_later_lightning_has_no_unknown_key(converted: Converter) -> None:
    trainer = "precision: null\nlog_every_n_steps: null\nmodel_registry: null\n"
    trainer += "enable_autolog_hparams: true\ngpus: 1\n"
    arguments = {"enable_version_counter": True, "monitor": "val_loss"}
    text = lightning(f"{trainer}devices: 1\n{callbacks(checkpoint(**arguments))}")
    conversion = converted(f"{text}weights_only: null\n")
    assert not conversion.count("unsupported")
    assert conversion.config.training.precision == "fp32"


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"use_amp": "false"}, "use_amp", 'found "false"; allowed: true or false'),
        ({"use_amp": None}, "use_amp", "found null"),
        ({"eval_file": 0}, "eval_file", "found 0; allowed: text or a list of texts"),
        ({"dataset_path": ["a b"]}, "dataset_path", 'found ["a b"]; allowed: text'),
    ],
)
def test_what_fit_does_not_take_needs_a_decision(
    converted: Converter, changes: dict[str, Any], key: str, words: str
) -> None:
    assert words in undecided(converted, fit(**changes))[key]


def test_an_empty_dataset_path_is_not_set(converted: Converter) -> None:
    for path in ("", None):
        conversion = converted(fit(dataset_path=path))
        (answer,) = (answer for answer in conversion.answers if answer.key == "dataset_path")
        assert (answer.status, answer.note) == ("not needed", "it is not set")


def test_a_merge_key_is_listed_without_false_alarms(converted: Converter) -> None:
    text = lightning().replace("  train_file: a.jsonl\n", "  <<: *base\n")
    assert set(undecided(converted, f"base: &base {{train_file: a}}\n{text}")) == {
        "base", "model.<<",
    }  # fmt: skip


def test_missing_keys_are_named(converted: Converter) -> None:
    found = undecided(converted, "trainer: {max_epochs: 1}\n")
    assert found == {"model.pretrained_model_or_path": "missing", "model.train_file": "missing"}
    found = undecided(converted, fit(pretrained_model_or_path="", train_file=""))
    assert found == dict.fromkeys(("pretrained_model_or_path", "train_file"), "empty, but needed")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_size": 4, "accumulation_steps": 8},
         {"training.batch_size": 32, "training.micro_batch_size": 4}),
        ({"use_amp": True}, {"training.precision": "fp16"}),
        ({"device": "cuda"}, {"training.device": "cuda"}),
        ({"device": None}, {"training.device": "auto"}),
        ({"device": "cuda:0,1"}, {"training.device": "cuda", "training.devices": [0, 1]}),
        ({"output_path": "out/my.model"}, {"output_dir": "out", "name": "my.model"}),
        ({"eval_file": "c.jsonl"}, {"data.test": ["c.jsonl"]}),
        ({"log_steps": 7},
         {"logging.every_steps": 7, "evaluation.every_steps": None, "training.weight_decay": 0.0}),
        ({"log_steps": 7, "model_class": "ConversationModel"},
         {"logging.every_steps": 7, "evaluation.every_steps": 7, "training.weight_decay": 0.01}),
        ({"max_len": 64}, {"dialogue.max_length": 64}),
        ({"seed": None}, {"seed": 42}),
        ({"seed": 3}, {"seed": 3}),
        ({"warmup_steps": 5}, {"training.warmup_steps": 5, "training.schedule": "constant"}),
    ],
)  # fmt: skip
def test_a_setting_of_fit_becomes(
    converted: Converter, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    config = converted(fit(**changes)).config
    assert {key: value_of(config, key) for key in expected} == expected


def test_a_dataset_path_names_no_files(converted: Converter) -> None:
    text = sample("convmodel_fit_dataset.json")
    found = undecided(converted, text)
    assert found == {
        "dataset_path": "it names no files; name them: --train data/train.jsonl --validation "
        "data/validation.jsonl"
    }
    config = converted(text, train=["a"], validation=["b"]).config
    assert (config.data.train, config.data.validation) == (("a",), ("b",))


def test_a_run_name_that_convo_cannot_use_needs_a_decision(converted: Converter) -> None:
    assert "names the run" in undecided(converted, fit(output_path="out/é"))["output_path"]
    found = undecided(converted, multi_turn(name="my run"))
    assert found["name"].startswith('found "my run". Name of the run directory')


def test_the_length_follows_the_model_if_it_is_in_a_folder(converted: Converter) -> None:
    Path("model").mkdir()
    for content, length in (('{"n_positions": 256}', 256), ("[" * 9999, 1024), ("{}", 1024)):
        Path("model/config.json").write_text(content, encoding="utf-8")
        config = converted(fit(pretrained_model_or_path="model")).config
        assert config.dialogue.max_length == length
    Path("model/config.json").write_text('{"n_positions": 32}', encoding="utf-8")
    config = converted(fit(pretrained_model_or_path="model", max_len=64)).config
    assert config.dialogue.max_length == 64


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"device": "[0]"}, {"training.device": "cuda:0"}),
        ({"device": "mps"}, {"training.device": "mps"}),
        ({"device": "[1, 2]"},
         {"training.device": "cuda", "training.devices": [1, 2], "training.batch_size": 120,
          "training.micro_batch_size": 60}),
        ({"scheduler_type": "linear"}, {"training.schedule": "linear"}),
        ({"patience": "0"}, {"evaluation.early_stopping.patience": None}),
        ({"path": "their/data"}, {"data.test": ["their/data/dailydialog/test.jsonl"]}),
        ({"lrf": "0"}, {"training.min_lr_ratio": 0}),
        (
            {"dailydialog_train": "False", "train_data_path": "a.jsonl",
             "validation_data_path": "b.jsonl"},
            {"data.train": ["a.jsonl"], "data.validation": ["b.jsonl"], "data.test": []},
        ),
    ],
)  # fmt: skip
def test_a_setting_of_multi_turn_becomes(
    converted: Converter, changes: dict[str, str], expected: dict[str, Any]
) -> None:
    config = converted(multi_turn(**changes)).config
    assert {key: value_of(config, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"device": "gpus"}, "device", "allowed: cpu, mps or the list of a GPU"),
        ({"dailydialog_train": "yes"}, "dailydialog_train", "found yes; allowed: True or False"),
        ({"dailydialog_train": "False"}, "CUSTOM.train_data_path", "empty, but needed"),
        ({"scheduler_type": "onecycle"}, "scheduler_type", "allowed: constant, linear or cosine"),
        ({"steps": "1e9x"}, "steps", 'found "1e9x"'),
        ({"max_len": "8"}, "max_len", "found 8; allowed: a whole number, 16 to"),
        ({"device": "-1"}, "device", "found -1; allowed: cpu, mps or the list of a GPU"),
        ({"device": "[0, cpu]"}, "device", 'found [0, "cpu"]'),
        ({"device": "[[0]]"}, "device", "found [[0]]"),
        ({"path": "None"}, "dailydialog_dataset.path", "found None; allowed: text"),
        ({"path": "[a]"}, "dailydialog_dataset.path", 'found ["a"]; allowed: text'),
        ({"patience": "false"}, "patience", "found false"),
        ({"metrics": "null"}, "metrics", "found null; allowed: a list of names"),
    ],
)
def test_what_multi_turn_leaves_open_needs_a_decision(
    converted: Converter, changes: dict[str, str], key: str, words: str
) -> None:
    assert words in undecided(converted, multi_turn(**changes))[key]


def test_patience_without_validation_is_reported_at_the_old_key(converted: Converter) -> None:
    text = multi_turn(dailydialog_train="False", train_data_path="a.jsonl")
    assert undecided(converted, text) == {
        "patience": "evaluation.early_stopping.patience needs data.validation or "
        "data.validation_split"
    }


def test_files_of_the_command_line_come_first(converted: Converter) -> None:
    conversion = converted(lightning(), train=["x.jsonl", "y.jsonl"])
    data = conversion.config.data
    assert (data.train, data.validation) == (("x.jsonl", "y.jsonl"), ("b.jsonl",))
    answer = next(answer for answer in conversion.answers if answer.key == "model.train_file")
    assert answer.note == "the command line sets data.train"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\n", "neither a config of convmodel nor one of multi-turn-chatbot-GPT2"),
        ("lr0: 1\npatience: 5\nproject: x\nworkers: 8\nlrf: 1\n",
         "(multi-turn-chatbot-GPT2 has lr0, patience, project, workers, lrf)"),
        ("lr: 1\nepochs: 3\n", "(convmodel has lr, epochs)"),
        ("per_device_train_batch_size: 2\n",
         "(in convo, per_device_train_batch_size is training.micro_batch_size)"),
        ("trainer: {max_epochs: 1}\nmodel: {class_path: litgpt.LLM}\n",
         "it is a LightningCLI config, but its model section is not convmodel's"),
        ("data: {train: a}\ntrainer: {gpus: 1}\n", "already a config of convo"),
        ("training: {lr: 1}\n", "already a config of convo"),
        ("[1, 2]\n", "found a list; a config is keys with values"),
        ("", "the file is empty"),
        ("a: [" + "[" * 30 + "]" * 30 + "]\n", "nested more than 20 levels deep"),
        ("a: [" + "x, " * 30_000 + "]\n", "more than 20,000 keys and values"),
        ("# " + "x" * 2**20, "larger than 1,048,576 bytes"),
        ("a: \x07\n", "control character U+0007"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_config_of_a_forerunner_is_refused(
    converted: Converter, text: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        converted(text)
    assert words in caught.value.message


def test_a_bomb_of_aliases_is_not_expanded(converted: Converter) -> None:
    lines = ["a0: &a0 [x, x]"] + [
        f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 30)
    ]
    found = undecided(converted, lightning() + "\n".join(lines) + "\n")
    assert any("an alias (*a0) is not allowed" in words for words in found.values())


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    inside = [paths_in(inner, (*path, name)) for name, inner in items]
    return [*([path] if path else []), *(one for several in inside for one in several)]


ODD = st.sampled_from([
    None, True, 0, -1, 5, 1.0, -0.5, 1e30, 10**18, "", "x", "16", "0", "1,2", "None", "a: b", "~zz",
    [], [0], [1, 2], ["a"], {}, {"a": 1}, [[1]], [None], [{"class_path": ["a"]}],
    {"class_path": "x.Y", "init_args": {"q": [1, {"z": 2}]}}, [{"class_path": "EarlyStopping"}],
    [{"class_path": "ModelCheckpoint", "init_args": {"save_top_k": "all", "monitor": [1]}}],
])  # fmt: skip


@settings(max_examples=num_examples(80), deadline=None)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_any_other_value_anywhere_is_answered_or_refused(
    tmp_path_factory: Any, name: str, data: st.DataObject
) -> None:
    values = parse_config(sample(name), name).value
    for _ in range(data.draw(st.integers(1, 3))):
        *outer, last = data.draw(st.sampled_from(paths_in(values)))
        section = values
        for part in outer:
            section = section[part]
        section[last] = deepcopy(data.draw(ODD))
    path = tmp_path_factory.mktemp("odd") / "old.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    try:
        conversion = convert(path, {"data.train": ["a"], "data.validation": ["b"]})
    except ConfigError:
        return
    assert leaves(values) <= {answer.key for answer in conversion.answers}


@pytest.mark.parametrize("name", NAMES)
def test_convo_train_names_the_forerunner_and_the_command(name: str, tmp_path: Path) -> None:
    path = tmp_path / "old config.yaml"
    path.write_text(sample(name), encoding="utf-8")
    with pytest.raises(ConfigError, match="not of convo") as caught:
        load_config(path)
    tool = "multi-turn-chatbot-GPT2" if name.startswith("multi") else "convmodel"
    assert f"a config of {tool} (" in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"convo init-config --from '{path}' -o ")
