"""The base model of an export and its licence, as the base's own card states it.

What is missing there is missing here: nothing is guessed from names or files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from convo_cli.export.card.front_matter import read_front_matter
from convo_cli.export.card.markdown import as_code
from convo_cli.export.source import Source
from convo_cli.model.adapters.lora import adapter_of
from convo_cli.storage.files import read_file
from convo_cli.storage.foreign_files import MAX_CONFIG_BYTES

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
_BINDING = re.compile(r"cc-by(-nc)?-sa-\d\.\d|a?gpl-[23]\.0|gpl|gfdl")
"""Licences whose text says that a changed version has the same licence."""
_CONFIG = "config.json"
_MAX_FILES = 20


@dataclass(frozen=True, slots=True)
class Licence:
    """What a card states: an identifier of the hub, and for ``other`` a name and a link."""

    identifier: str
    name: str | None
    link: str | None

    @property
    def markdown(self) -> str:
        """Return it as Markdown."""
        more = [as_code(text) for text in (self.name, self.link) if text]
        return as_code(self.identifier) + (f" ({', '.join(more)})" if more else "")

    @property
    def is_listed(self) -> bool:
        """Return whether the identifier has the form of the hub's list."""
        return _LICENCE.fullmatch(self.identifier) is not None

    @property
    def binds_changed_versions(self) -> bool:
        return _BINDING.fullmatch(self.identifier) is not None


@dataclass(frozen=True, slots=True)
class Base:
    """The model that a run started from, or that an adapter belongs to."""

    hub_id: str | None
    """None: a folder, whose path is private."""
    commit: str | None
    sha256: Mapping[str, str]
    """Of its files, by name; empty if not known."""
    licence: Licence | None
    """None: its card names none, or was not found."""

    @property
    def markdown(self) -> str:
        """Return what identifies it, as Markdown."""
        if self.hub_id is not None:
            at = f" at commit {as_code(self.commit)}" if self.commit else ""
            return as_code(self.hub_id) + at
        return _files(self.sha256)

    @property
    def first_files(self) -> list[tuple[str, str]]:
        """Return the hashes of its first files, at most 20, those of weights first."""
        return _first(self.sha256)


@dataclass(frozen=True, slots=True)
class PublisherFields:
    """Fields that the publisher wrote into the card of an export that is exported again."""

    licence: Licence | None
    base_model: str | None
    relation: str | None
    languages: tuple[str, ...]


def find_base(source: Source) -> Base | None:
    """Return the base of a fine-tuned model; None for a model from scratch, or if not known."""
    if (adapter := adapter_of(source.generator.model)) is not None:
        hub_id, commit, sha256 = adapter.base.source, adapter.base.commit, adapter.base.sha256
        folder = source.base
    elif source.loaded is not None and (base := source.loaded.info.base_model) is not None:
        hub_id, commit, sha256 = base.source, base.commit, base.sha256
        folder = None
        if commit is None and source.run is not None:
            folder = base.folder(source.run)
    else:
        return None
    is_public = commit is not None and is_hub_id(hub_id)
    if is_public and folder is None:
        folder = _cached(str(hub_id), str(commit))
    return Base(
        hub_id=hub_id if is_public else None,
        commit=commit if is_public else None,
        sha256=sha256,
        licence=None if folder is None else _licence_in(folder, sha256, is_pinned=is_public),
    )


def read_publisher_fields(folder: Path) -> PublisherFields:
    """Read the card of an export of convo, whose publisher may have filled it in."""
    found = read_front_matter(folder)
    base = next(iter(found.get("base_model", ())), None)
    relation = next(iter(found.get("base_model_relation", ())), None)
    return PublisherFields(
        licence=_licence(found),
        base_model=base if is_hub_id(base) else None,
        relation=relation if relation in ("adapter", "finetune", "merge", "quantized") else None,
        languages=tuple(
            one for one in found.get("language", ()) if re.fullmatch(r"[a-z]{2,3}", one)
        ),
    )


def is_hub_id(text: str | None) -> bool:
    """Return whether this can be the name of a model on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(text or "/")
    except HFValidationError:
        return False
    return True


def described_base(model: PreTrainedModel) -> str:
    """Return the base of an adapter for the model card: its hub id, or else the hashes of files."""
    if (adapter := adapter_of(model)) is None:
        return ""
    base = adapter.base
    if base.commit is not None and base.source is not None:
        return f"{as_code(base.source)} at commit {as_code(base.commit)}"
    return _files(base.sha256)


def _files(sha256: Mapping[str, str]) -> str:
    files = (f"{as_code(name)} {as_code(digest)}" for name, digest in _first(sha256))
    return "the model with these files (SHA-256): " + ", ".join(files)


def _first(sha256: Mapping[str, str]) -> list[tuple[str, str]]:
    by_weight = sorted(
        sha256.items(), key=lambda item: (not item[0].endswith(".safetensors"), item)
    )
    return by_weight[:_MAX_FILES]


def _cached(hub_id: str, commit: str) -> Path | None:
    """Return the folder of a commit in the hub's cache, without a network."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError, OSError):
        found = try_to_load_from_cache(hub_id, _CONFIG, revision=commit)
        return Path(found).parent if isinstance(found, str) else None
    return None


def _licence_in(folder: Path, sha256: Mapping[str, str], *, is_pinned: bool) -> Licence | None:
    """Return the licence that a base's card names, if the folder still holds that base.

    The weights take minutes to hash, so only the config of a folder that may change is compared.
    """
    if not is_pinned:
        try:
            digest = hashlib.sha256(read_file(folder / _CONFIG, MAX_CONFIG_BYTES)).hexdigest()
        except OSError:
            return None
        if digest != sha256.get(_CONFIG):
            return None
    return _licence(read_front_matter(folder))


def _licence(found: Mapping[str, list[str]]) -> Licence | None:
    def first(key: str) -> str | None:
        return next(iter(found.get(key, ())), None)

    identifier = ", ".join(found.get("license", ()))
    if not identifier:
        return None
    return Licence(identifier, first("license_name"), first("license_link"))
