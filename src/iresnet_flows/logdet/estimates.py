"""What an estimator is, and what it returns."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from iresnet_flows.logdet.functions import RESIDUAL, Function
from iresnet_flows.maps.jacobians import Jacobian

__all__ = ["Estimator", "LogDet"]


class LogDet(NamedTuple):
    r"""An estimate of :math:`\log|\det(I + J)|`, in nats, with its two kinds of error.

    Arguments:
        value: The estimate, with its gradient, with shape (B,).
        standard_error: The standard error over the probes, with shape (B,). Zero where nothing is
            drawn, NaN where a single probe cannot tell.
        bias_bound: A certified bound of what the estimator leaves out, with shape (B,).

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP, PowerSeries
        >>> branch = LipschitzMLP(100, hidden_features=(200, 200))
        >>> block = InvertibleResidualBlock(branch, PowerSeries(terms=5, probes=4))
        >>> value, standard_error, bias_bound = block.log_abs_det(torch.randn(3, 100))
        >>> bool((standard_error > 0).all() and (bias_bound > 0).all())
        True
    """

    value: Tensor
    standard_error: Tensor
    bias_bound: Tensor


@runtime_checkable
class Estimator(Protocol):
    """What measures log|det(I + J)|, in two steps of which only the second has a gradient.

    All that is drawn at random or summed in a loop is in the first, so that the second can be
    repeated with the same draws. A block calls both.

    Example:
        >>> import torch
        >>> from iresnet_flows import Exact, LipschitzMLP
        >>> x = torch.randn(5, 2)
        >>> g = LipschitzMLP(2).at()
        >>> _, jacobian = g.linearize(x)
        >>> estimator = Exact()
        >>> estimator.attach(estimator.draw(jacobian, x, g.lipschitz), jacobian).value.shape
        torch.Size([5])
    """

    def draw(
        self,
        jacobian: Jacobian,
        x: Tensor,
        lipschitz: Tensor,
        generator: torch.Generator | None = None,
        function: Function = RESIDUAL,
    ) -> Any:
        """What is drawn for the Jacobians at x, of a map with that Lipschitz constant."""

    def attach(self, draw: Any, jacobian: Jacobian) -> LogDet:
        """The estimate from what was drawn, with its gradient."""
