"""What users of a flow ask and the paper's Table 1 does not: errors, noise, bounds, arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from nflows.flows.base import Flow
from torch import Tensor

from iresnet_flows.blocks.branched import BranchedLayer
from iresnet_flows.experiments.comparison.contenders import Contender
from iresnet_flows.experiments.comparison.costs import evaluations
from iresnet_flows.experiments.comparison.evaluation import restored
from iresnet_flows.experiments.comparison.properties import along, jacobian, points_of
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.nflows import value_of

__all__ = ["probe", "takes_context"]

CALLS = 16
DRAWS = 32
DIRECTIONS = 4
STEP = 1e-5
CONTEXT = 3


def probe(flow: Flow, z: Tensor, density: bool = True) -> dict[str, Any]:
    """The probes of `PROBES` that a trained flow answers, at rows z of model space, (B, d).

    Arguments:
        flow: The flow, in eval mode.
        z: The rows.
        density: False for a map that need not be invertible, which has no likelihood to probe.
    """
    double = copy.deepcopy(flow).double().eval()
    rows = z.double()
    with torch.no_grad():
        errors = restored(double, rows)
    found: dict[str, Any] = {
        "inverse_error_64": None if errors is None else float(errors.max()),
        "lipschitz_bound": lipschitz_bound(flow),
    }
    if not density:
        return found

    points = points_of(rows)
    with seeded():
        found |= {
            "log_prob_noise": log_prob_noise(double, rows),
            "inverse_gradient_error": attempted(inverse_gradient_error, double, points),
            "weighted_gradient_error": attempted(weighted_gradient_error, double, points),
            **evaluations(flow, z),
        }
    return found


def takes_context(who: Contender, features: int, width: int) -> bool:
    """Whether the recipe also gives a density that depends on a context.

    It is asked of a flow with random weights, for at its start a flow may be the identity.
    """
    with seeded(), torch.no_grad():
        flow = who.conditional(features, width, CONTEXT)
        if flow is None:
            return False
        for p in flow.eval().parameters():
            p.add_(0.1 * torch.randn_like(p))
        x, context = torch.randn(8, features), torch.randn(8, CONTEXT)
        return not torch.allclose(flow.log_prob(x, context), flow.log_prob(x, -context))


def lipschitz_bound(flow: Flow) -> float | None:
    """The largest certified bound of the residual branches in the flow; None without one."""
    layers = [m for m in flow.modules() if isinstance(m, BranchedLayer)]
    with torch.no_grad():
        return max((float(layer.branch.lipschitz_bound()) for layer in layers), default=None)


def log_prob_noise(flow: Flow, z: Tensor) -> float:
    """The deviation of a row's log-likelihood over calls, in nats: root mean square over rows."""
    with torch.no_grad():
        calls = torch.stack([flow.log_prob(z) for _ in range(CALLS)])
    return float(calls.var(0).mean().sqrt())


def inverse_gradient_error(flow: Flow, x: Tensor) -> float:
    r"""How wrong the gradient through the inverse is, relative to the dense truth.

    With :math:`J` the Jacobian of data to noise, the gradient of :math:`c^T F^{-1}(u)` in u is
    :math:`J^{-T} c`.

    Raises:
        RuntimeError: The inverse has no gradient.
    """
    total = torch.eye(x.shape[-1], dtype=x.dtype).expand(len(x), -1, -1)
    for layer, points in along(flow, x):
        total = jacobian(layer, points) @ total
    c = torch.randn_like(x)
    truth = torch.linalg.solve(total.mT, c)

    with torch.no_grad():
        noise = value_of(flow._transform, x, None)
    noise.requires_grad_()
    back = value_of(flow._transform, noise, None, inverse=True)
    (gradient,) = torch.autograd.grad((c * back).sum(), noise)
    return float((gradient - truth).norm() / truth.norm())


def weighted_gradient_error(flow: Flow, x: Tensor) -> float:
    r"""How wrong training's gradient of a loss is that weighs its rows unequally.

    The loss is :math:`-\sum_i w_i \log p(x_i)` with weights from 0 to 1. Its derivatives along a
    few directions of the parameters, a mean over draws where they are random, are held against
    central differences of the loss with dense Jacobians; the result is relative to these.
    """
    weights = torch.linspace(0, 1, len(x), dtype=x.dtype)
    parameters = [p for p in flow.parameters() if p.requires_grad]
    directions = [[torch.randn_like(p) for p in parameters] for _ in range(DIRECTIONS)]

    drawn: list[Tensor] = []
    flow.train()
    while len(drawn) < DRAWS and not (len(drawn) == 2 and torch.equal(*drawn)):
        loss = -(weights * flow.log_prob(x)).sum()
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True)
        drawn.append(torch.stack([inner(gradient, d) for d in directions]))
    flow.eval()
    estimate = torch.stack(drawn).mean(0)

    truth = torch.stack([slope(flow, x, weights, parameters, d) for d in directions])
    return float((estimate - truth).norm() / truth.norm())


def inner(gradient: tuple[Tensor | None, ...], direction: list[Tensor]) -> Tensor:
    pairs = zip(gradient, direction, strict=True)
    return torch.stack([(g * d).sum() for g, d in pairs if g is not None]).sum()


def slope(
    flow: Flow, x: Tensor, weights: Tensor, parameters: list[Tensor], direction: list[Tensor]
) -> Tensor:
    """The derivative of the dense loss along a direction, by central differences."""
    values = []
    for side in (STEP, -2 * STEP):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(side * d)
        values.append((weights * dense_nats(flow, x)).sum())
    with torch.no_grad():
        for p, d in zip(parameters, direction, strict=True):
            p.add_(STEP * d)
    return (values[0] - values[1]) / (2 * STEP)


def dense_nats(flow: Flow, x: Tensor) -> Tensor:
    """-log p of each row, with the determinants of dense Jacobians."""
    stack = list(along(flow, x))
    dets = [torch.linalg.slogdet(jacobian(layer, points)).logabsdet for layer, points in stack]
    with torch.no_grad():
        noise = value_of(flow._transform, x, None)
        return -flow._distribution.log_prob(noise) - torch.stack(dets).sum(0)


def attempted(measure: Callable[[Flow, Tensor], float], flow: Flow, x: Tensor) -> float | None:
    """The measure, or None where the flow cannot do what it asks."""
    try:
        return measure(flow, x)
    except Exception:  # noqa: BLE001  libraries have their own for what they lack
        return None
