"""The multilayer branch, bounded at every moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from iresnet_flows.checks import check_count
from iresnet_flows.lipschitz.activations import Activation, make_activations
from iresnet_flows.lipschitz.layered import VectorBranch
from iresnet_flows.lipschitz.norms import ProductLimiter, matrix_norms
from iresnet_flows.maps.linear import Matrix
from iresnet_flows.maps.perceptrons import Perceptron, weight_shapes

__all__ = ["LipschitzMLP"]


@dataclass(frozen=True)
class LipschitzPerceptron(Perceptron):
    """A perceptron with a certified bound of its Lipschitz constant, a scalar without gradient."""

    lipschitz: Tensor


class LipschitzMLP(VectorBranch):
    r"""A multilayer perceptron whose Lipschitz constant is bounded by construction.

    .. math:: g(x; c) = \min\!\Big(1, \frac{\ell}{\prod_i \hat\sigma(W_i)}\Big)\, W_L\, s_{L-1}\,
              a(\cdots s_1\, a(W_1 x + b_1 + U_1 c) \cdots) + b_L + U_L c ,
              \quad s_i = \cos(S_i c)

    with :math:`\ell` the bound over the activations' slopes, and :math:`\hat\sigma` a certified
    upper bound of the largest singular value. The product of the norms is what is bounded: a first
    layer of norm five gives features that turn five times as fast, at a fifth of the height. The
    factor is a function of the present weights and of nothing else: no buffer, no updater to call,
    and no difference between train and eval. There is no activation before the first layer, which
    is what makes the trace of the Jacobian cheap.

    The bound is in the Euclidean norm, in x. The context c moves the biases, in any way, and
    scales the hidden features by :math:`|s_i| \leq 1`; without one, s is one. Computing the bound
    costs about ten products of the smaller Gram matrix a layer, once a call.

    Arguments:
        features: The dimension d of x.
        hidden_features: The widths of the hidden layers, at least one: the features that each
            hands on. An activation that gives two features for each entry, as ``csin`` and
            ``clipswish`` do, acts on half as many entries, so that the width must be even.
        lipschitz: The bound of the whole branch, in (0, 1), which may be set later too. The
            papers' coefficient c of one linear layer gives ``c ** (len(hidden_features) + 1)``.
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
        check_count("features", features)
        activations = make_activations(hidden_features, activation)
        shapes = weight_shapes(features, hidden_features, [a.copies for a in activations])
        super().__init__(
            features,
            hidden_features,
            shapes,
            ProductLimiter(matrix_norms),
            lipschitz,
            context_features,
            activations,
        )
        self.reset_parameters()

    def at(self, context: Tensor | None = None) -> LipschitzPerceptron:
        """The branch with its constrained weights and its context in place."""
        weights, bound = self.constrained()
        biases, activations = self.conditioned(context)
        maps = tuple(Matrix(weight) for weight in weights)
        return LipschitzPerceptron(maps, biases, activations, bound)
