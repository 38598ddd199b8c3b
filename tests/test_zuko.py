"""Residual blocks as zuko's lazy transforms: data to noise is `forward`, contexts broadcast."""

import copy
import math
import pickle
import subprocess
import sys

import pytest
import torch

pytest.importorskip("zuko")

from cases import hostile
from hosts import assert_replaces_its_block
from zuko.distributions import DiagNormal
from zuko.flows import MaskedAutoregressiveTransform
from zuko.lazy import Flow, UnconditionalDistribution, UnconditionalTransform
from zuko.transforms import RotationTransform

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzConvNet, LipschitzMLP
from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.zuko import InvertibleResidual, IResNet, LayerLazyTransform

TIGHT = FixedPoint(atol=1e-13, rtol=1e-13)

both_sides = pytest.mark.parametrize("explicit", ["forward", "inverse"])
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
each_context = pytest.mark.parametrize("context", [0, 3], ids=["plain", "context"])


def make_flow(explicit="forward", features=2, context=0, solver=TIGHT):
    flow = IResNet(features, context, 2, (8, 6), solver=solver, explicit=explicit, elementwise=1)
    with torch.no_grad():
        for layer in flow.modules():
            if isinstance(layer, ElementwiseAffine):
                layer.log_scale += 0.5  # large log-dets, which a wrong sign would show
    return hostile(flow.double())


def make_block(features=2, context_features=None, solver=TIGHT):
    branch = LipschitzMLP(features, (8, 6), context_features=context_features).double()
    return InvertibleResidualBlock(hostile(branch), solver=solver)


def points(*batch, features=2):
    return torch.randn(*batch, features, dtype=torch.float64)


def contexts(context, *batch):
    return points(*batch, features=context) if context else None


def normal(*event):
    zeros, ones = (value(event, dtype=torch.float64) for value in (torch.zeros, torch.ones))
    return UnconditionalDistribution(DiagNormal, zeros, ones, ndims=len(event), buffer=True)


def jacobian(function, x):
    """That of each row of x (B, d), as (B, d, d)."""
    return torch.autograd.functional.jacobian(
        lambda x: function(x).sum(0), x, create_graph=True
    ).transpose(0, 1)


def dense_log_prob(distribution, x):
    to_noise = distribution.transform
    base = torch.distributions.Normal(0.0, 1.0).log_prob(to_noise(x)).sum(-1)
    return base + torch.linalg.slogdet(jacobian(to_noise, x)).logabsdet


def assert_near(result, expected, atol=1e-9):
    torch.testing.assert_close(result, expected, rtol=atol, atol=atol)


@both_sides
def test_the_explicit_side_is_the_block_and_the_other_its_inverse(explicit):
    block, x = make_block(), points(5)
    lazy = InvertibleResidual(block, explicit)
    assert lazy.block is block
    expected = [block(x), block.inverse(x)]
    if explicit == "inverse":
        expected.reverse()
    for side, (value, logabsdet) in zip((lazy(), lazy().inv), expected):
        assert torch.equal(side(x), value)
        assert torch.equal(side.call_and_ladj(x)[0], value)
        assert torch.equal(side.call_and_ladj(x)[1], logabsdet)
        assert torch.equal(side.log_abs_det_jacobian(x, value), logabsdet)
        assert torch.equal(side.inv.inv(x), value)
    assert torch.equal(lazy.inv()(x), lazy().inv(x))


@both_sides
def test_only_the_solved_side_needs_the_solver(explicit):
    flow = make_flow(explicit, solver=FixedPoint(atol=0.0, rtol=0.0, max_steps=1))
    explicit_call, solved_call = (
        (lambda: flow().log_prob(points(5))),
        (lambda: flow().sample((3,))),
    )
    if explicit == "inverse":
        explicit_call, solved_call = solved_call, explicit_call

    explicit_call()
    with pytest.raises(InverseNotConverged, match="max_steps"):
        solved_call()


@both_sides
def test_both_sides_give_value_and_log_det_from_one_call_of_the_layer(explicit, monkeypatch):
    calls = []
    for name in ("forward", "inverse", "transform", "invert"):
        method = getattr(ElementwiseAffine, name)

        def counted(self, x, context=None, name=name, method=method):
            calls.append(name)
            return method(self, x, context)

        monkeypatch.setattr(ElementwiseAffine, name, counted)

    flow = Flow(LayerLazyTransform(ElementwiseAffine(2).double(), explicit), normal(2))
    other = "inverse" if explicit == "forward" else "forward"
    flow().log_prob(points(5))
    assert calls.pop(0) == explicit
    calls.clear()
    flow().rsample_and_log_prob((5,))
    assert calls.pop(0) == other
    assert calls in (["transform"], ["invert"])  # of the layer itself


@both_sides
@both_modes
@each_context
@pytest.mark.parametrize("features", [1, 2, 3])
def test_log_prob_is_that_of_the_dense_jacobian(explicit, training, context, features):
    flow = make_flow(explicit, features, context).train(training)
    x = points(5, features=features)
    distribution = flow(contexts(context, 5))
    log_prob = distribution.log_prob(x)
    assert log_prob.shape == (5,)
    assert log_prob.dtype == torch.float64
    assert_near(log_prob, dense_log_prob(distribution, x))


@both_sides
@both_modes
@each_context
def test_gradients_of_a_weighted_loss_are_those_of_the_dense_truth(explicit, training, context):
    flow, c = make_flow(explicit, context=context).train(training), contexts(context, 5)
    wanted = [points(5), *flow.parameters(), *([] if c is None else [c])]
    for tensor in wanted:
        tensor.requires_grad_()
    weights = torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    gradients = torch.autograd.grad(weights @ flow(c).log_prob(wanted[0]), wanted)
    truth = torch.autograd.grad(weights @ dense_log_prob(flow(c), wanted[0]), wanted)
    for gradient, expected in zip(gradients, truth):
        assert_near(gradient, expected, 1e-7)


@both_sides
def test_samples_carry_the_gradient_of_the_implicit_function(explicit):
    flow, c, weights = make_flow(explicit, context=3), contexts(3, 5).requires_grad_(), points(5)
    wanted = [c, *flow.parameters()]
    x = flow(c).rsample()
    gradients = torch.autograd.grad((weights * x).sum(), wanted)

    x = x.detach()
    to_noise = flow(c).transform
    cotangent = torch.linalg.solve(jacobian(to_noise, x).mT, weights).detach()
    truth = torch.autograd.grad(-(cotangent * to_noise(x)).sum(), wanted)
    for gradient, expected in zip(gradients, truth):
        assert_near(gradient, expected, 1e-8)


@both_sides
@each_context
def test_rsample_and_log_prob_agrees_with_log_prob(explicit, context):
    distribution = make_flow(explicit, context=context)(contexts(context, 4))
    x, log_prob = distribution.rsample_and_log_prob((6,))
    assert log_prob.std() > 0.1
    assert_near(log_prob, distribution.log_prob(x))


@both_sides
def test_log_dets_of_the_lazy_inverse_cancel(explicit):
    flow, c, x = make_flow(explicit, context=3), contexts(3, 5), points(5)
    z, ladj = flow.transform(c).call_and_ladj(x)
    restored, minus_ladj = flow.transform.inv(c).call_and_ladj(z)
    assert ladj.abs().max() > 1
    assert_near(restored, x)
    assert_near(minus_ladj, -ladj)


@both_sides
def test_single_precision_keeps_its_dtype_and_returns(explicit):
    distribution = make_flow(explicit, context=3, solver=None).float()(torch.randn(5, 3))
    x, log_prob = distribution.rsample_and_log_prob((4,))
    assert x.dtype == log_prob.dtype == torch.float32
    again = distribution.transform.inv(distribution.transform(x))
    torch.testing.assert_close(again, x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(distribution.log_prob(x), log_prob, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [(), (1,), (4, 5)], ids=str)
def test_a_plain_flow_takes_any_batch(batch):
    distribution = make_flow()()
    assert distribution.batch_shape == ()
    assert distribution.event_shape == (2,)
    x = distribution.sample(batch)
    assert x.shape == (*batch, 2)
    log_prob = distribution.log_prob(x)
    assert log_prob.shape == batch
    assert_near(log_prob.flatten(), distribution.log_prob(x.reshape(-1, 2)))


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 4)], ids=str)
def test_a_context_gives_the_flow_its_batch(batch):
    flow, c = make_flow(context=3), contexts(3, *batch)
    distribution = flow(c)
    assert distribution.batch_shape == batch
    x = distribution.sample((6,))
    assert x.shape == (6, *batch, 2)
    log_prob = distribution.log_prob(x)
    assert log_prob.shape == (6, *batch)

    rows, row_contexts = x.flatten(0, -2), c.expand(6, *batch, 3).flatten(0, -2)
    each = [flow(k).log_prob(row) for row, k in zip(rows, row_contexts)]
    assert_near(log_prob.flatten(), torch.stack(each))


@pytest.mark.parametrize("batch", [(0,), (3, 0)], ids=str)
def test_an_empty_batch_has_no_log_dets(batch):
    # The base cannot score nothing: torch's Independent reshapes to an unknown size.
    y, ladj = make_flow(context=3).transform(contexts(3, *batch)).call_and_ladj(points(*batch))
    assert y.shape == (*batch, 2)
    assert ladj.shape == batch


def test_one_sample_is_scored_under_each_context():
    flow, c, x = make_flow(context=3), contexts(3, 5), points()
    log_prob = flow(c).log_prob(x)
    assert_near(log_prob, flow(c).log_prob(x.expand(5, 2)))
    assert log_prob.std() > 0.1


def test_a_transform_reads_the_present_parameters():
    flow, x = make_flow(), points(5)
    transform = flow.transform()
    before = transform(x)
    hostile(flow)
    assert torch.equal(transform(x), flow.transform()(x))
    assert not torch.allclose(transform(x), before)


@both_sides
def test_it_mixes_with_the_transforms_of_zuko(explicit):
    parts = [
        MaskedAutoregressiveTransform(2, context=3, hidden_features=(8,)),
        InvertibleResidual(make_block(context_features=3), explicit),
        UnconditionalTransform(RotationTransform, torch.randn(2, 2)),
        LayerLazyTransform(ElementwiseAffine(2), explicit),
    ]
    flow, c, x = hostile(Flow(parts, normal(2)).double(), 0.2), contexts(3, 5), points(5)
    assert len(list(flow.transform.transforms[1].parameters())) > 0
    assert_near(flow(c).log_prob(x), dense_log_prob(flow(c), x))
    samples, log_prob = flow(c).rsample_and_log_prob((4,))
    assert_near(log_prob, flow(c).log_prob(samples), 1e-7)


def test_images_are_events_of_three_dimensions():
    branch = hostile(LipschitzConvNet(1, (6, 6), (3, 1, 3)).double())
    lazy = InvertibleResidual(InvertibleResidualBlock(branch, solver=TIGHT), event_dim=3)
    distribution = Flow(lazy, normal(1, 2, 3))()
    x = distribution.sample((4, 5))
    assert x.shape == (4, 5, 1, 2, 3)

    rows = x[0].flatten(1)
    matrix = jacobian(lambda x: lazy()(x.reshape(-1, 1, 2, 3)).flatten(1), rows)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(lazy()(x[0])).flatten(1).sum(-1)
    truth = base + torch.linalg.slogdet(matrix).logabsdet
    assert_near(distribution.log_prob(x)[0], truth)


@pytest.mark.parametrize("copied", ["state_dict", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_density(copied, tmp_path):
    flow, c, x = make_flow(context=3), contexts(3, 5), points(5)
    expected = flow(c).log_prob(x)
    flow(c).rsample().sum().backward()
    if copied == "deepcopy":
        other = copy.deepcopy(flow)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(flow))
    else:
        torch.save(flow.state_dict(), tmp_path / "flow.pt")
        other = make_flow(context=3)
        assert not torch.allclose(other(c).log_prob(x), expected)
        other.load_state_dict(torch.load(tmp_path / "flow.pt", weights_only=True))
    assert torch.equal(other(c).log_prob(x), expected)


def test_every_parameter_gets_a_gradient():
    flow = IResNet(3, 4, 2, (8, 8))
    flow(torch.randn(6, 4)).log_prob(torch.randn(6, 3)).sum().backward()
    assert [name for name, p in flow.named_parameters() if p.grad is None] == []


def test_it_hands_its_arguments_on():
    solver = FixedPoint(max_steps=7)
    arguments = {"lipschitz": 0.4, "activation": "elu", "explicit": "inverse"}
    flow = IResNet(3, 0, 2, (8, 6, 4), solver=solver, elementwise=1, **arguments)
    assert [part.explicit for part in flow.transform.transforms] == ["inverse"] * 6
    blocks = [m for m in flow.modules() if isinstance(m, InvertibleResidualBlock)]
    assert [block.branch.hidden_features for block in blocks] == [(8,), (8, 6, 4), (8, 6, 4)]
    for block in blocks:
        assert block.solver is solver
        assert block.branch.lipschitz_bound() <= 0.4


def bent(count):
    """Points (z1, z2 / 2 + z1^2), and their log density."""
    z = torch.randn(count, 2)
    x = torch.stack([z[:, 0], 0.5 * z[:, 1] + z[:, 0].square()], -1)
    return x, torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) + math.log(2)


def test_it_learns_a_density_down_to_its_entropy():
    flow = IResNet(2, transforms=4, hidden_features=(16, 16))
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    x, _ = bent(1024)
    for _ in range(150):
        loss = -flow().log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    flow.eval()
    unseen, truth = bent(4096)
    with torch.no_grad():
        divergence = truth - flow().log_prob(unseen)
        samples = flow().sample((4096,))
    error = divergence.std() / 64
    assert -4 * error < divergence.mean() < 0.1
    # The mean of x2 is 1 and its variance 2.25.
    assert abs(samples[:, 1].mean() - 1) < 0.2
    assert abs(samples[:, 1].std() - 1.5) < 0.25


@both_sides
def test_pyro_samples_and_scores_it(explicit):
    pyro = pytest.importorskip("pyro")
    from pyro.contrib.zuko import ZukoToPyro

    flow, c = make_flow(explicit, context=3), contexts(3, 5)

    def model(x=None):
        with pyro.plate("data", 5):
            return pyro.sample("x", ZukoToPyro(flow(c)), obs=x)

    trace = pyro.poutine.trace(model).get_trace()
    x = trace.nodes["x"]["value"]
    assert x.shape == (5, 2)
    expected = flow(c).log_prob(x).sum()
    assert_near(trace.log_prob_sum(), expected)
    assert_near(pyro.poutine.trace(model).get_trace(x.detach()).log_prob_sum(), expected)


def test_a_block_that_is_replaced_is_replaced():
    assert_replaces_its_block(InvertibleResidual(make_block()), make_block())


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="'backward'"):
        InvertibleResidual(make_block(), "backward")


@pytest.mark.parametrize("name", ["features", "transforms", "context", "elementwise"])
def test_sizes_that_are_none_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*-1"):
        IResNet(**{"features": 2, name: -1})


def test_a_context_is_neither_missing_nor_unasked_for():
    with pytest.raises(ValueError, match="context of 3 features: pass it"):
        make_flow(context=3)().log_prob(points(5))
    with pytest.raises(ValueError, match="without one"):
        make_flow()(contexts(3, 5)).log_prob(points(5))


IMPORTS = """
import importlib.util
import sys
import torch
from torch.distributions import constraints, kl, transforms

def state():
    modules = [m for name, m in sys.modules.items() if name.startswith("torch.distributions")]
    classes = {value for m in modules for value in vars(m).values() if isinstance(value, type)}
    return {(c, c.__name__, name, id(value)) for c in classes for name, value in vars(c).items()}

if importlib.util.find_spec("pyro"):
    import pyro

before = state()
import iresnet_flows, iresnet_flows.distributions
if importlib.util.find_spec("pyro"):
    import iresnet_flows.pyro
print("zuko" in sys.modules, before == state(), torch.distributions.Distribution._validate_args)

import zuko
changed = state()
print(before == changed, torch.distributions.Distribution._validate_args)

import iresnet_flows.zuko
print(changed == state())
"""


def test_imports_change_of_torch_what_that_of_zuko_changes_and_no_more():
    command = [sys.executable, "-c", IMPORTS]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not result.returncode, result.stderr
    others, zuko, ours = result.stdout.splitlines()
    assert others == "False True True"
    assert zuko == "False False"  # the test can tell
    assert ours == "True"


def test_a_branch_in_place_of_its_block_is_refused():
    with pytest.raises(TypeError, match=r"InvertibleResidualBlock\(branch\).*got LipschitzMLP"):
        LayerLazyTransform(LipschitzMLP(2))
