"""The multilayer branch, bounded at every moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from iresnet_flows.checks import (
    check_context,
    check_features,
    check_input,
    check_lipschitz,
    check_widths,
)
from iresnet_flows.lipschitz.activations import Activation, make_activation
from iresnet_flows.lipschitz.branches import Branch
from iresnet_flows.lipschitz.norms import constrain, schatten
from iresnet_flows.perceptrons import Perceptron, weight_shapes
from iresnet_flows.remembered import Remembered

__all__ = ["LipschitzMLP"]


@dataclass(frozen=True)
class LipschitzPerceptron(Perceptron):
    """A perceptron with a certified bound of its Lipschitz constant, a scalar without gradient."""

    lipschitz: Tensor


class LipschitzMLP(Branch):
    r"""A multilayer perceptron whose Lipschitz constant is bounded by construction.

    .. math:: g(x; c) = \tilde W_L\, a(\cdots a(\tilde W_1 x + b_1 + U_1 c) \cdots) + b_L + U_L c

    with :math:`\tilde W_i = W_i \min(1, \ell / \hat\sigma(W_i))`, :math:`\ell` the L-th root of
    the bound over the activations' slopes, and :math:`\hat\sigma` a certified upper bound of the
    largest singular value. The constrained weights are a function of the present ones and of
    nothing else: no buffer, no updater to call, and no difference between train and eval. The
    constraint only shrinks. There is no activation before the first layer, which is what makes
    the trace of the Jacobian cheap.

    The bound is in the Euclidean norm, in x; the context c moves the biases and may enter in any
    way. Computing the bound costs about ten products of the smaller Gram matrix a layer, once a
    call.

    Arguments:
        features: The dimension d of x.
        hidden_features: The widths of the hidden layers, at least one.
        lipschitz: The bound of the whole branch, in (0, 1). The papers' coefficient c of one
            linear layer gives ``c ** (len(hidden_features) + 1)``.
        context_features: The dimension of the context, or None.
        activation: ``csin``, ``sin``, ``lipswish``, ``clipswish``, ``elu``, ``tanh``,
            ``softplus``, or an `Activation`.

    Shapes:
        x (B, d), context (B, context_features) or (context_features,), value (B, d).

    Raises:
        ValueError: A width, the bound or the activation's name is out of range.

    References:
        Behrmann et al., Invertible Residual Networks, 2019.

    Example:
        >>> import torch
        >>> g = LipschitzMLP(3, hidden_features=(16, 16), lipschitz=0.5)
        >>> g(torch.randn(7, 3)).shape
        torch.Size([7, 3])
        >>> bool(g.lipschitz_bound() <= 0.5)
        True
    """

    def __init__(
        self,
        features: int,
        hidden_features: Sequence[int] = (64, 64),
        lipschitz: float = 0.9,
        context_features: int | None = None,
        activation: str | Activation = "csin",
    ) -> None:
        super().__init__()
        check_features("features", features)
        check_widths("hidden_features", hidden_features)
        check_lipschitz(lipschitz)
        if context_features is not None:
            check_features("context_features", context_features)

        self.features = features
        self.hidden_features = tuple(hidden_features)
        self.lipschitz = float(lipschitz)
        self.context_features = context_features

        activations = [make_activation(activation) for _ in hidden_features]
        self.activations = nn.ModuleList(activations)
        shapes = weight_shapes(features, hidden_features, [a.copies for a in activations])
        self.weights = nn.ParameterList(torch.empty(shape) for shape in shapes)
        self.measures = [Remembered(schatten) for _ in shapes]
        self.biases = nn.ParameterList(torch.zeros(m) for m, _ in shapes)
        self.context_weights = nn.ParameterList(
            torch.empty(m, context_features) for m, _ in shapes if context_features is not None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Orthogonal weights, a last layer near zero, so that x + g(x) starts near x."""
        for weight in self.weights:
            nn.init.orthogonal_(weight)
        for bias, a in zip(self.biases, self.each_activation()):
            nn.init.uniform_(bias, -a.phase, a.phase)
        for weight in self.context_weights:
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(weight, -bound, bound)

        for weights in (self.weights, self.context_weights):
            if len(weights):
                with torch.no_grad():
                    weights[-1].mul_(0.1)

    def at(self, context: Tensor | None = None) -> LipschitzPerceptron:
        """The branch with its constrained weights and its context in place."""
        activations = self.each_activation()
        slopes = math.prod([a.slope for a in activations])
        # A hair below the bound, so that the product of the rounded norms is not above it.
        limit = (1 - 1e-12) * (self.lipschitz / slopes) ** (1 / len(self.weights))

        bounded = (constrain(w, limit, m) for w, m in zip(self.weights, self.measures))
        weights, norms = zip(*bounded)
        biases = tuple(self.biases)
        if context is not None:
            shifts = (context @ weight.mT for weight in self.context_weights)
            biases = tuple(b + shift for b, shift in zip(biases, shifts))

        lipschitz = torch.stack(norms).prod() * slopes
        return LipschitzPerceptron(weights, biases, tuple(a.at() for a in activations), lipschitz)

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        dtype = self.weights[0].dtype
        check_input("x", x, self.features, dtype)
        check_context(context, self.context_features, dtype)

    def each_activation(self) -> list[Activation]:
        return cast("list[Activation]", list(self.activations))

    def lipschitz_bound(self) -> Tensor:
        """A certified upper bound of the constant that the present weights have.

        Returns:
            A scalar in float64, at most `lipschitz`, without gradient.
        """
        with torch.no_grad():
            return self.at().lipschitz

    def extra_repr(self) -> str:
        return (
            f"features={self.features}, hidden_features={self.hidden_features}, "
            f"lipschitz={self.lipschitz}, context_features={self.context_features}"
        )
