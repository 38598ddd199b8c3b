"""Residual blocks in normflows' other models, and beside its own layers."""

import math
from functools import partial

import pytest
import torch
from torch import nn

pytest.importorskip("normflows")

import normflows as nf
from cases import hostile
from hosts import (
    assert_has_gradients_of,
    dense_log_prob,
    dense_logabsdet,
    make_block,
    make_image_block,
    make_normflows,
    points,
)
from normflows.distributions.base import ConditionalDiagGaussian

from iresnet_flows import ClaimedBranch, InvertibleResidualBlock
from iresnet_flows.normflows import InvertibleResidual

# normflows' 1x1 convolution still calls it.
pytestmark = pytest.mark.filterwarnings("ignore:torch.lu is deprecated:UserWarning")

FEATURES = 4
MASK = torch.tensor([1.0, 0.0, 1.0, 0.0])

both_sides = pytest.mark.parametrize("explicit", ["inverse", "forward"])


def ours(explicit="inverse", context_features=None):
    return InvertibleResidual(make_block(FEATURES, context_features), explicit)


def net():
    return nf.nets.MLP([FEATURES, 8, FEATURES])


def coupling():
    return nf.flows.AffineCouplingBlock(nf.nets.MLP([FEATURES // 2, 8, FEATURES]))


THEIRS = {
    "ActNorm": lambda: nf.flows.ActNorm(FEATURES),
    "MaskedAffineFlow": lambda: nf.flows.MaskedAffineFlow(MASK, net(), net()),
    "AffineCouplingBlock": coupling,
    "LULinearPermute": lambda: nf.flows.LULinearPermute(FEATURES),
    "Permute": lambda: nf.flows.Permute(FEATURES),
    "spline coupling": lambda: nf.flows.CoupledRationalQuadraticSpline(FEATURES, 1, 8),
    "masked autoregression": lambda: nf.flows.MaskedAffineAutoregressive(FEATURES, 8),
    "reversed coupling": lambda: nf.flows.Reverse(coupling()),
    "reversed block": lambda: nf.flows.Reverse(ours()),
}
STACKS = {
    **{name: (make,) for name, make in THEIRS.items()},
    "all of them": tuple(THEIRS.values()),
}


def trained(model, *data):
    """In float64, after the first batch of ActNorm and a random step of every parameter."""
    model.double()
    with torch.no_grad():
        model.log_prob(*data)
        return hostile(model, 0.1)


def assert_scores_its_samples(model, *conditions, count=6):
    samples, log_q = model.sample(count, *conditions)
    assert log_q.shape == (count,)
    torch.testing.assert_close(model.log_prob(samples, *conditions), log_q, rtol=0, atol=1e-8)


@pytest.mark.parametrize("makers", STACKS.values(), ids=STACKS)
def test_between_their_layers_log_prob_is_that_of_the_dense_jacobian(makers):
    layers = [ours()]
    for make in makers:
        layers += [make(), ours("forward")]
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(FEATURES), layers)
    x = points(5, FEATURES)
    trained(flow, x)
    torch.testing.assert_close(flow.log_prob(x), dense_log_prob(flow, x), rtol=0, atol=1e-8)
    torch.testing.assert_close(flow.forward(flow.inverse(x)), x, rtol=0, atol=1e-8)
    assert_scores_its_samples(flow)


@both_sides
def test_reverse_of_one_side_is_the_other_side(explicit):
    block, x = make_block(), points()
    reversed_flow = nf.flows.Reverse(InvertibleResidual(block, explicit))
    other = InvertibleResidual(block, "forward" if explicit == "inverse" else "inverse")
    for theirs, expected in ((reversed_flow, other), (reversed_flow.inverse, other.inverse)):
        for result, truth in zip(theirs(x), expected(x)):
            assert torch.equal(result, truth)


def test_composite_adds_the_log_dets_in_single_precision():
    parts = [ours(), nf.flows.Reverse(ours()), ours("forward")]
    composite, x = nf.flows.Composite(parts), points(5, FEATURES)
    for side in (composite, composite.inverse):
        z, log_det = side(x)
        truth = dense_logabsdet(lambda x, side=side: side(x)[0], x)
        assert z.dtype == torch.float64
        torch.testing.assert_close(log_det, truth.float(), rtol=0, atol=1e-5)


@both_sides
def test_every_layer_and_the_base_take_the_context(explicit):
    layers = [
        ours(explicit, 3),
        nf.flows.Permute(FEATURES),
        nf.flows.LULinearPermute(FEATURES),
        nf.flows.MaskedAffineAutoregressive(FEATURES, 8, context_features=3),
        ours(explicit, 3),
    ]
    base = ConditionalDiagGaussian(FEATURES, nn.Linear(3, 2 * FEATURES))
    flow = nf.ConditionalNormalizingFlow(base, layers)
    x, context = points(5, FEATURES), points(5, 3).requires_grad_()
    trained(flow, x, context)

    latent = flow.inverse(x, context=context)
    truth = base.log_prob(latent, context=context)
    truth = truth + dense_logabsdet(lambda x: flow.inverse(x, context=context), x)
    log_prob = flow.log_prob(x, context)
    torch.testing.assert_close(log_prob, truth, rtol=0, atol=1e-8)
    assert_has_gradients_of(log_prob, truth, [context, *flow.flows[0].parameters()])
    assert_scores_its_samples(flow, context, count=5)


def make_scales(classes, explicit="inverse"):
    """Images of 4 x 4 pixels; half of what is left of them leaves after the first scale."""

    def scale(channels):
        block = InvertibleResidual(make_image_block(channels), explicit)
        return [nf.flows.GlowBlock(channels, 4), block, nf.flows.Squeeze()]

    base = nf.distributions.DiagGaussian
    if classes:
        base = partial(nf.distributions.ClassCondDiagGaussian, num_classes=classes)
    bases = [base((8, 1, 1)), base((2, 2, 2))]
    scales = [scale(8), scale(4)]
    return nf.MultiscaleFlow(bases, scales, [nf.flows.Merge()], class_cond=bool(classes))


@both_sides
@pytest.mark.parametrize("classes", [0, 3], ids=["plain", "classes"])
def test_images_pass_through_scales(explicit, classes):
    x = points(5, 1, 4, 4)
    y = torch.tensor([0, 1, 2, 0, 1]) if classes else None
    flow = trained(make_scales(classes, explicit), x, y)

    latents, log_det = flow.inverse_and_log_det(x)

    def to_latents(x):
        return torch.cat([z.flatten(1) for z in flow.inverse_and_log_det(x)[0]], 1)

    truth = dense_logabsdet(to_latents, x)
    assert log_det.abs().max() > 1
    torch.testing.assert_close(log_det, truth, rtol=0, atol=1e-8)
    restored, minus_log_det = flow.forward_and_log_det(latents)
    torch.testing.assert_close(restored, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(minus_log_det, -log_det, rtol=0, atol=1e-8)

    for base, z in zip(flow.q0, latents):
        truth = truth + (base.log_prob(z, y) if classes else base.log_prob(z))
    log_prob = flow.log_prob(x, y)
    torch.testing.assert_close(log_prob, truth, rtol=0, atol=1e-8)
    torch.testing.assert_close(flow.forward_kld(x, y), -truth.mean(), rtol=0, atol=1e-8)
    assert_has_gradients_of(log_prob, truth, list(flow.flows[1][1].parameters()))
    assert_scores_its_samples(flow, y, count=5)


def test_saved_scales_load_into_a_fresh_model(tmp_path):
    x = points(5, 1, 4, 4)
    flow = trained(make_scales(0), x, None)
    flow.save(tmp_path / "scales.pt")
    fresh = make_scales(0).double()
    fresh.load(tmp_path / "scales.pt")
    assert torch.equal(fresh.log_prob(x, None), flow.log_prob(x, None))


def test_a_base_of_classes_scores_and_samples():
    base = nf.distributions.ClassCondDiagGaussian(FEATURES, 3)
    x, y = points(5, FEATURES), torch.tensor([0, 1, 2, 0, 1])
    flow = trained(nf.ClassCondFlow(base, [ours(), ours()]), x, y)

    def to_latent(x):
        return flow.flows[0].inverse(flow.flows[1].inverse(x)[0])[0]

    truth = base.log_prob(to_latent(x), y) + dense_logabsdet(to_latent, x)
    torch.testing.assert_close(flow.log_prob(x, y), truth, rtol=0, atol=1e-8)
    torch.testing.assert_close(flow.forward_kld(x, y), -truth.mean(), rtol=0, atol=1e-8)
    assert_scores_its_samples(flow, y, count=5)


def test_an_autoencoder_of_flows_scores_its_latents():
    encoder = nf.distributions.NNDiagGaussian(nn.Linear(3, 2 * FEATURES))
    decoder = nf.distributions.NNBernoulliDecoder(nn.Linear(FEATURES, 3))
    prior = nf.distributions.DiagGaussian(FEATURES)
    flow = ours("forward")
    model = nf.NormalizingFlowVAE(prior, encoder, [flow], decoder).double()
    x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], dtype=torch.float64)

    torch.manual_seed(1)
    z, log_q, log_p = model(x, num_samples=3)
    torch.manual_seed(1)
    start, score = encoder(x, num_samples=3)
    log_det = dense_logabsdet(lambda z: flow(z)[0], start.flatten(0, 1))
    torch.testing.assert_close(log_q, score - log_det.view(2, 3), rtol=0, atol=1e-9)
    assert z.shape == (2, 3, FEATURES)
    (log_q - log_p).mean().backward()
    assert all(p.grad.any() for p in model.flows.parameters())


def test_annealed_importance_finds_that_the_density_integrates_to_one():
    target = make_normflows().eval()
    for part in target.flows:
        if isinstance(part, InvertibleResidual):
            part.block.solver = None
    prior = nf.distributions.DiagGaussian(2).double()
    step = torch.full((2,), 0.2, dtype=torch.float64)
    hais = nf.HAIS(torch.linspace(1, 0, 8), prior, target, 2, step, torch.zeros_like(step))
    weights = hais.sample(400)[1].detach().exp()
    assert (weights.mean() - 1).abs() < 4 * weights.std() / math.sqrt(len(weights))
    assert 0 < weights.std() < 3


@both_sides
def test_explicit_inverse_is_what_their_own_residual_calls_reverse(explicit):
    g = nn.Sequential(nn.Tanh(), nn.Linear(2, 2)).double()
    nn.init.orthogonal_(g[1].weight, gain=0.6)
    block = InvertibleResidualBlock(ClaimedBranch(g, 0.7))
    mine = InvertibleResidual(block, explicit)
    theirs = nf.flows.Residual(g, reverse=explicit == "inverse").double().eval()
    x = points()
    for side in ("forward", "inverse"):
        z, log_det = getattr(mine, side)(x)
        their_z, their_log_det = getattr(theirs, side)(x.clone())
        assert log_det.abs().max() > 0.1
        # Their solved side stops at steps below 3e-3.
        torch.testing.assert_close(z, their_z, rtol=0, atol=1e-2)
        torch.testing.assert_close(log_det, their_log_det, rtol=0, atol=1e-2)


def test_their_updater_of_lipschitz_constants_serves_their_own_layers_alone():
    theirs = nf.flows.Residual(nf.nets.LipschitzMLP([2, 8, 2]))
    flow = nf.NormalizingFlow(
        nf.distributions.DiagGaussian(2), [*make_normflows().flows, theirs]
    ).double()
    x = points()
    before = [tensor.clone() for tensor in flow.flows[0].state_dict().values()]
    scored = flow.flows[0].inverse(x)
    nf.utils.update_lipschitz(flow, 5)
    for result, expected in zip(flow.flows[0].inverse(x), scored):
        assert torch.equal(result, expected)
    assert all(map(torch.equal, flow.flows[0].state_dict().values(), before))
