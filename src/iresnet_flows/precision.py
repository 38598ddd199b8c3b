"""Parts that autocast leaves as they are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Products without autocast on the device of a tensor.

    The terms of a log-det cancel, and a bound has to be above a norm; bfloat16 has two digits.
    """
    kind = like.device.type
    # Meta tensors know of no autocast.
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)
