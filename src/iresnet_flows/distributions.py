"""Layers as transforms of `torch.distributions`, with a cache that cannot be stale."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from iresnet_flows.checks import check_count, check_explicit, check_tensor
from iresnet_flows.concrete import is_recorded
from iresnet_flows.layers.actnorm import measuring
from iresnet_flows.layers.contract import Layer, require_layer
from iresnet_flows.pairs import Cache, Pair

__all__ = ["LayerTransform"]


class LayerTransform(Transform):
    r"""A layer as a `torch.distributions.Transform`; base to sample is `__call__`.

    ``explicit`` says which side costs one call of the layer: ``"forward"`` makes ``transform(x)``
    the layer itself and ``transform.inv`` its inverse, for variational guides; ``"inverse"`` the
    other way around, for density estimation. The log-det is always computed on the explicit side,
    without a solve. It is in nats, with the event dimensions summed out.

    The latest x and y are kept, and their log-det once it has been asked for, so that scoring a
    fresh sample needs no inverse, and that a log-det which is estimated keeps its draw: scoring
    the same sample twice gives the same number. The pair is used again only while nothing has
    changed: no parameter, buffer, context or attribute of the layer, no edit of x or y in place,
    the modes of the layer and of torch are the same, and no backward pass has freed its graph.
    There is no need to clear it; telling costs a copy and a comparison of the parameters.
    Independent estimates for one x come with ``cache_size=0``.

    Arguments:
        layer: A layer of this package, such as `InvertibleResidualBlock`.
        explicit: ``"forward"`` or ``"inverse"``.
        context: The context, with shape ``(*batch, context_features)``, or None.
        event_dim: The number of dimensions of one event: 1 for vectors, 3 for images. 0 makes a
            layer of one feature a transform of real numbers, whose distribution has `cdf` and
            `icdf`.
        cache_size: 1 to keep the latest pair, 0 to keep nothing.

    Shapes:
        x ``(*sample, *batch, *event)``, any number of leading dimensions. The batch of a context
        broadcasts against them.

    Raises:
        TypeError: It is not a layer, or the context is not a tensor.
        ValueError: ``explicit`` or ``event_dim`` is out of range; batches do not broadcast.
        InverseNotConverged: The solved side missed its tolerance.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> from iresnet_flows.distributions import LayerTransform
        >>> t = LayerTransform(InvertibleResidualBlock(LipschitzMLP(2)))
        >>> base = torch.distributions.Normal(torch.zeros(2), 1.0)
        >>> base = torch.distributions.Independent(base, 1)
        >>> flow = torch.distributions.TransformedDistribution(base, [t])
        >>> flow.log_prob(flow.rsample((3, 4))).shape
        torch.Size([3, 4])
    """

    bijective = True

    def __init__(
        self,
        layer: Layer,
        explicit: str = "forward",
        context: Tensor | None = None,
        event_dim: int = 1,
        cache_size: int = 1,
    ) -> None:
        super().__init__(cache_size=cache_size)
        check_explicit(explicit)
        check_count("event_dim", event_dim, least=0)
        if context is not None:
            check_tensor("context", context)
        self.layer = require_layer(layer)
        self.explicit = explicit
        self.context = context
        self.domain = self.codomain = constraints.independent(constraints.real, event_dim)
        self._cache = Cache()
        self._other: weakref.ref[LayerTransform] | None = None

    @property
    def inv(self) -> LayerTransform:
        """The inverse, which is the same layer with the other side explicit and the same cache.

        One that is held keeps its layer and its context when this transform is given others.
        """
        other = None if self._other is None else self._other()
        if other is None or other.layer is not self.layer or other.context is not self.context:
            other = copy.copy(self)
            other.explicit = "inverse" if self._is_forward else "forward"
            other._cache = self._cache
            # Strong references both ways would keep each sample until a garbage collection.
            other._other, self._other = weakref.ref(self), weakref.ref(other)
        return other

    def __call__(self, x: Tensor) -> Tensor:
        pair = self._find(x)
        if pair is not None:
            return self._in_order(pair.x, pair.y)[1]
        if not self._cache_size:
            return self._call(x)
        if self._is_forward:
            y, measure = self._batched(self.layer.deferred, x)
        else:
            y = self._call(x)
            # A pair that held this very transform would be held by what it holds.
            measure = partial(self.with_cache(0)._measured, y)
        self._keep(x, y, measure)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|det(dy/dx)|, that of the latest pair where these are it."""
        pair = self._find(x, y)
        if pair is None:
            return self._signed(self._measured(self._in_order(x, y)[0]))
        return self._signed(pair.logabsdet())

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y and log|det(dy/dx)| from one pass."""
        pair = self._find(x)
        if pair is not None:
            return self._in_order(pair.x, pair.y)[1], self._signed(pair.logabsdet())
        y, ladj = self._batched(self.layer if self._is_forward else self.layer.inverse, x)
        pair = self._keep(x, y, lambda: self._signed(ladj))
        if pair is not None:
            pair.logabsdet()
        return y, ladj

    @property
    def sign(self) -> int:
        """That of the layer's determinant, +1 for those of this package; asked for at d = 1."""
        return self.layer.sign

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self._shape(shape, self._is_forward)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self._shape(shape, not self._is_forward)

    def _shape(self, shape: torch.Size, is_forward: bool) -> torch.Size:
        """The shape after one side of the layer, of which few change it."""
        batch = len(shape) - self.domain.event_dim
        event = self.layer.event_of if is_forward else self.layer.event_from
        return torch.Size((*shape[:batch], *event(tuple(shape[batch:]))))

    def with_cache(self, cache_size: int = 1) -> LayerTransform:
        """The same transform with another cache size; parameters are shared."""
        if cache_size == self._cache_size:
            return self
        if cache_size not in (0, 1):
            raise ValueError(f"cache_size must be 0 or 1, got {cache_size!r}.")
        other = copy.copy(self)
        other._cache_size = cache_size
        return other

    def clear_cache(self) -> None:
        """Forget the latest pair; never needed for correctness."""
        self._cache.pair = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(explicit={self.explicit!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_other": None, "_cache": Cache()}

    @property
    def _is_forward(self) -> bool:
        return self.explicit == "forward"

    def _call(self, x: Tensor) -> Tensor:
        return self._batched(self.layer.transform if self._is_forward else self.layer.invert, x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._batched(self.layer.invert if self._is_forward else self.layer.transform, y)

    def _batched(self, side: Any, x: Tensor) -> Any:
        """A layer's map, over any number of leading dimensions."""
        check_tensor("x", x)
        event_dim = self.domain.event_dim
        if x.dim() < event_dim:
            raise ValueError(
                f"x must have the {event_dim} dimensions of an event and those of a batch before "
                f"them, if any, got the shape {tuple(x.shape)}."
            )
        batch, event = x.shape[: x.dim() - event_dim], x.shape[x.dim() - event_dim :]
        context = self.context
        if context is not None and context.dim() > 1:
            batch = broadcast(batch, context.shape[:-1])
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])

        row = event if event_dim else (1,)
        result = side(x.expand(batch + event).reshape(math.prod(batch), *row), context)
        if isinstance(result, tuple):
            return self._unbatched(result[0], batch), shaped(result[1], batch)
        return self._unbatched(result, batch)

    def _unbatched(self, value: Tensor, batch: torch.Size) -> Tensor:
        event_dim = self.domain.event_dim
        if value.dim() - 1 != max(event_dim, 1):
            raise ValueError(
                f"{type(self.layer).__name__} gives events of {value.dim() - 1} dimensions for "
                f"such of {event_dim}, which a transform with one event_dim cannot tell: put it "
                "into a Stack whose other layers lead back."
            )
        return value.reshape(batch + (value.shape[1:] if event_dim else ()))

    def _measured(self, x: Tensor) -> Tensor:
        """The log-det of the layer at its input."""
        with measuring():
            logabsdet: Tensor = self._batched(self.layer, x)[1]
        return logabsdet

    def _find(self, x: Tensor, y: Tensor | None = None) -> Pair | None:
        return self._cache.find(self.layer, self.context, *self._in_order(x, y))

    def _keep(self, x: Tensor, y: Tensor, measure: Callable[[], Tensor]) -> Pair | None:
        if not self._cache_size or is_recorded() or x.is_meta:  # no values to compare
            return None
        if x.shape != y.shape:  # broadcast by a context, or another event
            return None
        new = Pair(self.layer, self.context, *self._in_order(x, y), measure)
        pair = self._cache.keep(new)
        if pair is not None:
            pair.watch(y)
        return pair

    def _in_order(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Input and output of the layer, from those of the transform, and the other way around."""
        return (x, y) if self._is_forward else (y, x)

    def _signed(self, logabsdet: Tensor) -> Tensor:
        """The log-det of the transform from that of the layer, and the other way around."""
        return logabsdet if self._is_forward else -logabsdet


def shaped(logabsdet: Any, batch: torch.Size) -> Any:
    """A log-det, or what gives it later, in the shape of the batch."""
    if isinstance(logabsdet, Tensor):
        return logabsdet.reshape(batch)
    return lambda: logabsdet().reshape(batch)


def broadcast(batch: torch.Size, context: torch.Size) -> torch.Size:
    try:
        return torch.broadcast_shapes(batch, context)
    except RuntimeError as error:
        raise ValueError(
            f"the batch {tuple(batch)} of x does not broadcast with the batch {tuple(context)} of "
            "the context, whose last dimension alone is its features: draw as many samples as "
            "there are contexts, or give x one more dimension."
        ) from error
