"""Metadata of a GGUF file: sizes of the model, vocabulary, special tokens and chat template.

They name no person, machine or path, and only the template of the training run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convo_cli.errors import ModelError
from convo_cli.events import Emit, Notice
from convo_cli.export.format import Dtype
from convo_cli.export.llama_cpp.gguf_families import OTHER_FORMAT, Family, window_of
from convo_cli.export.llama_cpp.gguf_rope import rope_of, write_rope
from convo_cli.export.llama_cpp.gguf_tensors import TYPE_NAMES
from convo_cli.export.llama_cpp.gguf_vocabulary import Vocabulary
from convo_cli.text.templates.jinja_source import value_literal

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedModel

    from convo_cli.config.schema import GenerationSettings
    from convo_cli.text.encoder import DialogueEncoder
    from convo_cli.text.templates.pieces import Template

_MAX_LAYERS = 512
"""The most that llama.cpp loads."""
_SAMPLERS = "penalties;temperature;top_k;top_p;min_p"
"""llama.cpp's own order has the temperature last."""


def write_sizes(
    writer: GGUFWriter, model: PreTrainedModel, family: Family, dtype: Dtype, max_length: int
) -> None:
    """State the sizes and settings of the model; ``max_length`` is the window of training."""
    from gguf import LlamaFileType

    config: Any = model.config
    context, num_heads = config.max_position_embeddings, config.num_attention_heads
    if window := window_of(config.to_dict()):
        context = min(context, window)
        if max_length > context:
            raise ModelError(
                f"the model attends to the last {window:,} tokens, but was trained on windows of "
                f"{max_length:,}; llama.cpp attends to all of them",
                hint=OTHER_FORMAT,
            )
    if config.num_hidden_layers > _MAX_LAYERS:
        raise ModelError(f"llama.cpp holds at most {_MAX_LAYERS} layers")
    writer.add_type("model")
    writer.add_file_type(
        LlamaFileType[("ALL_" if dtype == "fp32" else "MOSTLY_") + TYPE_NAMES[dtype]]
    )
    if dtype == "q8_0":
        from gguf import GGML_QUANT_VERSION

        writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    writer.add_feed_forward_length(inner or 4 * config.hidden_size)
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or num_heads)
    epsilon = getattr(config, family.epsilon)
    if family.is_rms:
        writer.add_layer_norm_rms_eps(epsilon)
    else:
        writer.add_layer_norm_eps(epsilon)
    if family.rotates:
        size = head_size(config)
        writer.add_key_length(size)
        writer.add_value_length(size)
        rope = rope_of(config.to_dict())
        write_rope(writer, rope, int(size * rope.share), config.max_position_embeddings)
    for name, method in family.stated.items():
        getattr(writer, method)(getattr(config, name))


def head_size(config: Any) -> int:
    """Return the number of dimensions of an attention head."""
    stated = getattr(config, "head_dim", None)
    return int(stated or config.hidden_size // config.num_attention_heads)


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """State the tokens of the model."""
    writer.add_vocab_size(len(vocabulary.texts))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.texts)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_space_prefix(vocabulary.adds_space)
    # The chat template writes these tokens.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def write_dialogue(writer: GGUFWriter, encoder: DialogueEncoder, emit: Emit) -> None:
    """State the template and the tokens that end a reply, for which llama.cpp has three keys."""
    tokenizer: Any = encoder.tokenizer
    own = tokenizer.eos_token_id
    stops = sorted(encoder.stop_ids, key=lambda index: index != own)  # a stable sort
    writer.add_eos_token_id(stops[0])
    bos = tokenizer.bos_token_id
    # Without this key, llama.cpp takes the id 11 or 1.
    writer.add_bos_token_id(stops[0] if bos is None else bos)
    for add, index in zip(
        (writer.add_eot_token_id, writer.add_eom_token_id), stops[1:], strict=False
    ):
        add(index)
    if len(stops) == 1:
        # Otherwise llama.cpp looks for a token with a known name, which training may not end with.
        writer.add_eot_token_id(stops[0])
    if more := stops[3:]:
        names = ", ".join(tokenizer.convert_ids_to_tokens(more))
        emit(Notice(f"export: llama.cpp has no place for these stop tokens: {names}"))
    writer.add_pad_token_id(encoder.pad_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_chat_template(_chat_template(encoder.template))


def write_sampling(writer: GGUFWriter, settings: GenerationSettings) -> None:
    """State the sampling of the checkpoint, in its order, as the default of llama.cpp."""
    writer.add_string("general.sampling.sequence", _SAMPLERS)
    writer.add_float32("general.sampling.temp", settings.temperature)
    writer.add_int32("general.sampling.top_k", settings.top_k)
    writer.add_float32("general.sampling.top_p", settings.top_p)
    writer.add_float32("general.sampling.min_p", settings.min_p)
    writer.add_float32("general.sampling.penalty_repeat", settings.repetition_penalty)
    writer.add_int32("general.sampling.penalty_last_n", -1)  # all tokens


def _chat_template(template: Template) -> str:
    """Return the template, which sets its own variables whatever the program defines.

    llama.cpp defines ``enable_thinking`` for every template, so a default would have no effect.
    """
    options = sorted(template.options.items())
    sets = (f"{{%- set {name} = {value_literal(value)} %}}" for name, value in options)
    return "".join(sets) + template.chat_template
