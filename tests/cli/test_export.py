"""`convo export`: a whole folder or none, and a receipt that it replies like its checkpoint."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from convo_cli.cli.commands.export import _complete_format
from convo_cli.export.formats import FORMATS
from tests.commands import settings
from tests.umask import umask

RUN = "runs/tiny"
FILES = {
    "MANIFEST.json", "README.md", "chat_template.jinja", "config.json", "dialogue.json",
    "expected.json", "generation_config.json", "model.safetensors", "receipt.json",
    "spiece.model", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_stdout_is_the_folder_and_stderr_the_receipt(work, convo):
    result = convo("export", RUN, "new/out")
    assert (result.code, result.out) == (0, "new/out\n")
    assert re.search(r"^equal to step-00000006 in transformers \d[\d.]*:$", result.err, re.M)
    assert re.search(r"^  replies of 1\d prompts .*: (\d+) of \1 tokens", result.err, re.M)
    assert re.search(r"^\d\.\d MiB in 12 files$", result.err, re.M)
    assert "\nnext:\n  convo chat new/out\n" in result.err
    assert names(work / "new") == {"out"}
    assert names(work / "new/out") == FILES


def test_json_lists_what_was_written_and_verified(convo):
    answer = convo("export", RUN, "out", "--json", "-q").json
    assert (answer["command"], answer["format"], answer["out"]) == ("export", "huggingface", "out")
    assert answer["source"] == f"{RUN}/checkpoints/step-00000006"
    assert set(answer["files"]) == FILES
    assert answer["verified"]["prompts"] == 12
    assert answer["receipt"]["hard_texts"]["num"] > 500
    assert answer["verified"]["tokens"] > 100


def test_the_help_names_every_format_and_type_of_weights(convo):
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", convo("export", "--help").out).split())
    for name, form in FORMATS.items():
        assert re.search(rf"\b{name}\b", words), name
        assert all(re.search(rf"\b{dtype}\b", words) for dtype in form.about().dtypes)


def test_the_formats_are_completed_with_their_summaries(convo):
    assert dict(_complete_format("")) == {
        name: form.about().summary for name, form in FORMATS.items()
    }
    assert [name for name, _ in _complete_format("hu")] == ["huggingface"]


def test_rounded_weights_need_half_the_bytes_and_json_says_so(work, convo):
    exact = convo("export", RUN, "exact", "--json", "-q").json
    answer = convo(
        "export", RUN, "half", "--dtype", "bf16", "--max-shard-size", "1MB", "--json", "-q"
    ).json
    assert (answer["dtype"], answer["receipt"]["dtype"]) == ("bf16", "bf16")
    weights = [file for file in (work / "half").iterdir() if file.suffix == ".safetensors"]
    whole = (work / "exact/model.safetensors").stat().st_size
    assert sum(file.stat().st_size for file in weights) < 0.6 * whole
    sizes = [file.stat().st_size for file in (work / "half").iterdir()]
    assert answer["bytes"] == sum(sizes) < exact["bytes"]


def test_force_replaces_an_earlier_export_and_nothing_else(work, convo):
    first = f"{RUN}/checkpoints/step-00000003"
    assert convo("export", first, "exports/tiny", "--force", "-q").code == 0
    weights = (work / "exports/tiny/model.safetensors").read_bytes()
    assert weights == (work / first / "model.safetensors").read_bytes()
    assert names(work / "exports") == {"tiny"}


def test_an_empty_folder_may_be_filled(work, convo):
    (work / "out").mkdir()
    assert convo("export", RUN, "out", "-q").code == 0


def test_an_export_of_an_export_is_the_same_model(work, convo):
    assert convo("export", "exports/tiny", "again", "-q").code == 0
    for name in FILES - {"README.md", "MANIFEST.json", "receipt.json", "expected.json"}:
        assert (work / "again" / name).read_bytes() == (work / "exports/tiny" / name).read_bytes()


def test_the_model_card_names_the_template_and_the_stop_token(work):
    card = (work / "exports/tiny/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "Template: `turns`; a reply ends with `<|end|>`" in card


def test_the_next_command_can_be_typed_as_it_stands(convo):
    result = convo("export", RUN, "my model")
    lines = result.err.splitlines()
    words = shlex.split(lines[lines.index("next:") + 1])
    assert convo(*words[1:], "-q", stdin=b"Hello\n").code == 0


@pytest.mark.skipif(os.name != "posix", reason="umask")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_mode_that_the_umask_says(work, convo, mask):
    with umask(mask):
        assert convo("export", RUN, "out", "-q").code == 0
    assert {oct(path.stat().st_mode & 0o777) for path in (work / "out").iterdir()} == {
        oct(0o666 & ~mask)
    }
    assert (work / "out").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_an_export_holds_the_template_of_training_and_no_other(work, convo, place):
    """A folder's own template may agree on every probe and differ on other dialogues."""
    from convo_cli.storage.sealed import MANIFEST_FILE

    source = work / "exports/tiny"
    (source / MANIFEST_FILE).unlink()
    template = source / "chat_template.jinja"
    own = template.read_text(encoding="utf-8")
    foreign = (
        own + "{% if messages | length > 9 %}{% for a in range(99999) %}{% endfor %}{% endif %}"
    )
    if place == "chat_template.jinja":
        template.write_text(foreign, encoding="utf-8")
    else:
        template.unlink()
        config = source / place
        values = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps({**values, "chat_template": foreign}), encoding="utf-8")
    assert convo("export", "exports/tiny", "out").code == 0
    assert (work / "out/chat_template.jinja").read_text(encoding="utf-8") == own
    config = json.loads((work / "out/tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == own


def test_an_export_for_old_transformers_is_refused_by_every_command_as_what_it_is(work, convo):
    result = convo("export", RUN, "old", "--format", "legacy", "--json")
    assert result.code == 0
    assert result.json["format"] == "legacy"
    assert result.json["verified"]["classes"] == ["GPT2LMHeadModel", "BertGenerationTokenizer"]
    assert {"pytorch_model.bin", "spiece.model"} < set(result.json["files"]) == names(work / "old")
    assert {path.stat().st_mode & 0o077 for path in (work / "old").iterdir()} == {
        (work / "exports/tiny/config.json").stat().st_mode & 0o077
    }
    for words in (
        ["chat", "old"], ["evaluate", "old", "valid.jsonl"], ["resume", "old"],
        ["export", "old", "new"],
        ["train", "config.yaml", *settings("model.pretrained=old", "model.scratch=null")],
    ):  # fmt: skip
        refused = convo(*words)
        assert (refused.code, refused.out) == (2, "")
        assert "old: an export of --format legacy; its weights are in pytorch_model.bin" in (
            refused.err
        )
    assert convo("export", RUN, "old").code == 2
    assert convo("export", RUN, "old", "--force", "-q").code == 0
    assert names(work / "old") == FILES
