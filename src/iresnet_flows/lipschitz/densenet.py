"""The densely connected branch, bounded at every moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_count
from iresnet_flows.lipschitz.activations import Activation, make_activations
from iresnet_flows.lipschitz.layered import VectorBranch
from iresnet_flows.lipschitz.norms import Bounds, ProductLimiter, matrix_norms
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
              \sin\alpha_i\, s_i\, a(W_i h_{i-1} + b_i + U_i c) \end{bmatrix} , \quad
              g(x; c) = \min\!\Big(1, \frac{\ell}{\hat\sigma(W_L) \prod_i r_i}\Big)\, W_L h_{L-1}
              + b_L + U_L c

    with :math:`s_i = \cos(S_i c)`. Each layer hands on all that it was given and adds features.
    With k the slope of its activation its constant is at most

    .. math:: r_i = \sqrt{\cos^2\alpha_i + (k\, \hat\sigma(W_i) \sin\alpha_i)^2} ,

    and the product of all is what is bounded by :math:`\ell`, as in `LipschitzMLP`: a function of
    the present weights and of nothing else. The angles :math:`\alpha_i` are learned and free, and
    start at equal shares.

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
        check_count("features", features)
        activations = make_activations(hidden_features, activation)
        copies = [a.copies for a in activations]
        entries = [h // k for h, k in zip(hidden_features, copies, strict=True)]
        inputs = accumulate(hidden_features, initial=features)
        shapes = list(zip([*entries, features], inputs, strict=True))
        slopes = [a.slope for a in activations]
        super().__init__(
            features,
            hidden_features,
            shapes,
            limiter_for(slopes),
            lipschitz,
            context_features,
            activations,
        )
        self.slopes = slopes
        self.angles = nn.Parameter(torch.empty(len(activations)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.angles, math.pi / 4)

    def at(self, context: Tensor | None = None) -> LipschitzDensePerceptron:
        """The branch with its constrained weights and its context in place."""
        weights, bound = self.constrained()
        biases, activations = self.conditioned(context)
        maps = tuple(Matrix(weight) for weight in weights)
        return LipschitzDensePerceptron(maps, biases, activations, self.shares(), bound)

    def constrained(self) -> tuple[tuple[Tensor, ...], Tensor]:
        slopes = [a.slope for a in self.each_activation()]
        if slopes != self.slopes:  # an activation was replaced, or stated anew
            self.slopes, self.limiter = slopes, limiter_for(slopes)
        return self.shrunk((self.angles, *self.weights), self.lipschitz)

    def shares(self) -> Tensor:
        """What each layer keeps and adds, on the unit circle, or within it by a rounding error."""
        within = 1 - 4 * torch.finfo(self.angles.dtype).eps
        return within * torch.stack((self.angles.cos(), self.angles.sin()), 1)


def limiter_for(slopes: Sequence[float]) -> ProductLimiter:
    """What holds the bound of a dense net whose activations have these slopes."""
    return ProductLimiter(partial(dense_norms, slopes))


def dense_norms(slopes: Sequence[float], parameters: Sequence[Tensor]) -> Bounds:
    r"""The bounds r of the hidden layers of a dense net, and that of its last matrix.

    The gradient of :math:`\log r = \frac12 \log(\cos^2\alpha + s^2 \sin^2\alpha)`, with s the
    norm times the slope, is a share of that of :math:`\log s`, and in the angle
    :math:`(s^2 - 1) \sin\alpha \cos\alpha / r^2`.

    Arguments:
        slopes: Those of the activations.
        parameters: The angles and the matrices.
    """
    angles, *weights = parameters
    norms, gradients = matrix_norms(weights)
    kept, added = angles.double().cos(), angles.double().sin()
    steep = norms[:-1] * norms.new_tensor(slopes)
    reach = torch.hypot(kept, added * steep)  # a square may be out of range
    turned = ((steep / reach).square() - reach.square().reciprocal()) * added * kept
    shares = torch.cat(((added * steep / reach).square(), norms.new_ones(1)))
    return Bounds(
        torch.cat((reach, norms[-1:])),
        (
            turned.to(angles.dtype),
            *(
                share.to(slope.dtype) * slope
                for share, slope in zip(shares.unbind(), gradients, strict=True)
            ),
        ),
    )
