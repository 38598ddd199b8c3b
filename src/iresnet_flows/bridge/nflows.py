"""nflows' transforms as layers, and layers of any host as nflows' transforms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nflows.transforms import base
from torch import Tensor

from iresnet_flows import errors
from iresnet_flows.bridge.guests import ForeignLayer, Guest
from iresnet_flows.nflows import LayerTransform

__all__ = ["GuestTransform", "InverseNotAvailable", "NflowsLayer", "recognised"]


class InverseNotAvailable(errors.InverseNotAvailable, base.InverseNotAvailable):
    """The exception of this package, for those who wait for nflows' own."""


class NflowsLayer(ForeignLayer):
    """An nflows `Transform` as a layer; `forward` takes data to noise."""

    generates = False
    missing = (NotImplementedError, base.InverseNotAvailable)

    def evaluate(self, side: str, x: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        function = self.guest if side == "forward" else self.guest.inverse
        return function(x, context)


class GuestTransform(LayerTransform):
    """A layer of any host as an nflows `Transform`, with nflows' own exceptions."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with in_nflows_terms():
            return super().forward(inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with in_nflows_terms():
            return super().inverse(inputs, context)


@contextmanager
def in_nflows_terms() -> Iterator[None]:
    try:
        yield
    except errors.InverseNotAvailable as error:
        raise InverseNotAvailable(*error.args) from error


def recognised(transform: Any) -> Guest | None:
    if isinstance(transform, LayerTransform):
        return Guest(transform.layer, generates=transform.explicit == "inverse")
    if isinstance(transform, base.Transform):
        return Guest(NflowsLayer(transform), generates=False)
    return None
