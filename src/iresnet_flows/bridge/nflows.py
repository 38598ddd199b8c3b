"""nflows' transforms as layers."""

from __future__ import annotations

from typing import Any

import torch
from nflows.transforms import base
from torch import Tensor

from iresnet_flows.bridge.guests import ForeignLayer, Guest, span
from iresnet_flows.nflows import InputOutsideDomain, LayerTransform

__all__ = ["NflowsLayer", "recognised"]


class NflowsLayer(ForeignLayer):
    """An nflows `Transform` as a layer; `forward` takes data to noise."""

    generates = False
    missing = (NotImplementedError, base.InverseNotAvailable)

    def evaluate(self, side: str, x: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        function = self.guest if side == "forward" else self.guest.inverse
        try:
            return function(x, context)
        except base.InputOutsideDomain as error:  # which says nothing in nflows
            raise InputOutsideDomain(
                f"{self._name()} cannot take some of x, which lie in {span(x)}, in its {side}: "
                "they are outside of its domain."
            ) from error
        except RuntimeError as error:
            if "is now removed" not in str(error):
                raise
            # torch.solve, say, which `NaiveLinear` calls
            raise NotImplementedError(f"it needs what torch {torch.__version__} lacks") from error


def recognised(transform: Any) -> Guest | None:
    if isinstance(transform, LayerTransform):
        return Guest.of(transform.layer, generates=False, own=transform.explicit)
    if isinstance(transform, base.Transform):
        return Guest.of(NflowsLayer(transform))
    return None
