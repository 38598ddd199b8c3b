"""Random probes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rademacher"]


def rademacher(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Signs, each +1 or -1 with equal probability, in the dtype and on the device of a tensor."""
    if generator is None:  # torch.compile refuses even None for shapes that are dynamic
        bits = torch.randint(0, 2, shape, device=like.device)
    else:
        bits = torch.randint(0, 2, shape, generator=generator, device=like.device)
    return (2 * bits - 1).to(like.dtype)
