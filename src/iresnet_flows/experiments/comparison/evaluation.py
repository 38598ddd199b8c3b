"""The test rows, read once, and what a report draws of a trained flow."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from nflows.flows.base import Flow
from torch import Tensor

from iresnet_flows.experiments.averages import standard_error
from iresnet_flows.experiments.budgets import Diverged
from iresnet_flows.experiments.comparison.contenders import Contender
from iresnet_flows.experiments.comparison.results import Data, Result
from iresnet_flows.experiments.comparison.training import prepared
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.nflows import value_of

__all__ = ["in_parts", "restored", "score", "show"]

PART = 1024
CLOUD = 2000
SHOWN = 24
INVERTED = 1000
GRID = 160


def score(result: Result, flow: Flow, dataset: Dataset) -> None:
    """Read the test rows, once, and write their nats into the result.

    Raises:
        Diverged: The test loss is no number.
    """
    z = prepared(dataset, dataset.test)
    with torch.no_grad():
        found = -in_parts(flow.log_prob, z).double() + dataset.log_scale
    result.arrays["rows"] = found.numpy()
    rows = found.tolist()
    result.nats = math.fsum(rows) / len(rows)
    if not math.isfinite(result.nats):
        raise Diverged(f"the test loss is {result.nats}")
    result.row_standard_error = standard_error(rows)
    result.bits_per_dim = dataset.bits_per_dim(result.nats)


def show(result: Result, who: Contender, flow: Flow, dataset: Dataset) -> None:
    """Invert some test rows, draw samples and the density, and write all into the result."""
    count = CLOUD if result.data.side is None else SHOWN
    result.arrays["truth"] = dataset.test[:count].numpy()
    with torch.no_grad():
        errors = restored(flow, prepared(dataset, dataset.test)[:INVERTED])
        result.probes["inverse_error"] = None if errors is None else float(errors.max())
        if errors is not None:
            result.arrays["errors"] = errors.numpy()
            lost = int(errors.isinf().sum())
            if lost and who.density:
                result.note(f"its inverse is no number on {lost} of {len(errors)} test rows")
        elif who.density:
            result.note("its inverse raised an exception on test rows")
        if who.density and dataset.features == 2:
            result.arrays["density"] = density(flow, dataset, result.data).numpy()
        if who.density:
            result.arrays["samples"] = dataset.restore(flow.sample(count)).numpy()


def restored(flow: Flow, z: Tensor) -> Tensor | None:
    """The largest error of inverse(forward(z)) in each row, or None where the inverse fails."""
    transform = flow._transform
    try:
        noise = in_parts(lambda part: value_of(transform, part, None), z)
        back = in_parts(lambda part: value_of(transform, part, None, inverse=True), noise)
    except Exception:  # noqa: BLE001  libraries have their own for what has no inverse
        return None
    return (back - z).abs().amax(-1).nan_to_num(nan=math.inf)


def density(flow: Flow, dataset: Dataset, data: Data) -> Tensor:
    """The density over the extent of two columns, (G, G)."""
    left, right, bottom, top = data.extent
    x = torch.linspace(left, right, GRID, dtype=torch.float64)
    y = torch.linspace(bottom, top, GRID, dtype=torch.float64)
    z = dataset.standardised(torch.cartesian_prod(x, y))  # without noise, on whole numbers too
    return (in_parts(flow.log_prob, z).double() - dataset.log_scale).exp().reshape(GRID, GRID)


def in_parts(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The function of rows, some at a time."""
    return torch.cat([function(part) for part in z.split(PART)])
