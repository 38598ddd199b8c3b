"""Random probes."""

from __future__ import annotations

import torch
from torch import Tensor

from iresnet_flows.ranks import part_of_batch, whole_size

__all__ = ["rademacher"]


def rademacher(
    shape: tuple[int, ...],
    like: Tensor,
    generator: torch.Generator | None = None,
    batch_dim: int = 1,
) -> Tensor:
    """Signs, each +1 or -1 with equal probability, in the dtype and on the device of a tensor.

    Arguments:
        shape: Their shape, such as (probes, B, *event).
        like: The tensor.
        generator: Draws them, else torch's global generator does.
        batch_dim: The dimension of the batch, of which other ranks may have other parts.
    """
    whole = (*shape[:batch_dim], whole_size(shape[batch_dim]), *shape[batch_dim + 1 :])
    if generator is None:  # torch.compile refuses even None for shapes that are dynamic
        bits = torch.randint(0, 2, whole, device=like.device)
    else:
        bits = torch.randint(0, 2, whole, generator=generator, device=like.device)
    return (2 * part_of_batch(bits, batch_dim) - 1).to(like.dtype)
