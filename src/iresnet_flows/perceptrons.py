"""Multilayer perceptrons with all that they depend on in place, and their Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from iresnet_flows.jacobians import ChainJacobian

__all__ = ["Perceptron", "weight_shapes"]


def weight_shapes(
    features: int, hidden_features: Sequence[int], copies: Sequence[int]
) -> list[tuple[int, int]]:
    """The shapes of the matrices of a perceptron from d features to d.

    Arguments:
        features: The dimension d.
        hidden_features: The widths of the hidden layers.
        copies: For each of them, the features that its activation gives an entry.
    """
    fan_in = [features, *(h * k for h, k in zip(hidden_features, copies, strict=True))]
    return list(zip([*hidden_features, features], fan_in, strict=True))


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
