"""Blocks as they are used: in loops, in pieces, in copies, in ensembles and in threads."""

from __future__ import annotations

import copy
import sys
import threading
from functools import partial

import pytest
import torch
from attacks import BRANCHES, near_and_far, norms
from cases import Bounded, hostile
from torch.utils.checkpoint import checkpoint

from iresnet_flows import (
    CayleyBlock,
    ClaimedBranch,
    Exact,
    InvertibleResidualBlock,
    LipschitzConvNet,
    LipschitzDenseNet,
    LipschitzMLP,
    PowerSeries,
)
from iresnet_flows.lipschitz import LipschitzElementwise

BLOCKS = {
    "mlp": (partial(LipschitzMLP, 3, (6, 4)), (3,), InvertibleResidualBlock),
    "mlp, context": (
        partial(LipschitzMLP, 3, (6, 4), context_features=2),
        (3,),
        InvertibleResidualBlock,
    ),
    "dense, context": (
        partial(LipschitzDenseNet, 2, (4, 4), context_features=2),
        (2,),
        InvertibleResidualBlock,
    ),
    "elementwise, context": (
        partial(LipschitzElementwise, 3, 4, context_features=2),
        (3,),
        InvertibleResidualBlock,
    ),
    "convolutions, context": (
        partial(LipschitzConvNet, 1, (4, 4), context_features=2),
        (1, 2, 3),
        InvertibleResidualBlock,
    ),
    "claimed": (lambda: ClaimedBranch(Bounded(2), 0.8), (2,), InvertibleResidualBlock),
    "cayley, context": (
        partial(LipschitzMLP, 2, (6, 4), context_features=2),
        (2,),
        CayleyBlock,
    ),
}

each_block = pytest.mark.parametrize("name", BLOCKS)
SIDES = ("forward", "inverse")
both_sides = pytest.mark.parametrize("side", SIDES)


def build(name, log_det=None, seed=0, dtype=torch.float64):
    """A block, x of four samples and a context, if it asks for one, in a tuple."""
    make, event, kind = BLOCKS[name]
    torch.manual_seed(seed)
    block = kind(hostile(make().to(dtype)), log_det or Exact())
    context = block.context_features
    contexts = () if context is None else (torch.randn(4, context, dtype=dtype),)
    return block, torch.randn(4, *event, dtype=dtype), contexts


def loss_of(block, side, x, *contexts):
    value, logabsdet = getattr(block, side)(x, *contexts)
    return value.square().sum() - logabsdet.sum()


def gradients(block):
    return [p.grad.clone() for p in block.parameters()]


def assert_all_close(results, expected):
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, rtol=1e-8, atol=1e-8)


@each_block
@both_sides
def test_a_graph_that_is_kept_gives_the_same_gradient_twice(name, side):
    block, x, contexts = build(name)
    loss = loss_of(block, side, x, *contexts)
    loss.backward(retain_graph=True)
    once = gradients(block)
    loss.backward()
    assert_all_close(gradients(block), [2 * g for g in once])


@each_block
@both_sides
def test_gradients_of_parts_of_a_batch_add_up(name, side):
    block, x, contexts = build(name)
    loss_of(block, side, x, *contexts).backward()
    whole = gradients(block)
    block.zero_grad()
    for rows in (slice(0, 1), slice(1, 4)):
        loss_of(block, side, x[rows], *(c[rows] for c in contexts)).backward()
    assert_all_close(gradients(block), whole)


@each_block
@both_sides
def test_a_penalty_on_the_gradient_of_the_log_det_has_its_own_gradient(name, side):
    block, x, contexts = build(name)
    parameter = next(p for p in block.parameters() if p.dim() > 1)

    def penalty():
        at = x.clone().requires_grad_()
        logabsdet = getattr(block, side)(at, *contexts)[1]
        (slope,) = torch.autograd.grad(logabsdet.sum(), at, create_graph=True)
        return slope.square().sum()

    (gradient,) = torch.autograd.grad(penalty(), parameter)
    direction, size = torch.randn_like(parameter), 1e-5
    with torch.no_grad():
        parameter.add_(size * direction)
        above = penalty_value(penalty)
        parameter.sub_(2 * size * direction)
        below = penalty_value(penalty)
    slope = (gradient * direction).sum()
    torch.testing.assert_close(slope, (above - below) / (2 * size), rtol=1e-4, atol=1e-7)


def penalty_value(penalty):
    with torch.enable_grad():
        return penalty().detach()


@each_block
@both_sides
@pytest.mark.parametrize("log_det", [Exact(), PowerSeries(terms=9)])
def test_frozen_parameters_leave_the_gradient_in_x_as_it_was(name, side, log_det):
    block, x, contexts = build(name, log_det)
    x.requires_grad_()
    with block.frozen():
        (expected,) = torch.autograd.grad(loss_of(block, side, x, *contexts), x)
        block.requires_grad_(False)
        (result,) = torch.autograd.grad(loss_of(block, side, x, *contexts), x)
    torch.testing.assert_close(result, expected)
    assert not loss_of(block, side, x.detach(), *contexts).requires_grad


@each_block
@both_sides
def test_some_frozen_parameters_get_no_gradient_and_the_others_theirs(name, side):
    block, x, contexts = build(name)
    loss_of(block, side, x, *contexts).backward()
    expected = gradients(block)
    block.zero_grad()
    parameters = list(block.parameters())
    for parameter in parameters[::2]:
        parameter.requires_grad_(False)
    loss_of(block, side, x, *contexts).backward()
    assert all(p.grad is None for p in parameters[::2])
    assert_all_close([p.grad for p in parameters[1::2]], expected[1::2])


@each_block
@both_sides
def test_strides_and_views_do_not_matter_and_what_is_around_them_stays(name, side):
    block, x, contexts = build(name)
    function = getattr(block, side)
    expected = function(x, *contexts)
    bigger = torch.full((8, *x.shape[1:-1], x.shape[-1] + 2), 7.0, dtype=x.dtype)
    view = bigger[::2, ..., 1:-1]
    view.copy_(x)
    strided = tuple(c.mT.contiguous().mT for c in contexts)
    before = bigger.clone()
    assert not view.is_contiguous()
    assert_all_close(function(view, *strided), expected)
    assert torch.equal(bigger, before)

    last_first = x.movedim(-1, 0).contiguous().movedim(0, -1).requires_grad_()
    bigger.requires_grad_()
    (result,) = torch.autograd.grad(loss_of(block, side, bigger[::2, ..., 1:-1], *strided), bigger)
    (gradient,) = torch.autograd.grad(loss_of(block, side, last_first, *strided), last_first)
    torch.testing.assert_close(result[::2, ..., 1:-1], gradient)
    result[::2, ..., 1:-1] = 0
    assert (result == 0).all()


@each_block
def test_a_copy_made_in_training_leaves_the_graph_of_the_original_alive(name):
    block, x, contexts = build(name)
    loss = loss_of(block, "forward", x, *contexts) + loss_of(block, "inverse", x, *contexts)
    other = copy.deepcopy(block)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    loss_of(other, "forward", x, *contexts).backward()
    assert all(p.grad is None for p in block.parameters())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())
    assert not torch.equal(block.transform(x, *contexts), other.transform(x, *contexts))


@each_block
def test_a_step_between_forward_and_inverse_takes_the_new_parameters(name):
    block, x, contexts = build(name)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    y, logabsdet = block(x, *contexts)
    (y.square().sum() - logabsdet.sum()).backward()
    optimizer.step()
    back = block.invert(y.detach(), *contexts)
    assert (back - x).abs().max() > 1e-4
    torch.testing.assert_close(block.transform(back, *contexts), y, rtol=1e-8, atol=1e-8)

    # A backward through what the step has changed is refused, and not wrong.
    y, logabsdet = block(x, *contexts)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (y.sum() + logabsdet.sum()).backward()


@pytest.mark.parametrize("name", ["mlp, tanh", "dense", "convolutions, context"])
def test_an_exponential_moving_average_keeps_the_bound_and_inverts(name):
    make, event = BRANCHES[name]
    torch.manual_seed(0)
    block = InvertibleResidualBlock(make(), Exact())
    average = torch.optim.swa_utils.AveragedModel(
        block, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8)
    )
    for _ in range(20):
        hostile(block, 2.0)
        average.update_parameters(block)
    g = average.module.branch
    x, context = near_and_far(g, event, 10)
    assert norms(g, x, context).max() <= g.lipschitz_bound() * (1 + 1e-12)
    assert g.lipschitz_bound() <= g.lipschitz
    assert not torch.allclose(g(x, context), block.branch(x, context), atol=0.01)
    y, logabsdet = average(x, context)
    torch.testing.assert_close(average.module.invert(y, context), x, rtol=1e-4, atol=1e-4)
    assert logabsdet.isfinite().all()


@each_block
@both_sides
def test_an_ensemble_is_one_vmapped_call(name, side):
    members = [build(name, seed=seed)[0] for seed in (0, 1, 2)]
    _, x, contexts = build(name)
    parameters, buffers = torch.func.stack_module_state(members)

    class Sided(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, *args):
            return getattr(self.block, side)(*args)

    def call(parameters, buffers):
        state = {f"block.{k}": v for k, v in {**parameters, **buffers}.items()}
        return torch.func.functional_call(Sided(members[0]), state, (x, *contexts))

    results = torch.func.vmap(call)(parameters, buffers)
    for i, member in enumerate(members):
        assert_all_close([r[i] for r in results], getattr(member, side)(x, *contexts))

    def loss(parameters, buffers):
        value, logabsdet = call(parameters, buffers)
        return value.square().sum() - logabsdet.sum()

    if side == "forward" or name != "claimed":
        slopes = torch.func.vmap(torch.func.grad(loss))(parameters, buffers)
        for i, member in enumerate(members):
            loss_of(member, side, x, *contexts).backward()
            for key, parameter in member.named_parameters():
                torch.testing.assert_close(slopes[key][i], parameter.grad, rtol=1e-7, atol=1e-7)


@each_block
@both_sides
def test_a_call_with_other_parameters_is_that_of_another_block(name, side):
    block, x, contexts = build(name)
    other = build(name, seed=5)[0]
    before = [p.clone() for p in block.parameters()]
    state = {f"block.{k}": v for k, v in other.state_dict().items()}

    class Sided(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, *args):
            return getattr(self.block, side)(*args)

    own = getattr(block, side)(x, *contexts)
    results = torch.func.functional_call(Sided(), state, (x, *contexts))
    assert_all_close(results, getattr(other, side)(x, *contexts))
    assert_all_close(getattr(block, side)(x, *contexts), own)
    assert all(map(torch.equal, block.parameters(), before))


def in_threads(work, count=3):
    """Run it at once with each number below the count, and raise what was raised."""
    start, failures = threading.Barrier(count), []

    def run(i):
        start.wait()
        try:
            work(i)
        except Exception as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.fixture
def _hasty_threads():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_hasty_threads")
def test_threads_that_share_what_is_remembered_do_not_mix_it_up():
    held = LipschitzMLP(3, (6, 4)).limiter.held
    limit = torch.tensor(0.9, dtype=torch.float64)
    weights = [(*build("mlp", seed=seed)[0].branch.weights, limit) for seed in range(3)]
    expected = [held.function([w.detach() for w in ws]).scale for ws in weights]

    def work(i):
        for _ in range(50):
            assert torch.equal(held(*weights[i]).scale, expected[i])

    in_threads(work)


@pytest.mark.usefixtures("_hasty_threads")
@each_block
@both_sides
def test_threads_that_share_a_block_get_what_each_gets_alone(name, side):
    block, x, contexts = build(name)
    names = [key for key, _ in block.named_parameters()]
    xs = [x, 2 * x, -x]

    def measure(i):
        loss = loss_of(block, side, xs[i], *contexts)
        return torch.autograd.grad(loss, list(block.parameters()))

    expected = [measure(i) for i in range(3)]

    def work(i):
        for _ in range(10):
            assert_all_close(measure(i), expected[i])

    in_threads(work)
    assert [key for key, _ in block.named_parameters()] == names
    assert all(isinstance(p, torch.nn.Parameter) for p in block.parameters())


@each_block
@both_sides
@pytest.mark.parametrize("log_det", [Exact(), PowerSeries(terms=9)])
def test_autocast_leaves_log_dets_in_float32_and_solves_in_float64(name, side, log_det):
    block, x, contexts = build(name, log_det, dtype=torch.float32)
    with block.frozen():
        expected = getattr(block, side)(x, *contexts)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, logabsdet = getattr(block, side)(x, *contexts)
    assert logabsdet.dtype == torch.float32
    torch.testing.assert_close(logabsdet, expected[1], rtol=0.02, atol=0.02)
    solved = side == "inverse" or isinstance(block, CayleyBlock)
    # A context is embedded in bfloat16, for both directions.
    tolerance = 1e-5 if solved and not contexts else 0.02
    torch.testing.assert_close(value.float(), expected[0], rtol=tolerance, atol=tolerance)
    (value.float().sum() + logabsdet.sum()).backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("order", [1, 2])
def test_a_gradient_that_overflowed_reaches_its_own_sample_and_every_parameter(order):
    block = InvertibleResidualBlock(LipschitzMLP(3, (6, 4))).double()
    y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    x = block.invert(y)
    clean = torch.autograd.grad(x.sum(), y, create_graph=order == 2)[0]
    cotangent = torch.ones_like(x)
    cotangent[2, 1] = torch.inf
    broken = torch.autograd.grad(block.invert(y), (y, *block.parameters()), cotangent)
    rows = torch.tensor([0, 1, 3])
    torch.testing.assert_close(broken[0][rows], clean[rows])
    assert broken[0][2].isnan().all()
    assert all(gradient.isnan().any() for gradient in broken[1:])


def test_double_precision_is_refused_under_autocast_which_leaves_it():
    block = InvertibleResidualBlock(LipschitzMLP(3, (6, 4)))
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match=r"x is torch.float64 and the layer's weights are"),
    ):
        block(torch.randn(4, 3, dtype=torch.float64))


WITHOUT_VALUES = [name for name in BLOCKS if "claimed" not in name and "cayley" not in name]


@pytest.mark.parametrize("name", WITHOUT_VALUES)
def test_shapes_are_known_without_values(name):
    make, event, kind = BLOCKS[name]
    block = kind(make(), Exact()).to("meta")
    context = block.context_features and torch.randn(5, block.context_features, device="meta")
    y, logabsdet = block(torch.randn(5, *event, device="meta"), context)
    assert y.shape == (5, *event)
    assert logabsdet.shape == (5,)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_module_of_the_users_in_a_checkpoint_works_or_says_what_to_do(reentrant):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    torch.nn.init.orthogonal_(module[0].weight, gain=0.5)
    block = InvertibleResidualBlock(ClaimedBranch(module, 0.6), Exact())
    x = torch.randn(4, 3, requires_grad=True)
    (truth,) = torch.autograd.grad(block(x)[1].sum(), x)

    def score():
        return checkpoint(lambda x: block(x)[1].sum(), x, use_reentrant=reentrant)

    if reentrant:
        score().backward()
        torch.testing.assert_close(x.grad, truth)
    else:
        with pytest.raises(RuntimeError, match="give the block memory='low' in their place"):
            score()
    low = InvertibleResidualBlock(block.branch, Exact(), memory="low")
    torch.testing.assert_close(torch.autograd.grad(low(x)[1].sum(), x)[0], truth)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_gradient_beyond_the_range_is_infinite_and_no_error(dtype):
    block = InvertibleResidualBlock(LipschitzMLP(2, (8,)).to(dtype))
    with torch.no_grad():
        block.branch.weights[-1].mul_(100)
    x = torch.randn(50, 2, dtype=dtype, requires_grad=True)
    largest = torch.finfo(dtype).max
    (gradient,) = torch.autograd.grad(block.invert(x), x, torch.full_like(x, 0.99 * largest))
    assert gradient.isinf().any()
    assert not gradient.isnan().any()
    (small,) = torch.autograd.grad(block.invert(x), x, torch.full_like(x, 0.99))
    torch.testing.assert_close(gradient, small * largest, rtol=2e-3, atol=0)


@pytest.mark.parametrize("memory", ["full", "low"])
@pytest.mark.parametrize("kind", [InvertibleResidualBlock, CayleyBlock])
@pytest.mark.parametrize("make", [LipschitzMLP, LipschitzDenseNet])
def test_what_autocast_has_halved_has_gradients_through_a_solve(make, kind, memory):
    block = kind(make(2, (8, 8), context_features=2), Exact(), memory=memory)
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    x, context = torch.randn(5, 2), torch.randn(5, 2)
    leaves = [*block.parameters(), *first.parameters(), *second.parameters()]
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y, logabsdet = block.inverse(first(x), second(context))
            z, more = block(first(x), second(context))
        loss = (y.float() * z.float()).sum() + logabsdet.sum() - more.square().sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    for exact, halved in zip(*gradients, strict=True):
        assert halved.dtype == torch.float32
        torch.testing.assert_close(halved, exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))


def test_autocast_around_a_backward_pass_changes_no_gradient_of_a_solve():
    block = InvertibleResidualBlock(LipschitzMLP(2, (8, 8)))
    y = torch.randn(5, 2, requires_grad=True)
    leaves = [y, *block.parameters()]
    expected = torch.autograd.grad(block.invert(y).sin().sum(), leaves)
    loss = block.invert(y).sin().sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(loss, leaves)
    for result, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(result, truth)


@pytest.mark.parametrize("make", [lambda: ClaimedBranch(Bounded(2), 0.8), lambda: LipschitzMLP(2)])
@pytest.mark.parametrize("kind", [InvertibleResidualBlock, CayleyBlock])
def test_jacobians_of_jacobians_of_a_solve_are_those_of_autograd(make, kind):
    block = kind(make()).double()
    y = torch.randn(1, 2, dtype=torch.float64)

    def total(y):
        return block.invert(y).sin().sum()

    truth = torch.autograd.functional.hessian(total, y)
    torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(total))(y), truth)
    torch.testing.assert_close(torch.func.jacrev(torch.func.grad(total))(y), truth)
