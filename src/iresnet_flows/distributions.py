"""Layers as transforms of `torch.distributions`, with a cache that cannot be stale."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from iresnet_flows.checks import check_explicit
from iresnet_flows.layers.contract import Layer

__all__ = ["LayerTransform"]


@dataclass
class Pair:
    """The latest x and y, and the state of the world in which they belong together."""

    x: Tensor
    y: Tensor
    state: tuple[Any, ...]
    spent: bool = False

    def forget(self, _: Tensor) -> None:
        self.spent = True


class LayerTransform(Transform):
    r"""A layer as a `torch.distributions.Transform`; base to sample is `__call__`.

    ``explicit`` says which side costs one call of the layer: ``"forward"`` makes ``transform(x)``
    the layer itself and ``transform.inv`` its inverse, for variational guides; ``"inverse"`` the
    other way around, for density estimation. The log-det is always computed on the explicit side,
    without a solve. It is in nats, with the event dimensions summed out.

    The latest pair of x and y is kept, so that scoring a fresh sample needs no inverse. It is used
    again only while nothing has changed: no parameter, buffer or context was written to, the
    gradient mode is the same, and no backward pass has freed its graph. There is no need to clear
    it.

    Arguments:
        layer: A layer of this package, such as `InvertibleResidualBlock`.
        explicit: ``"forward"`` or ``"inverse"``.
        context: The context, with shape ``(*batch, context_features)``, or None.
        event_dim: The number of dimensions of one event.
        cache_size: 1 to keep the latest pair, 0 to keep nothing.

    Shapes:
        x ``(*sample, *batch, *event)``, any number of leading dimensions.

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
        self.layer = layer
        self.explicit = explicit
        self.context = context
        self.domain = self.codomain = constraints.independent(constraints.real, event_dim)
        self._pair: Pair | None = None

    def __call__(self, x: Tensor) -> Tensor:
        pair = self._pair
        if pair is not None and pair.x is x and self._is_fresh(pair):
            return pair.y
        y = self._call(x)
        self._keep(x, y, result=y)
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        pair = self._pair
        if pair is not None and pair.y is y and self._is_fresh(pair):
            return pair.x
        x = self._inverse(y)
        self._keep(x, y, result=x)
        return x

    def _call(self, x: Tensor) -> Tensor:
        side = self.layer.transform if self.explicit == "forward" else self.layer.invert
        return self._batched(side, x)

    def _inverse(self, y: Tensor) -> Tensor:
        side = self.layer.invert if self.explicit == "forward" else self.layer.transform
        return self._batched(side, y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if self.explicit == "forward":
            return self._batched(self.layer, x)[1]
        return -self._batched(self.layer, y)[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y and log|det(dy/dx)| from one pass."""
        side = self.layer if self.explicit == "forward" else self.layer.inverse
        return self._batched(side, x)

    @property
    def sign(self) -> int:
        """That of the layer's determinant, +1 for those of this package; asked for at d = 1."""
        return self.layer.sign

    def with_cache(self, cache_size: int = 1) -> LayerTransform:
        """The same transform with another cache size; parameters are shared."""
        if cache_size == self._cache_size:
            return self
        other = copy.copy(self)
        other._cache_size = cache_size
        return other

    def clear_cache(self) -> None:
        """Forget the latest pair; never needed for correctness."""
        self._pair = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_inv": None, "_pair": None}

    def _batched(self, side: Any, x: Tensor) -> Any:
        """A layer's map, over any number of leading dimensions."""
        batch = x.shape[: x.dim() - self.domain.event_dim]
        context = self.context
        if context is not None and context.dim() > 1:
            batch = torch.broadcast_shapes(batch, context.shape[:-1])
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])

        event = x.shape[x.dim() - self.domain.event_dim :]
        rows = x.expand(*batch, *event).reshape(math.prod(batch), *event)
        result = side(rows, context)
        if isinstance(result, tuple):
            return result[0].reshape(*batch, *event), result[1].reshape(batch)
        return result.reshape(*batch, *event)

    def _keep(self, x: Tensor, y: Tensor, result: Tensor) -> None:
        # Tensors of inference mode carry no version, so that nothing could tell a stale pair.
        if not self._cache_size or x.is_inference() or y.is_inference():
            self._pair = None
            return
        self._pair = Pair(x, y, self._state(x, y))
        if result.requires_grad:
            result.register_hook(self._pair.forget)

    def _is_fresh(self, pair: Pair) -> bool:
        return not pair.spent and pair.state == self._state(pair.x, pair.y)

    def _state(self, x: Tensor, y: Tensor) -> tuple[Any, ...]:
        """Whatever the pair depends on, as numbers that change with it."""
        tensors = [x, y, *self.layer.parameters(), *self.layer.buffers()]
        if self.context is not None:
            tensors.append(self.context)
        versions = (None if t.is_inference() else t._version for t in tensors)
        grads = (t.requires_grad for t in tensors)
        return torch.is_grad_enabled(), *versions, *grads, *(t.data_ptr() for t in tensors)
