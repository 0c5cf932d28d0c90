"""Export format `gguf`: one file, which llama.cpp and the programs built on it run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.data.dialogue import Turn
from convo_cli.errors import ModelError
from convo_cli.events import Emit
from convo_cli.export.format import About, Dtype, Runtime
from convo_cli.export.llama_cpp.gguf_families import (
    FAMILIES,
    OTHER_FORMAT,
    objection,
    tie_of,
    window_of,
)
from convo_cli.export.llama_cpp.gguf_metadata import (
    head_size,
    write_dialogue,
    write_sampling,
    write_sizes,
    write_vocabulary,
)
from convo_cli.export.llama_cpp.gguf_rope import frequency_factors, rope_of
from convo_cli.export.llama_cpp.gguf_tensors import (
    TYPE_NAMES,
    StoredTensor,
    require_sound,
    stored_tensors,
    write_values,
)
from convo_cli.export.llama_cpp.gguf_text_rules import (
    explains,
    inexact,
    puts_first_space,
    tokenizer_objection,
)
from convo_cli.export.llama_cpp.gguf_vocabulary import vocabulary_of

if TYPE_CHECKING:
    from convo_cli.export.source import Source

_USAGE = """\
### llama.cpp

```sh
llama-cli -m model-*.gguf --jinja -c {max_length}
llama-server -m model-*.gguf --jinja -c {max_length} --port 8000
```

The file holds the weights, the vocabulary and the chat template {template}; its name ends in the \
type of the weights. The model was trained on windows of {max_length} tokens.

### Ollama

```sh
ollama create NAME -f Modelfile
ollama run NAME
```

llama.cpp and Ollama read a special token that a user types as that token, so text from strangers \
can end a turn.

"""


def about() -> About:
    """Return what the format needs and holds."""
    return About(
        summary="one file for llama.cpp and Ollama",
        usage=_USAGE,
        weights="*.gguf",
        other_names=("llama.cpp", "llamacpp", "llama-cpp", "ollama", "ggml"),
        dtypes=("fp32", "fp16", "bf16", "q8_0"),
        architectures=frozenset(FAMILIES),
        tokenizers=frozenset({"byte-level bpe", "sentencepiece bpe", "unigram"}),
        inexact=inexact,
        explains=explains,
        tie=tie_of,
        extra="gguf",
        writes_with=("gguf",),
        runs_with=("xllamacpp",),
        how_to_install_runtime="pip install xllamacpp",
        library="gguf",
        tags=("gguf", "llama.cpp"),
        server="llama-server -m model-*.gguf --jinja -c {max_length} --port 8000",
        commands=(
            "llama-cli -m {folder}/*.gguf --jinja -c {max_length}",
            "ollama create {name} -f {folder}/Modelfile && ollama run {name}",
        ),
        objection=objection,
        attention_window=window_of,
        tokenizer_objection=tokenizer_objection,
    )


def file_name(dtype: Dtype) -> str:
    """Return the name of the file for weights of a type."""
    return f"model-{TYPE_NAMES[dtype]}.gguf"


def write(source: Source, folder: Path, dtype: Dtype, emit: Emit) -> None:
    """Write the model's file into an empty folder, tensor by tensor."""
    import numpy as np
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter

    from convo_cli.export.llama_cpp.modelfile import write_modelfile
    from convo_cli.model.open import generation_defaults
    from convo_cli.runs.model_folder import DIALOGUE_FILE
    from convo_cli.text.contract import contract_of

    model, encoder = source.generator.model, source.generator.encoder
    config: Any = model.config
    if reason := objection(config.to_dict()):
        raise ModelError(f"llama.cpp would reply differently: {reason}", hint=OTHER_FORMAT)
    family = FAMILIES[config.model_type]
    backend: Any = encoder.tokenizer.backend_tokenizer
    spec = json.loads(backend.to_str())
    if puts_first_space(spec) and not encoder.template.render([Turn("user", "a")])[0].is_special:
        raise ModelError(
            "GGUF cannot hold this tokenizer: llama.cpp puts no space before the first text of a "
            "dialogue",
            hint=OTHER_FORMAT,
        )
    embeddings: Any = model.get_input_embeddings()
    vocabulary = vocabulary_of(
        spec,
        set(encoder.template.written_tokens),
        embeddings.weight.shape[0],
    )
    tensors = stored_tensors(model, family, dtype)
    if family.rotates:
        factors = frequency_factors(rope_of(config.to_dict()), head_size(config))
        if factors is not None:
            kind = GGMLQuantizationType.F32
            tensors.append(StoredTensor("rope_freqs.weight", factors.shape, kind, lambda: factors))
    for tensor in tensors:
        require_sound(tensor.name, tensor.shape)
    path = folder / file_name(dtype)
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[MODEL_ARCH[family.architecture]])
    write_sizes(writer, model, family, dtype, encoder.max_length)
    write_vocabulary(writer, vocabulary)
    write_dialogue(writer, encoder, emit)
    write_sampling(writer, generation_defaults(source.generator))
    for tensor in tensors:
        shape, size = tensor.shape, tensor.num_bytes
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), size, tensor.kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        write_values(writer, tensors)
    finally:
        writer.close()
    contract = contract_of(encoder).model_dump_json(indent=2)
    (folder / DIALOGUE_FILE).write_text(contract + "\n", encoding="utf-8")
    write_modelfile(folder, path.name, source, emit)


def open_runtime(folder: Path, base: Path | None) -> Runtime:
    """Open the file of a folder in llama.cpp."""
    from convo_cli.export.llama_cpp.llama_runtime import open_llama

    return open_llama(folder)
