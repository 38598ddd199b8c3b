"""One batch whose parts are on several processes of `torch.distributed`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, distributed

__all__ = ["one_batch", "part_of_batch", "sum_over_batch", "whole_size"]


class Sharing:
    """Whether the batches of all ranks are parts of one at the moment."""

    active = False


@contextmanager
def one_batch() -> Iterator[None]:
    """Within, log-dets are estimated as if the batches of all ranks were one batch.

    Probes are those of the whole batch, of which each rank takes its rows, and a random series
    has the same length on all ranks. So that this holds, all ranks must take part in the same
    calls, with generators in the same state and with batches of the same size. Without a process
    group nothing changes.

    Example:
        >>> import torch
        >>> with one_batch():
        ...     part_of_batch(torch.arange(3), 0)
        tensor([0, 1, 2])
    """
    before = Sharing.active
    Sharing.active = distributed.is_available() and distributed.is_initialized()
    try:
        yield
    finally:
        Sharing.active = before


def whole_size(size: int) -> int:
    """The size of the whole batch, from that of this rank's part."""
    return size * distributed.get_world_size() if Sharing.active else size


def part_of_batch(whole: Tensor, dim: int) -> Tensor:
    """This rank's part of a tensor of the whole batch."""
    if not Sharing.active:
        return whole
    return whole.chunk(distributed.get_world_size(), dim)[distributed.get_rank()]


def sum_over_batch(values: Tensor, dim: int) -> Tensor:
    """The sum over a dimension of the batch, over all ranks."""
    total = values.sum(dim)
    if Sharing.active:
        distributed.all_reduce(total)
    return total
