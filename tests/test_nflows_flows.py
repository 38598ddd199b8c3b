"""nflows' `Flow` and base in ours: samples in the flow's dtype, without a log-det."""

import copy
import inspect
import math
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip("nflows")

from cases import hostile
from hosts import Counted, dense_logabsdet, make_block, points
from nflows.distributions import normal
from nflows.distributions.normal import ConditionalDiagonalNormal
from nflows.flows import base
from nflows.flows.realnvp import SimpleRealNVP
from nflows.transforms.base import CompositeTransform, InverseTransform
from nflows.transforms.permutations import ReversePermutation

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.lipschitz import LipschitzElementwise
from iresnet_flows.nflows import (
    Flow,
    InvertibleResidualFlow,
    InvertibleResidualTransform,
    StandardNormal,
)

both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def make_transform(counted, context_features=None):
    def part(explicit):
        block = make_block(context_features=context_features, log_det=counted)
        return InvertibleResidualTransform(block, explicit)

    swapped = InverseTransform(CompositeTransform([part("forward"), part("inverse")]))
    return CompositeTransform([part("forward"), ReversePermutation(2), swapped])


class Scaled(CompositeTransform):
    """A composition of a user's, with a forward and an inverse of its own."""

    def forward(self, inputs, context=None):
        outputs, logabsdet = super().forward(inputs, context)
        return 2 * outputs, logabsdet + 2 * torch.log(torch.tensor(2.0))

    def inverse(self, inputs, context=None):
        outputs, logabsdet = super().inverse(inputs / 2, context)
        return outputs, logabsdet - 2 * torch.log(torch.tensor(2.0))


TRANSFORMS = {
    "composition": make_transform,
    "composition of a user's": lambda *args: Scaled([make_transform(*args)]),
    "nflows' alone": lambda *args: ReversePermutation(2),
}


def twins(name, context_features=None, counted=None):
    """Our flow and nflows' own, of the same transform."""
    transform = TRANSFORMS[name](counted or Counted(), context_features)
    net = None if context_features is None else nn.Linear(7, context_features)
    return [kind(transform, StandardNormal([2]), net).double() for kind in (Flow, base.Flow)]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("context_features", [None, 3])
def test_samples_and_noise_are_those_of_nflows_own_flow(name, context_features):
    ours, theirs = twins(name, context_features)
    x, contexts = points(), () if context_features is None else (points(5, 7),)
    samples = []
    for flow in (ours, theirs):
        torch.manual_seed(1)
        samples.append(flow.sample(4, *contexts))
    assert samples[0].shape == ((5, 4, 2) if contexts else (4, 2))
    torch.testing.assert_close(*samples, rtol=0, atol=1e-12)
    noises = [flow.transform_to_noise(x, *contexts) for flow in (ours, theirs)]
    torch.testing.assert_close(*noises, rtol=0, atol=1e-12)
    assert torch.equal(ours.log_prob(x, *contexts), theirs.log_prob(x, *contexts))


@pytest.mark.parametrize("context_features", [None, 3])
def test_samples_and_noise_cost_no_log_det(context_features):
    counted = Counted()
    ours, theirs = twins("composition", context_features, counted)
    x, contexts = points(), () if context_features is None else (points(5, 7),)
    ours.sample(4, *contexts)
    ours.sample(4, *contexts, batch_size=2)
    ours.transform_to_noise(x, *contexts)
    assert counted.calls == []
    theirs.sample(4, *contexts)
    assert len(counted.calls) == 3
    ours.sample_and_log_prob(4, *contexts)
    assert len(counted.calls) == 6


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_samples_of_each_row_of_a_context_are_joined_over_batches(batch_size):
    flow = InvertibleResidualFlow(2, 8, 1, context_features=3, num_elementwise_layers=0)
    context = torch.randn(4, 3)
    torch.manual_seed(0)
    samples = flow.sample(5, context, batch_size=batch_size)
    assert samples.shape == (4, 5, 2)

    torch.manual_seed(0)
    sizes = [min(batch_size, 5 - start) for start in range(0, 5, batch_size)]
    noise = torch.cat([torch.randn(4, size, 2) for size in sizes], 1).flatten(0, 1)
    found = flow.transform_to_noise(samples.flatten(0, 1), context.repeat_interleave(5, 0))
    torch.testing.assert_close(found, noise, atol=1e-4, rtol=1e-4)


def test_a_batch_of_no_samples_is_refused_as_by_nflows():
    flow = InvertibleResidualFlow(2, 8, 1, context_features=3)
    with pytest.raises(TypeError, match="positive integer"):
        flow.sample(5, torch.randn(4, 3), batch_size=0)


def test_the_base_has_no_number_in_another_dtype():
    """MPS has no float64, and a buffer in half precision would be rounded."""
    flow = InvertibleResidualFlow(2, 8, 1)
    assert {buffer.dtype for buffer in flow.buffers()} <= {torch.float32}
    expected = -math.log(2 * math.pi)
    for dtype in (torch.float64, torch.bfloat16):
        zeros = torch.zeros(1, 2, dtype=dtype)
        density = StandardNormal([2]).to(dtype).log_prob(zeros)
        assert torch.equal(density, torch.tensor([expected], dtype=dtype))
    base = StandardNormal([2]).double()
    assert torch.equal(base.mean(), torch.zeros(2, dtype=torch.float64))
    assert base.mean(torch.zeros(3, 1)).shape == (3, 2)


def test_samples_carry_the_gradient_of_the_embedding_net():
    ours, theirs = twins("composition", 3)
    context, weights = points(5, 7), points(5, 4, 2)
    gradients = []
    for flow in (ours, theirs):
        torch.manual_seed(1)
        loss = (weights * flow.sample(4, context)).sum()
        gradients.append(torch.autograd.grad(loss, flow._embedding_net.weight)[0])
        flow._embedding_net = ours._embedding_net
    assert gradients[0].any()
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


def test_any_base_of_nflows_will_do():
    block = make_block(context_features=3)
    base_of = ConditionalDiagonalNormal([2], nn.Linear(3, 4))
    flow = Flow(InvertibleResidualTransform(block), base_of)
    flow.float()
    block.solver = None
    assert flow.sample(4, torch.randn(5, 3)).shape == (5, 4, 2)


@both_dtypes
@pytest.mark.parametrize("context", [None, torch.zeros(3, 7)])
def test_noise_has_the_dtype_of_the_flow_and_the_numbers_of_nflows(dtype, context):
    ours = StandardNormal([2, 1]).to(dtype)
    torch.manual_seed(1)
    noise = ours.sample(4, context)
    assert noise.dtype == dtype
    assert isinstance(ours, normal.StandardNormal)
    torch.set_default_dtype(dtype)
    torch.manual_seed(1)
    theirs = normal.StandardNormal([2, 1]).sample(4, context)
    torch.set_default_dtype(torch.float32)
    assert torch.equal(noise, theirs)
    assert ours.state_dict() == {}


@both_dtypes
@pytest.mark.parametrize("explicit", ["forward", "inverse"])
@pytest.mark.parametrize("features", [1, 3])
def test_the_ready_made_flow_keeps_its_dtype(dtype, explicit, features):
    flow = hostile(InvertibleResidualFlow(features, 8, 2, explicit=explicit)).to(dtype)
    samples, log_prob = flow.sample_and_log_prob(6)
    assert samples.dtype == log_prob.dtype == flow.sample(3).dtype == dtype
    assert samples.shape == (6, features)
    again = flow.log_prob(samples)
    assert again.dtype == dtype
    atol = 1e-3 if dtype == torch.float32 else 1e-7
    torch.testing.assert_close(again, log_prob, rtol=0, atol=atol)


@pytest.mark.parametrize("explicit", ["forward", "inverse"])
@pytest.mark.parametrize("features", [1, 3])
def test_the_ready_made_density_is_that_of_the_dense_jacobian(explicit, features):
    solver = FixedPoint(atol=1e-13, rtol=1e-13)
    flow = InvertibleResidualFlow(features, 8, 2, solver=solver, explicit=explicit)
    flow = hostile(flow.double())
    x = points(5, features)
    noise = flow.transform_to_noise(x)
    truth = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(-1)
    truth = truth + dense_logabsdet(flow.transform_to_noise, x)
    torch.testing.assert_close(flow.log_prob(x), truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("explicit", ["forward", "inverse"])
def test_the_ready_made_flow_solves_on_one_side_only(explicit):
    flow = InvertibleResidualFlow(2, 8, 2, explicit=explicit)
    parts = [m for m in flow.modules() if isinstance(m, InvertibleResidualTransform)]
    assert [part.explicit for part in parts] == [explicit] * 6


def test_the_ready_made_flow_starts_with_the_arguments_of_simple_real_nvp():
    ours, theirs = (
        list(inspect.signature(kind).parameters)
        for kind in (InvertibleResidualFlow, SimpleRealNVP)
    )
    assert ours[:4] == theirs[:4]
    assert {"activation"} <= set(ours) & set(theirs)


def skewed(count):
    x = torch.randn(count, 2)
    return torch.stack([x[:, 0], 0.5 * x[:, 1] + x[:, 0].square()], -1)


def train(flow, x):
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-2)
    for _ in range(50):
        loss = -flow.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return flow.eval()


@torch.no_grad()
def test_the_ready_made_flow_learns_what_simple_real_nvp_does_and_its_samples_follow():
    x, unseen = skewed(256), skewed(256)
    gains = []
    for kind in (SimpleRealNVP, InvertibleResidualFlow):
        flow = kind(features=2, hidden_features=16, num_layers=3, num_blocks_per_layer=2)
        before = flow.log_prob(unseen).mean()
        with torch.enable_grad():
            train(flow, x)
        gains.append(flow.log_prob(unseen).mean() - before)
    assert min(gains) > 0.5
    samples = flow.sample(500)
    assert (samples.mean(0) - unseen.mean(0)).abs().max() < 0.6  # 1.1 before


def test_every_parameter_of_the_ready_made_flow_gets_a_gradient():
    flow = InvertibleResidualFlow(3, 8, 2, context_features=4, embedding_net=nn.Linear(5, 4))
    flow.log_prob(torch.randn(6, 3), torch.randn(6, 5)).sum().backward()
    assert [name for name, p in flow.named_parameters() if p.grad is None] == []


def test_the_ready_made_flow_hands_its_arguments_on():
    solver = FixedPoint(max_steps=7)
    flow = InvertibleResidualFlow(
        3,
        8,
        2,
        num_blocks_per_layer=3,
        lipschitz=0.4,
        activation="elu",
        solver=solver,
        num_elementwise_layers=1,
    )
    blocks = [m for m in flow.modules() if isinstance(m, InvertibleResidualBlock)]
    kinds = [LipschitzElementwise, LipschitzMLP, LipschitzMLP]
    assert [type(block.branch) for block in blocks] == kinds
    assert [block.branch.hidden_features for block in blocks] == [(8,), (8, 8, 8), (8, 8, 8)]
    for block in blocks:
        assert block.solver is solver
        assert block.branch.lipschitz_bound() <= 0.4


@pytest.mark.parametrize("copied", ["state_dict", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_density(copied, tmp_path):
    flow, x = hostile(InvertibleResidualFlow(2, 8, 2)), torch.randn(5, 2)
    if copied == "deepcopy":
        other = copy.deepcopy(flow)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(flow))
    else:
        torch.save(flow.state_dict(), tmp_path / "flow.pt")
        other = InvertibleResidualFlow(2, 8, 2)
        other.load_state_dict(torch.load(tmp_path / "flow.pt", weights_only=True))
    assert torch.equal(other.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("features", 0),
        ("num_layers", 0),
        ("num_blocks_per_layer", 0),
        ("num_elementwise_layers", -1),
    ],
)
def test_sizes_out_of_range_are_refused(name, size):
    sizes = {"features": 2, "hidden_features": 8, "num_layers": 2, name: size}
    with pytest.raises(ValueError, match=f"{name} must be at least {size + 1}, got {size}"):
        InvertibleResidualFlow(**sizes)
