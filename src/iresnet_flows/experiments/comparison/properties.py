"""The six properties of the paper's Table 1, measured on a trained flow."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from nflows.flows.base import Flow
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor

from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.inverse import FixedPoint
from iresnet_flows.logdet import LogDet, RussianRoulette

__all__ = ["Properties", "elementary_layers", "measure"]

MOVED = 1e-9
POINTS = 8
DRAWS = 500


@dataclass
class Properties:
    """Each property, None where it does not apply, and what was measured to tell."""

    free_form: bool | None = None
    analytic_forward: bool | None = None
    analytic_inverse: bool | None = None
    non_volume_preserving: bool | None = None
    exact_likelihood: bool | None = None
    unbiased_log_det: bool | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


def measure(flow: Flow, z: Tensor) -> Properties:
    """Probe a trained flow at rows z of model space, with shape (B, d), in float64.

    * ``free_form``: some elementary layer's Jacobian depends on the input in more than half of
      its off-diagonal entries (a coupling's in a quarter, an autoregressive one's in half).
    * ``analytic_forward``, ``analytic_inverse``: the values do not move when the tolerances of
      all solvers inside are loosened.
    * ``non_volume_preserving``: the log-det differs between inputs.
    * ``exact_likelihood``: the log-likelihood has no noise, does not move with the tolerances,
      and agrees with the dense Jacobian's determinant.
    * ``unbiased_log_det``: each layer that has a stochastic estimator of its log-det averages to
      the dense truth within four standard errors, and states no bias bound.
    """
    flow = copy.deepcopy(flow).double().eval()
    points = z[:POINTS].double()
    stack = list(along(flow, points))
    dense = [jacobian(layer, x) for layer, x in stack]

    found = Properties()
    shares = [varying_share(j) for j in dense]
    if points.shape[-1] > 1:
        found.free_form = max(shares) > 0.5
    found.evidence["varying_share_of_jacobian"] = max(shares)

    with torch.no_grad():
        measure_solvers(flow, z.double(), found)
        measure_likelihood(flow, points, dense, found)
        measure_estimators(stack, dense, found)
    return found


def measure_solvers(flow: Flow, z: Tensor, found: Properties) -> None:
    noise, logabsdet = flow._transform(z)
    restored, _ = flow._transform.inverse(noise)
    with loosened(flow) as count:
        moved_noise = distance(flow._transform(z)[0], noise)
        moved_data = distance(flow._transform.inverse(noise)[0], restored)

    found.analytic_forward = moved_noise <= MOVED
    found.analytic_inverse = moved_data <= MOVED
    found.non_volume_preserving = float(logabsdet.std()) > MOVED * (
        1 + float(logabsdet.abs().max())
    )
    found.evidence |= {
        "solvers_loosened": count,
        "forward_moved_by": moved_noise,
        "inverse_moved_by": moved_data,
        "log_det_std_over_inputs": float(logabsdet.std()),
    }


def measure_likelihood(flow: Flow, points: Tensor, dense: list[Tensor], found: Properties) -> None:
    log_prob = flow.log_prob(points)
    noise = distance(flow.log_prob(points), log_prob)
    with loosened(flow):
        moved = distance(flow.log_prob(points), log_prob)

    truth = torch.stack([torch.linalg.slogdet(j).logabsdet for j in dense]).sum(0)
    error = distance(flow._transform(points)[1], truth)
    found.exact_likelihood = noise == 0 and moved <= MOVED and error <= 1e-6
    found.evidence |= {
        "log_prob_noise": noise,
        "log_prob_moved_by": moved,
        "log_det_error_to_dense": error,
    }


def measure_estimators(
    stack: list[tuple[Transform, Tensor]], dense: list[Tensor], found: Properties
) -> None:
    worst, largest_bias, stated = 0.0, 0.0, 0.0
    count = 0
    for (transform, x), j in zip(stack, dense, strict=True):
        layer = getattr(transform, "layer", None)
        if not isinstance(layer, InvertibleResidualBlock | FFJORD):
            continue
        count += 1
        estimate = estimates(layer, x)
        truth = torch.linalg.slogdet(j).logabsdet
        error = (estimate.value - truth).abs()
        sigmas = error / estimate.standard_error.clamp_min(1e-12)
        worst = max(worst, float(sigmas.max()))
        largest_bias = max(largest_bias, float(error.max()))
        stated = max(stated, float(estimate.bias_bound.max()))

    if count:
        found.unbiased_log_det = worst <= 4 and stated == 0
        found.evidence |= {
            "estimator_draws": DRAWS,
            "estimator_error": largest_bias,
            "estimator_error_in_standard_errors": worst,
            "estimator_bias_bound": stated,
        }


def estimates(layer: InvertibleResidualBlock | FFJORD, x: Tensor) -> LogDet:
    """The mean of many draws of a layer's stochastic log-det at each point."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(layer, InvertibleResidualBlock):
        roulette = RussianRoulette(probes=DRAWS, generator=generator)
        estimator, layer.log_det = layer.log_det, roulette
        estimate = layer.log_abs_det(x)
        layer.log_det = estimator
        return estimate

    trace, layer.trace, layer.generator = layer.trace, "hutchinson", generator
    _, logabsdet = layer(x.repeat(DRAWS, 1))
    layer.trace, layer.generator = trace, None
    draws = logabsdet.unflatten(0, (DRAWS, len(x)))
    return LogDet(draws.mean(0), draws.std(0) / math.sqrt(DRAWS), torch.zeros_like(draws[0]))


def elementary_layers(transform: Transform) -> Iterator[Transform]:
    """The layers of a transform, compositions taken apart."""
    if isinstance(transform, CompositeTransform):
        for part in transform._transforms:
            yield from elementary_layers(part)
    else:
        yield transform


def along(flow: Flow, x: Tensor) -> Iterator[tuple[Transform, Tensor]]:
    """Each elementary layer with the points that reach it."""
    for layer in elementary_layers(flow._transform):
        yield layer, x
        with torch.no_grad():
            x, _ = layer(x)


def jacobian(layer: Transform, x: Tensor) -> Tensor:
    """Dense Jacobians (B, d, d), one backward pass a row."""
    x = x.clone().requires_grad_()
    y, _ = layer(x)
    if not y.requires_grad:
        return torch.eye(x.shape[-1], dtype=x.dtype).expand(len(x), -1, -1)
    rows = [
        torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(y.shape[-1])
    ]
    return torch.stack(rows, dim=1)


def varying_share(j: Tensor) -> float:
    """The share of off-diagonal entries that differ between the points."""
    d = j.shape[-1]
    if d == 1:
        return 0.0
    spread = j.amax(0) - j.amin(0)
    varying = spread > 1e-9 * j.abs().max()
    varying.fill_diagonal_(False)
    return float(varying.sum()) / (d * (d - 1))


@contextmanager
def loosened(flow: Flow) -> Iterator[int]:
    """All solvers in the flow with coarse tolerances; gives their number."""
    undo: list[tuple[Any, str, Any]] = []
    for module in flow.modules():
        if isinstance(module, InvertibleResidualBlock):
            undo.append((module, "solver", module.solver))
            module.solver = FixedPoint(atol=0.1, rtol=0.0)
        elif isinstance(module, FFJORD):
            undo += [(module, name, getattr(module, name)) for name in ("atol", "rtol")]
            module.atol = module.rtol = 1e-2
    try:
        yield len({id(module) for module, _, _ in undo})
    finally:
        for module, name, value in undo:
            setattr(module, name, value)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
