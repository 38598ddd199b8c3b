"""What a block keeps between its forward and its backward pass."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iresnet_flows.experiments.bench.contestants import Block, Contestant, Net, ours
from iresnet_flows.experiments.bench.flows import build, mixture
from iresnet_flows.experiments.bench.rows import Row, TimesBetter
from iresnet_flows.experiments.bench.settings import Settings, Task
from iresnet_flows.experiments.seeds import seeded

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
    """The kilobytes of one block of each."""
    kept = {c.title: block_kilobytes(c, net) for c in (*VARIANTS, *peers)}
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


def block_kilobytes(contestant: Contestant, net: Net) -> float:
    """Kilobytes of one block in train mode."""
    block = build(contestant, net).each()[0]
    with seeded():
        return kept_bytes(block.train(), mixture(net.features, BATCH).requires_grad_()) / 1e3


def kept_bytes(block: Block, x: Tensor) -> int:
    """The bytes of all storages that are there for the backward pass alone, each once.

    These are the input and what the call has made and not dropped: what the graph has saved, and
    what contexts and closures hold. The outputs do not count, nor do parameters, buffers and what
    is left of earlier calls. Costs two forward passes.
    """
    block(x)
    with Watch() as watch:
        y, log_det = block(x)
    gc.collect()

    outputs = {y.untyped_storage()._cdata, log_det.untyped_storage()._cdata}
    return x.untyped_storage().nbytes() + watch.alive(outputs)


class Watch(TorchDispatchMode):
    """Sees each storage that is made while it is on, and knows later which of them are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.older: dict[int, UntypedStorage] = {}
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        for storage in storages((args, kwargs)):
            if storage._cdata not in self.made:
                self.older[storage._cdata] = storage
        result = func(*args, **(kwargs or {}))
        for storage in storages(result):
            if storage._cdata not in self.older:
                self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    def alive(self, outputs: set[int]) -> int:
        """The bytes of what is alive, but for the outputs."""
        return sum(
            size
            for key, (reference, size) in self.made.items()
            if key not in outputs and not reference.expired()
        )


def storages(tree: Any) -> list[UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
