"""The promises of every layer, each as a function that checks it for one case."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from cases import Case
from torch import Tensor, nn

from iresnet_flows.blocks.branched import BranchedLayer
from iresnet_flows.inverse import Solver
from iresnet_flows.layers import Layer
from iresnet_flows.logdet import Estimator

SIDES = ("forward", "inverse")
WEIGHTS = torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0], dtype=torch.float64)


class Side(nn.Module):
    """One side of a layer as a forward, so that it can be called with other parameters."""

    def __init__(self, layer: Layer, side: str) -> None:
        super().__init__()
        self.layer = layer
        self.side = side

    def forward(self, *args: Any) -> tuple[Tensor, Tensor]:
        return getattr(self.layer, self.side)(*args)


@contextmanager
def same_draws(layer: Layer) -> Iterator[None]:
    """Repeated calls within draw the same probes, where any are drawn."""
    if isinstance(layer, BranchedLayer):
        with layer.frozen(3):
            yield
    else:
        yield


def inverts_both_ways(case: Case) -> None:
    layer, x, context = case()
    assert_near(layer.invert(layer.transform(x, context), context), x, case)
    assert_near(layer.transform(layer.invert(x, context), context), x, case)


def moves_and_scales(case: Case) -> None:
    """The weights are hostile: the log-dets are far from zero, so that tests of them mean much."""
    layer, x, context = case()
    y, logabsdet = layer(x, context)
    assert (y - x).abs().max() > 0.05
    assert logabsdet.abs().max() > 0.02


def has_the_log_det_of_its_jacobian(case: Case, side: str) -> None:
    layer, x, context = case()
    value = layer.transform if side == "forward" else layer.invert
    jacobian = torch.autograd.functional.jacobian(lambda t: value(t, context).sum(0).flatten(), x)
    sign, truth = torch.linalg.slogdet(jacobian.transpose(0, 1).flatten(2))
    _, logabsdet = getattr(layer, side)(x, context)
    assert (sign == 1).all()
    assert_near(logabsdet, truth, case)


def cancels_its_log_dets(case: Case) -> None:
    layer, x, context = case()
    with same_draws(layer):
        y, there = layer(x, context)
        _, back = layer.inverse(y, context)
    assert_near(there, -back, case)


def gives_the_value_alone(case: Case) -> None:
    layer, x, context = case()
    assert_near(layer.transform(x, context), layer(x, context)[0], case)
    assert_near(layer.invert(x, context), layer.inverse(x, context)[0], case)


def gives_the_log_det_later(case: Case) -> None:
    layer, x, context = case()
    x.requires_grad_()
    inputs = [x, *layer.parameters()]
    with same_draws(layer):
        value, logabsdet = layer(x, context)
        deferred, measure = layer.deferred(x, context)
        later = measure()
    assert_near(deferred, value, case)
    assert_near(later, logabsdet, case)
    expected = torch.autograd.grad(WEIGHTS @ (logabsdet + squares(value)), inputs)
    gradients = torch.autograd.grad(WEIGHTS @ (later + squares(deferred)), inputs)
    for gradient, truth in zip(gradients, expected, strict=True):
        assert_near(gradient, truth, case, factor=100)


def has_gradients_of_each_sample(case: Case, side: str, training: bool) -> None:
    layer, x, context = case()
    layer.train(training)
    x.requires_grad_()
    inputs = [x, *layer.parameters()]

    def loss(rows: slice) -> Tensor:
        rows_context = None if context is None else context[rows]
        value, logabsdet = getattr(layer, side)(x[rows], rows_context)
        return WEIGHTS[rows] @ (logabsdet + squares(value))

    together = torch.autograd.grad(loss(slice(None)), inputs)
    alone = [torch.autograd.grad(loss(slice(i, i + 1)), inputs) for i in range(len(x))]
    for gradient, *parts in zip(together, *alone, strict=True):
        assert_near(gradient, sum(parts), case, factor=100)


def has_gradients_of_finite_differences(case: Case, side: str) -> None:
    function, inputs = as_function(case, side, batch=2)
    scale = 1e-6 if case.needs is None else 1e-5
    assert torch.autograd.gradcheck(function, inputs, eps=scale, atol=1e-4, fast_mode=True)


def has_second_derivatives_of_finite_differences(case: Case, side: str) -> None:
    function, inputs = as_function(case, side, batch=1)
    assert torch.autograd.gradgradcheck(function, inputs, atol=1e-4, fast_mode=True)


def keeps_dtype_and_shape(case: Case, dtype: torch.dtype) -> None:
    for batch in (0, 1, 5):
        layer, x, context = case(dtype, batch)
        for side in SIDES:
            value, logabsdet = getattr(layer, side)(x, context)
            assert value.shape == x.shape
            assert logabsdet.shape == (batch,)
            assert value.dtype == logabsdet.dtype == dtype
        assert layer.transform(x, context).shape == layer.invert(x, context).shape == x.shape
        assert layer.transform(x, context).dtype == layer.invert(x, context).dtype == dtype


def agrees_between_dtypes(case: Case) -> None:
    layer, x, context = case()
    single, x_single, context_single = case(torch.float32)
    for side in SIDES:
        with same_draws(layer), same_draws(single):
            expected = getattr(layer, side)(x, context)
            results = getattr(single, side)(x_single, context_single)
        for result, truth in zip(results, expected, strict=True):
            torch.testing.assert_close(result.double(), truth, rtol=1e-3, atol=1e-4)


def takes_an_empty_batch_backwards(case: Case) -> None:
    layer, x, context = case(batch=0)
    x.requires_grad_()
    for side in SIDES:
        value, logabsdet = getattr(layer, side)(x, context)
        (gradient,) = torch.autograd.grad(value.sum() + logabsdet.sum(), x, allow_unused=True)
        assert gradient is None or gradient.shape == x.shape


def works_without_gradients(case: Case, mode: Callable[[], Any]) -> None:
    layer, x, context = case()
    for side in SIDES:
        with same_draws(layer):
            expected = getattr(layer, side)(x, context)
            with mode():
                inputs = (None if t is None else t.clone() for t in (x, context))
                results = getattr(layer, side)(*inputs)
        for result, value in zip(results, expected, strict=True):
            assert not result.requires_grad
            assert_near(result, value, case)


def maps_over_leading_dimensions(case: Case, side: str) -> None:
    layer, x, context = case()
    xs = torch.stack((x, 2 * x, x.flip(0)))
    contexts = () if context is None else (torch.stack((context, -context, context)),)
    with same_draws(layer):
        function = getattr(layer, side)
        mapped = torch.func.vmap(function, randomness="same")(xs, *contexts)
        for i, row in enumerate(xs):
            expected = function(row, *(c[i] for c in contexts))
            for result, value in zip(mapped, expected, strict=True):
                assert_near(result[i], value, case)


def has_functional_gradients(case: Case, side: str) -> None:
    layer, x, context = case()

    def loss(t: Tensor) -> Tensor:
        value, logabsdet = getattr(layer, side)(t, context)
        return WEIGHTS @ (logabsdet + squares(value))

    with same_draws(layer):
        result = torch.func.grad(loss)(x)
        x.requires_grad_()
        (expected,) = torch.autograd.grad(loss(x), x)
    assert_near(result, expected, case, factor=10)


def has_functional_gradients_of_each_sample(case: Case, side: str) -> None:
    layer, x, context = case()
    contexts = () if context is None else (context,)

    def loss(row: Tensor, *context_row: Tensor) -> Tensor:
        value, logabsdet = getattr(layer, side)(row[None], *(c[None] for c in context_row))
        return logabsdet.sum() + value.square().sum()

    mapped = torch.func.vmap(torch.func.grad(loss), randomness="same")(x, *contexts)
    for i, result in enumerate(mapped):
        expected = torch.func.grad(loss)(x[i], *(c[i] for c in contexts))
        assert_near(result, expected, case, factor=10)


def survives_saving_into_a_fresh_object(case: Case) -> None:
    layer, x, context = case()
    fresh = case.layer(seed=7)
    assert not torch.equal(fresh.transform(x, context), layer.transform(x, context))
    fresh.load_state_dict(layer.state_dict())
    assert_same_layer(layer, fresh, x, context)


def survives_copies(case: Case) -> None:
    layer, x, context = case()
    layer(x, context)
    layer.inverse(x, context)
    assert_same_layer(layer, copy.deepcopy(layer), x, context)
    assert_same_layer(layer, pickle.loads(pickle.dumps(layer)), x, context)


def leaves_its_arguments_alone(case: Case) -> None:
    layer, x, context = case()
    tensors = [x, *layer.parameters(), *([] if context is None else [context])]
    before = [(t.clone(), t._version, t.requires_grad) for t in tensors]
    for function in (layer, layer.inverse, layer.transform, layer.invert):
        function(x, context)
    for tensor, (value, version, requires_grad) in zip(tensors, before, strict=True):
        assert torch.equal(tensor, value)
        assert tensor._version == version
        assert tensor.requires_grad == requires_grad
        assert tensor.grad is None


def gives_every_parameter_a_gradient(case: Case, side: str) -> None:
    layer, x, context = case()
    value, logabsdet = getattr(layer, side)(x, context)
    (value.square().sum() + logabsdet.sum()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def is_the_same_in_train_and_eval(case: Case) -> None:
    layer, x, context = case()
    for side in SIDES:
        with same_draws(layer):
            train = getattr(layer.train(), side)(x, context)
            evaluation = getattr(layer.eval(), side)(x, context)
        for result, expected in zip(train, evaluation, strict=True):
            assert torch.equal(result, expected)


def inverts_within_its_error_bound(case: Case, dtype: torch.dtype, solver: Solver) -> None:
    layer, x, context = case(dtype)
    layer.solver = solver
    g = layer.branch.at(context).to(torch.float64)
    y = x.double() + g(x.double())
    solution = layer.solve(y.to(dtype), context)
    assert solution.converged.all()
    assert solution.value.dtype == solution.error_bound.dtype == dtype
    assert solution.value.shape == x.shape

    norm = y.flatten(1).norm(dim=1)
    moved = (y - y.to(dtype).double()).flatten(1).norm(dim=1) + 1e-15 * norm  # rounding of y
    error = (solution.value.double() - x.double()).flatten(1).norm(dim=1)
    assert (error <= solution.error_bound.double() * (1 + 1e-6) + moved / (1 - g.lipschitz)).all()
    default = {torch.float32: 3e-6, torch.float64: 3e-10}[dtype]
    assert (error <= default * (1 + norm)).all()

    assert torch.equal(layer.invert(y.to(dtype), context), solution.value)
    again = layer.transform(solution.value, context)
    torch.testing.assert_close(again, y.to(dtype), rtol=1e-5, atol=1e-5)


def has_the_log_det_within_its_errors(case: Case, dtype: torch.dtype, log_det: Estimator) -> None:
    layer, x, context = case(dtype, batch=3)
    layer.log_det = log_det
    g = layer.branch.at(context).to(torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda t: g(t).sum(0).flatten(), x.double())
    jacobian = jacobian.transpose(0, 1).flatten(2)
    truth = torch.linalg.slogdet(torch.eye(jacobian.shape[-1]) + jacobian).logabsdet

    y, logabsdet = layer(x, context)
    assert y.dtype == logabsdet.dtype == dtype
    assert logabsdet.shape == (3,)
    estimate = layer.log_abs_det(x, context)
    rounding = 100 * torch.finfo(dtype).eps * (1 + truth.abs())
    errors = 4.5 * estimate.standard_error + estimate.bias_bound
    assert ((estimate.value - truth).abs() <= errors + rounding).all()
    # The test can tell: the errors are well below the numbers, or what a few terms leave out.
    assert (estimate.standard_error <= 0.1 * (1 + truth.abs())).all()

    with layer.frozen():
        there, back = layer(x, context)[1], layer.inverse(layer(x, context)[0], context)[1]
    torch.testing.assert_close(there, -back, rtol=1e-3, atol=1e-3)


def weighs_each_sample_alone(case: Case, dtype: torch.dtype, log_det: Estimator) -> None:
    """With the draws of the whole batch, the weighted gradient is the sum over the samples."""
    layer, x, context = case(dtype)
    layer.log_det = log_det
    inputs = [x.requires_grad_(), *layer.branch.weights]
    weights = WEIGHTS.to(dtype)

    def gradient(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        with layer.frozen(3):
            return torch.autograd.grad(function(layer(x, context)[1]), inputs)

    together = gradient(lambda logabsdet: weights @ logabsdet)
    alone = [gradient(lambda logabsdet, i=i: logabsdet[i]) for i in range(len(x))]
    for i, (at_x, *_) in enumerate(alone):
        assert (at_x[torch.arange(len(x)) != i] == 0).all()
    for result, *parts in zip(together, *alone, strict=True):
        expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        tolerance = 1e4 * torch.finfo(dtype).eps
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


def as_function(
    case: Case, side: str, batch: int
) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """One side as a function of x, the context and all parameters, and values to take it at."""
    layer, x, context = case(batch=batch)
    module = Side(layer, side)
    names, parameters = zip(*module.named_parameters(), strict=True)
    leaves = (x, *parameters) if context is None else (x, context, *parameters)
    count = len(leaves) - len(parameters)

    def function(*values: Tensor) -> Any:
        state = dict(zip(names, values[count:], strict=True))
        with same_draws(layer):
            return torch.func.functional_call(module, state, values[:count])

    return function, tuple(leaf.detach().requires_grad_() for leaf in leaves)


def squares(value: Tensor) -> Tensor:
    """A number for each sample."""
    return value.square().flatten(1).sum(-1)


def assert_same_layer(layer: Layer, other: Layer, x: Tensor, context: Tensor | None) -> None:
    for side in SIDES:
        with same_draws(layer), same_draws(other):
            expected = getattr(layer, side)(x, context)
            results = getattr(other, side)(x, context)
        for result, value in zip(results, expected, strict=True):
            assert torch.equal(result, value)


def assert_near(result: Tensor, expected: Tensor, case: Case, factor: float = 1) -> None:
    tolerance = factor * case.tolerance
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)
