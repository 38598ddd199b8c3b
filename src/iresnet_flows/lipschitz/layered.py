"""Branches of linear layers: weights that are always constrained, and where a context enters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_context, check_input
from iresnet_flows.lipschitz.activations import Activation
from iresnet_flows.lipschitz.branches import BoundedBranch
from iresnet_flows.lipschitz.norms import Limiter
from iresnet_flows.maps.perceptrons import Nonlinearity, Scaled

__all__ = ["LayeredBranch", "VectorBranch"]


class LayeredBranch(BoundedBranch):
    r"""A branch of linear layers, each followed by an activation but the last.

    A context c moves the biases, :math:`b_i + U_i c`, and scales the activations by
    :math:`\cos(S_i c)`, which is one without a context and at most one with any: the bound in x
    holds for every context.

    Arguments:
        shapes: Those of the weights; the first number is that of the layer's entries.
        limiter: What holds their bound below the limit, such as `ProductLimiter`.
        lipschitz: The bound of the whole branch, in (0, 1).
        context_features: The dimension of the context, or None.
        activations: For each layer but the last.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        limiter: Limiter,
        lipschitz: float,
        context_features: int | None,
        activations: Sequence[Activation],
    ) -> None:
        super().__init__(lipschitz, context_features)
        self.activations = nn.ModuleList(activations)
        self.weights = nn.ParameterList(torch.empty(shape) for shape in shapes)
        self.limiter = limiter
        self.biases = nn.ParameterList(torch.zeros(shape[0]) for shape in shapes)
        self.context_weights = nn.ParameterList(
            torch.empty(shape[0], context_features) for shape in shapes if context_features
        )
        self.context_scales = nn.ParameterList(
            torch.empty(shape[0], context_features) for shape in shapes[:-1] if context_features
        )

    def reset_parameters(self) -> None:
        """Initial weights, a last layer near zero, so that x + g(x) starts near x."""
        for weight in self.weights:
            self.reset_weight(weight)
        for bias, a in zip(self.biases, self.each_activation()):
            nn.init.uniform_(bias, -a.phase, a.phase)
        for weight in (*self.context_weights, *self.context_scales):
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(weight, -bound, bound)

        for weights in (self.weights, self.context_weights):
            if len(weights):
                with torch.no_grad():
                    weights[-1].mul_(0.1)

    def reset_weight(self, weight: Tensor) -> None:
        """Give a weight its initial values, orthogonal ones here."""
        nn.init.orthogonal_(weight)

    def constrained(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The weights, the last one shrunk for the bound, and what the branch then has."""
        slope = self.slope()
        weights, bound = self.shrunk(tuple(self.weights), self.lipschitz / slope)
        return weights, bound * slope

    def shrunk(
        self, parameters: tuple[Tensor, ...], limit: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The weights for a bound below the limit, and the bound that they then have.

        Arguments:
            parameters: What the bound depends on; the last weight comes last.
            limit: What it is at most.
        """
        held, bound = self.limiter(parameters, limit)
        return held[-len(self.weights) :], bound

    def conditioned(
        self, context: Tensor | None
    ) -> tuple[tuple[Tensor, ...], tuple[Nonlinearity, ...]]:
        """The biases and the activations with a context in place."""
        biases = tuple(self.biases)
        activations = tuple(a.at() for a in self.each_activation())
        if context is None:
            return biases, activations

        if context.dim() == 2 and len(context) == 1:
            context = context.squeeze(0)  # for all samples, of which a solve lets some go
        shifts = (context @ weight.mT for weight in self.context_weights)
        scales = ((context @ weight.mT).cos() for weight in self.context_scales)
        return (
            tuple(b + shift for b, shift in zip(biases, shifts, strict=True)),
            tuple(Scaled(a, s) for a, s in zip(activations, scales, strict=True)),
        )

    def each_activation(self) -> list[Activation]:
        return cast("list[Activation]", list(self.activations))

    def slope(self) -> float:
        """The product of the slopes of the activations."""
        return math.prod([a.slope for a in self.each_activation()])


class VectorBranch(LayeredBranch):
    """A layered branch of vectors (B, features).

    Arguments:
        features: The dimension d of x.
        hidden_features: The features that each hidden layer gives.
        shapes: Those of the weights, which are matrices.

    The other arguments are those of `LayeredBranch`.
    """

    def __init__(
        self,
        features: int,
        hidden_features: Sequence[int],
        shapes: Sequence[tuple[int, int]],
        limiter: Limiter,
        lipschitz: float,
        context_features: int | None,
        activations: Sequence[Activation],
    ) -> None:
        super().__init__(shapes, limiter, lipschitz, context_features, activations)
        self.features = features
        self.hidden_features = tuple(hidden_features)

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        check_input("x", x, self.features, self.weights[0].dtype)
        check_context(context, x, self.context_features)

    def extra_repr(self) -> str:
        return (
            f"features={self.features}, hidden_features={self.hidden_features}, "
            f"lipschitz={self.lipschitz}, context_features={self.context_features}"
        )
