"""config.json, tokenizer and generation config of an export state the same tokens."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from convo_cli.export.folders.stated_tokens import state_config, state_tokens
from convo_cli.text.contract import load_encoder, save_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.trained import add_special_tokens

OLD = "<|endoftext|>"
TWO_ENDS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WRITES_EOS = TWO_ENDS + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"


def read(file):
    return json.loads(file.read_bytes())


@pytest.fixture
def make_folder(make_encoder, tmp_path):
    """Return a maker of folders as a run with a pretrained model writes them.

    Their tokenizers have an end token and no padding token, like that of GPT-2.
    """

    def make(template, chat_template=None, *, special=True, old=OLD):
        tokenizer = make_encoder("turns", 128).tokenizer
        add_special_tokens(tokenizer, [old])
        tokenizer.eos_token, tokenizer.pad_token = old, None
        if chat_template:
            tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=special)
            tokenizer.chat_template = chat_template
        made = make_template(template, tokenizer)
        add_special_tokens(tokenizer, made.special_tokens)
        encoder = DialogueEncoder(tokenizer, made, max_length=128)
        folder = tmp_path / "folder"
        folder.mkdir()
        save_encoder(encoder, folder, spiece=None)
        model = GPT2LMHeadModel(GPT2Config(
            n_embd=8, n_layer=1, n_head=1, n_positions=64, vocab_size=len(tokenizer),
            eos_token_id=3, bos_token_id=3,
        ))  # fmt: skip
        model.config.save_pretrained(folder)
        return folder, load_encoder(folder), model

    return make


def state(folder, encoder, model):
    told = []
    state_config(folder, encoder, "bfloat16")
    state_tokens(folder, encoder, model, told.append)
    return told


@pytest.mark.parametrize(
    ("template", "chat_template"),
    [("turns", None), ("chatml", None), ("convmodel", None), ("cls-sep", None),
     ("native", TWO_ENDS)],
)  # fmt: skip
def test_the_end_of_a_reply_is_the_end_token_everywhere(make_folder, template, chat_template):
    folder, encoder, model = make_folder(template, chat_template)
    before = read(folder / "dialogue.json")
    assert not state(folder, encoder, model)
    end, config = encoder.template.stop_tokens[0], read(folder / "config.json")
    stated = read(folder / "tokenizer_config.json")
    assert stated["eos_token"] == end != OLD
    assert config["eos_token_id"] == encoder.stop_ids[0]
    assert config["pad_token_id"] == encoder.pad_id
    assert encoder.tokenizer.convert_tokens_to_ids(stated["pad_token"]) == encoder.pad_id
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert stated["model_max_length"] == 64
    assert stated["chat_template"] == encoder.template.chat_template
    assert (folder / "chat_template.jinja").read_text() == encoder.template.chat_template
    again = load_encoder(folder)  # refuses any difference from dialogue.json
    assert again.stop_ids == encoder.stop_ids
    assert read(folder / "dialogue.json") == before
    plain = AutoTokenizer.from_pretrained(folder)
    assert plain.eos_token == end
    text = f"a {OLD} b {end} c"
    assert plain(text)["input_ids"] == encoder.tokenizer(text)["input_ids"]


def test_several_stop_tokens_stay_and_the_first_is_the_end_token(make_folder):
    folder, encoder, model = make_folder("native", TWO_ENDS)
    assert encoder.template.stop_tokens == ("<|im_end|>", OLD)
    state(folder, encoder, model)
    assert load_encoder(folder).template.stop_tokens == ("<|im_end|>", OLD)


def test_an_end_token_that_the_chat_template_writes_stays(make_folder):
    folder, encoder, model = make_folder("native", WRITES_EOS)
    (notice,) = state(folder, encoder, model)
    assert f'stays "{OLD}", because the chat template writes it' in notice.message
    assert read(folder / "tokenizer_config.json")["eos_token"] == OLD
    assert read(folder / "config.json")["eos_token_id"] == encoder.stop_ids[0]
    plain = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert plain.apply_chat_template(messages, tokenize=False).endswith(f"<|im_end|>\n{OLD}")
    load_encoder(folder)


def test_an_end_token_that_would_change_ids_stays(make_folder):
    """transformers marks the named token as special, which changes the tokenizer."""
    folder, encoder, model = make_folder("native", TWO_ENDS, special=False)
    (notice,) = state(folder, encoder, model)
    assert 'because ids would change with "<|im_end|>"' in notice.message
    load_encoder(folder)
    assert read(folder / "tokenizer_config.json")["eos_token"] == OLD
    assert read(folder / "config.json")["eos_token_id"] == encoder.stop_ids[0]


def test_a_stated_padding_id_stays(make_folder):
    folder, encoder, model = make_folder("turns")
    config = read(folder / "config.json")
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 1}))
    state(folder, encoder, model)
    assert read(folder / "config.json")["pad_token_id"] == 1


def test_an_export_is_exported_again_alike(make_folder, tmp_path):
    folder, encoder, model = make_folder("turns")
    state(folder, encoder, model)
    again = shutil.copytree(folder, tmp_path / "again")
    state(again, load_encoder(again), model)
    for name in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_nothing_tells_how_the_tokenizer_was_loaded(make_folder):
    folder, encoder, model = make_folder("turns")
    file = folder / "tokenizer_config.json"
    extra = {"is_local": True, "local_files_only": False, "backend": "tokenizers"}
    file.write_text(json.dumps({**read(file), **extra}))
    state(folder, encoder, model)
    assert not read(file).keys() & extra.keys()
    assert read(file)["tokenizer_class"] == "PreTrainedTokenizerFast"
