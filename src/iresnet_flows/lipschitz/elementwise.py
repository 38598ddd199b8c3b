"""The branch of each entry alone, for the marginals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_count
from iresnet_flows.lipschitz.activations import Activation, make_activations
from iresnet_flows.lipschitz.layered import VectorBranch
from iresnet_flows.lipschitz.norms import quantum, scaled, shrunk
from iresnet_flows.maps.elementwise import ElementwisePerceptron, FanIn, FanOut

__all__ = ["LipschitzElementwise"]

FREQUENCY = 3.0


@dataclass(frozen=True)
class LipschitzElementwisePerceptron(ElementwisePerceptron):
    """Such a perceptron with a certified bound of its Lipschitz constant, a scalar."""

    lipschitz: Tensor


class LipschitzElementwise(VectorBranch):
    r"""A net of one hidden layer for each entry alone, bounded by construction.

    .. math:: g_i(x; c) = \min\!\Big(1, \frac{\ell}{\ell_i}\Big) \sum_j v_{ij}^\top
              s_{ij}\, a(w_{ij} x_i + b_{ij} + u_{ij}^\top c) + \beta_i + \gamma_i^\top c ,
              \quad \ell_i = \sum_j |w_{ij}|\, \|v_{ij}\| ,
              \quad s_{ij} = \cos(\sigma_{ij}^\top c)

    with :math:`\ell` the bound over the activation's slope. Its Jacobian is diagonal: `Exact` has
    the log-determinant at the price of one product, and `Newton` steps at the same price. A branch
    of full matrices must spend its bound on all directions at once; a few such blocks before it
    bend each marginal by itself, edges of dequantised values among them.

    The bound holds in the Euclidean norm, in x, for every context. Each entry has its own, so
    that a steep one does not flatten the others.

    Arguments:
        features: The dimension d of x.
        hidden_features: The features that the hidden layer has for each entry of x; a multiple of
            two where the activation gives two, as ``csin`` does.
        lipschitz: The bound of the branch, in (0, 1), which may be set later too.
        context_features: The dimension of the context, or None.
        activation: ``csin``, ``sin``, ``lipswish``, ``clipswish``, ``elu``, ``tanh``,
            ``softplus``, or an `Activation`.

    Shapes:
        x (B, d), context (B, context_features) or (context_features,), value (B, d).

    Raises:
        ValueError: A width, the bound or the activation's name is out of range.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock
        >>> from iresnet_flows.lipschitz import LipschitzElementwise
        >>> block = InvertibleResidualBlock(LipschitzElementwise(3, lipschitz=0.97))
        >>> x = torch.randn(7, 3)
        >>> y, logabsdet = block(x)
        >>> block.branch.at().linearize(x)[1].diagonal().shape
        torch.Size([7, 3])
        >>> bool(block.branch.lipschitz_bound() <= 0.97)
        True
    """

    def __init__(
        self,
        features: int,
        hidden_features: int = 16,
        lipschitz: float = 0.9,
        context_features: int | None = None,
        activation: str | Activation = "csin",
    ) -> None:
        check_count("features", features)
        activations = make_activations((hidden_features,), activation)
        entries = features * hidden_features // activations[0].copies
        super().__init__(
            features,
            (hidden_features,),
            [(entries, 1), (features, hidden_features)],
            limit_each,
            lipschitz,
            context_features,
            activations,
        )
        self.reset_parameters()

    def reset_weight(self, weight: Tensor) -> None:
        """Features of various widths, none of which an entry leads with."""
        scale = FREQUENCY if weight is self.weights[0] else weight.shape[1] ** -0.5
        nn.init.normal_(weight, std=scale)

    def at(self, context: Tensor | None = None) -> LipschitzElementwisePerceptron:
        """The branch with its constrained weights and its context in place."""
        (inner, outer), bound = self.constrained()
        biases, activations = self.conditioned(context)
        maps = FanOut(inner.view(-1, self.features)), FanIn(outer.mT)
        return LipschitzElementwisePerceptron(maps, biases, activations, bound)


def limit_each(parameters: tuple[Tensor, ...], limit: float) -> tuple[tuple[Tensor, ...], Tensor]:
    """The outer weights, each row of them shrunk for its own bound, and the largest bound left.

    Arguments:
        parameters: The inner weights (h d, 1) and the outer ones (d, k h).
        limit: What the bounds are at most.
    """
    # In units in which squares and products stay in range.
    (inner, inner_scale), (outer, outer_scale) = (scaled(p.double()) for p in parameters)
    slopes = inner.view(-1, len(outer)).abs().mT
    heights = outer.unflatten(1, (-1, slopes.shape[1])).square().sum(1)
    # The least number keeps the root's derivatives finite at zero.
    bounds = (slopes * (heights + torch.finfo(heights.dtype).tiny).sqrt()).sum(1)
    # Scaling rounds, what is tiny by a quantum, and the bounds do so in float64.
    weight = parameters[-1]
    slack = 1 + 2 * torch.finfo(weight.dtype).eps + 1e-12
    lost = slopes.sum(1) * (quantum(weight.dtype) * weight.shape[1] ** 0.5) * inner_scale
    units = torch.finfo(bounds.dtype)
    within = (limit / slack - lost.detach()).clamp_min(0) / inner_scale / outer_scale
    within = torch.where(within < units.tiny, 0.0, within).clamp_max(units.max)
    scales = within / torch.maximum(bounds, within).clamp_min(units.tiny)
    left = (bounds.detach() / within.clamp_min(units.tiny)).clamp_max(1).amax() * limit
    return (parameters[0].clone(), shrunk(weight, scales.unsqueeze(1))), left
