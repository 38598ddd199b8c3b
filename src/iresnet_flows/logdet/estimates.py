"""What an estimator returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["LogDet"]


class LogDet(NamedTuple):
    r"""An estimate of :math:`\log|\det(I + J)|`, in nats, with its two kinds of error.

    Arguments:
        value: The estimate, with its gradient, with shape (B,).
        standard_error: The standard error over the probes, with shape (B,). Zero where nothing is
            drawn, NaN where a single probe cannot tell.
        bias_bound: A certified bound of what the estimator leaves out, with shape (B,).
    """

    value: Tensor
    standard_error: Tensor
    bias_bound: Tensor
