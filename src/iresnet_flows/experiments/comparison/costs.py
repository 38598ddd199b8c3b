"""Time, memory and arithmetic of a flow, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from nflows.flows.base import Flow
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["ROWS", "batch", "evaluations", "measure", "step_ms"]

ROWS = 256
REPEATS = 5


def measure(flow: Flow, z: Tensor) -> dict[str, float | None]:
    """Milliseconds of a training step, a log-likelihood and samples, and memory, of 256 rows.

    Times are the processor's, and the median of a few runs. The memory, in MB, is what a training
    step needs beyond the flow itself: what the graph keeps for the backward pass, each storage
    once, and the gradients. None where a flow cannot do it.
    """
    rows = batch(z)
    return {
        "step_ms": step_ms(flow, rows),
        "log_prob_ms": able(lambda: flow.log_prob(rows), milliseconds),
        "sample_ms": able(lambda: flow.sample(ROWS), milliseconds),
        "peak_mb": peak_mb(flow, rows),
    }


def evaluations(flow: Flow, z: Tensor) -> dict[str, float | None]:
    """How often a log-likelihood, and samples, evaluate the flow's networks, for 256 rows.

    One evaluation is the arithmetic that uses each parameter once for each row: two floating
    point operations of a matrix product.
    """
    rows = batch(z)
    once = 2 * ROWS * sum(p.numel() for p in flow.parameters())

    def count(run: Callable[[], object]) -> float:
        with Operations() as operations:
            run()
        return operations.count / once

    return {
        "log_prob_evaluations": able(lambda: flow.log_prob(rows), count),
        "sample_evaluations": able(lambda: flow.sample(ROWS), count),
    }


class Operations(TorchDispatchMode):
    """Counts floating point operations, by torch's formulas.

    torch's own `FlopCounterMode` also follows modules, by hooks that a gradient with respect to a
    leaf does not get past.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.count += formula(*args, **(kwargs or {}), out_val=out)
        return out


def step_ms(flow: Flow, rows: Tensor) -> float:
    """Milliseconds for the loss of the rows and its gradient, in train mode."""

    def step() -> None:
        flow.zero_grad(set_to_none=True)
        (-flow.log_prob(rows).mean()).backward()

    flow.train()
    result = milliseconds(step)
    flow.zero_grad(set_to_none=True)
    flow.eval()
    return result


def peak_mb(flow: Flow, rows: Tensor) -> float:
    flow.train()
    storages: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in (*flow.parameters(), *flow.buffers())}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = -flow.log_prob(rows).mean()
    loss.backward()
    gradients = sum(p.grad.nbytes for p in flow.parameters() if p.grad is not None)
    flow.zero_grad(set_to_none=True)
    flow.eval()
    return (sum(storages.values()) + gradients) / 1e6


def able(
    run: Callable[[], object], measured: Callable[[Callable[[], object]], float]
) -> float | None:
    """What is measured of it without gradients, or None where the flow cannot do it."""
    with torch.no_grad():
        try:
            return measured(run)
        except Exception:  # noqa: BLE001  libraries have their own for what they lack
            return None


def batch(z: Tensor) -> Tensor:
    """So many rows, repeated where there are fewer."""
    return z.repeat(-(-ROWS // len(z)), 1)[:ROWS]


def milliseconds(run: Callable[[], object]) -> float:
    """The median of a few runs after one that is not counted."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)
