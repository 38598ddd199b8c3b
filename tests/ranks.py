"""What each of two processes does, where a test asks how they agree."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from iresnet_flows.layers import ActNorm

__all__ = ["begin_norms", "images"]


def images(batch: int = 50, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images whose channels are of different sizes, far from zero."""
    scale = torch.tensor([0.1, 1.0, 300.0], dtype=dtype).reshape(3, 1, 1)
    shift = torch.tensor([10.0, -1.0, 5.0], dtype=dtype).reshape(3, 1, 1)
    return torch.randn(batch, 3, 4, 5, dtype=dtype) * scale + shift


def begin_norms(rank: int, folder: str) -> None:
    """Begin one layer from unequal shares of a batch, and one where a rank has none of it."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
    )
    try:
        torch.manual_seed(0)
        x = images(30, torch.float32)
        layers = nn.ModuleList([ActNorm(3), ActNorm(3)])
        layers[0].transform(x[:10] if rank == 0 else x[10:])
        layers[1].transform(x if rank == 0 else x[:0])
        torch.save(layers.state_dict(), f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()
