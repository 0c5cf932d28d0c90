"""The runtime of Hugging Face folders reads ids, replies and losses as convo does."""

from __future__ import annotations

import json

import pytest
import torch

from convo_cli.export.folders import huggingface
from tests.exported_folders import make_source, write_folder

MESSAGES = [{"role": "user", "content": "Hello there"}]


@pytest.fixture(scope="module")
def source(make_encoder, tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("run") / "0", "Llama", make_encoder("turns", 96))


@pytest.fixture(scope="module")
def runtime(source, tmp_path_factory):
    return huggingface.open_runtime(write_folder(source, tmp_path_factory.mktemp("o") / "0"), None)


def test_ids_of_texts_and_prompts_are_those_of_the_checkpoint(runtime, source):
    from convo_cli.data.dialogue import Turn

    encoder = source.generator.encoder
    for text in ("Hello", " a  b\n", "안녕 🙂"):
        assert runtime.text_ids(text) == encoder.text_ids([text])[0]
    turns = [Turn("user", "Hello there")]
    assert runtime.prompt_ids(MESSAGES) == encoder.prompt(turns, max_new_tokens=8).ids
    assert runtime.stop_ids == list(encoder.stop_ids)


def test_losses_are_those_of_the_model(runtime, source):
    ids = [*runtime.prompt_ids(MESSAGES), 5, 6, 7]
    with torch.no_grad():
        logits = source.generator.model(torch.tensor([ids])).logits[0]
    losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    found = runtime.nll(ids, len(ids) - 3)
    assert found == pytest.approx(losses[-3:].tolist(), abs=1e-5)
    assert len(runtime.nll(ids, 1)) == len(ids) - 1


def test_a_reply_is_greedy_and_ends_with_the_end_token(runtime, source):
    ids = runtime.prompt_ids(MESSAGES)
    reply = runtime.greedy(ids, 6)
    assert 0 < len(reply) <= 6
    with torch.no_grad():
        logits = source.generator.model(torch.tensor([[*ids, *reply]])).logits[0]
    assert reply == logits[len(ids) - 1 : -1].argmax(-1).tolist()
    end = source.generator.encoder.stop_ids[0]
    runtime._model.generation_config.eos_token_id = [end, reply[0]]
    assert runtime.greedy(ids, 6) == reply[:1]
    runtime._model.generation_config.eos_token_id = [end]


@pytest.mark.parametrize(("dtype", "stored"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_an_export_is_computed_in_its_own_type_and_stays_tied(checkpoint, tmp_path, dtype, stored):
    from convo_cli.export.source import Source
    from convo_cli.model.decoding.generator import Generator
    from convo_cli.model.loading import load_model
    from convo_cli.text.contract import load_encoder

    names = ("config.json", "dialogue.json", "model.safetensors", "tokenizer.json")
    files = tuple(checkpoint / name for name in (*names, "tokenizer_config.json"))
    generator = Generator(load_model(str(checkpoint)), load_encoder(checkpoint), checkpoint)
    source = Source(checkpoint, files, generator, None, None, max_shard_bytes=20_000)
    folder = write_folder(source, tmp_path / "out", dtype)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    runtime = huggingface.open_runtime(folder, None)
    assert {one.dtype for one in runtime._model.parameters()} == {stored}
    head, table = (runtime._model.get_output_embeddings(), runtime._model.get_input_embeddings())
    assert head.weight.data_ptr() == table.weight.data_ptr()
    config = json.loads((folder / "config.json").read_bytes())
    assert config["dtype"] == config["torch_dtype"] == str(stored).removeprefix("torch.")
    assert runtime.nll(runtime.prompt_ids(MESSAGES), 1)
