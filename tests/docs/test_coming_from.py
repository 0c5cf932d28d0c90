"""docs/coming-from.md lists all settings and statements of both forerunners, as convo has them."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main

from convo_cli.cli.app import app
from convo_cli.config.forerunners.config_conversion import Conversion, convert
from convo_cli.config.keys import config_keys
from convo_cli.config.load import apply_overrides
from convo_cli.config.presets import PRESETS
from convo_cli.config.synonyms import SYNONYMS
from convo_cli.errors import ConfigError

TEXT = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
SAMPLES = Path(__file__).parents[1] / "fixtures" / "forerunners"
CODE = re.compile(r"`([^`]+)`")
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
COMPARED = re.compile(r"(works|better|alike|not needed|left out)\b")
DOCUMENTED_TRAINER_KEYS = """
    gradient_clip_val gpus max_epochs val_check_interval precision deterministic callbacks
"""
TABLES = {
    "convmodel: LightningCLI config": ("convmodel_lightning.yaml",),
    "convmodel: `fit` config": ("convmodel_fit.json", "convmodel_fit_dataset.json"),
    "multi-turn-chatbot-GPT2: `config.yaml`": ("multi_turn.yaml",),
}
STATEMENTS = (
    "convmodel, LightningCLI",
    "convmodel, `fit`, `eval` and `try`",
    "multi-turn-chatbot-GPT2",
)
OPTIONS = """
    fit --config, fit --print_config, eval --config, try, try --server.port, --server.address
    train.py --config, -c, train.py --mode, -m, train.py --resume_model_dir, -r
    train.py --load_model_type, -l, train.py --port, -p, validation.py --resume_model_dir
    validation.py --load_model_type, validation.py --dataset_type, -d
    chatting.py --resume_model_dir, chatting.py --load_model_type, lightning_logs/
    export_model --config --ckpt_path --output_dir, config.json, pytorch_model.bin
    special_tokens_map.json, spiece.model, tokenizer_config.json, vis_outputs/lr_schedule.png
    weights/, args.yaml
"""


def section(heading: str) -> str:
    level = "###" if heading in STATEMENTS else "##"
    return TEXT.partition(f"\n{level} {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")][2:]
    assert lines, heading
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


KEY_ROWS = [row for heading in (*TABLES, "convmodel: generation") for row in rows(heading)]
STATEMENT_ROWS = [row for heading in STATEMENTS for row in rows(heading)]


def conversion(name: str) -> Conversion:
    return convert(SAMPLES / name, {"data.train": ["a"], "data.validation": ["b"]})


def row_name(key: str) -> str | None:
    """The name of a key of a sample config in its table; None if only Lightning documents it."""
    if found := re.fullmatch(r"trainer\.callbacks\.(\d)\.(class_path|init_args)\.?(\w*)", key):
        classes = ("LearningRateMonitor", "GPUStatsMonitor", "ModelCheckpoint")
        name = classes[int(found[1])]
        return f"{name}.{found[3]}" if found[3] else name if name != "ModelCheckpoint" else None
    if key.startswith("trainer.") and key not in {row[0].strip("`") for row in KEY_ROWS}:
        return None
    return key.removeprefix("model.")


@pytest.mark.parametrize(("heading", "names"), TABLES.items(), ids=TABLES)
def test_every_key_of_the_sample_config_has_one_row_that_names_what_it_becomes(
    heading: str, names: tuple[str, ...]
) -> None:
    table = {name: row for row in rows(heading) for name in CODE.findall(row[0])}
    answers = [answer for name in names for answer in conversion(name).answers]
    expected = {row_name(answer.key) for answer in answers} - {None}
    assert set(table) == expected
    assert len(table) == len(rows(heading))
    for answer in answers:
        name = row_name(answer.key)
        if name is None or answer.note.startswith("the command line"):
            continue
        keys = set(CODE.findall(table[name][1]))
        assert set(answer.becomes) <= keys | {"training.schedule_steps"}, answer.key
        assert keys or table[name][1] == "none"


def test_every_documented_key_of_the_trainer_has_a_row() -> None:
    names = {
        name for row in rows("convmodel: LightningCLI config") for name in CODE.findall(row[0])
    }
    documented = {f"trainer.{name}" for name in DOCUMENTED_TRAINER_KEYS.split()}
    assert documented - names == {"trainer.callbacks"}


def test_every_documented_option_and_file_of_the_forerunners_has_a_row() -> None:
    first_cells = " ".join(row[0] for row in STATEMENT_ROWS)
    names = [name.strip() for name in re.split(r"[,\n]", OPTIONS.strip())]
    assert [name for name in names if f"`{name}" not in first_cells] == []


def test_every_row_of_keys_names_a_key_or_says_why_there_is_none() -> None:
    rows_without = [row for row in KEY_ROWS if not CODE.search(row[1])]
    assert [row for row in rows_without if row[1] != "none" or not row[2]] == []
    named = {name for row in KEY_ROWS for name in CODE.findall(row[1])}
    assert sorted(named - set(config_keys())) == []


def test_every_statement_is_compared_and_those_without_a_counterpart_are_known() -> None:
    assert len(STATEMENT_ROWS) >= 63
    assert [row for row in STATEMENT_ROWS if not COMPARED.match(row[2])] == []
    missing = [row for row in STATEMENT_ROWS if row[2].startswith("left out")]
    assert [row[0] for row in missing] == [
        "`token_type_ids` alternate between the speakers",
    ]
    without = [row for row in STATEMENT_ROWS if row[1] == "none"]
    assert all(row in missing or row[2].startswith("not needed: ") for row in without)


@pytest.mark.parametrize(
    "command", sorted({code for row in STATEMENT_ROWS for code in CODE.findall(row[1])})
)
def test_a_command_of_a_statement_has_only_options_that_exist(command: str) -> None:
    program, name, *words = shlex.split(command)
    assert program == "convo"
    command_of: Any = typer.main.get_command(app)
    options = {option for param in command_of.commands[name].params for option in param.opts}
    used = [word for word in words if word.startswith("-")]
    assert [word for word in used if word not in options] == []
    for before, word in pairwise(words):
        if before == "--set":
            assert apply_overrides(PRESETS["gpt2"].config(), [word])
        if before == "--preset":
            assert word in PRESETS


def test_every_dotted_key_anywhere_exists_and_takes_the_value_beside_it() -> None:
    sections = {key.path for key in config_keys().values() if key.is_section}
    dotted = [
        code for code in CODE.findall(PROSE) if code.split(".")[0] in sections and "." in code
    ]
    assert len(dotted) > 30
    for code in dotted:
        name, _, value = code.partition(": ")
        if "found 16-mixed" in code:
            continue  # The example of an error.
        assert name in config_keys()
        if value:
            assert apply_overrides(PRESETS["gpt2"].config(), [f"{name}={value}"])


def test_the_error_for_an_old_name_points_where_the_table_does() -> None:
    compared = 0
    for old, new, _note in KEY_ROWS:
        keys = [name for name in CODE.findall(new) if name in config_keys()]
        for name in CODE.findall(old):
            last = name.rpartition(".")[2]
            if last in SYNONYMS and keys and last != "eval_file":  # elsewhere, validation data
                assert SYNONYMS[last] in keys, name
                compared += 1
    assert compared > 25


@pytest.mark.parametrize("override", ["lr0=1e-4", "training.precision=16-mixed"])
def test_the_examples_of_errors_are_what_convo_says(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(PRESETS["gpt2"].config(), [override])
    assert f"`{caught.value.message.removeprefix('--set ')}`" in " ".join(TEXT.split())


@pytest.mark.parametrize("name", ["convmodel", "convmodel-fit", "multi-turn-gpt2"])
def test_the_presets_it_names_exist(name: str) -> None:
    assert f"--preset {name}" in TEXT
    assert name in PRESETS
