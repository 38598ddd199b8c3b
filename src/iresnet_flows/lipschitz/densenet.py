"""The densely connected branch, bounded at every moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_features
from iresnet_flows.lipschitz.activations import Activation
from iresnet_flows.lipschitz.layers import VectorBranch, make_activations
from iresnet_flows.lipschitz.norms import Bounds, constrain
from iresnet_flows.maps.dense_nets import DensePerceptron
from iresnet_flows.maps.linear import Matrix

__all__ = ["LipschitzDenseNet"]


@dataclass(frozen=True)
class LipschitzDensePerceptron(DensePerceptron):
    """A dense perceptron with a certified bound of its Lipschitz constant, a scalar."""

    lipschitz: Tensor


class LipschitzDenseNet(VectorBranch):
    r"""A densely connected network whose Lipschitz constant is bounded by construction.

    .. math:: h_0 = x , \quad
              h_i = \begin{bmatrix} \cos\alpha_i\, h_{i-1} \\
              \sin\alpha_i\, s_i\, a(\tilde W_i h_{i-1} + b_i + U_i c) \end{bmatrix} , \quad
              g(x; c) = \tilde W_L h_{L-1} + b_L + U_L c

    with :math:`s_i = \cos(S_i c)`. Each layer hands on all that it was given and adds features.
    For a layer :math:`f` with constant :math:`\ell`, the pair :math:`[\eta x; \nu f(x)]` has at
    most :math:`\sqrt{\eta^2 + \nu^2 \ell^2}`, which is one at most on the unit circle if
    :math:`\ell \leq 1`. So the hidden matrices are bounded by one over the slope of the
    activation, and the last by that of the whole branch: :math:`\tilde W_i` is
    :math:`W_i \min(1, \ell_i / \hat\sigma(W_i))`, a function of the present weights and of nothing
    else. The angles :math:`\alpha_i` are learned and free, and start at equal shares.

    With one or two hidden layers the trace of the Jacobian is exact at the price of a product or
    so. The input itself reaches the last layer, so that no narrower layer cuts the determinant.

    Arguments:
        features: The dimension d of x.
        hidden_features: The features that each hidden layer adds, at least one layer. An
            activation that gives two features for each entry, as ``clipswish`` and ``csin`` do,
            asks for even numbers.
        lipschitz: The bound of the whole branch, in (0, 1).
        context_features: The dimension of the context, or None.
        activation: ``csin``, ``sin``, ``lipswish``, ``clipswish``, ``elu``, ``tanh``,
            ``softplus``, or an `Activation`.

    Shapes:
        x (B, d), context (B, context_features) or (context_features,), value (B, d).

    Raises:
        ValueError: A width, the bound or the activation's name is out of range.

    References:
        Perugachi-Diaz, Tomczak and Bhulai, Invertible DenseNets with Concatenated LipSwish, 2021,
        https://arxiv.org/abs/2102.02694.

    Example:
        >>> import torch
        >>> g = LipschitzDenseNet(3, hidden_features=(16, 16), lipschitz=0.5)
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
        activation: str | Activation = "clipswish",
    ) -> None:
        check_features("features", features)
        activations = make_activations(hidden_features, activation)
        copies = [a.copies for a in activations]
        entries = [h // k for h, k in zip(hidden_features, copies, strict=True)]
        inputs = accumulate(hidden_features, initial=features)
        shapes = list(zip([*entries, features], inputs, strict=True))
        super().__init__(
            features, hidden_features, shapes, lipschitz, context_features, activations
        )
        self.angles = nn.Parameter(torch.empty(len(activations)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.angles, math.pi / 4)

    def at(self, context: Tensor | None = None) -> LipschitzDensePerceptron:
        """The branch with its constrained weights and its context in place."""
        slopes = [a.slope for a in self.each_activation()]
        weights, sizes = self.constrained_each([*(1 / slope for slope in slopes), self.lipschitz])
        shares = self.shares()
        kept, added = shares.detach().double().unbind(1)
        reach = sizes[:-1] * sizes.new_tensor(slopes)
        bound = (kept.square() + (added * reach).square()).sqrt().prod() * sizes[-1]

        biases, activations = self.conditioned(context)
        maps = tuple(Matrix(weight) for weight in weights)
        return LipschitzDensePerceptron(maps, biases, activations, shares, bound)

    def constrained_each(self, limits: Sequence[float]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The weights, each shrunk below its limit, and the norm that each then has at most."""
        values, slopes = self.norms(*self.weights)
        each = zip(self.weights, values.unbind(), slopes, limits, strict=True)
        pairs = [
            constrain([weight], Bounds(value[None], (slope,)), limit, self.norms.function)
            for weight, value, slope, limit in each
        ]
        weights, sizes = zip(*pairs, strict=True)
        return weights, torch.stack(sizes)

    def shares(self) -> Tensor:
        """What each layer keeps and adds, on the unit circle, or within it by a rounding error."""
        within = 1 - 4 * torch.finfo(self.angles.dtype).eps
        return within * torch.stack((self.angles.cos(), self.angles.sin()), 1)
