"""Files of an adapter in a checkpoint, in peft's form: its config, its tensors, and its base.

``adapter_config.json`` and ``adapter_model.safetensors`` are peft's; ``base_model.json`` holds the
hashes of the model that the adapter belongs to. No file is trusted: convo reads only the keys that
it writes, and no key can name code or a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from torch import Tensor

from convo_cli.config.schema import PretrainedModel
from convo_cli.errors import (
    ChangedError,
    CheckpointError,
    ModelNotFoundError,
    UsageError,
    typeable,
)
from convo_cli.model.tensor_files import reading
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.run_info import BaseModelFiles, read_base_model, read_run_info
from convo_cli.storage.files import only_regular, read_file
from convo_cli.storage.foreign_files import (
    ADAPTER_BASE,
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    MAX_CONFIG_BYTES,
)
from convo_cli.storage.snapshot import Snapshot
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.wording import quoted

_HINT = "copy the folder again from an intact copy, or use another checkpoint"
_Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.\w+)*$", max_length=2000)]
_Ids = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AdapterConfig(_File):
    """adapter_config.json: the keys of peft's LoraConfig that convo sets; others are refused."""

    peft_type: Literal["LORA"] = "LORA"
    task_type: Literal["CAUSAL_LM"] = "CAUSAL_LM"
    base_model_name_or_path: str | None = None
    """Hub id of the base; null for a folder, whose path is private."""
    r: int = Field(ge=1, le=4096)
    lora_alpha: int = Field(ge=1)
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    target_modules: tuple[_Name, ...] = Field(min_length=1)
    fan_in_fan_out: bool = False
    """True for the matrices of GPT-2, which are (in, out)."""
    trainable_token_indices: dict[_Name, _Ids] | None = None
    """Ids whose rows are trained, by the name of the module: input embeddings, untied head."""
    bias: Literal["none"] = "none"
    inference_mode: Literal[True] = True

    @property
    def token_ids(self) -> set[int]:
        """Return the ids whose rows are trained."""
        return {id_ for ids in (self.trainable_token_indices or {}).values() for id_ in ids}


class AdapterBase(_File):
    """base_model.json: the model that an adapter was trained on."""

    format: Literal[1] = 1
    source: str | None
    """Hub id, or the absolute path of the folder; null for a folder in an export."""
    commit: str | None
    sha256: dict[str, str]
    """Hashes of its files by name."""
    num_embeddings: int = Field(ge=1)
    """Rows of the embeddings, with those that were added for new tokens."""

    @classmethod
    def of(cls, files: BaseModelFiles, num_embeddings: int) -> AdapterBase:
        source = files.source if files.commit else str(Path(files.source).resolve())
        return cls(
            source=source,
            commit=files.commit,
            sha256=files.sha256,
            num_embeddings=num_embeddings,
        )


class Adapter(_File):
    """The settings of an adapter, and its base."""

    config: AdapterConfig
    base: AdapterBase


def holds_adapter(folder: Path) -> bool:
    """Return whether a folder is a checkpoint or an export of convo that holds an adapter."""
    return (folder / ADAPTER_BASE).is_file() and (folder / ADAPTER_CONFIG).is_file()


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Write adapter_config.json and base_model.json into a folder that is being created."""
    _write(folder / ADAPTER_CONFIG, adapter.config)
    _write(folder / ADAPTER_BASE, adapter.base)


def _write(file: Path, content: BaseModel) -> None:
    with open(file, "x", encoding="utf-8", newline="\n", opener=only_regular) as opened:
        opened.write(content.model_dump_json(indent=2) + "\n")


def read_adapter(folder: Path) -> Adapter:
    """Read adapter_config.json and base_model.json; CheckpointError for a key that is not convo's.

    The header of the tensors must agree with the rank and the number of trained rows, so a forged
    config cannot claim more memory than the files have.
    """
    values = {}
    for key, kind, name in (
        ("config", AdapterConfig, ADAPTER_CONFIG),
        ("base", AdapterBase, ADAPTER_BASE),
    ):
        file = folder / name
        try:
            with reading(file):
                values[key] = kind.model_validate_json(read_file(file, MAX_CONFIG_BYTES))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise CheckpointError(
                f"{file}: {quoted(where, 100)}: {problem['msg']}, so convo did not write it",
                hint=_HINT,
            ) from None
    adapter = Adapter.model_validate(values)
    config = adapter.config
    file = folder / ADAPTER_TENSORS
    with reading(file), safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118  # not a mapping
            shape = opened.get_slice(name).get_shape()
            if ".lora_A." in name and shape[:1] != [config.r]:
                raise CheckpointError(
                    f"{file}: {quoted(name, 100)} has the shape {shape}, but {ADAPTER_CONFIG} "
                    f"says r: {config.r}",
                    hint=_HINT,
                )
    return adapter


def read_adapter_tensors(folder: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read tensors with exactly these names, shapes and types; CheckpointError otherwise."""
    file, found = folder / ADAPTER_TENSORS, {}
    with reading(file), safe_open(file, framework="pt") as opened:
        names = set(opened.keys())
        if different := sorted(names.symmetric_difference(wanted)):
            name = different[0]
            has = "has" if name in names else "lacks"
            raise CheckpointError(
                f"{file}: {has} the tensor {quoted(name, 100)}, which does not fit the base model "
                f"and {ADAPTER_CONFIG}",
                hint=_HINT,
            )
        for name, form in wanted.items():
            shape, own = opened.get_slice(name).get_shape(), list(form.shape)
            if shape == own:
                found[name] = opened.get_tensor(name)
            if shape != own or found[name].dtype != form.dtype:
                raise CheckpointError(
                    f"{file}: {name} has the shape {shape}, but the base model needs {own} in fp32",
                    hint=_HINT,
                )
            if not found[name].isfinite().all():
                raise CheckpointError(f"{file}: {name} contains values that are not finite")
    return found


def find_base(folder: Path, base: AdapterBase, given: PretrainedModel | None = None) -> Snapshot:
    """Return the folder of an adapter's base, whose files have the hashes in the checkpoint.

    If ``given`` is another place than in run.json, only that place is searched; otherwise those in
    run.json of the run around the checkpoint and in the checkpoint. ChangedError if only other
    models are there, UsageError if none is.
    """
    run = RunDirectory(folder.resolve().parent.parent)
    stored = read_run_info(run).base_model if run.is_run else None
    if given is not None and (stored is None or given.source != stored.source):
        places = [(given.source, given.revision)]
    else:
        known = [] if stored is None else [(stored.source, stored.commit)]
        if stored is not None and stored.commit is None:
            known.insert(0, (str(stored.folder(run)), None))
        known += [] if base.source is None else [(base.source, base.commit)]
        # A place without a commit is a folder: a missing one must not be asked from the hub.
        places = [place for place in known if place[1] is not None or Path(place[0]).is_dir()]
    other = None
    for source, revision in dict.fromkeys(places):
        try:
            found = local_folder(source, revision)
        except ModelNotFoundError:
            continue
        before = Snapshot.of(found)
        if read_base_model(source, found).sha256 == base.sha256:
            return before
        other = other or source
    hint = "give the place of the model: --base PATH"
    if run.is_run:
        command = f"convo resume {typeable(run.path)} --set model.pretrained=PATH"
        hint = f"if it was moved: `{command}`; chat, evaluate and export also take --base PATH"
    if other is not None:
        raise ChangedError(
            f"{other}: not the model that the adapter in {folder} was trained on (its files have "
            "other hashes)",
            hint=hint,
        )
    model = places[0][0] if given is not None and places else base.source
    raise UsageError(
        f"{folder}: its adapter needs "
        + (f"the model {model}, which was not found" if model else "the model it was trained on"),
        hint=hint,
    )
