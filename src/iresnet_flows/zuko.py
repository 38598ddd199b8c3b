"""Residual blocks, and any layer of this package, as zuko's lazy transforms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iresnet_flows.adapters import BlockAdapter
from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.blocks.sequences import residual_layers
from iresnet_flows.checks import check_count, check_explicit
from iresnet_flows.distributions import LayerTransform
from iresnet_flows.errors import MissingExtra
from iresnet_flows.inverse import Solver
from iresnet_flows.layers.contract import Layer, require_layer
from iresnet_flows.lipschitz import Activation
from iresnet_flows.logdet import Estimator

try:
    from zuko.distributions import DiagNormal
    from zuko.lazy import Flow, LazyTransform, UnconditionalDistribution
except ImportError as error:
    raise MissingExtra("zuko", "zuko") from error

__all__ = ["IResNet", "InvertibleResidual", "LayerLazyTransform"]


class OnePassTransform(LayerTransform):
    """A layer whose `inv` gives value and log-det from one pass too, as zuko asks for them.

    torch's own inverse evaluates the layer once for each. zuko builds a transform for each use,
    so that there is no latest pair to keep, and no need for the inverse to know of it.
    """

    @property
    def inv(self) -> LayerTransform:
        other = "inverse" if self.explicit == "forward" else "forward"
        return OnePassTransform(self.layer, other, self.context, self.domain.event_dim, 0)


class LayerLazyTransform(LazyTransform):
    """A layer as a zuko `LazyTransform`; the transform that it builds maps data to noise.

    Arguments:
        layer: A layer of this package.
        explicit: The side that is the layer itself, ``"forward"`` (fast `log_prob`) or
            ``"inverse"`` (fast `sample`).
        event_dim: The number of dimensions of one event.

    Raises:
        TypeError: It is not a layer.

    Example:
        >>> import torch
        >>> from iresnet_flows.layers import ElementwiseAffine
        >>> from iresnet_flows.zuko import LayerLazyTransform
        >>> LayerLazyTransform(ElementwiseAffine(3))()(torch.randn(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(self, layer: Layer, explicit: str = "forward", event_dim: int = 1) -> None:
        super().__init__()
        check_explicit(explicit)
        check_count("event_dim", event_dim, least=0)
        self.layer = require_layer(layer)
        self.explicit = explicit
        self.event_dim = event_dim

    def forward(self, c: Tensor | None = None) -> LayerTransform:
        """The transform under the context c, which reads the present parameters when called."""
        return OnePassTransform(self.layer, self.explicit, c, self.event_dim, cache_size=0)


class InvertibleResidual(BlockAdapter, LayerLazyTransform):
    r"""A residual block :math:`x + g(x; c)` as a zuko `LazyTransform`.

    Arguments:
        block: The block.
        explicit: The side that computes :math:`x + g(x; c)`; the other one is solved. With
            ``"forward"``, data to noise, `log_prob` is explicit and `sample` iterates; with
            ``"inverse"`` it is the other way around, for variational inference.
        event_dim: The number of dimensions of one event.

    Shapes:
        x ``(*, *event)``, c ``(*, context_features)``, broadcast against each other; the log-det
        has their common batch shape, in nats.

    Raises:
        InverseNotConverged: The solved side missed its tolerance.
        ValueError: A context is missing, or was given to a block without one.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> t = InvertibleResidual(InvertibleResidualBlock(LipschitzMLP(3, context_features=4)))
        >>> y, ladj = t(torch.randn(7, 4)).call_and_ladj(torch.randn(5, 7, 3))
        >>> y.shape, ladj.shape
        (torch.Size([5, 7, 3]), torch.Size([5, 7]))
    """

    def __init__(
        self, block: InvertibleResidualBlock, explicit: str = "forward", event_dim: int = 1
    ) -> None:
        super().__init__(block, explicit, event_dim)


class IResNet(Flow):
    r"""An i-ResNet with a standard normal base, to stand beside zuko's `MAF` and `NSF`.

    Each of its transforms is an elementwise affine map and a residual block. The first blocks bend
    each feature alone, at little cost: edges and skewed columns. Unlike an
    autoregressive or coupling flow it has no order of the features and no mask, and takes a single
    feature too.

    Arguments:
        features: The number of features d.
        context: The number of context features.
        transforms: The number of residual blocks with MLP branches.
        hidden_features: The widths of the hidden layers of each branch; up to two, the trace of
            its Jacobian is cheap.
        lipschitz: The bound of each branch, in (0, 1).
        activation: That of the branches.
        log_det: The estimator of each of these, None for its own choice. Log-dets of the
            elementwise blocks are always exact.
        solver: The solver of each block, None for its own choice, `Newton` in elementwise ones.
        explicit: The side that computes x + g(x; c): ``"forward"``, data to noise, for density
            estimation, or ``"inverse"`` for variational inference.
        elementwise: The number of residual blocks of `LipschitzElementwise` at the data's side,
            before the others.

    Shapes:
        x (\*, d), c (\*, context), broadcast against each other; `log_prob` has their common batch
        shape, in nats.

    Raises:
        InverseNotConverged: The solved side missed its tolerance.
        ValueError: An argument is out of range, or the context is missing or not asked for.

    References:
        Behrmann et al., Invertible Residual Networks, 2019.

    Example:
        >>> import torch
        >>> flow = IResNet(3, context=4, transforms=2, hidden_features=(16, 16))
        >>> c = torch.randn(7, 4)
        >>> x = flow(c).sample((5,))
        >>> x.shape, flow(c).log_prob(x).shape
        (torch.Size([5, 7, 3]), torch.Size([5, 7]))
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 8,
        hidden_features: Sequence[int] = (64, 64),
        lipschitz: float = 0.97,
        activation: str | Activation = "csin",
        log_det: Estimator | None = None,
        solver: Solver | None = None,
        explicit: str = "forward",
        elementwise: int = 4,
    ) -> None:
        check_count("transforms", transforms)
        check_count("elementwise", elementwise, least=0)

        layers = residual_layers(
            features,
            hidden_features,
            transforms,
            elementwise,
            context or None,
            lipschitz,
            activation,
            log_det,
            solver,
        )
        parts = [
            InvertibleResidual(layer, explicit)
            if isinstance(layer, InvertibleResidualBlock)
            else LayerLazyTransform(layer, explicit)
            for layer in layers
        ]

        loc, scale = torch.zeros(features), torch.ones(features)
        super().__init__(
            parts, UnconditionalDistribution(DiagNormal, loc=loc, scale=scale, buffer=True)
        )
