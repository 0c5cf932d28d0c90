"""LoRA: only updates and new rows are trained and saved, and every command opens the checkpoint."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convo_cli.errors import CheckpointError, ModelError
from convo_cli.model.adapters.lora import adapter_of, merge_adapter
from convo_cli.model.loading import load_model
from convo_cli.training.sharding.fsdp import choose_sharding
from convo_cli.world import World
from tests.commands import make_workplace, run_here, run_process, settings, snapshot
from tests.foreign import SIZE, byte_pairs, fast, save_foreign

pytest.importorskip("peft", reason='needs pip install "convo-cli[adapters]"')

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {  # a tied head, matrices (in, out)
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 128,
        **dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), 0.0),
    },
    "llama": {**SIZE, "max_position_embeddings": 128},  # a head of its own
}
LORA = settings(
    "model.scratch=null", "model.pretrained=base", "model.lora.rank=4", "model.lora.dropout=0.1",
    "training.max_steps=4", "training.learning_rate=1e-2", "checkpoints.every_steps=2",
    "checkpoints.keep=9", "evaluation.every_steps=2",
)  # fmt: skip


def tokenizer():
    return fast(byte_pairs(), bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def workplace(request, tmp_path_factory):
    """A base whose tokenizer has no chat template, and a run of 4 steps that adapts it."""
    folder = make_workplace(tmp_path_factory.mktemp(request.param))
    save_foreign(folder / "base", request.param, tokenizer(), SIZES[request.param])
    trained = run_here(folder, "train", "config.yaml", *LORA, *settings("name=whole"))
    assert trained.code == 0, trained.err
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same with one family only."""
    folder = make_workplace(tmp_path_factory.mktemp("one"))
    save_foreign(folder / "base", "gpt2", tokenizer(), SIZES["gpt2"])
    short = settings("name=whole", "training.max_steps=2", "data.validation=[]")
    trained = run_here(folder, "train", "config.yaml", *LORA, *short)
    assert trained.code == 0, trained.err
    return folder


def without_locks(folder):
    return {name: seen for name, seen in snapshot(folder).items() if not name.endswith(".lock")}


def checkpoint(folder, step, run="whole"):
    (found,) = (folder / f"runs/{run}/checkpoints").glob(f"*{step}")
    return found


def tensors(folder, step, run="whole"):
    return load_file(checkpoint(folder, step, run) / "adapter_model.safetensors")


def id_of(folder, token):
    content = json.loads((checkpoint(folder, 4) / "tokenizer.json").read_text())
    return next(one["id"] for one in content["added_tokens"] if one["content"] == token)


def test_a_checkpoint_holds_the_adapter_and_the_hashes_of_its_base(workplace):
    last = checkpoint(workplace, 4)
    names = {path.name for path in last.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "base_model.json"} <= names
    assert not {"model.safetensors", "config.json"} & names
    base = json.loads((last / "base_model.json").read_text())
    info = json.loads((workplace / "runs/whole/run.json").read_text())
    assert base["sha256"] == info["base_model"]["sha256"]
    assert "peft" in info["packages"]
    moments = {
        name.partition("|")[0].replace(".default", "")
        for name in load_file(last / "optimizer.safetensors")
    }
    assert {f"base_model.model.{name}" for name in moments} == tensors(workplace, 4).keys()
    assert str(workplace) not in (last / "adapter_config.json").read_text()


def test_every_update_and_every_new_row_is_trained(workplace):
    """Also the row of the end token, without which the model could not end a reply."""
    before, after = tensors(workplace, 0), tensors(workplace, 4)
    assert all((after[name] != before[name]).any() for name in before)
    rows = [name for name in before if "trainable_tokens_delta" in name]
    is_tied = json.loads((workplace / "base/config.json").read_text())["tie_word_embeddings"]
    assert len(rows) == (1 if is_tied else 2)
    for name in rows:
        moved = (after[name] != before[name]).any(dim=1)
        assert len(moved) == 4
        assert moved.sum() >= 3  # no dialogue has a system turn


def test_a_resume_changes_no_bit(workplace):
    """The steps are taken again, with a save and a resume halfway."""
    verified = run_here(workplace, "resume", "runs/whole", "--verify")
    assert verified.code == 0, verified.err


def test_chat_and_evaluate_open_the_run_and_repeat_its_loss(workplace):
    chat = run_here(workplace, "chat", "runs/whole", "--temperature", 0, stdin=b"Hello!\n")
    assert chat.code == 0, chat.err
    load = ("--load", "last", "--replies", 0, "--json")
    scored = run_here(workplace, "evaluate", "runs/whole", "valid.jsonl", *load)
    assert scored.code == 0, scored.err
    log = (workplace / "runs/whole/metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in log]
    last = [event for event in events if event["event"] == "evaluation"][-1]
    assert str(last["loss"]) in scored.out


def test_the_export_is_merged_and_replies_like_the_adapter(workplace):
    from transformers import AutoModelForCausalLM

    exported = run_here(workplace, "export", "runs/whole", "merged", "--force", "--json")
    assert exported.code == 0, exported.err
    assert exported.json["verified"]["tokens"] > 0
    names = {path.name for path in (workplace / "merged").iterdir()}
    assert {"config.json", "model.safetensors"} <= names
    assert not any("adapter" in name or "base_model" in name for name in names)
    assert run_here(workplace, "chat", "merged", stdin=b"Hello!\n").code == 0
    plain: Any = AutoModelForCausalLM.from_pretrained(workplace / "merged")
    unmerged: Any = load_model(str(checkpoint(workplace, 4))).eval()
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, unmerged(ids).logits, atol=1e-4, rtol=1e-4)
    head, table = plain.get_output_embeddings(), plain.get_input_embeddings()
    assert plain.generation_config.eos_token_id == [id_of(workplace, "<|end|>")]
    is_tied = plain.config.tie_word_embeddings
    assert (head.weight.data_ptr() == table.weight.data_ptr()) is is_tied


def test_the_adapter_alone_is_opened_by_peft_and_names_no_local_path(workplace):
    exported = run_here(workplace, "export", "runs/whole", "alone", "--format", "adapter")
    assert exported.code == 0, exported.err
    for file in (workplace / "alone").iterdir():
        assert str(workplace).encode() not in file.read_bytes(), file.name


def test_an_exported_adapter_is_opened_with_the_place_of_its_base(workplace):
    """It names no place; the files there must have the hashes of the base."""
    exported = run_here(
        workplace, "export", "runs/whole", "alone", "--format", "adapter", "--force"
    )
    assert exported.code == 0, exported.err
    chat = ("--temperature", 0)
    missing = run_here(workplace, "chat", "alone", *chat, stdin=b"Hello!\n")
    assert (missing.code, missing.err.count("error: ")) == (2, 1)
    assert "hint: give the place of the model: --base PATH" in missing.err
    save_foreign(workplace / "other", "gpt2", tokenizer(), SIZES["gpt2"] | {"n_layer": 1})
    for place, code in (("other", 6), ("nowhere/at/all", 2)):
        wrong = run_here(workplace, "chat", "alone", "--base", place, *chat, stdin=b"Hello!\n")
        assert (wrong.code, wrong.err.count("error: ")) == (code, 1), wrong.err
    opened = run_here(workplace, "chat", "alone", "--base", "base", *chat, stdin=b"Hello!\n")
    of_run = run_here(workplace, "chat", "runs/whole", *chat, stdin=b"Hello!\n")
    assert (opened.code, opened.out) == (0, of_run.out), opened.err
    as_base = run_here(
        workplace, "train", "config.yaml", *LORA, *settings("model.pretrained=alone", "name=bad")
    )
    assert as_base.code == 2
    assert "convo export alone alone-merged --base PATH" in as_base.err
    merged = run_here(workplace, "export", "alone", "alone-merged", "--base", "base", "--force")
    assert merged.code == 0, merged.err
    whole = run_here(
        workplace, "evaluate", "alone-merged", "valid.jsonl", "--base", "base", "--replies", 0
    )
    assert whole.code == 0, whole.err
    assert "--base has no effect: alone-merged holds a whole model" in whole.err


def test_a_dry_run_counts_what_is_trained_and_leaves_no_run(one):
    planned = run_here(one, "train", "config.yaml", *LORA, *settings("name=dry"), "--dry-run")
    assert planned.code == 0, planned.err
    trained = sum(tensor.numel() for tensor in tensors(one, 0).values())
    assert f", {trained:,} trained" in planned.out
    assert not (one / "runs/dry").exists()


def test_an_adapter_is_no_base_but_can_be_merged_to_one(one):
    base = settings(f"model.pretrained={checkpoint(one, 2)}", "name=second")
    refused = run_here(one, "train", "config.yaml", *LORA, *base)
    assert refused.code == 2
    assert f"convo export {checkpoint(one, 2)} step-00000002-merged" in refused.err


def test_a_checkpoint_is_loaded_as_the_same_model_each_time(workplace):
    """Also the unused rows of new tokens in the base, which `evaluate --devices` compares."""
    one, other = (load_model(str(checkpoint(workplace, 4))).state_dict() for _ in range(2))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_merged_model_has_no_trace_of_peft(workplace):
    model = load_model(str(checkpoint(workplace, 4)))
    merge_adapter(model)
    assert adapter_of(model) is None
    assert not any("lora" in name or "token_adapter" in name for name in model.state_dict())


def test_a_moved_base_is_found_by_its_hashes_and_another_one_is_refused(one, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(one, folder)
    shutil.copytree(folder / "base", folder / "moved")
    other = folder / "other"
    shutil.copytree(folder / "base", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "note": "other"}))
    # The checkpoint also knows the absolute path of the first folder.
    shutil.move(one / "base", one / "away")
    shutil.rmtree(folder / "base")
    try:
        before = without_locks(folder)
        missing = run_here(folder, "chat", "runs/whole", stdin=b"Hello!\n")
        assert missing.code == 2, missing.err
        assert "--set model.pretrained=PATH" in missing.err
        wrong = run_here(folder, "resume", "runs/whole", *settings("model.pretrained=other"))
        assert wrong.code == 6, wrong.err
        assert without_locks(folder) == before
        for command in (("chat", "runs/whole"), ("evaluate", "runs/whole", "valid.jsonl"),
                        ("export", "runs/whole", "out")):  # fmt: skip
            given = run_here(folder, *command, "--base", "moved", stdin=b"Hello!\n")
            assert given.code == 0, given.err
            wrong = run_here(folder, *command, "--base", "other", stdin=b"Hello!\n")
            assert wrong.code == (2 if "out" in command else 6), wrong.err
        found = run_here(folder, "resume", "runs/whole", *settings("model.pretrained=moved"))
        assert found.code == 0, found.err
        assert run_here(folder, "chat", "runs/whole", stdin=b"Hello!\n").code == 0
    finally:
        shutil.move(one / "away", one / "base")


def test_a_run_and_its_base_are_moved_together(one, tmp_path):
    """The path from one to the other is in run.json; the working folder is another one."""
    shutil.copytree(one, tmp_path / "new")
    (tmp_path / "base").mkdir()  # another folder with the name in the config
    shutil.move(one / "base", one / "away")
    try:
        chat = run_here(tmp_path, "chat", "new/runs/whole", stdin=b"Hello!\n")
        assert chat.code == 0, chat.err
        longer = settings("training.max_steps=3")
        resumed = run_here(tmp_path, "resume", "new/runs/whole", *longer)
        assert resumed.code == 0, resumed.err
    finally:
        shutil.move(one / "away", one / "base")


def test_an_adapter_is_not_sharded(one):
    """Each device has the frozen weights, so `auto` does not shard them either."""
    model = load_model(str(checkpoint(one, 2)))
    world = World()
    world.size = 2
    assert choose_sharding("auto", model, world, lambda event: None) == "none"
    with pytest.raises(
        ModelError, match=r"training\.sharding: full cannot be used with model\.lora"
    ):
        choose_sharding("full", model, world, lambda event: None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("rank=0", "--set model.lora.rank: found 0; allowed: a whole number"),
        ("target_modules=[]", "--set model.lora.target_modules: found []"),
        ("target_modules=[nowhere]", '"nowhere" is not in the model (a GPT2LMHeadModel)'),
        ("target_modules=[lm_head]", '"lm_head" is not a matrix of a block'),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_a_run_appears(one, given, message):
    bad = settings("name=bad", f"model.lora.{given}")
    refused = run_here(one, "train", "config.yaml", *LORA, *bad)
    assert refused.code == 2
    assert message in refused.err
    assert refused.err.count("error: ") == 1
    assert "encoding" not in refused.err, "the data may take hours"
    assert not (one / "runs/bad").exists()


def test_another_adapter_at_a_resume_is_refused(one):
    before = without_locks(one / "runs/whole")
    other = run_here(one, "resume", "runs/whole", *settings("model.lora.rank=8"))
    assert other.code == 6
    assert "model.lora.rank is 8, but the run was started with 4" in other.err
    assert without_locks(one / "runs/whole") == before


def test_a_new_model_has_nothing_to_adapt(one):
    refused = run_here(one, "train", "config.yaml", *settings("model.lora.rank=4"))
    assert refused.code == 2
    assert "--set model.lora.rank: needs model.pretrained" in refused.err


@pytest.mark.parametrize(
    ("name", "value"),
    [("auto_mapping", {"parent_library": "evil"}), ("r", 10**9), ("peft_type", "IA3")],
)
def test_a_forged_adapter_is_refused(one, tmp_path, name, value):
    folder = tmp_path / "forged"
    shutil.copytree(checkpoint(one, 2), folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        load_model(str(folder))


def test_an_end_token_that_cannot_be_trained_is_refused(one):
    """The head of Phi has a bias, which peft would leave out beside trained rows."""
    save_foreign(one / "phi", "phi", tokenizer(), {**SIZE, "max_position_embeddings": 128})
    bad = settings("name=bad", "model.pretrained=phi")
    refused = run_here(one, "train", "config.yaml", *LORA, *bad)
    assert refused.code == 2
    assert "LoRA cannot train their rows in a PhiForCausalLM" in refused.err
    assert "encoding" not in refused.err, "the data may take hours"
    assert not (one / "runs/bad").exists()


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(one):
    given = settings("training.max_steps=2", "data.validation=[]", "model.lora.dropout=0")
    losses, scores = [], []
    for name, devices in (("alone", 1), ("pair", 2)):
        options = ("--devices", devices, *settings(f"name={name}", "training.device=cpu"))
        trained = run_process(one, "train", "config.yaml", *LORA, *given, *options, timeout=600)
        assert trained.code == 0, trained.err
        log = (one / f"runs/{name}/metrics.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in log]
        losses.append([event["loss"] for event in events if event["event"] == "step"])
        shared = ("--devices", devices, "--device", "cpu", "--base", "base", "--json")
        scored = run_process(one, "evaluate", "runs/alone", "valid.jsonl", *shared, timeout=600)
        assert scored.code == 0, scored.err
        scores.append(scored.json["scores"]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    both = [tensors(one, 2, name) for name in ("alone", "pair")]
    for name, tensor in both[0].items():
        torch.testing.assert_close(both[1][name], tensor, atol=2e-3, rtol=0)
