"""docs/coming-from.md lists every setting of both forerunners, and only keys that convo has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from convo_cli.cli.app import app
from convo_cli.config.keys import config_keys
from convo_cli.config.load import apply_overrides
from convo_cli.config.presets import PRESETS
from convo_cli.config.synonyms import SYNONYMS

TEXT = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.splitlines()
    if line.startswith("| `")
]
CODE = re.compile(r"`([^`]+)`")
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)

CONVMODEL = """
    pretrained_model_or_path output_path train_file valid_file eval_file save_best_model device lr
    warmup_steps use_amp epochs accumulation_steps show_progress_bar log_steps shuffle_buffer_size
    batch_size num_workers prefetch_factor seed deterministic max_len model_class dataset_path
"""
MULTI_TURN = """
    seed deterministic device project name pretrained_model max_len workers dailydialog_train
    dailydialog_dataset.path CUSTOM.train_data_path CUSTOM.validation_data_path
    CUSTOM.test_data_path batch_size steps warmup_steps lr0 lrf scheduler_type patience
    prediction_print_n train_user_turn_mask_step common metrics
"""
COMMANDS = """
    fit --config, fit --print_config, eval --config, try, try --server.port, --server.address
    train.py --config, -c, train.py --mode, -m, train.py --resume_model_dir
    train.py --load_model_type, train.py --port, -p, validation.py --resume_model_dir
    validation.py --load_model_type, validation.py --dataset_type, -d
    chatting.py --resume_model_dir, chatting.py --load_model_type
"""


def names_in_section(heading: str) -> list[str]:
    body = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in body.splitlines() if line.startswith("| `")]
    return [name for cell in rows for name in CODE.findall(cell)]


@pytest.mark.parametrize(
    ("heading", "documented"),
    [
        ("convmodel: `fit` config", CONVMODEL),
        ("multi-turn-chatbot-GPT2: `config.yaml`", MULTI_TURN),
    ],
)
def test_every_documented_key_of_the_forerunner_has_one_row(heading: str, documented: str) -> None:
    assert sorted(names_in_section(heading)) == sorted(documented.split())


def test_every_documented_option_of_the_forerunners_has_a_row() -> None:
    first_cells = " ".join(row[0] for row in ROWS)
    options = [option.strip() for option in re.split(r"[,\n]", COMMANDS.strip())]
    assert [option for option in options if f"`{option}" not in first_cells] == []


def test_every_row_names_a_key_or_a_command_of_convo_or_says_that_there_is_none() -> None:
    assert [row for row in ROWS if not (CODE.search(row[1]) or (row[1] == "none" and row[2]))] == []


def test_every_key_and_command_in_the_second_column_exists() -> None:
    commands = {f"convo {name}" for name in typer.main.get_command(app).commands}
    named = {name for row in ROWS for name in CODE.findall(row[1])}
    assert sorted(named - commands - set(config_keys())) == []


def test_every_dotted_key_anywhere_exists_and_takes_the_value_beside_it() -> None:
    sections = {key.path for key in config_keys().values() if key.is_section}
    dotted = [
        code for code in CODE.findall(PROSE) if code.split(".")[0] in sections and "." in code
    ]
    assert len(dotted) > 30
    for code in dotted:
        name, _, value = code.partition(": ")
        if name.startswith("training.lr0"):
            continue  # The example of an error.
        assert name in config_keys()
        if value:
            assert apply_overrides(PRESETS["gpt2"].config(), [f"{name}={value}"])


def test_the_error_for_an_old_name_points_where_the_table_does() -> None:
    compared = 0
    for old, new, _note in ROWS:
        keys = [name for name in CODE.findall(new) if name in config_keys()]
        for name in CODE.findall(old):
            if name in SYNONYMS and keys:
                assert SYNONYMS[name] in keys, name
                compared += 1
    assert compared > 15


def test_the_example_of_an_error_is_what_convo_says() -> None:
    with pytest.raises(
        Exception, match=r"unknown key; convo calls it training\.learning_rate"
    ) as caught:
        apply_overrides(PRESETS["gpt2"].config(), ["training.lr0=1e-4"])
    assert f"`{str(caught.value).removeprefix('--set ')}`" in " ".join(TEXT.split())


@pytest.mark.parametrize("name", ["convmodel", "multi-turn-gpt2"])
def test_the_presets_it_names_exist(name: str) -> None:
    assert f"--preset {name}" in TEXT
    assert name in PRESETS
