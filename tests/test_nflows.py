"""Residual blocks as nflows transforms: data to noise is `forward`, log-dets are of that side."""

import copy
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip("nflows")

from cases import hostile
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.base import CompositeTransform, InverseTransform
from nflows.transforms.permutations import ReversePermutation

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.nflows import (
    InvertibleResidualFlow,
    InvertibleResidualTransform,
    LayerTransform,
)

both_sides = pytest.mark.parametrize("explicit", ["forward", "inverse"])
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@pytest.fixture
def double():
    """nflows draws its noise in torch's default dtype, whatever that of the flow is."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_block(features=2, context_features=None, atol=1e-13):
    branch = LipschitzMLP(features, (8, 6), context_features=context_features).double()
    return InvertibleResidualBlock(hostile(branch), solver=FixedPoint(atol=atol, rtol=atol))


def make_flow(explicit="forward", features=2, context_features=None, embedding_net=None):
    parts = [
        InvertibleResidualTransform(make_block(features, context_features), explicit),
        ReversePermutation(features),
        LayerTransform(hostile(ElementwiseAffine(features).double())),
        InvertibleResidualTransform(make_block(features, context_features), explicit),
    ]
    return Flow(CompositeTransform(parts), StandardNormal([features]), embedding_net).double()


def dense_log_prob(flow, x, context=None):
    def to_noise(x):
        return flow.transform_to_noise(x, context)

    jacobian = torch.autograd.functional.jacobian(
        lambda x: to_noise(x).sum(0), x, create_graph=True
    )
    base = torch.distributions.Normal(0.0, 1.0).log_prob(to_noise(x)).sum(-1)
    return base + torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet


def points(count=5, features=2):
    return torch.randn(count, features, dtype=torch.float64)


@both_sides
def test_the_explicit_side_is_the_block_and_the_other_its_inverse(explicit):
    block, x = make_block(), points()
    transform = InvertibleResidualTransform(block, explicit)
    sides = {"forward": transform.forward, "inverse": transform.inverse}
    explicit_side = sides.pop(explicit)
    (solved_side,) = sides.values()

    assert transform.block is block
    for result, expected in zip(explicit_side(x), block(x)):
        assert torch.equal(result, expected)
    for result, expected in zip(solved_side(x), block.inverse(x)):
        assert torch.equal(result, expected)


@pytest.mark.usefixtures("double")
@both_sides
def test_only_the_solved_side_needs_the_solver(explicit):
    block, x = make_block(), points()
    block.solver = FixedPoint(atol=0.0, rtol=0.0, max_steps=1)
    flow = Flow(InvertibleResidualTransform(block, explicit), StandardNormal([2])).double()
    explicit_call, solved_call = (lambda: flow.log_prob(x)), (lambda: flow.sample(3))
    if explicit == "inverse":
        explicit_call, solved_call = solved_call, explicit_call

    explicit_call()
    with pytest.raises(InverseNotConverged, match="max_steps"):
        solved_call()


@both_sides
@both_modes
@pytest.mark.parametrize("features", [1, 2, 3])
def test_log_prob_is_that_of_the_dense_jacobian(explicit, training, features):
    flow, x = make_flow(explicit, features).train(training), points(features=features)
    log_prob = flow.log_prob(x)
    assert log_prob.shape == (5,)
    assert log_prob.dtype == torch.float64
    torch.testing.assert_close(log_prob, dense_log_prob(flow, x), rtol=0, atol=1e-9)


@both_sides
@both_modes
def test_gradients_of_a_weighted_loss_are_those_of_the_dense_truth(explicit, training):
    flow, x = make_flow(explicit).train(training), points().requires_grad_()
    weights = torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    wanted = [x, *flow.parameters()]
    gradients = torch.autograd.grad(weights @ flow.log_prob(x), wanted)
    truth = torch.autograd.grad(weights @ dense_log_prob(flow, x), wanted)
    for gradient, expected in zip(gradients, truth):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-8)


@both_sides
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["single", "double"]
)
def test_both_round_trips_return_and_cancel_their_log_dets(explicit, dtype, atol):
    transform, x = make_flow(explicit)._transform, points().to(dtype)
    for layer in transform.modules():
        if isinstance(layer, InvertibleResidualBlock):
            layer.solver = FixedPoint()
    transform.to(dtype)
    for there, back in (
        (transform.forward, transform.inverse),
        (transform.inverse, transform.forward),
    ):
        y, logabsdet = there(x)
        restored, minus_logabsdet = back(y)
        assert restored.dtype == logabsdet.dtype == dtype
        torch.testing.assert_close(restored, x, rtol=0, atol=atol)
        torch.testing.assert_close(minus_logabsdet, -logabsdet, rtol=0, atol=20 * atol)


def test_inverse_transform_of_one_side_is_the_other_side():
    block, x = make_block(), points()
    swapped = InverseTransform(InvertibleResidualTransform(block, "forward"))
    other = InvertibleResidualTransform(block, "inverse")
    for ours, theirs in ((other.forward, swapped.forward), (other.inverse, swapped.inverse)):
        for result, expected in zip(ours(x), theirs(x)):
            assert torch.equal(result, expected)


@pytest.mark.usefixtures("double")
@both_sides
def test_sample_and_log_prob_agrees_with_log_prob(explicit):
    flow = make_flow(explicit)
    samples, log_prob = flow.sample_and_log_prob(6)
    assert samples.shape == (6, 2)
    torch.testing.assert_close(log_prob, flow.log_prob(samples), rtol=0, atol=1e-9)


@both_sides
def test_context_is_aligned_with_rows(explicit):
    flow = make_flow(explicit, context_features=3)
    x, context = points(), points(features=3)
    log_prob = flow.log_prob(x, context)
    each = [flow.log_prob(x[i : i + 1], context[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(log_prob, torch.cat(each), rtol=0, atol=1e-10)
    torch.testing.assert_close(log_prob, dense_log_prob(flow, x, context), rtol=0, atol=1e-9)
    assert not torch.allclose(log_prob, flow.log_prob(x, context.flip(0)))


@pytest.mark.usefixtures("double")
@both_sides
def test_samples_are_repeated_for_each_context_through_the_embedding_net(explicit):
    flow = make_flow(explicit, context_features=3, embedding_net=nn.Linear(7, 3))
    context = points(4, features=7)
    assert flow.sample(6, context).shape == (4, 6, 2)

    samples, log_prob = flow.sample_and_log_prob(6, context)
    assert samples.shape == (4, 6, 2)
    assert log_prob.shape == (4, 6)
    again = flow.log_prob(samples.flatten(0, 1), context.repeat_interleave(6, 0))
    torch.testing.assert_close(log_prob.flatten(), again, rtol=0, atol=1e-9)

    log_prob.sum().backward()
    assert flow._embedding_net.weight.grad.abs().min() > 0


@pytest.mark.usefixtures("double")
@both_sides
def test_samples_carry_the_gradient_of_the_parameters(explicit):
    flow = make_flow(explicit)
    weights = points()
    parameters = list(flow.parameters())

    def loss():
        torch.manual_seed(3)
        return (weights * flow.sample(5).sin()).sum()

    directions = [torch.randn_like(p) for p in parameters]
    gradients = torch.autograd.grad(loss(), parameters)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions))

    def moved(step):
        other = copy.deepcopy(parameters)
        with torch.no_grad():
            for p, d in zip(parameters, directions):
                p.add_(step * d)
            value = loss()
            for p, old in zip(parameters, other):
                p.copy_(old)
        return value

    difference = (moved(1e-5) - moved(-1e-5)) / 2e-5
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-6)


def skewed(count):
    x = torch.randn(count, 2)
    return torch.stack([x[:, 0], 0.5 * x[:, 1] + x[:, 0].square()], -1)


def test_the_ready_made_flow_learns_and_its_samples_follow_the_data():
    x, unseen = skewed(256), skewed(256)
    flow = InvertibleResidualFlow(2, 16, num_layers=3)
    before = flow.log_prob(unseen).mean().item()
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-2)
    for _ in range(50):
        loss = -flow.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    flow.eval()
    with torch.no_grad():
        assert flow.log_prob(unseen).mean() > before + 0.5
        samples = flow.sample(500)
    assert (samples.mean(0) - unseen.mean(0)).abs().max() < 0.4


def test_every_parameter_of_the_ready_made_flow_gets_a_gradient():
    flow = InvertibleResidualFlow(3, 8, 2, context_features=4, embedding_net=nn.Linear(5, 4))
    flow.log_prob(torch.randn(6, 3), torch.randn(6, 5)).sum().backward()
    assert [name for name, p in flow.named_parameters() if p.grad is None] == []


def test_the_ready_made_flow_hands_its_arguments_on():
    solver = FixedPoint(max_steps=7)
    flow = InvertibleResidualFlow(
        3, 8, 2, num_blocks_per_layer=3, lipschitz=0.4, activation="elu", solver=solver
    )
    blocks = [m for m in flow.modules() if isinstance(m, InvertibleResidualBlock)]
    assert len(blocks) == 2
    for block in blocks:
        assert block.solver is solver
        assert block.branch.hidden_features == (8, 8, 8)
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


@pytest.mark.usefixtures("double")
@both_sides
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_without_gradients(explicit, mode):
    flow, x = make_flow(explicit), points()
    expected = flow.log_prob(x).detach()
    with mode():
        torch.testing.assert_close(flow.log_prob(x), expected)
        assert flow.sample(3).shape == (3, 2)


@both_sides
def test_an_empty_batch_has_no_log_probs(explicit):
    assert make_flow(explicit).log_prob(points(0)).shape == (0,)


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="'backward'"):
        InvertibleResidualTransform(make_block(), "backward")


@pytest.mark.parametrize("name", ["features", "num_layers", "num_blocks_per_layer"])
def test_sizes_below_one_are_refused(name):
    sizes = {"features": 2, "hidden_features": 8, "num_layers": 2, name: 0}
    with pytest.raises(ValueError, match=f"{name}.*0"):
        InvertibleResidualFlow(**sizes)


def test_a_missing_context_is_refused():
    with pytest.raises(ValueError, match="context"):
        make_flow(context_features=3).log_prob(points())


@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 2), (2,)])
def test_data_of_the_wrong_shape_is_refused(shape):
    part = InvertibleResidualTransform(make_block())
    with pytest.raises(ValueError, match="shape"):
        part(torch.zeros(shape, dtype=torch.float64))
