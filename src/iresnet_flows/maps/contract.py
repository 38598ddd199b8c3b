"""What a map is: a function with all that it depends on in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from iresnet_flows.concrete import is_recorded

if TYPE_CHECKING:
    from typing_extensions import Self

    from iresnet_flows.maps.jacobians import Jacobian

__all__ = ["Map", "Rebuilt", "require_closed"]


class Map(Protocol):
    """A map with all that it depends on in place, for a batch of points.

    Example:
        >>> import torch
        >>> from iresnet_flows.maps import FunctionMap, Map
        >>> g: Map = FunctionMap(lambda x, scale: scale * x, rows=(torch.tensor([[1.0], [2.0]]),))
        >>> g.take(torch.tensor([1]))(torch.ones(1, 3))
        tensor([[2., 2., 2.]])
    """

    def __call__(self, x: Tensor) -> Tensor:
        """The value at x, with shape ``(B, *event)``."""

    def linearize(self, x: Tensor) -> tuple[Tensor, Jacobian]:
        """The value at x and the Jacobian there, from one pass."""

    def take(self, rows: Tensor) -> Map:
        """The map for some of the rows of the batch, by their indices."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it depends on, and that a gradient may be asked for."""

    @property
    def rebuild(self) -> Callable[..., Map]:
        """Gives a map like this one from other tensors, and keeps none of these."""

    def to(self, dtype: torch.dtype) -> Map:
        """The map with all that it depends on in that dtype."""


class Rebuilt(ABC):
    """What can be built anew from other tensors."""

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it depends on."""

    @property
    @abstractmethod
    def rebuild(self) -> Callable[..., Self]:
        """Gives another one like this from other tensors, and keeps none of these."""

    def to(self, dtype: torch.dtype) -> Self:
        """The same in that dtype; indices stay what they are."""
        return self.rebuild(*(t.to(dtype) if t.is_floating_point() else t for t in self.tensors))


def require_closed(g: Map, x: Tensor) -> None:
    """Refuse a map that a gradient is asked for in something else than x and its tensors."""
    if is_recorded() or not len(x):
        return
    row = torch.zeros(1, dtype=torch.long, device=x.device)
    first = g.take(row)
    with torch.enable_grad():
        value = first.rebuild(*(t.detach() for t in first.tensors))(x[row].detach())
    if value.requires_grad:
        raise ValueError(
            "the branch depends on a tensor that a gradient is asked for, but that is none of "
            "the parameters and buffers of its module, so that log-dets and inverses would have "
            "no gradient in it: register it, hand it over as context, or detach it. Values of "
            "a PyroSample and the replicas of DataParallel are such tensors."
        )
