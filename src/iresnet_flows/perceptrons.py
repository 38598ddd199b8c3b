"""Multilayer perceptrons with all that they depend on in place, and their Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from iresnet_flows.jacobians import ChainJacobian

__all__ = ["Perceptron"]


@dataclass(frozen=True)
class Perceptron:
    r"""The map :math:`x \mapsto W_L a(\cdots a(W_1 x + b_1) \cdots) + b_L`.

    Arguments:
        weights: The matrices :math:`W_i`, with shapes (h_i, k h_{i-1}).
        biases: The vectors :math:`b_i`, with shapes (h_i,) or (B, h_i).
        activations: For each hidden layer, what gives features and slopes of its entries.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activations: tuple[Callable[[Tensor], tuple[Tensor, Tensor]], ...]

    def __call__(self, x: Tensor) -> Tensor:
        return self.linearize(x)[0]

    def linearize(self, x: Tensor) -> tuple[Tensor, ChainJacobian]:
        """The value at x and the Jacobian there, from one pass."""
        slopes = []
        for weight, bias, activation in zip(self.weights, self.biases, self.activations):
            x, slope = activation(x @ weight.mT + bias)
            slopes.append(slope)

        value = x @ self.weights[-1].mT + self.biases[-1]
        return value, ChainJacobian(self.weights, tuple(slopes))
