"""Residual blocks, and any layer of this package, as Pyro transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.distributions import constraints

from iresnet_flows.adapters import BlockAdapter
from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.checks import check_count, check_explicit, check_widths
from iresnet_flows.distributions import LayerTransform
from iresnet_flows.errors import MissingExtra
from iresnet_flows.layers.contract import Layer, require_layer
from iresnet_flows.lipschitz import LipschitzMLP

try:
    from pyro.distributions import ConditionalTransformModule, TransformModule
except ImportError as error:
    raise MissingExtra("pyro-ppl", "pyro") from error

if TYPE_CHECKING:
    from typing_extensions import Self

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

    Its ``.inv`` is a `TransformModule` too, with the same parameters under the same names. What
    `ComposeTransformModule` gives as its own ``.inv`` is not, so that a whole stack is turned
    around by ``explicit``.

    Arguments:
        layer: A layer of this package, without context.
        explicit: The side that is the layer itself, ``"forward"`` (guides) or ``"inverse"``
            (density estimation).
        event_dim: The number of dimensions of one event; see `LayerTransform`.
        cache_size: 1 to keep the latest pair, 0 to keep nothing.

    Raises:
        ValueError: The layer asks for a context.

    Example:
        >>> import torch
        >>> from iresnet_flows.layers import ElementwiseAffine
        >>> t = LayerTransformModule(ElementwiseAffine(3))
        >>> t(torch.randn(4, 5, 3)).shape
        torch.Size([4, 5, 3])
    """

    def __init__(
        self,
        layer: Layer,
        explicit: str = "forward",
        event_dim: int = 1,
        cache_size: int = 1,
    ) -> None:
        super().__init__(layer, explicit, None, event_dim, cache_size)
        if layer.takes_context:
            raise ValueError(
                "the layer asks for a context: use ConditionalInvertibleResidual (or "
                "ConditionalLayerTransformModule) and its condition(context)."
            )

    def __copy__(self) -> Self:
        """One with a layer of its own to be replaced; the parts of a module are in a dict."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__getstate__(), _modules=self._modules.copy())
        return other


class ConditionalLayerTransformModule(ConditionalTransformModule):
    """A layer with a context as a Pyro `ConditionalTransformModule`.

    `condition` gives a light transform that reads the present parameters whenever it is called.

    Arguments:
        layer: A layer of this package that takes a context.
        explicit: The side that is the layer itself.
        event_dim: The number of dimensions of one event; see `LayerTransform`.

    Raises:
        ValueError: The layer takes no context.

    Example:
        >>> import torch
        >>> from iresnet_flows import CayleyBlock, LipschitzMLP
        >>> layer = CayleyBlock(LipschitzMLP(2, context_features=3))
        >>> t = ConditionalLayerTransformModule(layer)
        >>> t.condition(torch.randn(7, 3))(torch.randn(5, 7, 2)).shape
        torch.Size([5, 7, 2])
    """

    bijective = True

    def __init__(self, layer: Layer, explicit: str = "forward", event_dim: int = 1) -> None:
        super().__init__()
        require_layer(layer)
        check_explicit(explicit)
        check_count("event_dim", event_dim, least=0)
        if layer.takes_context is False:
            raise ValueError(
                "the layer takes no context: build it with context_features, or use "
                "InvertibleResidual (or LayerTransformModule)."
            )
        self.layer = layer
        self.explicit = explicit
        self.event_dim = event_dim
        self.domain = self.codomain = constraints.independent(constraints.real, event_dim)

    def condition(self, context: Tensor) -> LayerTransform:
        """The transform given this context, with shape ``(*batch, context_features)``."""
        return LayerTransform(self.layer, self.explicit, context, self.event_dim)


class InvertibleResidual(BlockAdapter, LayerTransformModule):
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


class ConditionalInvertibleResidual(BlockAdapter, ConditionalLayerTransformModule):
    r"""A residual block :math:`x + g(x; c)` as a Pyro `ConditionalTransformModule`.

    Arguments:
        block: The block, whose branch takes a context.
        explicit: The side that computes :math:`x + g(x; c)`; the other one is solved.
        event_dim: The number of dimensions of one event.

    Shapes:
        context ``(*batch, context_features)``, broadcast against the batch of x.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2, context_features=3))
        >>> t = ConditionalInvertibleResidual(block)
        >>> base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> flow = dist.ConditionalTransformedDistribution(base, [t])
        >>> flow.condition(torch.randn(7, 3)).sample((7,)).shape
        torch.Size([7, 2])
    """

    def __init__(
        self, block: InvertibleResidualBlock, explicit: str = "forward", event_dim: int = 1
    ) -> None:
        super().__init__(block, explicit, event_dim)


def invertible_residual(
    input_dim: int,
    hidden_dims: Sequence[int] | None = None,
    explicit: str = "forward",
    event_dim: int = 1,
    **kwargs: Any,
) -> InvertibleResidual:
    """A helper that makes an `InvertibleResidual` of a `LipschitzMLP` of the right sizes.

    It is a ``base_fn`` of Pyro's `iterated`, and the ``init_transform_fn`` of an
    `AutoNormalizingFlow` or, stacked, ``partial(iterated, 4, invertible_residual)``.

    Arguments:
        input_dim: The dimension of the event.
        hidden_dims: The widths of the branch's hidden layers. Defaults to
            ``[10 * input_dim, 10 * input_dim]``.
        explicit: The side that computes x + g(x). Defaults to ``"forward"``, base to sample,
            for guides; ``"inverse"`` is for density estimation.
        event_dim: 1, or 0 for a transform of real numbers, with ``input_dim=1``.
        kwargs: ``lipschitz`` (defaults to 0.9) and ``activation`` (``"csin"``) of `LipschitzMLP`;
            ``log_det``, ``solver`` and ``memory`` of `InvertibleResidualBlock`.

    Example:
        >>> from pyro.distributions.transforms import iterated
        >>> transform = iterated(4, invertible_residual, 2, [16, 16], lipschitz=0.97)
        >>> len(transform.parts)
        4
    """
    block = make_block(input_dim, hidden_dims, event_dim, **kwargs)
    return InvertibleResidual(block, explicit, event_dim)


def conditional_invertible_residual(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    explicit: str = "forward",
    event_dim: int = 1,
    **kwargs: Any,
) -> ConditionalInvertibleResidual:
    """A helper that makes a `ConditionalInvertibleResidual` of a `LipschitzMLP`.

    Arguments:
        input_dim: The dimension of the event.
        context_dim: The dimension of the context.
        hidden_dims: The widths of the branch's hidden layers. Defaults to
            ``[10 * input_dim, 10 * input_dim]``.
        explicit: The side that computes x + g(x; c). Defaults to ``"forward"``, base to sample.
        event_dim: As for `invertible_residual`.
        kwargs: As for `invertible_residual`.

    Example:
        >>> import torch
        >>> t = conditional_invertible_residual(2, context_dim=3, hidden_dims=[16, 16])
        >>> t.condition(torch.randn(7, 3))(torch.randn(7, 2)).shape
        torch.Size([7, 2])
    """
    check_count("context_dim", context_dim)
    block = make_block(input_dim, hidden_dims, event_dim, context_features=context_dim, **kwargs)
    return ConditionalInvertibleResidual(block, explicit, event_dim)


def make_block(
    input_dim: int,
    hidden_dims: Sequence[int] | None,
    event_dim: int,
    log_det: Any = None,
    solver: Any = None,
    memory: Any = "full",
    **kwargs: Any,
) -> InvertibleResidualBlock:
    check_count("input_dim", input_dim)
    if event_dim == 0 and input_dim > 1:
        raise ValueError(f"event_dim=0 is for input_dim=1, got input_dim={input_dim}.")
    widths = (10 * input_dim,) * 2 if hidden_dims is None else hidden_dims
    check_widths("hidden_dims", widths)
    branch = LipschitzMLP(input_dim, widths, **kwargs)
    return InvertibleResidualBlock(branch, log_det, solver, memory)
