"""The six properties of the paper's Table 1, measured on a trained flow."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from nflows.flows.base import Flow
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor, nn

from iresnet_flows.blocks.branched import BranchedLayer
from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.experiments.comparison.results import PROPERTIES
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.inverse import FixedPoint
from iresnet_flows.logdet import Exact, RussianRoulette
from iresnet_flows.nflows import LayerTransform, value_of

__all__ = ["Found", "along", "elementary_layers", "jacobian", "measure", "points_of"]

MOVED = 1e-9
RESTORED = 1e-8
AGREES = 1e-6
CALLS = 32
ROWS = 16
PROBES = 64


@dataclass
class Found:
    """Each property, None where it does not apply, and what was measured to tell."""

    properties: dict[str, bool | None] = field(default_factory=lambda: dict.fromkeys(PROPERTIES))
    evidence: dict[str, float | int | None] = field(default_factory=dict)


def measure(flow: Flow, z: Tensor, density: bool = True) -> Found:
    """Probe a trained flow at rows z of model space, with shape (B, d), in float64.

    * ``free_form``: some elementary layer's Jacobian depends on the input in more than half of
      its off-diagonal entries (a coupling's in a quarter, an autoregressive one's in half).
    * ``analytic_forward``, ``analytic_inverse``: the values do not move when the tolerances of
      all solvers inside are loosened, and the inverse is right to rounding.
    * ``non_volume_preserving``: the log-det differs between inputs.
    * ``exact_likelihood``: the log-likelihood has no noise, does not move with the tolerances,
      and agrees with the dense Jacobian's determinant.
    * ``unbiased_log_det``: each layer that has a stochastic estimator of its log-det averages to
      the dense truth within four standard errors, and states no bias bound.

    Arguments:
        flow: The flow.
        z: The rows.
        density: False for a map that need not be invertible, of which the first two are asked.
    """
    flow = copy.deepcopy(flow).double().eval()
    points = points_of(z.double())
    stack = list(along(flow, points))
    dense = [jacobian(layer, x) for layer, x in stack]

    found = Found()
    shares = [varying_share(j) for j in dense]
    if points.shape[-1] > 1:
        found.properties["free_form"] = max(shares) > 0.5
    found.evidence["varying_share_of_jacobian"] = max(shares)

    with torch.no_grad():
        measure_solvers(flow, z.double(), found, density)
        if density:
            measure_likelihood(flow, points, dense, found)
            measure_estimators(stack, dense, found)
    return found


def points_of(z: Tensor) -> Tensor:
    """The rows whose Jacobians are written out: the fewer, the larger."""
    return z[: 8 if z.shape[-1] <= 128 else 2]


def measure_solvers(flow: Flow, z: Tensor, found: Found, density: bool) -> None:
    noise = value_of(flow._transform, z, None)
    with loosened(flow) as count:
        moved_noise = distance(value_of(flow._transform, z, None), noise)
    found.properties["analytic_forward"] = moved_noise <= MOVED
    found.evidence |= {"solvers_loosened": count, "forward_moved_by": moved_noise}
    if not density:
        return

    restored = value_of(flow._transform, noise, None, inverse=True)
    with loosened(flow):
        moved_data = distance(value_of(flow._transform, noise, None, inverse=True), restored)
    error = distance(restored, z)
    _, logabsdet = flow._transform(z)
    found.properties["analytic_inverse"] = moved_data <= MOVED and error <= RESTORED
    found.evidence |= {"inverse_moved_by": moved_data, "inverse_error_float64": error}
    spread = float(logabsdet.std())
    found.properties["non_volume_preserving"] = spread > MOVED * (1 + float(logabsdet.abs().max()))
    found.evidence["log_det_std_over_inputs"] = spread


def measure_likelihood(flow: Flow, points: Tensor, dense: list[Tensor], found: Found) -> None:
    log_prob = flow.log_prob(points)
    noise = distance(flow.log_prob(points), log_prob)
    with loosened(flow):
        moved = distance(flow.log_prob(points), log_prob)

    truth = torch.stack([torch.linalg.slogdet(j).logabsdet for j in dense]).sum(0)
    error = distance(flow._transform(points)[1], truth)
    found.properties["exact_likelihood"] = noise == 0 and moved <= MOVED and error <= AGREES
    found.evidence |= {
        "log_prob_noise": noise,
        "log_prob_moved_by": moved,
        "log_det_error_to_dense": error,
    }


def measure_estimators(
    stack: list[tuple[Transform, Tensor]], dense: list[Tensor], found: Found
) -> None:
    """Whether the mean over the points is right in each layer.

    One number says it of all, or there would be as many chances to find a fault that is none.
    """
    worst, largest, stated = 0.0, 0.0, 0.0
    count = 0
    for (transform, x), j in zip(stack, dense, strict=True):
        drawn = draws(transform, x)
        if drawn is None:
            continue
        count += 1
        values, bias_bound = drawn
        errors = (values - torch.linalg.slogdet(j).logabsdet).mean(1)
        error, standard_error = float(errors.mean().abs()), float(errors.std()) / math.sqrt(CALLS)
        worst = max(worst, error / max(standard_error, 1e-12))
        largest, stated = max(largest, error), max(stated, bias_bound)

    if count:
        found.properties["unbiased_log_det"] = worst <= 4 and stated == 0
        found.evidence |= {
            "estimator_calls": CALLS,
            "estimator_error": largest,
            "estimator_error_in_standard_errors": worst,
            "estimator_bias_bound": stated,
        }


def draws(transform: Transform, x: Tensor) -> tuple[Tensor, float] | None:
    """A layer's stochastic log-det at each point, (CALLS, B), and the bias that it states.

    None where the log-det is not stochastic. Calls are what is independent, for a library may draw
    once for a batch; each is the mean of some rows, or of probes with a length of their own.
    """

    def called() -> Tensor:
        calls = [transform(x.repeat(ROWS, 1))[1].unflatten(0, (ROWS, -1)) for _ in range(CALLS)]
        return torch.stack(calls).mean(1)

    layer = transform.layer if isinstance(transform, LayerTransform) else None
    with seeded():
        if isinstance(layer, InvertibleResidualBlock):
            # Where training and scoring are exact here, it is the estimator of training elsewhere.
            own = layer.estimator(layer.branch.at().linearize(x)[1])
            estimator = RussianRoulette(probes=PROBES) if isinstance(own, Exact) else own
            with swapped(layer, "log_det", estimator):
                estimates = [layer.log_abs_det(x) for _ in range(CALLS)]
            values = torch.stack([estimate.value for estimate in estimates])
            return values, float(estimates[0].bias_bound.max())
        if isinstance(layer, FFJORD):
            with swapped(layer, "trace", "hutchinson"):
                return called(), 0.0
        if torch.equal(transform(x)[1], transform(x)[1]):
            return None
        return called(), 0.0


@contextmanager
def swapped(thing: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute with another value for a while."""
    before = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, before)


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
            x = value_of(layer, x, None)


def jacobian(layer: Transform, x: Tensor) -> Tensor:
    """Dense Jacobians (B, d, d) of a layer that treats each sample alone, in one backward pass.

    Each point stands in the batch d times, and its i-th copy is asked for row i.
    """
    copies = x.repeat_interleave(x.shape[-1], dim=0).requires_grad_()
    with torch.enable_grad():
        y = value_of(layer, copies, None)
        if not y.requires_grad:
            return torch.eye(x.shape[-1], dtype=x.dtype).expand(len(x), -1, -1)
        asked = y.unflatten(0, x.shape).diagonal(dim1=1, dim2=2).sum()
        (rows,) = torch.autograd.grad(asked, copies)
    return rows.unflatten(0, x.shape)


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
    """All solvers in the flow with coarse tolerances; gives their number.

    Known are those of our blocks, and of any module with the attributes ``atol`` and ``rtol``.
    """
    with ExitStack() as undo:
        count = 0
        for module in flow.modules():
            if isinstance(module, BranchedLayer):
                undo.enter_context(swapped(module, "solver", FixedPoint(atol=0.1, rtol=0.0)))
            elif is_tolerant(module):
                undo.enter_context(swapped(module, "atol", 1e-2))
                undo.enter_context(swapped(module, "rtol", 1e-2))
            else:
                continue
            count += 1
        yield count


def is_tolerant(module: nn.Module) -> bool:
    return all(isinstance(getattr(module, name, None), float) for name in ("atol", "rtol"))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
