"""Residual blocks, and any layer of this package, as nflows transforms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from iresnet_flows import errors
from iresnet_flows.adapters import BlockAdapter
from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.blocks.sequences import residual_layers
from iresnet_flows.checks import check_count, check_explicit
from iresnet_flows.errors import MissingExtra
from iresnet_flows.inverse import Solver
from iresnet_flows.layers import Inverted
from iresnet_flows.layers.contract import Layer, require_layer
from iresnet_flows.lipschitz import Activation
from iresnet_flows.logdet import Estimator

try:
    from nflows.distributions import normal
    from nflows.flows import base
    from nflows.transforms import base as transforms
    from nflows.transforms.base import CompositeTransform, InverseTransform, Transform
    from nflows.utils.torchutils import repeat_rows
except ImportError as error:
    raise MissingExtra("nflows", "nflows") from error

__all__ = [
    "Flow",
    "InputOutsideDomain",
    "InverseNotAvailable",
    "InvertibleResidualFlow",
    "InvertibleResidualTransform",
    "LayerTransform",
    "StandardNormal",
    "value_of",
]


class InputOutsideDomain(errors.InputOutsideDomain, transforms.InputOutsideDomain):
    """The exception of this package for those who wait for nflows' own of that name.

    Example:
        >>> import torch
        >>> from iresnet_flows.layers import Logit
        >>> LayerTransform(Logit())(torch.tensor([[2.0]]))
        Traceback (most recent call last):
        ...
        iresnet_flows.nflows.InputOutsideDomain: x must lie in [0, 1], as pixels / 255 do, got ...
    """


class InverseNotAvailable(errors.InverseNotAvailable, transforms.InverseNotAvailable):
    """The exception of this package for those who wait for nflows' own of that name.

    Example:
        >>> import torch
        >>> from iresnet_flows.models import UnconstrainedBlock
        >>> LayerTransform(UnconstrainedBlock(torch.nn.Tanh())).inverse(torch.zeros(1, 2))
        Traceback (most recent call last):
        ...
        iresnet_flows.nflows.InverseNotAvailable: x + g(x) of an unconstrained g need not have ...
    """


@contextmanager
def exceptions_of_nflows() -> Iterator[None]:
    try:
        yield
    except (transforms.InputOutsideDomain, transforms.InverseNotAvailable):
        raise
    except errors.InputOutsideDomain as error:
        raise InputOutsideDomain(str(error)) from error
    except errors.InverseNotAvailable as error:
        raise InverseNotAvailable(str(error)) from error


class LayerTransform(Transform):
    """A layer as an nflows transform; `forward` maps data to noise.

    `transform` and `invert` are `forward` and `inverse` without a log-det, at the price of the
    value alone.

    Arguments:
        layer: A layer of this package.
        explicit: The side that is the layer itself, ``"forward"`` (fast `log_prob`) or
            ``"inverse"`` (fast `sample`).

    Raises:
        TypeError: It is not a layer.

    Example:
        >>> import torch
        >>> from iresnet_flows.layers import ElementwiseAffine
        >>> outputs, logabsdet = LayerTransform(ElementwiseAffine(2))(torch.randn(5, 2))
    """

    def __init__(self, layer: Layer, explicit: str = "forward") -> None:
        super().__init__()
        check_explicit(explicit)
        self.layer = require_layer(layer)
        self.explicit = explicit

    @property
    def to_noise(self) -> Layer:
        """The layer that maps data to noise."""
        return self.layer if self.explicit == "forward" else Inverted(self.layer)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The noise of data, and its log-det."""
        with exceptions_of_nflows():
            return self.to_noise(inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with exceptions_of_nflows():
            return self.to_noise.inverse(inputs, context)

    def transform(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        with exceptions_of_nflows():
            return self.to_noise.transform(inputs, context)

    def invert(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        with exceptions_of_nflows():
            return self.to_noise.invert(inputs, context)


class InvertibleResidualTransform(BlockAdapter, LayerTransform):
    r"""A residual block :math:`x + g(x)` as an nflows transform.

    Arguments:
        block: The block.
        explicit: The side that computes :math:`x + g(x)`; the other one is solved. With
            ``"forward"``, data to noise, `log_prob` is explicit and `sample` iterates.

    Shapes:
        inputs ``(B, *event)``, context ``(B, *context_event)``, logabsdet (B,) in nats.

    Raises:
        InverseNotConverged: The solved side missed its tolerance. It is no `InverseNotAvailable`:
            the inverse is there, and the message says how to reach it.
        ValueError: A shape does not fit, as in nflows' own transforms, or the context is missing
            or not asked for.
        TypeError: The dtype is not the block's, or the block is none.

    Example:
        >>> import torch
        >>> from nflows.distributions.normal import StandardNormal
        >>> from nflows.flows.base import Flow
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2))
        >>> flow = Flow(InvertibleResidualTransform(block), StandardNormal([2]))
        >>> flow.log_prob(flow.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, block: InvertibleResidualBlock, explicit: str = "forward") -> None:
        super().__init__(block, explicit)


class StandardNormal(normal.StandardNormal):
    """nflows' `StandardNormal`, drawn in the dtype of the flow that it stands in.

    The original draws in torch's default dtype, which a flow after ``flow.double()`` refuses. With
    the same seed, both draw the same numbers.

    Arguments:
        shape: The shape of one sample.

    Example:
        >>> StandardNormal([2]).double().sample(3).dtype
        torch.float64
    """

    _log_z: float

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        log_z = float(self._log_z)
        del self._log_z  # as a buffer in float64 it has no place on MPS, and is rounded in half
        self._log_z = log_z
        self.register_buffer("_like", torch.empty(0), persistent=False)

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        rows = (num_samples,) if context is None else (len(context), num_samples)
        return torch.randn(*rows, *self._shape, dtype=self._like.dtype, device=self._like.device)

    def _mean(self, context: Tensor | None) -> Tensor:
        rows = () if context is None else (len(context),)
        return self._like.new_zeros(*rows, *self._shape)


class Flow(base.Flow):
    """nflows' `Flow`, whose `sample` and `transform_to_noise` compute no log-det of our layers.

    The original computes those of all its layers and drops them. They are spared wherever the
    layers stand in a `CompositeTransform` or an `InverseTransform`. All else is as in nflows.

    Arguments:
        transform: Maps data to noise.
        distribution: That of the noise, such as `StandardNormal`.
        embedding_net: Encodes the context.

    Shapes:
        inputs ``(B, *event)``, context ``(B, *context_event)``, log_prob (B,) in nats. Samples are
        ``(num_samples, *event)``, with a context ``(B, num_samples, *event)``.

    Example:
        >>> import torch
        >>> from nflows.transforms import CompositeTransform, LULinear
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2))
        >>> transform = CompositeTransform([InvertibleResidualTransform(block), LULinear(2)])
        >>> flow = Flow(transform, StandardNormal([2])).double()
        >>> flow.log_prob(torch.randn(5, 2, dtype=torch.float64)).shape
        torch.Size([5])
    """

    def sample(
        self, num_samples: int, context: Tensor | None = None, batch_size: int | None = None
    ) -> Tensor:
        if context is None or batch_size is None or not 0 < batch_size < num_samples:
            return super().sample(num_samples, context, batch_size)
        # nflows joins the parts along the rows of the context.
        draw, starts = super().sample, range(0, num_samples, batch_size)
        parts = [draw(min(batch_size, num_samples - start), context) for start in starts]
        return torch.cat(parts, 1)

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        context = self._embedding_net(context)
        noise = self._distribution.sample(num_samples, context=context)
        if context is None:
            return value_of(self._transform, noise, None, inverse=True)

        rows = repeat_rows(context, num_samples)
        samples = value_of(self._transform, noise.flatten(0, 1), rows, inverse=True)
        return samples.unflatten(0, (len(context), num_samples))

    def transform_to_noise(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """The noise of data, without a log-det."""
        return value_of(self._transform, inputs, self._embedding_net(context))


def value_of(
    transform: Transform, inputs: Tensor, context: Tensor | None, inverse: bool = False
) -> Tensor:
    """The outputs of a transform, or of its inverse, with no more log-dets than need be.

    Arguments:
        transform: Of nflows. Log-dets are spared where our layers are it, or stand in a
            `CompositeTransform` or an `InverseTransform`.
        inputs: What it takes, with shape ``(B, *event)``.
        context: The context, ``(B, *context_event)``, or None.
        inverse: Whether to go from noise to data.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2))
        >>> value_of(InvertibleResidualTransform(block), torch.randn(5, 2), None).shape
        torch.Size([5, 2])
    """
    if isinstance(transform, LayerTransform):
        side = transform.invert if inverse else transform.transform
        return side(inputs, context)

    # Subclasses may have another forward.
    if type(transform) is InverseTransform:
        return value_of(transform._transform, inputs, context, not inverse)
    if type(transform) is CompositeTransform:
        parts = transform._transforms
        for part in reversed(parts) if inverse else parts:
            inputs = value_of(part, inputs, context, inverse)
        return inputs

    outputs, _ = transform.inverse(inputs, context) if inverse else transform(inputs, context)
    return outputs


class InvertibleResidualFlow(Flow):
    """An i-ResNet with a standard normal base, to stand beside nflows' `SimpleRealNVP`.

    Each of its layers is an elementwise affine map and a residual block. The first blocks bend
    each feature alone, at little cost: edges and skewed columns. `log_prob` is explicit,
    `sample` iterates, and neither samples nor noise cost a log-det. What it draws has the dtype of
    its parameters.

    Arguments:
        features: The dimension d of the data.
        hidden_features: The width of the branches' hidden layers.
        num_layers: The number of residual blocks with MLP branches.
        num_blocks_per_layer: The number of hidden layers in each branch; up to 2, the trace of
            its Jacobian is cheap.
        context_features: The dimension of the (embedded) context, or None.
        lipschitz: The bound of each branch, in (0, 1).
        activation: That of the branches.
        log_det: The estimator of each of these, None for its own choice. Log-dets of the
            elementwise blocks are always exact.
        solver: The solver of each block, None for its own choice, `Newton` in elementwise ones.
        embedding_net: Encodes the context, as in every nflows `Flow`.
        explicit: The side that computes x + g(x): ``"forward"``, or ``"inverse"`` for fast
            samples and an iterated `log_prob`.
        num_elementwise_layers: The number of residual blocks of `LipschitzElementwise` at the
            data's side, before the others.

    Shapes:
        inputs (B, d), context (B, context_features) or what `embedding_net` takes, log_prob (B,)
        in nats. Samples are (num_samples, d), with a context (B, num_samples, d).

    Raises:
        InverseNotConverged: A solved side missed its tolerance.
        ValueError: An argument is out of range, a shape does not fit, or the context is missing or
            not asked for.
        TypeError: The dtype is not the flow's.

    Example:
        >>> import torch
        >>> flow = InvertibleResidualFlow(3, 16, num_layers=4, num_blocks_per_layer=2)
        >>> flow.log_prob(torch.randn(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        hidden_features: int,
        num_layers: int,
        num_blocks_per_layer: int = 2,
        context_features: int | None = None,
        lipschitz: float = 0.97,
        activation: str | Activation = "csin",
        log_det: Estimator | None = None,
        solver: Solver | None = None,
        embedding_net: nn.Module | None = None,
        explicit: str = "forward",
        num_elementwise_layers: int = 4,
    ) -> None:
        check_count("num_layers", num_layers)
        check_count("num_blocks_per_layer", num_blocks_per_layer)
        check_count("num_elementwise_layers", num_elementwise_layers, least=0)

        layers = residual_layers(
            features,
            (hidden_features,) * num_blocks_per_layer,
            num_layers,
            num_elementwise_layers,
            context_features,
            lipschitz,
            activation,
            log_det,
            solver,
        )
        transforms = [
            InvertibleResidualTransform(layer, explicit)
            if isinstance(layer, InvertibleResidualBlock)
            else LayerTransform(layer)
            for layer in layers
        ]
        super().__init__(CompositeTransform(transforms), StandardNormal([features]), embedding_net)
