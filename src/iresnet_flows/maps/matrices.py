"""Inverses of I + M for many small matrices at once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inverse_plus_identity"]


def inverse_plus_identity(m: Tensor) -> Tensor:
    """The inverses of I + M for matrices (..., r, r); closed forms for r = 1 and 2."""
    match m.shape[-1]:
        case 1:
            return (1 + m).reciprocal()
        case 2:
            a, b, c, d = m.flatten(-2).unbind(-1)
            a, d = 1 + a, 1 + d
            adjugate = torch.stack((d, -b, -c, a), -1).unflatten(-1, (2, 2))
            return adjugate / (a * d - b * c)[..., None, None]
        case r:
            whole = torch.eye(r, dtype=m.dtype, device=m.device) + m
            wide = whole.to(torch.promote_types(m.dtype, torch.float32))  # as LAPACK needs it
            return torch.linalg.inv(wide).to(m.dtype)
