"""What Pyro asks of its own transforms, of ours: Jacobians, inverses, shapes and training."""

import math

import pytest
import torch

pytest.importorskip("pyro")

import pyro.distributions as dist
from cases import hostile
from pyro.distributions.transforms import ComposeTransformModule, iterated
from pyro_cases import TIGHT, both_sides, make_conditional, make_transform, normal, points

from iresnet_flows import CayleyBlock, Exact, InvertibleResidualBlock, LipschitzConvNet
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.pyro import (
    ConditionalInvertibleResidual,
    ConditionalLayerTransformModule,
    InvertibleResidual,
    LayerTransformModule,
    invertible_residual,
)

IMAGE = (1, 2, 3)


def convolutions(**kwargs):
    branch = LipschitzConvNet(1, (4, 4), **kwargs)
    return InvertibleResidualBlock(hostile(branch.double()), Exact(), TIGHT)


def image(explicit):
    return InvertibleResidual(convolutions(), explicit, event_dim=3)


def conditional_image(explicit):
    block = convolutions(context_features=2)
    return ConditionalInvertibleResidual(block, explicit, event_dim=3).condition(points(2))


def cayley(explicit):
    branch = make_conditional().block.branch
    layer = CayleyBlock(branch, solver=TIGHT)
    return ConditionalLayerTransformModule(layer, explicit).condition(points(3))


def affine(explicit):
    return LayerTransformModule(hostile(ElementwiseAffine(5).double()), explicit)


def stack(explicit):
    kwargs = {"explicit": explicit, "solver": TIGHT}
    return hostile(iterated(3, invertible_residual, 2, [8, 8], **kwargs).double())


def mixed(explicit):
    other = "inverse" if explicit == "forward" else "forward"
    return ComposeTransformModule([make_transform(explicit), make_transform(other)], cache_size=1)


CASES = {
    "d = 1": (lambda explicit: make_transform(explicit, 1), (1,)),
    "d = 2": (make_transform, (2,)),
    "d = 5": (lambda explicit: make_transform(explicit, 5), (5,)),
    "conditioned": (lambda explicit: make_conditional(explicit).condition(points(3)), (2,)),
    "conditioned, d = 5": (lambda e: make_conditional(e, 5).condition(points(3)), (5,)),
    "image": (image, IMAGE),
    "conditioned image": (conditional_image, IMAGE),
    "cayley layer, conditioned": (cayley, (2,)),
    "affine layer": (affine, (5,)),
    "iterated": (stack, (2,)),
    "both sides in turn, cached": (mixed, (2,)),
}
cases = pytest.mark.parametrize(("make", "event"), CASES.values(), ids=CASES)


def event_normal(event):
    zero = torch.zeros(event, dtype=torch.float64)
    return dist.Normal(zero, torch.ones_like(zero)).to_event(len(event))


@cases
@both_sides
@pytest.mark.parametrize("inverse", [False, True], ids=["call", "inv"])
def test_the_log_det_is_that_of_finite_differences(make, event, explicit, inverse):
    transform = make(explicit).inv if inverse else make(explicit)
    x, step = points(*event), 1e-5
    y = transform(x)
    steps = step * torch.eye(math.prod(event), dtype=torch.float64).reshape(-1, *event)
    jacobian = (transform(x + steps) - transform(x - steps)).flatten(1) / (2 * step)
    numeric = torch.linalg.slogdet(jacobian).logabsdet
    ladj = transform.log_abs_det_jacobian(x, y)
    assert ladj.shape == ()
    assert abs(ladj.item()) > 1e-4
    assert (ladj - numeric).abs() < 1e-6


@cases
@both_sides
def test_the_inverse_returns_and_the_log_dets_cancel(make, event, explicit):
    transform, x = make(explicit), points(10, *event)
    y = transform(x)
    restored = transform.inv(y.clone())  # a clone is in no cache
    assert (restored - x).abs().max() < 1e-6
    ladj = transform.log_abs_det_jacobian(x, y)
    assert (transform.log_abs_det_jacobian(restored, y.clone()) - ladj).abs().max() < 1e-6
    assert (transform.inv.log_abs_det_jacobian(y, x) + ladj).abs().max() < 1e-6
    assert (transform(transform.inv(x.clone())) - x).abs().max() < 1e-6


@cases
@both_sides
@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (3, 1, 5)])
def test_samples_have_the_shape_of_the_base(make, event, explicit, shape):
    transform = make(explicit)
    flow = dist.TransformedDistribution(event_normal(event).expand(shape), [transform])
    assert flow.batch_shape == shape
    assert flow.event_shape == event
    sample = flow.sample()
    assert sample.shape == (*shape, *event)
    assert flow.log_prob(sample).shape == shape
    assert flow.rsample((2,)).shape == (2, *shape, *event)
    assert transform.forward_shape(sample.shape) == transform.inverse_shape(sample.shape)
    assert transform.event_dim == len(event)
    assert transform.domain.event_dim == transform.codomain.event_dim == len(event)


@both_sides
@pytest.mark.parametrize("inverse", [False, True], ids=["call", "inv"])
@pytest.mark.parametrize("name", ["d = 5", "image", "iterated"])
def test_both_directions_train(name, explicit, inverse):
    make, event = CASES[name]
    transform = make(explicit)
    flow = dist.TransformedDistribution(event_normal(event), [transform])
    if inverse:
        flow = dist.TransformedDistribution(event_normal(event), [transform.inv])
    optimiser = torch.optim.Adam(transform.parameters())
    x, losses = 2 * points(20, *event) + 1, []
    for _ in range(4):
        optimiser.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert [n for n, p in transform.named_parameters() if p.grad is None] == []


@both_sides
def test_events_of_more_dimensions_sum_the_log_dets_of_their_rows(explicit):
    transform, y = make_transform(explicit), points(7, 3, 2)
    base = dist.Normal(torch.zeros(3, 2).double(), 1.0).to_event(2)
    flow = dist.TransformedDistribution(base, [transform])
    assert flow.event_shape == (3, 2)
    rows = dist.TransformedDistribution(normal(), [transform]).log_prob(y)
    torch.testing.assert_close(flow.log_prob(y), rows.sum(-1))


@both_sides
def test_a_base_with_parameters_of_its_own_trains_beside_the_transform(explicit):
    transform, y = make_transform(explicit), points()
    loc = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    flow = dist.TransformedDistribution(dist.Normal(loc, 1.0), [transform])
    (gradient,) = torch.autograd.grad(flow.log_prob(y).sum(), loc)
    torch.testing.assert_close(gradient, transform.inv(y).sum(0))


@both_sides
def test_bounded_supports_come_from_transforms_behind_ours(explicit):
    transform, y = make_transform(explicit), points().sigmoid()
    squashed = [transform, dist.transforms.SigmoidTransform()]
    flow = dist.TransformedDistribution(normal(), squashed, validate_args=True)
    logits = y.logit()
    truth = dist.TransformedDistribution(normal(), [transform]).log_prob(logits)
    truth = truth - (y * (1 - y)).log().sum(-1)
    torch.testing.assert_close(flow.log_prob(y), truth)
    assert ((flow.sample((9,)) - 0.5).abs() < 0.5).all()
    with pytest.raises(ValueError, match="support"):
        flow.log_prob(y + 1)


@cases
@both_sides
def test_not_a_number_is_outside_the_support(make, event, explicit):
    flow = dist.TransformedDistribution(event_normal(event), [make(explicit)], validate_args=True)
    with pytest.raises(ValueError, match="support"):
        flow.log_prob(torch.full(event, torch.nan, dtype=torch.float64))


def test_transforms_are_equal_to_themselves_alone_and_can_be_keys():
    transform, twin = make_transform(), make_transform()
    assert transform == transform.inv.inv
    assert transform != twin
    assert transform.inv == transform.inv
    assert len({transform, twin, transform.inv, transform.inv}) == 3


def test_a_transform_says_which_side_is_explicit():
    transform = make_transform("inverse")
    assert repr(transform) == "InvertibleResidual(explicit='inverse')"
    assert repr(transform.inv) == "InvertibleResidual(explicit='forward')"
    assert repr(transform) in repr(ComposeTransformModule([transform]))


def test_copies_have_a_layer_of_their_own_to_be_replaced():
    transform = make_transform("forward")
    block, other = transform.block, convolutions()
    for twin in (transform.inv, transform.with_cache(0), transform.with_cache(1).inv):
        twin.block = other
        assert twin.block is other
    assert transform.block is block
