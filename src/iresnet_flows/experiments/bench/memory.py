"""What a block keeps between its forward and its backward pass."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from iresnet_flows.experiments.bench.contestants import Block, Contestant, Net, ours, seeded
from iresnet_flows.experiments.bench.flows import build, mixture
from iresnet_flows.experiments.bench.rows import Row, TimesBetter
from iresnet_flows.experiments.bench.settings import Settings, Task

__all__ = ["kept_bytes", "tasks"]

BATCH = 128
VARIANTS = {
    ours("csin, memory low", memory="low"): TimesBetter(8.0, 16.0),
    ours("lipswish, memory low", "lipswish", memory="low"): TimesBetter(8.0, 16.0),
    ours("csin, memory full"): None,
}


def tasks(settings: Settings, peers: Sequence[Contestant]) -> list[Task]:
    return [Task("memory", partial(side_by_side, settings.trained, peers))]


def side_by_side(net: Net, peers: Sequence[Contestant]) -> list[Row]:
    """The bytes of one block of each."""
    kept = {c.title: block_bytes(c, net) for c in (*VARIANTS, *peers)}
    return [
        Row(
            "kept for the backward pass (kB)",
            f"{net}, batch {BATCH}",
            peer.title,
            variant.title,
            kept[peer.title],
            kept[variant.title],
            target,
            note="" if peer.name != "freia" else "no gradient of the log-det",
        )
        for peer in peers
        for variant, target in VARIANTS.items()
    ]


def block_bytes(contestant: Contestant, net: Net) -> float:
    """Kilobytes of one block in train mode."""
    block = build(contestant, net).each()[0]
    with seeded():
        return kept_bytes(block.train(), mixture(net.features, BATCH).requires_grad_()) / 1e3


class Kept:
    """A tensor that a node of the graph has saved."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_bytes(block: Block, x: Tensor) -> int:
    """The bytes of all storages that are there for the backward pass alone, each once.

    These are what living nodes of the graph have saved, and what Python objects hold that did
    not exist before the call, such as a closure's or a context's tensors. The input counts; the
    outputs, parameters, buffers and what is left of earlier calls do not. Costs two forward
    passes and two walks over all objects of the interpreter.
    """
    block(x)
    before = set(held()) - {address(x)}
    saved: list[weakref.ref[Kept]] = []

    def note(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        saved.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept.tensor):
        y, log_det = block(x)

    alive = [kept.tensor for reference in saved if (kept := reference()) is not None]
    found = held()
    for output in (y, log_det):
        found.pop(address(output), None)
    found |= {address(t): t.untyped_storage().nbytes() for t in alive}
    return sum(size for place, size in found.items() if place not in before)


def held() -> dict[int, int]:
    """The sizes of all storages that Python knows of, by address."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor)]
    return {address(t): t.untyped_storage().nbytes() for t in tensors if t.layout == torch.strided}


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
