"""Residual blocks, and any layer of this package, as Pyro transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.checks import check_explicit, check_features
from iresnet_flows.distributions import LayerTransform
from iresnet_flows.errors import MissingExtra
from iresnet_flows.layers.contract import Layer
from iresnet_flows.lipschitz import LipschitzMLP

try:
    from pyro.distributions import ConditionalTransformModule, TransformModule
except ImportError as error:
    raise MissingExtra("pyro-ppl", "pyro") from error

__all__ = [
    "ConditionalInvertibleResidual",
    "ConditionalLayerTransformModule",
    "InvertibleResidual",
    "LayerTransformModule",
    "conditional_invertible_residual",
    "invertible_residual",
]


class LayerTransformModule(LayerTransform, TransformModule):
    """A layer as a Pyro `TransformModule`; base to sample is `__call__`.

    Arguments:
        layer: A layer of this package, without context.
        explicit: The side that is the layer itself, ``"forward"`` (guides) or ``"inverse"``
            (density estimation). Prefer it to ``.inv``, whose parameters a
            `ComposeTransformModule` does not see.
        event_dim: The number of dimensions of one event.
        cache_size: 1 to keep the latest pair, 0 to keep nothing.
    """

    def __init__(
        self,
        layer: Layer,
        explicit: str = "forward",
        event_dim: int = 1,
        cache_size: int = 1,
    ) -> None:
        super().__init__(layer, explicit, None, event_dim, cache_size)


class ConditionalLayerTransformModule(ConditionalTransformModule):
    """A layer with a context as a Pyro `ConditionalTransformModule`.

    `condition` gives a light transform that reads the present parameters whenever it is called.

    Arguments:
        layer: A layer of this package that takes a context.
        explicit: The side that is the layer itself.
        event_dim: The number of dimensions of one event.
    """

    def __init__(self, layer: Layer, explicit: str = "forward", event_dim: int = 1) -> None:
        super().__init__()
        check_explicit(explicit)
        self.layer = layer
        self.explicit = explicit
        self.event_dim = event_dim

    def condition(self, context: Tensor) -> LayerTransform:
        return LayerTransform(self.layer, self.explicit, context, self.event_dim)


class InvertibleResidual(LayerTransformModule):
    r"""A residual block :math:`x + g(x)` as a Pyro `TransformModule`.

    Arguments:
        block: The block.
        explicit: The side that computes :math:`x + g(x)`; the other one is solved.
            ``"forward"``, base to sample, is for guides; ``"inverse"`` for density estimation.
        event_dim: The number of dimensions of one event.
        cache_size: 1 to keep the latest pair, 0 to keep nothing.

    Shapes:
        x ``(*sample, *batch, *event)``; the log-det has shape ``(*sample, *batch)``, in nats.

    Raises:
        InverseNotConverged: The solved side missed its tolerance.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> t = InvertibleResidual(InvertibleResidualBlock(LipschitzMLP(2)), explicit="inverse")
        >>> flow = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [t])
        >>> flow.log_prob(torch.randn(7, 2)).shape
        torch.Size([7])
    """

    def __init__(
        self,
        block: InvertibleResidualBlock,
        explicit: str = "forward",
        event_dim: int = 1,
        cache_size: int = 1,
    ) -> None:
        super().__init__(block, explicit, event_dim, cache_size)

    @property
    def block(self) -> Layer:
        return self.layer


class ConditionalInvertibleResidual(ConditionalLayerTransformModule):
    r"""A residual block :math:`x + g(x; c)` as a Pyro `ConditionalTransformModule`.

    Arguments:
        block: The block, whose branch takes a context.
        explicit: The side that computes :math:`x + g(x; c)`; the other one is solved.
        event_dim: The number of dimensions of one event.

    Shapes:
        context ``(*batch, context_features)``, broadcast against the batch of x.

    Example:
        >>> import torch
        >>> t = conditional_invertible_residual(2, context_dim=3)
        >>> t.condition(torch.randn(7, 3))(torch.randn(7, 2)).shape
        torch.Size([7, 2])
    """

    def __init__(
        self, block: InvertibleResidualBlock, explicit: str = "forward", event_dim: int = 1
    ) -> None:
        super().__init__(block, explicit, event_dim)

    @property
    def block(self) -> Layer:
        return self.layer


def invertible_residual(
    input_dim: int,
    hidden_dims: Sequence[int] | None = None,
    explicit: str = "forward",
    **kwargs: Any,
) -> InvertibleResidual:
    """A residual block of a multilayer branch, for `iterated` and as `init_transform_fn`.

    Arguments:
        input_dim: The dimension of the event.
        hidden_dims: The widths of the hidden layers; None: two of ten times `input_dim`.
        explicit: The side that computes x + g(x).
        kwargs: Further arguments of `LipschitzMLP`, and ``log_det`` and ``solver``.

    Example:
        >>> from pyro.distributions.transforms import iterated
        >>> transform = iterated(4, invertible_residual, 2, [16, 16])
        >>> len(transform.parts)
        4
    """
    return InvertibleResidual(make_block(input_dim, hidden_dims, **kwargs), explicit)


def conditional_invertible_residual(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    explicit: str = "forward",
    **kwargs: Any,
) -> ConditionalInvertibleResidual:
    """A residual block whose branch takes a context.

    Arguments:
        input_dim: The dimension of the event.
        context_dim: The dimension of the context.
        hidden_dims: The widths of the hidden layers; None: two of ten times `input_dim`.
        explicit: The side that computes x + g(x; c).
        kwargs: Further arguments of `LipschitzMLP`, and ``log_det`` and ``solver``.
    """
    block = make_block(input_dim, hidden_dims, context_features=context_dim, **kwargs)
    return ConditionalInvertibleResidual(block, explicit)


def make_block(
    input_dim: int,
    hidden_dims: Sequence[int] | None,
    log_det: Any = None,
    solver: Any = None,
    **kwargs: Any,
) -> InvertibleResidualBlock:
    check_features("input_dim", input_dim)
    widths = (10 * input_dim,) * 2 if hidden_dims is None else hidden_dims
    return InvertibleResidualBlock(LipschitzMLP(input_dim, widths, **kwargs), log_det, solver)
