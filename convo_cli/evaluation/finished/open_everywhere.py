"""One model, opened by every process of a world on its own device."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from convo_cli import __version__
from convo_cli.errors import ChangedError
from convo_cli.events import Emit
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.device import choose_device, own_device
from convo_cli.model.open import open_generator
from convo_cli.runs.provenance.run_info import installed_packages
from convo_cli.runs.provenance.same_values import require_same_values
from convo_cli.runs.selection import Which
from convo_cli.text.contract import contract_of
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SAMPLE = 64  # values of each tensor that are compared


def open_everywhere(
    source: str,
    *,
    device: str,
    emit: Emit,
    which: Which | None,
    world: World,
    base: str | None = None,
) -> Generator:
    """Do what `open_generator` does in every process; an error in one is raised in all.

    ChangedError if the processes loaded different models.
    """

    def load(path: str, which: Which | None) -> Generator:
        where = own_device(choose_device(device), world)
        return open_generator(path, device=str(where), emit=emit, which=which, base=base)

    generator = world.agreed(lambda: load(source, which))
    if world.size == 1:
        return generator
    # If a run is being trained, two processes may find different checkpoints.
    own = str(generator.folder) if generator.loaded else ""
    chosen = world.gather(own)[0]
    generator = world.agreed(lambda: generator if own == chosen else load(chosen or source, None))
    values = {
        "convo": __version__,
        **installed_packages(),
        f"the tokenizer of {source}": contract_of(generator.encoder).tokenizer_sha256,
        f"the hash of the weights of {source}": _hash_of_some(generator.model),
    }
    require_same_values(
        world, values, ChangedError, "give every process the same model and packages"
    )
    return generator


def _hash_of_some(model: PreTrainedModel) -> str:
    """Return a hash of some values of each tensor, because hashing all of them takes long."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        some = tensor.flatten()[:: max(1, tensor.numel() // _SAMPLE)]
        found.update(f"{name} {tuple(tensor.shape)} {some.tolist()}".encode())
    return found.hexdigest()[:16]
