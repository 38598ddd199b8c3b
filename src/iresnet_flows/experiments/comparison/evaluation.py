"""The test rows, read once, and what a report draws of a trained flow."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from nflows.flows.base import Flow
from torch import Tensor

from iresnet_flows.experiments.budgets import Diverged
from iresnet_flows.experiments.comparison.contenders import Contender
from iresnet_flows.experiments.comparison.results import Result
from iresnet_flows.experiments.comparison.statistics import standard_error
from iresnet_flows.experiments.comparison.training import prepared
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.nflows import value_of

__all__ = ["in_parts", "restored", "test"]

PART = 1024
CLOUD = 2000
SHOWN = 24
INVERTED = 1000
GRID = 160


def test(result: Result, who: Contender, flow: Flow, dataset: Dataset) -> None:
    """Read the test rows, invert some of them, draw samples, and write all into the result.

    Raises:
        Diverged: The test loss is no number.
    """
    z = prepared(dataset, dataset.test)
    count = CLOUD if dataset.features <= 2 else SHOWN
    arrays: dict[str, Tensor] = {"truth": dataset.test[:count]}
    with torch.no_grad():
        if who.density:
            arrays["rows"] = -in_parts(flow.log_prob, z).double() + dataset.log_scale
            if dataset.features == 2:
                arrays["density"] = density(flow, dataset)
        errors = restored(flow, z[:INVERTED])
        if errors is not None:
            arrays["errors"] = errors
        if who.density:
            arrays["samples"] = dataset.restore(flow.sample(count))
    result.arrays = {name: value.numpy() for name, value in arrays.items()}
    result.probes["inverse_error"] = None if errors is None else float(errors.max())
    if not who.density:
        return

    rows = arrays["rows"].tolist()
    result.nats = math.fsum(rows) / len(rows)
    if not math.isfinite(result.nats):
        raise Diverged(f"the test loss is {result.nats}")
    result.row_standard_error = standard_error(rows)
    result.bits_per_dim = dataset.bits_per_dim(result.nats)


def restored(flow: Flow, z: Tensor) -> Tensor | None:
    """The largest error of inverse(forward(z)) in each row, or None where the inverse fails."""
    transform = flow._transform
    try:
        noise = in_parts(lambda part: value_of(transform, part, None), z)
        back = in_parts(lambda part: value_of(transform, part, None, inverse=True), noise)
    except (RuntimeError, ValueError):
        return None
    return (back - z).abs().amax(-1).nan_to_num(nan=math.inf)


def density(flow: Flow, dataset: Dataset) -> Tensor:
    """The density over the range of two columns, a tenth wider on each side, (G, G)."""
    low, high = dataset.train.aminmax(dim=0)
    margin = 0.1 * (high - low)
    x, y = (
        torch.linspace(float(a), float(b), GRID, dtype=torch.float64)
        for a, b in zip(low - margin, high + margin, strict=True)
    )
    z = dataset.prepare(torch.cartesian_prod(x, y))
    return (in_parts(flow.log_prob, z).double() - dataset.log_scale).exp().reshape(GRID, GRID)


def in_parts(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The function of rows, some at a time."""
    return torch.cat([function(part) for part in z.split(PART)])
