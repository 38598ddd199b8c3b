"""Time and memory of a flow, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from nflows.flows.base import Flow
from torch import Tensor

__all__ = ["log_prob_ms", "peak_mb", "sample_ms", "step_ms"]

ROWS = 256
REPEATS = 5


def step_ms(flow: Flow, z: Tensor) -> float:
    """Milliseconds for the loss of 256 rows and its gradient, in train mode."""
    rows = batch(z)
    flow.train()
    result = milliseconds(lambda: loss_and_gradient(flow, rows))
    flow.zero_grad(set_to_none=True)
    flow.eval()
    return result


def log_prob_ms(flow: Flow, z: Tensor) -> float:
    """Milliseconds for the log-likelihood of 256 rows, in eval mode."""
    rows = batch(z)
    with torch.no_grad():
        return milliseconds(lambda: flow.log_prob(rows))


def sample_ms(flow: Flow) -> float:
    """Milliseconds for 256 samples."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return milliseconds(lambda: flow.sample(ROWS))


def peak_mb(flow: Flow, z: Tensor) -> float:
    """The memory in MB that one training step of 256 rows needs beyond the flow itself.

    It is what the graph keeps for the backward pass, each storage once, and the gradients.
    """
    rows = batch(z)
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


def loss_and_gradient(flow: Flow, rows: Tensor) -> None:
    flow.zero_grad(set_to_none=True)
    (-flow.log_prob(rows).mean()).backward()


def batch(z: Tensor) -> Tensor:
    return z.repeat(-(-ROWS // len(z)), 1)[:ROWS]


def milliseconds(run: Callable[[], object]) -> float:
    """The median of a few runs after one that is not counted."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
