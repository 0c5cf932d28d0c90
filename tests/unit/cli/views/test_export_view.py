"""The view of an export: what was compared, what differs, what was not checked, what to do next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from convo_cli.cli.views.export_view import as_record, receipt_lines, show_export, show_verified
from convo_cli.export.format import About
from convo_cli.export.proof.receipt import Compared, Perplexities, Receipt, Replies, RuntimeVersion
from convo_cli.export.verifying import Verified

ABOUT = About(
    summary="",
    usage="",
    commands=("llama-cli -m {folder}/model.gguf -c {max_length}", "ollama run {name}"),
)


def receipt(**changes):
    values: dict[str, Any] = {
        "convo": "1", "export": "gguf", "dtype": "fp32", "contract_sha256": "0",
        "chat_template_sha256": "0", "weights_sha256": {}, "run_id": None, "step": 6,
        "runtime": RuntimeVersion(name="llama.cpp", version="xllamacpp 2026.1"),
        "how_to_check": "convo export FOLDER --verify",
        "hard_texts": Compared(num=600, num_equal=600),
        "training_texts": Compared(num=1000, num_equal=1000),
        "prompts": Compared(num=12, num_equal=12),
        "replies": Replies(num=12, num_tokens=288, num_equal_tokens=288),
    }  # fmt: skip
    return Receipt(**{**values, **changes})


def lines(**changes):
    return list(receipt_lines(receipt(**changes), "step-6", "exports/x"))


def test_an_exact_export_states_what_was_compared():
    assert lines() == [
        "equal to step-6 in llama.cpp (xllamacpp 2026.1):",
        (
            "  same tokens: 600 of 600 hard texts of convo's own, 1,000 of 1,000 texts of the "
            "training data, 12 of 12 prompts"
        ),
        "  replies of 12 prompts without sampling: 288 of 288 tokens the same",
    ]


def test_transformers_is_named_once():
    runtime = RuntimeVersion(
        name="transformers", version="transformers 5.23.0", classes=("GPT2LMHeadModel", "Fast")
    )
    assert lines(runtime=runtime)[0] == "equal to step-6 in transformers 5.23.0:"


def test_a_rounded_export_states_agreement_perplexities_and_the_first_difference():
    found = lines(
        dtype="q8_0",
        replies=Replies(
            num=12, num_tokens=288, num_equal_tokens=216, num_ties=1, first_difference="prompt 3"
        ),
        perplexity=Perplexities(
            data="validation", num_targets=300, checkpoint=12.3, export=12.4567
        ),
    )
    assert found[0] == "compared with step-6 in llama.cpp (xllamacpp 2026.1):"
    assert found[2:] == [
        "  replies of 12 prompts without sampling: 216 of 288 tokens (75.0%) the same",
        "  1 of 12 replies differs only where two tokens are as likely",
        (
            "  perplexity on first replies of the validation data (300 tokens): 12.46 "
            "(checkpoint: 12.3)"
        ),
        "  first difference in the replies: prompt 3",
    ]


def test_a_tokenizer_that_the_format_reads_differently_states_its_share():
    found = lines(hard_texts=Compared(num=600, num_equal=417, first_difference='"ŝ"'))
    assert found[0].startswith("compared with")
    assert "417 of 600 hard texts of convo's own (69.5%)" in found[1]
    assert found[3] == '  first difference in the hard texts: "ŝ"'


def test_an_export_without_its_runtime_says_how_to_check_it():
    how = "pip install xllamacpp, then convo export FOLDER --verify"
    found = lines(
        runtime=None, how_to_check=how, hard_texts=None, training_texts=None, prompts=None,
        replies=None,
    )  # fmt: skip
    assert found == ["to check it: pip install xllamacpp, then convo export exports/x --verify"]


def test_what_was_not_compared_is_named_with_the_reason():
    found = lines(training_texts=None, absent={"training_texts": "the file is not there"})
    assert found[-1] == "  not compared: training texts (the file is not there)"


def test_a_verified_export_that_reads_some_texts_differently_is_not_called_equal(capsys):
    verified = Verified(
        Path("x"), "gguf", num_files=7, runtime=receipt().runtime,
        hard_texts=Compared(num=600, num_equal=549, first_difference="ŝ"),
    )  # fmt: skip
    show_verified(verified, is_quiet=False)
    shown = capsys.readouterr().err
    assert "compared with the checkpoint in llama.cpp" in shown
    assert "549 of 600 hard texts" in shown
    show_verified(replace(verified, hard_texts=receipt().hard_texts), is_quiet=False)
    assert "equal to the checkpoint in llama.cpp" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["My Model\x1b[2J", "ä", "-x", "x" * 300])
def test_the_commands_can_be_typed_and_no_name_controls_the_terminal(capsys, monkeypatch, name):
    exported: Any = SimpleNamespace(
        out=Path(name), source=Path("runs/r/step-6"), files=("a", "b"), num_bytes=3 * 2**29,
        receipt=receipt(), loaded=None, max_length=256,
    )  # fmt: skip
    show_export(exported, ABOUT, is_quiet=False)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "\n1.5 GiB in 2 files\nnext:\n  llama-cli -m " in shown.err
    model = shown.err.partition("ollama run ")[2].splitlines()[0]
    assert "model.gguf -c 256\n" in shown.err
    assert model.replace("-", "").isalnum()
    assert model.isascii()
    assert len(model) <= 60
    assert "hf upload YOUR-NAME/" in shown.err
    assert as_record(exported)["bytes"] == 3 * 2**29
    assert as_record(exported)["verified"] == {"prompts": 12, "tokens": 288, "classes": []}
    show_export(exported, ABOUT, is_quiet=True)
    assert capsys.readouterr().err == ""
