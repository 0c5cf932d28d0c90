"""An export is whole, replies like its checkpoint, and replaces nothing but an export."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.errors import CheckpointError, ConvoError, ModelError, UsageError
from convo_cli.export import exporting as module
from convo_cli.export.card import markdown
from convo_cli.export.exporting import export_checkpoint
from convo_cli.model.open import open_generator
from convo_cli.runs.checkpoints import read_state, write_state
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.opening import open_checkpoint
from convo_cli.storage.atomic import publish_directory, remove_directory
from convo_cli.storage.sealed import verify_directory
from tests.commands import make_workplace, settings, start
from tests.sealed import seal_again
from tests.sharded import split_checkpoint

FILES = {
    "MANIFEST.json", "README.md", "chat_template.jinja", "config.json", "dialogue.json",
    "generation_config.json", "receipt.json", "expected.json",
    "model.safetensors", "spiece.model", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def export_huggingface(source, out, **options):
    return export_checkpoint(source, out, "huggingface", **options)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "exports" / "talker"


@pytest.fixture
def export(checkpoint, ignore):
    def make(out, source=checkpoint, *, force=False):
        return export_huggingface(source, out, force=force, emit=ignore)

    return make


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    """An export, to be copied."""
    out = tmp_path_factory.mktemp("finished") / "talker"
    export_huggingface(checkpoint, out, force=False, emit=lambda event: None)
    return out


@pytest.fixture
def exported(finished, out):
    shutil.copytree(finished, out)
    return out


def tree(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_an_export_has_the_models_files_and_none_of_the_trainers(export, out, checkpoint):
    result = export(out)
    assert {path.name for path in out.iterdir()} == set(result.files) == FILES
    assert (result.source, result.out) == (checkpoint, out)
    assert result.receipt.prompts.num > 3
    verify_directory(out)
    stated = {"config.json", "tokenizer_config.json"}
    for name in FILES - {"MANIFEST.json", "README.md", "receipt.json", "expected.json"} - stated:
        assert (out / name).read_bytes() == (checkpoint / name).read_bytes()
    card = (out / "README.md").read_text()
    assert "# talker" in card
    assert "`<|end|>`" in card
    assert "{" not in card.replace('{"role": "user", "content": "Hello!"}', "")
    assert [path.name for path in out.parent.iterdir()] == ["talker"]


def test_a_checkpoint_of_shards_is_exported_as_one_file(out, checkpoint, tmp_path, finished):
    source = split_checkpoint(Path(shutil.copytree(checkpoint, tmp_path / "shards")))
    told = []
    result = export_huggingface(source, out, force=False, emit=told.append)
    assert set(result.files) == FILES
    assert not any("not exported" in getattr(event, "message", "") for event in told)
    verify_directory(out)
    folders = (finished, out)
    one, other = (open_generator(str(one), device="cpu", emit=told.append) for one in folders)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])


def test_a_folder_with_a_tensor_in_two_shards_is_refused(checkpoint, tmp_path, ignore):
    folder = split_checkpoint(Path(shutil.copytree(checkpoint, tmp_path / "shards")))
    first, second = (load_file(file) for file in sorted(folder.glob("model-*")))
    save_file({**second, **first}, folder / "model-00002-of-00002.safetensors")
    seal_again(folder)
    with pytest.raises(ModelError, match="is also in another of the files of the weights"):
        open_generator(str(folder), device="cpu", emit=ignore)


def test_a_run_directory_exports_its_newest_checkpoint(export, out, checkpoint):
    assert export(out, checkpoint.parent.parent).source == checkpoint


def test_the_source_is_left_as_it_was(export, out, checkpoint):
    before = tree(checkpoint.parent.parent)
    export(out)
    assert tree(checkpoint.parent.parent) == before


@pytest.mark.parametrize(
    ("owner", "name"), [(module, "load_model"), (shutil, "copyfile")], ids=["loading", "copying"]
)
def test_a_run_that_deletes_the_checkpoint_meanwhile_exports_its_next_one(
    checkpoint, out, tmp_path, monkeypatch, owner, name
):
    run, real, called = RunDirectory(tmp_path / "run"), getattr(owner, name), []
    shutil.copytree(checkpoint.parent.parent, run.path)

    def prune_first(*arguments, **options):
        if not called:
            called.append(name)
            copy_checkpoint_as(run, 0, 5)
            remove_directory(run.checkpoint(0))
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, prune_first)
    notices = []
    result = export_huggingface(run.path, out, force=False, emit=notices.append)
    assert result.source == run.checkpoint(5)
    verify_directory(out)
    assert any(
        "step-00000000 was deleted by its training run" in getattr(event, "message", "")
        for event in notices
    )
    assert [path.name for path in out.parent.iterdir()] == ["talker"]


def copy_checkpoint_as(run, old, new):
    saved = read_state(run.checkpoint(old))
    saved.progress.step = new

    def fill(folder):
        skipped = shutil.ignore_patterns("MANIFEST.json")
        shutil.copytree(run.checkpoint(old), folder, dirs_exist_ok=True, ignore=skipped)
        write_state(folder, saved)

    publish_directory(run.checkpoint(new), fill)


@pytest.mark.slow
def test_a_run_that_trains_and_deletes_can_be_exported_all_the_time(tmp_path):
    """The real executable saves every 100 steps and keeps one checkpoint."""
    make_workplace(tmp_path)
    process = start(
        tmp_path, "train", "config.yaml", "-q",
        *settings(
            "data.validation=[]", "training.max_steps=1500",
            "checkpoints.every_steps=100", "checkpoints.keep=1",
            "logging.plots=false", "logging.tensorboard=false",
        ),
    )  # fmt: skip
    num_exports, notices = 0, []
    try:
        while process.poll() is None:
            if (tmp_path / "runs/tiny").exists():
                out = tmp_path / f"exports/{num_exports}"
                result = export_huggingface(
                    tmp_path / "runs/tiny", out, force=False, emit=notices.append
                )
                assert result.receipt.prompts.num > 0
                verify_directory(out)
                num_exports += 1
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert num_exports >= 3
    assert not [one for one in notices if getattr(one, "is_warning", False)]


# Where it may be written


def test_an_empty_folder_is_used(export, out):
    out.mkdir(parents=True)
    export(out)
    verify_directory(out)


def test_an_earlier_export_is_replaced_by_force_only(export, exported):
    before = tree(exported)
    (exported / "model.safetensors").write_text("older")
    with pytest.raises(UsageError, match="talker: not empty") as caught:
        export(exported)
    assert "--force" in str(caught.value.hint)
    export(exported, force=True)
    assert tree(exported) == before
    assert [path.name for path in exported.parent.iterdir()] == ["talker"]


@pytest.mark.parametrize("force", [False, True])
def test_a_foreign_folder_is_never_replaced(export, out, force):
    out.mkdir(parents=True)
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="talker: not "):
        export(out, force=force)
    assert tree(out) == {(out / "thesis.tex").relative_to(out): b"years of work"}


def test_a_file_added_to_an_export_is_not_deleted_with_it(export, exported):
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt is not part of the export"):
        export(exported, force=True)
    assert (exported / "notes.txt").read_text() == "mine"


def test_an_export_whose_card_was_edited_or_that_came_back_from_a_hub_still_opens(exported, ignore):
    (exported / "README.md").write_text("# mine")
    (exported / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert open_checkpoint(exported, ignore).path == exported
    (exported / "chat_template.jinja").write_text("other")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: damaged"):
        open_checkpoint(exported, ignore)


def test_force_replaces_neither_a_checkpoint_nor_a_run(
    export, checkpoint, make_checkpoint, tmp_path
):
    other = make_checkpoint(tmp_path / "run")
    for target in (other, other.parent.parent):
        with pytest.raises(UsageError):
            export(target, force=True)
    verify_directory(other)


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_symbolic_link_is_not_written_through(export, out, tmp_path, is_dangling):
    real = tmp_path / "real"
    if not is_dangling:
        real.mkdir()
    out.parent.mkdir()
    out.symlink_to(real)
    with pytest.raises(UsageError, match="talker: a symbolic link"):
        export(out, force=True)
    assert out.is_symlink()
    assert is_dangling or not list(real.iterdir())


def test_a_file_in_the_way_is_refused(export, out):
    out.parent.mkdir()
    out.write_text("mine")
    with pytest.raises(UsageError, match="talker: not a folder, but a file"):
        export(out, force=True)


# What goes wrong on the way


@pytest.mark.parametrize("has_earlier", [False, True])
def test_a_failed_proof_writes_nothing_and_keeps_the_earlier_export(
    export, out, finished, monkeypatch, has_earlier
):
    if has_earlier:
        shutil.copytree(finished, out)

    def refuse(*_):
        raise CheckpointError("nothing was exported")

    monkeypatch.setattr(module, "prove", refuse)
    with pytest.raises(CheckpointError, match="nothing was exported"):
        export(out, force=True)
    if has_earlier:
        verify_directory(out)
    assert sorted(os.listdir(out.parent)) == (["talker"] if has_earlier else [])


def test_a_damaged_checkpoint_is_refused_before_anything_is_written(
    export, out, checkpoint, tmp_path
):
    damaged = tmp_path / "step-00000000"
    shutil.copytree(checkpoint, damaged)
    (damaged / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: damaged"):
        export(out, damaged)
    assert not out.parent.exists()


def test_a_folder_that_convo_did_not_train_is_refused(export, out, checkpoint, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, foreign)
    with pytest.raises(CheckpointError, match=r"dialogue\.json: not found"):
        export(out, foreign)


def test_a_link_among_the_files_is_not_published(export, out, checkpoint, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    source = tmp_path / "source"
    shutil.copytree(checkpoint, source)
    for name in ("MANIFEST.json", "state.json"):
        (source / name).unlink()
    (source / "notes.md").symlink_to(secret)
    with pytest.raises(ModelError, match=r"notes\.md: a link to a file outside the folder"):
        export(out, source)
    (source / "notes.md").unlink()
    (source / "spiece.model").rename(source / "other")
    (source / "spiece.model").symlink_to("other")
    with pytest.raises(ConvoError, match=r"spiece\.model: a symbolic link"):
        export(out, source)
    assert not out.parent.exists()


HOSTILE = [
    "<img src=x onerror=alert(1)>", "`</code><script>", "``` ` ``", "](http://evil) [a", "\x1b[2J",
    "a\n# b\n---\nc: d", "\u202egpj.exe", "![a](b)", "<!--", "&lt;b&gt;", "**a** _b_", "| a | b |",
    "x" * 5000, "{stop}", "$a$", " ",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_the_card_shows_foreign_text_as_text(text):
    from markdown_it import MarkdownIt

    shown = markdown.visible(text)
    assert shown.isprintable()
    assert len(shown) < 1000
    parsed = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    heading = parsed.parse(f"# {markdown.as_markdown(text)}\n\nb")
    assert [token.type for token in heading if token.type != "inline"] == [
        "heading_open", "heading_close", "paragraph_open", "paragraph_close",
    ]  # fmt: skip
    inline = heading[1].children or []
    assert {token.type for token in inline} <= {"text", "text_special"}
    assert "".join(token.content for token in inline) == shown.strip()
    code = parsed.parse(f"a reply ends with {markdown.as_code(text)}; trained")[1].children or []
    assert [token.type for token in code] == ["text", "code_inline", "text"]
    assert code[1].content.strip() == shown.strip()


def test_the_card_of_a_model_whose_tokens_are_markup(make_checkpoint, tmp_path, ignore):
    checkpoint = make_checkpoint(tmp_path / "run", template="cls-sep")
    out = tmp_path / "<img src=x>\x1b[2J `a`"
    export_huggingface(checkpoint, out, force=False, emit=ignore)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "\\<img src\\=x\\>" in card
    assert "\x1b" not in card
    assert not any(
        name in card
        for name in (str(tmp_path), os.uname().nodename if os.name == "posix" else "\0")
    )


def test_a_parent_that_is_a_link_to_nowhere_is_refused_and_not_made(export, tmp_path):
    (tmp_path / "exports").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConvoError) as caught:
        export(tmp_path / "exports" / "talker")
    assert caught.value.exit_code in (2, 7)
    assert not (tmp_path / "elsewhere").exists()


def test_what_links_in_an_earlier_export_lead_to_stays(export, exported, tmp_path):
    secret = tmp_path / "secret"
    (exported / "model.safetensors").rename(secret)
    (exported / "model.safetensors").symlink_to(secret)
    before = secret.read_bytes()
    export(exported, force=True)
    assert secret.read_bytes() == before
    assert not (exported / "model.safetensors").is_symlink()


def test_a_link_put_in_the_place_of_the_export_meanwhile_is_not_followed(
    export, out, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    real = module.prove

    def link(*arguments):
        out.symlink_to(elsewhere)
        return real(*arguments)

    monkeypatch.setattr(module, "prove", link)
    export(out, force=True)
    assert not out.is_symlink()
    assert list(elsewhere.iterdir()) == []
