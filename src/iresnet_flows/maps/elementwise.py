"""Maps of each entry alone, and their diagonal Jacobians."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from iresnet_flows.maps.jacobians import ChainJacobian
from iresnet_flows.maps.linear import LinearMap
from iresnet_flows.maps.perceptrons import Perceptron

__all__ = ["DiagonalJacobian", "ElementwisePerceptron", "FanIn", "FanOut"]


class FanOut(LinearMap):
    r"""The map :math:`x_i \mapsto (w_{1i} x_i, \ldots, w_{hi} x_i)` of each entry.

    Arguments:
        weight: The factors, with shape (h, d).
    """

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x.unsqueeze(-2)
        if bias is None:
            return (x * self.weight).flatten(-2)
        shift = bias.unflatten(-1, self.weight.shape)
        return torch.addcmul(shift, x, self.weight).flatten(-2)

    def transposed(self, w: Tensor) -> Tensor:
        return (w.unflatten(-1, self.weight.shape) * self.weight).sum(-2)

    def cotangent(self, w: Tensor, v: Tensor) -> Tensor:
        products = w.unflatten(-1, self.weight.shape) * v.unsqueeze(-2)
        return products.flatten(0, -3).sum(0)


class FanIn(LinearMap):
    """The transposed map: to each entry the weighted sum of what it was made of.

    Arguments:
        weight: The factors, with shape (h, d).
    """

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = FanOut(self.weight).transposed(x)
        return y if bias is None else y + bias

    def transposed(self, w: Tensor) -> Tensor:
        return FanOut(self.weight)(w)

    def cotangent(self, w: Tensor, v: Tensor) -> Tensor:
        return FanOut(self.weight).cotangent(v, w)


class DiagonalJacobian(ChainJacobian):
    """The `ChainJacobian` of a map of each entry alone, with one hidden layer."""

    def diagonal(self) -> Tensor:
        """The derivatives, (B, d)."""
        fan_out, fan_in = (m.weight for m in self.maps)
        slopes = self.slopes[0].unflatten(2, fan_out.shape)
        factors = fan_in.unflatten(0, (-1, len(fan_out))) * fan_out
        return (slopes * factors).sum((1, 2))

    def dense(self) -> Tensor:
        return self.diagonal().diag_embed()

    def blocks(self) -> Tensor:
        return self.diagonal()[..., None, None]

    def rank(self) -> int:
        return 1

    def narrows(self) -> bool:
        return True


class ElementwisePerceptron(Perceptron):
    """A `Perceptron` of each entry alone, with one hidden layer."""

    chain: ClassVar[type[ChainJacobian]] = DiagonalJacobian
