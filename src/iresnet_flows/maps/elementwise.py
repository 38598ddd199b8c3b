"""Maps of each entry alone, and their diagonal Jacobians."""

from __future__ import annotations

from typing import ClassVar

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
        y = (x.unsqueeze(-2) * self.weight).flatten(-2)
        return y if bias is None else y + bias

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
    """The `ChainJacobian` of a map of each entry alone: its product with ones has all of it."""

    def diagonal(self) -> Tensor:
        """The derivatives, (B, d)."""
        ones = self.maps[0].weight.new_ones(1, *self.batch_event)
        return self.apply(ones).squeeze(0)

    def dense(self) -> Tensor:
        return self.diagonal().diag_embed()

    def blocks(self) -> Tensor:
        return self.diagonal()[..., None, None]

    def rank(self) -> int:
        return 1

    def narrows(self) -> bool:
        return True


class ElementwisePerceptron(Perceptron):
    """A `Perceptron` of each entry alone."""

    chain: ClassVar[type[ChainJacobian]] = DiagonalJacobian
