"""What a user's factory may return, as an nflows flow of the same density."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from nflows.flows import base
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor, distributions, nn

from iresnet_flows.bridge import to_nflows
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.comparison.contenders.bases import (
    HostBase,
    NormflowsBase,
    OwnedBase,
    TorchBase,
    ZukoBase,
)
from iresnet_flows.layers import Layer
from iresnet_flows.nflows import Flow, LayerTransform, StandardNormal

__all__ = ["as_flow"]

Parts: TypeAlias = tuple[Transform, HostBase]

ALLOWED = (
    "an nflows Flow or Transform, a normflows NormalizingFlow or Flow, a zuko Flow or "
    "LazyTransform, a Pyro or torch Transform, a list of them, a TransformedDistribution, or a "
    "layer of iresnet_flows"
)


def as_flow(found: Any, features: int) -> base.Flow:
    """An nflows flow with the density that the object has in its own host.

    A transform alone stands on a standard normal base.

    Arguments:
        found: The object.
        features: The dimension d of the data.

    Raises:
        UsageError: It is nothing of the kind.
    """
    if isinstance(found, base.Flow):
        return found
    for taken_apart in (of_normflows, of_zuko, of_torch):
        parts = taken_apart(found)
        if parts is not None:
            return Flow(*parts)

    steps = list(found) if isinstance(found, (list, tuple, nn.ModuleList)) else [found]
    return Flow(chained(steps), StandardNormal([features]))


def of_normflows(found: Any) -> Parts | None:
    """The parts of a normflows `NormalizingFlow`."""
    host = sys.modules.get("normflows")
    if host is None or not isinstance(found, host.NormalizingFlow):
        return None
    return chained(found.flows), NormflowsBase(found.q0)


def of_zuko(found: Any) -> Parts | None:
    """The parts of a zuko `Flow`."""
    host = sys.modules.get("zuko")
    if host is None or not isinstance(found, host.lazy.Flow):
        return None
    return to_one(found.transform), ZukoBase(found.base)


def of_torch(found: Any) -> Parts | None:
    """The parts of what has `base_dist` and `transforms`, such as a `TransformedDistribution`."""
    if not (hasattr(found, "base_dist") and hasattr(found, "transforms")):
        return None
    known = isinstance(found, nn.Module)
    return chained(found.transforms), OwnedBase(found) if known else TorchBase(found.base_dist)


def chained(steps: Sequence[Any]) -> Transform:
    """Transforms in the order of their host, as one from data to noise."""
    if not len(steps):
        raise UsageError(f"there is no transform in it: return {ALLOWED}.")
    transforms = [to_one(step) for step in steps]
    if from_data(steps):
        return CompositeTransform(transforms)
    return CompositeTransform(transforms[::-1])


def from_data(steps: Sequence[Any]) -> bool:
    """Whether the hosts of these transforms begin a list at the data.

    Raises:
        UsageError: Some do and some do not.
    """
    sides = {isinstance(step, (Transform, Layer)) or is_lazy(step) for step in steps}
    if len(sides) > 1:
        raise UsageError(
            "its transforms are of hosts that begin at the data and of hosts that begin at the "
            "noise: bring them into one host with iresnet_flows.bridge."
        )
    return sides.pop()


def is_lazy(step: Any) -> bool:
    host = sys.modules.get("zuko")
    return host is not None and isinstance(step, host.lazy.LazyTransform)


def to_one(step: Any) -> Transform:
    if isinstance(step, Transform):
        return step
    try:
        transform = to_nflows(step)
    except TypeError as error:
        raise UsageError(f"it is a {type(step).__name__}: return {ALLOWED}.") from error
    if isinstance(step, distributions.Transform):
        return PyroTransform(transform.layer, transform.explicit)
    return transform


class PyroTransform(LayerTransform):
    """A transform of Pyro, whose inverses may begin with zeros of torch's default dtype."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with default_dtype(inputs.dtype):
            return super().forward(inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with default_dtype(inputs.dtype):
            return super().inverse(inputs, context)

    def transform(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        with default_dtype(inputs.dtype):
            return super().transform(inputs, context)

    def invert(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        with default_dtype(inputs.dtype):
            return super().invert(inputs, context)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
