"""Residual blocks between nflows' own layers: compositions, scales and contexts."""

from functools import partial

import pytest
import torch
from torch import nn

pytest.importorskip("nflows")

from cases import hostile
from hosts import (
    assert_has_gradients_of,
    both_modes,
    dense_logabsdet,
    make_block,
    make_image_block,
    points,
)
from nflows.nn.nets import ResidualNet
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.base import (
    CompositeTransform,
    InverseTransform,
    MultiscaleCompositeTransform,
)
from nflows.transforms.conv import OneByOneConvolution
from nflows.transforms.coupling import (
    AffineCouplingTransform,
    PiecewiseRationalQuadraticCouplingTransform,
)
from nflows.transforms.lu import LULinear
from nflows.transforms.normalization import ActNorm
from nflows.transforms.permutations import ReversePermutation
from nflows.transforms.reshape import SqueezeTransform

from iresnet_flows.nflows import Flow, InvertibleResidualTransform, StandardNormal

# nflows' LULinear still calls it.
pytestmark = pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")

FEATURES = 4
MASK = torch.tensor([1.0, -1.0, 1.0, -1.0])


def net(*features, context=None):
    return ResidualNet(*features, hidden_features=8, num_blocks=1, context_features=context)


def spline(context=None):
    return PiecewiseRationalQuadraticCouplingTransform(
        MASK, partial(net, context=context), num_bins=4, tails="linear", tail_bound=5.0
    )


THEIRS = {
    "ActNorm": lambda: ActNorm(FEATURES),
    "LULinear": lambda: LULinear(FEATURES),
    "ReversePermutation": lambda: ReversePermutation(FEATURES),
    "affine coupling": lambda: AffineCouplingTransform(MASK, net),
    "spline coupling": spline,
    "masked autoregression": lambda: MaskedAffineAutoregressiveTransform(FEATURES, 8),
    "inverted coupling": lambda: InverseTransform(AffineCouplingTransform(MASK, net)),
}
STACKS = {
    **{name: (make,) for name, make in THEIRS.items()},
    "all of them": tuple(THEIRS.values()),
}
each_stack = pytest.mark.parametrize("makers", STACKS.values(), ids=STACKS)


def trained(transform, x):
    """In float64, after the first batch of ActNorm and a random step of every parameter."""
    transform.double()
    with torch.no_grad():
        transform(x)
        return hostile(transform, 0.1)


def make_stack(makers, x):
    parts = [InvertibleResidualTransform(make_block(FEATURES))]
    for make in makers:
        parts += [make(), InvertibleResidualTransform(make_block(FEATURES), "inverse")]
    return trained(CompositeTransform(parts), x)


def assert_inverts(transform, x):
    """Back and forth, with log-dets of shape (B,) that cancel."""
    y, logabsdet = transform(x)
    restored, minus_logabsdet = transform.inverse(y)
    assert logabsdet.shape == minus_logabsdet.shape == (len(x),)
    assert logabsdet.abs().max() > 0.1
    torch.testing.assert_close(restored, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(minus_logabsdet, -logabsdet, rtol=0, atol=1e-8)


@each_stack
def test_a_composition_has_the_log_det_of_its_dense_jacobian(makers):
    x = points(5, FEATURES)
    transform = make_stack(makers, x)
    for side in (transform, transform.inverse):
        logabsdet = side(x)[1]
        assert logabsdet.shape == (5,)
        truth = dense_logabsdet(lambda x, side=side: side(x)[0], x)
        torch.testing.assert_close(logabsdet, truth, rtol=0, atol=1e-8)
    assert_inverts(transform, x)
    assert_inverts(InverseTransform(transform), x)


@both_modes
def test_gradients_of_a_composition_are_those_of_the_dense_truth(training):
    x = points(5, FEATURES).requires_grad_()
    makers = [THEIRS[name] for name in ("ActNorm", "LULinear", "affine coupling")]
    transform = make_stack(makers, x).train(training)
    flow = Flow(transform, StandardNormal([FEATURES]))
    truth = flow._distribution.log_prob(flow.transform_to_noise(x))
    truth = truth + dense_logabsdet(flow.transform_to_noise, x)
    assert_has_gradients_of(flow.log_prob(x), truth, [x, *transform.parameters()])


def test_one_row_passes_through_a_composition():
    transform = make_stack(STACKS["all of them"], points(5, FEATURES))
    assert_inverts(transform, points(1, FEATURES))


@pytest.mark.parametrize("explicit", ["forward", "inverse"])
def test_every_layer_of_a_composition_takes_the_embedded_context(explicit):
    def ours():
        return InvertibleResidualTransform(make_block(FEATURES, context_features=3), explicit)

    parts = [
        ours(),
        ActNorm(FEATURES),
        LULinear(FEATURES),
        MaskedAffineAutoregressiveTransform(FEATURES, 8, context_features=3),
        spline(context=3),
        ours(),
    ]
    flow = Flow(CompositeTransform(parts), StandardNormal([FEATURES]), nn.Linear(7, 3)).double()
    x, context = points(5, FEATURES), points(5, 7).requires_grad_()
    with torch.no_grad():
        flow.log_prob(x, context)
    hostile(flow, 0.1)

    noise = flow.transform_to_noise(x, context)
    truth = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(-1)
    truth = truth + dense_logabsdet(lambda x: flow.transform_to_noise(x, context), x)
    log_prob = flow.log_prob(x, context)
    torch.testing.assert_close(log_prob, truth, rtol=0, atol=1e-8)
    assert_has_gradients_of(log_prob, truth, [context, flow._embedding_net.weight])

    samples, scores = flow.sample_and_log_prob(6, context)
    rows = context.repeat_interleave(6, 0)
    again = flow.log_prob(samples.flatten(0, 1), rows)
    torch.testing.assert_close(scores.flatten(), again, rtol=0, atol=1e-8)


def make_scales(x, explicit="forward"):
    """Squeezed images whose half leaves after the first of two scales."""

    def scale(channels, *more):
        block = make_image_block(channels)
        parts = [
            ActNorm(channels),
            OneByOneConvolution(channels),
            InvertibleResidualTransform(block, explicit),
        ]
        return CompositeTransform([*more, *parts])

    transform = MultiscaleCompositeTransform(2)
    shape = transform.add_transform(scale(4, SqueezeTransform()), (4, 2, 2))
    assert transform.add_transform(scale(2), shape) is None
    return trained(transform, x)


@pytest.mark.parametrize("explicit", ["forward", "inverse"])
def test_images_pass_through_scales(explicit):
    x = points(5, 1, 4, 4)
    transform = make_scales(x, explicit)
    y, logabsdet = transform(x)
    assert y.shape == (5, 16)
    truth = dense_logabsdet(lambda x: transform(x)[0], x)
    torch.testing.assert_close(logabsdet, truth, rtol=0, atol=1e-8)
    assert_inverts(transform, x)


def test_images_have_samples_and_scores():
    flow = Flow(make_scales(points(5, 1, 4, 4)), StandardNormal([16])).double()
    samples, log_prob = flow.sample_and_log_prob(3)
    assert samples.shape == flow.sample(3).shape == (3, 1, 4, 4)
    torch.testing.assert_close(flow.log_prob(samples), log_prob, rtol=0, atol=1e-8)
