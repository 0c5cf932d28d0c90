"""Adapters of new runs: the matrices that get an update, and the tokens whose rows are trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convo_cli.config.schema import LoraSettings, ModelConfig, PretrainedModel
from convo_cli.errors import ModelError
from convo_cli.events import Emit, Notice
from convo_cli.model.adapters.adapter_files import Adapter, AdapterBase, AdapterConfig
from convo_cli.model.adapters.lora import inject, untrainable
from convo_cli.model.sizes import require_sizes
from convo_cli.runs.model_folder import require_model_folder
from convo_cli.runs.provenance.run_info import BaseModelFiles
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.wording import counted, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MAX_NAMED = 12


def require_adaptable(config: ModelConfig, encoder: DialogueEncoder) -> None:
    """Raise, before data is encoded, the errors of `add_adapter` about the modules of the model."""
    origin, settings = config.origin, config.lora
    if settings is None or not isinstance(origin, PretrainedModel):
        return
    folder = local_folder(origin.source, origin.revision)
    require_model_folder(folder)
    model = require_sizes(folder, origin.source)
    _targets(model, settings.target_modules)
    if encoder.template.special_tokens:
        _token_indices(model, ())


def add_adapter(
    model: PreTrainedModel,
    settings: LoraSettings,
    files: BaseModelFiles,
    encoder: DialogueEncoder,
    *,
    num_added: int,
    seed: int,
    emit: Emit,
) -> None:
    """Add updates, which change nothing yet; the rows of the template's own tokens are trained too.

    ``files`` are those of the model, to which ``num_added`` rows were added for new tokens.
    ModelError if the model lacks a target module, or if such a row cannot be trained.
    """
    table: Any = model.get_input_embeddings()
    num_rows = len(table.weight)
    # A native chat template adds no tokens; the model is trained on those that it writes.
    own: Any = encoder.tokenizer.convert_tokens_to_ids(list(encoder.template.special_tokens))
    token_ids = {*own, *range(num_rows - num_added, num_rows)}
    base = AdapterBase.of(files, num_rows)
    names = _targets(model, settings.target_modules)
    matrices = [module for name, module in _matrices(model) if _is_named(name, names)]
    config = AdapterConfig(
        base_model_name_or_path=base.source if base.commit else None,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=tuple(names),
        fan_in_fan_out=not any(isinstance(module, nn.Linear) for module in matrices),
        trainable_token_indices=_token_indices(model, token_ids) if token_ids else None,
    )
    torch.manual_seed(seed)
    inject(model, Adapter(config=config, base=base))
    _note_share(model, len(token_ids), emit)


def _note_share(model: PreTrainedModel, num_rows: int, emit: Emit) -> None:
    numbers = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    total = sum(number for number, _ in numbers)
    trained = sum(number for number, is_trained in numbers if is_trained)
    rows = f" and the embeddings of {counted(num_rows, 'token')} of the template" * bool(num_rows)
    message = f"{trained:,} of {total:,} parameters ({trained / total:.2%})"
    emit(Notice(f"LoRA: training {message}: updates of the matrices{rows}"))


def _matrices(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    """Yield the matrices of the blocks by name: not the embeddings, not the head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head:
            yield name, module


def _targets(model: PreTrainedModel, wanted: Sequence[str] | str) -> list[str]:
    """Return the target modules by the last part of their names, which must all exist."""
    names = [name for name, _ in _matrices(model)]
    known = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
    if wanted == "auto":
        if not known:
            raise ModelError(f"LoRA cannot adapt a {type(model).__name__}: it has no matrices")
        return known
    others = {name for name, _ in model.named_modules()} - set(names)
    for target in wanted:
        reached = [name for name in names if _is_named(name, [target])]
        if not reached or any(_is_named(name, [target]) for name in others):
            what = "is not a matrix of a block" if not reached else "also names other modules"
            has_it = reached or any(_is_named(name, [target]) for name in others)
            more = ", …" if len(known) > _MAX_NAMED else ""
            raise ModelError(
                f"model.lora.target_modules: {quoted(target, 100)} "
                + (what if has_it else f"is not in the model (a {type(model).__name__})"),
                hint=f"its matrices are: {', '.join(known[:_MAX_NAMED])}{more}; auto adapts all",
            )
    return list(wanted)


def _is_named(name: str, targets: Sequence[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _token_indices(
    model: PreTrainedModel, token_ids: Collection[int]
) -> dict[str, tuple[int, ...]]:
    """Return the rows to train by the name of the module: embeddings, and a head of its own."""
    table: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    if not isinstance(table, nn.Embedding) or not isinstance(head, nn.Linear):
        raise untrainable(model, "its embeddings or its head have a form of their own")
    if head.bias is not None:
        raise untrainable(model, "its head has a bias, which peft would leave out")
    modules = [table] if head.weight is table.weight else [table, head]
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(module)]: tuple(sorted(token_ids)) for module in modules}
