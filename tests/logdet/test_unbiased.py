"""No bias in value and gradient, for every branch and block, with weights that are not alike."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from attacks import squeezed

from iresnet_flows import (
    CayleyBlock,
    Exact,
    InvertibleResidualBlock,
    PowerSeries,
    RussianRoulette,
)

pytestmark = pytest.mark.numerics

WEIGHTS = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
SIGMAS = 4.5

BLOCKS = {
    name: (name, InvertibleResidualBlock)
    for name in (
        "mlp, one hidden layer",
        "mlp, tanh",
        "mlp, three hidden layers",
        "mlp, context",
        "dense",
        "dense, context",
        "convolutions",
        "convolutions, context",
    )
} | {
    "cayley": ("mlp, tanh", CayleyBlock),
    "cayley, dense": ("dense", CayleyBlock),
}

ESTIMATORS = {
    "series": PowerSeries(terms=100, probes=5),
    "roulette": RussianRoulette(probes=100),
    "roulette, early": RussianRoulette(1, probes=20),
}

each_block = pytest.mark.parametrize(("name", "kind"), BLOCKS.values(), ids=BLOCKS)
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


def build(name, kind):
    """The block with the lowest log-det that was found, near to where that is."""
    torch.manual_seed(3)
    g, x, context = squeezed(name)
    x, context = x[:3] + 0.2 * torch.randn_like(x[:3]), None if context is None else context[:3]
    if kind is CayleyBlock:  # g is taken at w
        x = (x + g(x, context)) / math.sqrt(2)
    return kind(copy.deepcopy(g).requires_grad_(), Exact()), x, context


def measure(block, x, context):
    """The value, and the gradient of a weighted sum in x and all parameters, in one vector."""
    x = x.detach().requires_grad_()
    value = block.log_abs_det(x, context).value
    gradient = torch.autograd.grad(
        WEIGHTS @ value, [x, *block.parameters()], materialize_grads=True
    )
    return torch.cat([value.detach(), *(part.flatten() for part in gradient)])


@each_block
@each_estimator
def test_value_and_gradient_have_no_bias(name, kind, estimator):
    block, x, context = build(name, kind)
    truth = measure(block, x, context)
    block.log_det = estimator
    draws = torch.stack([measure(block, x, context) for _ in range(100)])
    standard_error = draws.std(0) / math.sqrt(len(draws))
    left_out = 0 if isinstance(estimator, RussianRoulette) else 1e-4
    assert ((draws.mean(0) - truth).abs() <= SIGMAS * standard_error + left_out).all()
    # The test can tell: the noise is small beside what is measured.
    assert standard_error[:3].norm() < 0.1 * truth[:3].norm()
    assert standard_error[3:].norm() < 0.5 * truth[3:].norm()


@each_block
def test_a_short_series_has_the_value_and_gradient_of_the_sum_of_as_many_terms(name, kind):
    """The bias is that of the truncation, and the same in the value and in its gradient."""
    terms = 3
    block, x, context = build(name, kind)

    class Cut(Exact):
        def attach(self, draw, jacobian):
            dense = jacobian.dense()
            power, total = dense, 0.0
            for k in range(1, terms + 1):
                total = total + draw.factor(k) / k * power.diagonal(dim1=1, dim2=2).sum(1)
                power = power @ dense
            zero = torch.zeros_like(total)
            return super().attach(draw, jacobian)._replace(value=total, bias_bound=zero)

    whole = measure(block, x, context)
    block.log_det = Cut()
    truth = measure(block, x, context)
    block.log_det = PowerSeries(terms=terms, probes=50)
    draws = torch.stack([measure(block, x, context) for _ in range(100)])
    standard_error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - truth).abs() <= SIGMAS * standard_error + 1e-12).all()
    assert (block.log_abs_det(x, context).bias_bound >= (truth - whole)[:3].abs() - 1e-12).all()
    assert (truth - whole).abs().max() > 1e-3
