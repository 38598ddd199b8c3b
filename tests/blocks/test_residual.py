"""The block beyond the contract: what it chooses, reports and refuses."""

from __future__ import annotations

import gc

import pytest
import torch
from cases import hostile
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iresnet_flows import (
    Exact,
    FixedPoint,
    InvertibleResidualBlock,
    LipschitzMLP,
    PowerSeries,
    RussianRoulette,
)


def build(features: int = 3, hidden=(8, 8), log_det=None, **kwargs) -> InvertibleResidualBlock:
    g = LipschitzMLP(features, hidden, **kwargs)
    return InvertibleResidualBlock(hostile(g), log_det)


@pytest.mark.parametrize(
    ("features", "hidden", "training", "exact"),
    [
        (8, (20,), True, True),
        (9, (20,), True, False),
        (9, (20,), False, True),
        (40, (16, 80), True, True),
        (40, (18, 80), True, False),
        (64, (140,), False, True),
        (65, (140,), False, False),
        (65, (140, 128), False, True),
    ],
)
def test_the_log_det_is_exact_where_that_is_affordable(features, hidden, training, exact):
    block = build(features, hidden, lipschitz=0.5).train(training)
    estimate = block.log_abs_det(torch.randn(2, features))
    assert torch.equal(estimate.standard_error, torch.zeros(2)) == exact
    assert (estimate.bias_bound <= (0.01 if not (exact or training) else 0)).all()


def test_the_estimator_that_was_given_is_used_in_both_modes():
    for training in (True, False):
        block = build(log_det=PowerSeries(terms=3, probes=2)).train(training)
        assert (block.log_abs_det(torch.randn(2, 3)).bias_bound > 0).all()
        block.log_det = Exact()
        assert (block.log_abs_det(torch.randn(2, 3)).bias_bound == 0).all()


def test_log_abs_det_is_what_forward_returns():
    block, x = build(), torch.randn(4, 3)
    assert torch.equal(block.log_abs_det(x).value, block(x)[1])


def test_solve_reports_the_error_the_verdict_and_the_steps_of_each_sample():
    block = build().double()
    x = torch.randn(5, 3, dtype=torch.float64)
    y = block.transform(x).detach().requires_grad_()
    value, error_bound, converged, steps = vars(block.solve(y)).values()
    assert value.shape == (5, 3)
    assert error_bound.shape == converged.shape == steps.shape == (5,)
    assert converged.dtype == torch.bool
    assert steps.dtype == torch.long
    assert ((value - x).norm(dim=-1) <= error_bound + 1e-14).all()
    assert converged.all()
    assert (steps > 1).all()
    (gradient,) = torch.autograd.grad(value.sum(), y)
    (expected,) = torch.autograd.grad(block.invert(y).sum(), y)
    assert torch.equal(gradient, expected)
    assert not error_bound.requires_grad


def test_the_solver_can_be_replaced():
    block, y = build(), torch.randn(4, 3)
    block.solver = FixedPoint(atol=1e-1, rtol=0.0)
    few = block.solve(y).steps
    block.solver = FixedPoint()
    assert (block.solve(y).steps > few).all()


FUNCTIONS = ("forward", "inverse", "transform", "invert", "solve", "log_abs_det")

each_function = pytest.mark.parametrize("name", FUNCTIONS)


@each_function
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(5, 2), ValueError, r"must have the shape \(B, 3\), got \(5, 2\)"),
        (torch.ones(3), ValueError, r"must have the shape \(B, 3\), got \(3,\)"),
        (torch.ones(2, 5, 3), ValueError, r"must have the shape \(B, 3\), got \(2, 5, 3\)"),
        (torch.ones(5, 3).double(), TypeError, "convert one of them"),
        (torch.ones(5, 3).int(), TypeError, "must be floating point, got torch.int32"),
        ([[1.0, 2.0, 3.0]], TypeError, "must be a tensor, got list"),
    ],
)
def test_every_door_refuses_what_does_not_fit(name, x, error, message):
    with pytest.raises(error, match=message):
        getattr(build(), name)(x)


@each_function
def test_every_door_refuses_contexts_that_do_not_fit(name):
    x = torch.ones(5, 3)
    with pytest.raises(ValueError, match="build it with context_features"):
        getattr(build(), name)(x, torch.ones(5, 2))
    conditional = getattr(build(context_features=2), name)
    with pytest.raises(ValueError, match="built for a context of 2 features: pass it"):
        conditional(x)
    with pytest.raises(
        ValueError, match=r"\(5, 2\), a row for each sample, or \(2,\), got \(5, 4\)"
    ):
        conditional(x, torch.ones(5, 4))
    with pytest.raises(
        ValueError, match=r"\(5, 2\), a row for each sample, or \(2,\), got \(4, 2\)"
    ):
        conditional(x, torch.ones(4, 2))
    assert conditional(x, torch.ones(1, 2)) is not None
    with pytest.raises(TypeError, match="convert one of them"):
        conditional(x, torch.ones(5, 2).double())


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("branch", torch.nn.Linear(3, 3), r"ClaimedBranch\(module, lipschitz=\), got Linear"),
        ("branch", None, "got NoneType"),
        ("log_det", "exact", r"log_det must be Exact\(\), .*, got str"),
        ("log_det", Exact, "got the class Exact"),
        ("solver", "newton", r"solver must be Anderson\(\), .*, got str"),
        ("solver", FixedPoint, "got the class FixedPoint"),
    ],
)
def test_a_part_that_is_none_of_its_kind_is_refused(part, value, message):
    with pytest.raises(TypeError, match=message):
        InvertibleResidualBlock(**{"branch": LipschitzMLP(3), part: value})
    block = build()
    with pytest.raises(TypeError, match=message):
        setattr(block, part, value)
    block(torch.randn(2, 3))  # as it was before


def test_a_memory_that_is_neither_full_nor_low_is_refused():
    block = build()
    with pytest.raises(ValueError, match="memory must be 'full' or 'low', got 'small'"):
        InvertibleResidualBlock(block.branch, memory="small")
    with pytest.raises(ValueError, match="memory must be 'full' or 'low', got 'small'"):
        block.memory = "small"


def test_a_bound_that_is_set_later_holds_or_is_refused():
    block, x = build(), torch.randn(4, 3)
    block.branch.lipschitz = 0.2
    assert 0.19 < block.branch.lipschitz_bound() <= 0.2
    torch.testing.assert_close(block.invert(block.transform(x)), x)
    with pytest.raises(ValueError, match=r"lipschitz must lie in \(0, 1\), got 2.0"):
        block.branch.lipschitz = 2.0
    assert block.branch.lipschitz == 0.2


@each_function
def test_one_context_for_all_samples_equals_one_for_each(name):
    function = getattr(build(context_features=2).double(), name)
    x, context = torch.randn(5, 3).double(), torch.randn(2).double()
    one, each = function(x, context), function(x, context.expand(5, 2))
    for a, b in zip(as_tuple(one), as_tuple(each), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def as_tuple(result):
    if isinstance(result, torch.Tensor):
        return (result,)
    return tuple(vars(result).values()) if hasattr(result, "__dict__") else tuple(result)


@pytest.mark.parametrize("log_det", [Exact(), PowerSeries()])
def test_autocast_gives_finite_log_dets_in_float32(log_det):
    block, x = build(log_det=log_det, lipschitz=0.7), torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16), block.frozen():
        y, logabsdet = block(x)
    with block.frozen():
        expected, truth = block(x)
    assert logabsdet.dtype == torch.float32
    torch.testing.assert_close(logabsdet, truth, rtol=0.1, atol=0.1)
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    (y.float().sum() + logabsdet.sum()).backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        ("a", TypeError, "seed must be a whole number, got 'a'"),
        (None, TypeError, "seed must be a whole number, got None"),
        (-1, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_what_is_no_seed_is_refused_and_nothing_is_frozen(seed, error, message):
    block = build()
    with pytest.raises(error, match=message), block.frozen(seed):
        pass
    assert block.seed is None


def test_low_memory_gives_the_same_values_and_gradients():
    full = build(log_det=PowerSeries(terms=7, probes=2)).double()
    low = InvertibleResidualBlock(full.branch, full.log_det, memory="low")
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.0, 1.0, -2.0, 3.0], dtype=torch.float64)
    results = []
    for block in (full, low):
        with block.frozen():
            y, logabsdet = block(x)
            loss = weights @ (logabsdet + y.square().sum(-1))
            results.append((y, logabsdet, *torch.autograd.grad(loss, [x, *block.parameters()])))
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)


class Created(TorchDispatchMode):
    """Keeps count of the storages that were created within, and of those that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    def bytes_alive(self) -> int:
        return sum(size for ref, size in self.storages.values() if not ref.expired())


def bytes_kept(memory: str, terms: int) -> int:
    g = LipschitzMLP(40, (30, 30), lipschitz=0.9)
    block = InvertibleResidualBlock(g, PowerSeries(terms=terms), memory=memory)
    x = torch.randn(2000, 40)
    with Created() as created:
        outputs = block(x)
    gc.collect()
    assert outputs[1].requires_grad
    return created.bytes_alive()


def test_low_memory_keeps_two_vectors_a_sample_beside_x_and_y_whatever_the_length():
    short, long = bytes_kept("low", 5), bytes_kept("low", 50)
    assert long - short <= 45 * 4  # one coefficient a term
    vector = 2000 * 40 * 4
    small = 2000 * 4 * 4 + 60_000  # four numbers a sample, and the remembered norms of the bound
    assert short <= 3 * vector + small

    full = bytes_kept("full", 5)
    assert bytes_kept("full", 50) - full <= 45 * 4
    assert full > 2 * short


def test_low_memory_says_that_it_is_differentiable_once():
    g = LipschitzMLP(3, (8, 8))
    block, x = InvertibleResidualBlock(g, memory="low"), torch.randn(4, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="build it with memory='full'"):
        torch.autograd.grad(block(x)[1].sum(), x, create_graph=True)
    with pytest.raises(ValueError, match="must be 'full' or 'low', got 'medium'"):
        InvertibleResidualBlock(g, memory="medium")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("log_det", [Exact(), PowerSeries(terms=3), RussianRoulette()])
def test_in_half_precision_a_log_det_is_single(dtype, log_det):
    block = InvertibleResidualBlock(hostile(LipschitzMLP(3, (8,))).to(dtype), log_det)
    x = torch.randn(5, 3, dtype=dtype)
    with block.frozen():
        for value, logabsdet in (block(x), block.inverse(x)):
            assert value.dtype == dtype
            assert logabsdet.dtype == torch.float32
        rough, exact = block(x)[1], block.float()(x.float())[1]
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("hidden", [(64, 64), (8, 8)], ids=["wide", "narrow"])
def test_exact_log_dets_of_autocast_round_as_float32_does(hidden):
    """Each is that of the Jacobian with the slopes that autocast gave it."""
    block = InvertibleResidualBlock(LipschitzMLP(16, hidden), Exact())
    x = torch.randn(20, 16)
    values = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", dtype=torch.bfloat16):
            jacobian = block.branch.at().linearize(x)[1]
            values.append(block.log_det.attach(block.log_det.draw(jacobian, x, x), jacobian).value)
    dense = jacobian.to(torch.float64).dense()
    expected = torch.linalg.slogdet(dense + torch.eye(16, dtype=torch.float64)).logabsdet
    for value in values:
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-4)
