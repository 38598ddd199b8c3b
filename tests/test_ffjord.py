"""FFJORD beyond the contract: its trace, its failures and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from cases import hostile

from iresnet_flows.errors import IntegrationFailed

pytest.importorskip("torchdiffeq")

from iresnet_flows.ffjord import FFJORD


def build(features: int = 3, hidden=(6, 6), **kwargs) -> FFJORD:
    torch.manual_seed(2)
    return hostile(FFJORD(features, hidden_features=hidden, **kwargs).double(), 0.3)


@pytest.mark.parametrize("hidden", [(6,), (6, 6), (6, 2, 6)])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_both_log_dets_have_the_sign_and_the_value_of_the_dense_jacobian(hidden, method):
    layer = build(hidden=hidden, method=method, time=1.5)
    x = torch.randn(4, 3, dtype=torch.float64)
    for side, value in ((layer, layer.transform), (layer.inverse, layer.invert)):
        jacobian = torch.autograd.functional.jacobian(lambda t, f=value: f(t).sum(0), x)
        sign, truth = torch.linalg.slogdet(jacobian.transpose(0, 1))
        assert (sign == 1).all()
        torch.testing.assert_close(side(x)[1], truth, rtol=1e-4, atol=1e-4)
    assert layer(x)[1].abs().max() > 0.05


@pytest.mark.parametrize("method", ["dopri8", "bosh3", "adaptive_heun", "midpoint", "euler"])
def test_every_method_integrates_the_same_flow(method):
    x = torch.randn(4, 3, dtype=torch.float64)
    expected = build(atol=1e-9, rtol=1e-9)(x)
    results = build(method=method, steps=400)(x)
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, rtol=0.02, atol=0.02)


def test_the_probes_of_hutchinson_are_right_on_average():
    x = torch.randn(1, 3, dtype=torch.float64)
    exact = build(method="rk4", steps=8, trace="exact")(x)[1]
    layer = build(method="rk4", steps=8, trace="hutchinson")
    draws = layer(x.expand(4000, 3))[1].detach()
    standard_error = draws.std() / math.sqrt(len(draws))
    assert standard_error > 0
    assert (draws.mean() - exact).abs() <= 4 * standard_error


def test_a_generator_governs_the_probes_and_leaves_the_global_one_alone():
    generator = torch.Generator().manual_seed(1)
    layer = build(trace="hutchinson", generator=generator, method="rk4", steps=4)
    x = torch.randn(4, 3, dtype=torch.float64)
    state = torch.get_rng_state()
    first, second = layer(x)[1], layer(x)[1]
    generator.manual_seed(1)
    assert torch.equal(layer(x)[1], first)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("features", "hidden", "exact"),
    [(20, (4,), True), (20, (4, 4), True), (16, (4, 4, 4), True), (17, (4, 4, 4), False)],
)
def test_the_trace_is_exact_where_that_is_cheap(features, hidden, exact):
    layer = build(features, hidden, method="rk4", steps=2)
    assert layer.exact == exact
    x = torch.randn(3, features, dtype=torch.float64)
    assert torch.equal(layer(x)[1], layer(x)[1]) == exact


def test_the_flow_starts_near_the_identity():
    layer = FFJORD(3)
    x = torch.randn(5, 3)
    y, logabsdet = layer(x)
    assert (y - x).abs().max() < 0.5
    assert logabsdet.abs().max() < 0.5


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_an_empty_batch_stays_empty(trace):
    layer = build(trace=trace)
    for side in (layer, layer.inverse):
        value, logabsdet = side(torch.empty(0, 3, dtype=torch.float64))
        assert value.shape == (0, 3)
        assert logabsdet.shape == (0,)


def test_a_tolerance_that_cannot_be_kept_says_what_to_change(monkeypatch):
    monkeypatch.setattr("iresnet_flows.ffjord.MAX_STEPS", 100)
    layer = FFJORD(2, hidden_features=(8,), atol=1e-20, rtol=1e-20)
    message = r"dopri5 could not keep the tolerance \(atol 1.0e-20, rtol 1.0e-20\).*float64.*'rk4'"
    with pytest.raises(IntegrationFailed, match=message):
        layer(torch.randn(3, 2))


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_raises(method, value):
    x = torch.zeros(3, 3, dtype=torch.float64)
    x[1, 2] = value
    layer = build(method=method)
    for function in (layer, layer.inverse, layer.transform, layer.invert):
        with pytest.raises(IntegrationFailed):
            function(x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": 0}, ValueError, "features must be at least 1, got 0"),
        ({"hidden_features": ()}, ValueError, "hidden_features must name the width"),
        ({"context_features": 0}, ValueError, "context_features must be at least 1"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"method": "rk45"}, ValueError, "method must be one of dopri5.*got 'rk45'"),
        ({"trace": "none"}, ValueError, "trace must be 'exact', 'hutchinson' or None"),
        ({"time": 0.0}, ValueError, "time must be a positive finite number, got 0.0"),
        ({"atol": -1.0}, ValueError, "atol must be a positive finite number"),
        ({"rtol": math.nan}, ValueError, "rtol must be a positive finite number"),
        ({"activation": "relu"}, ValueError, "unknown activation 'relu'"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_pass(arguments, error, message):
    with pytest.raises(error, match=message):
        FFJORD(**{"features": 2, **arguments})


def test_inputs_that_do_not_fit_are_refused():
    layer = build(context_features=2)
    with pytest.raises(ValueError, match="built for a context of 2 features"):
        layer(torch.ones(4, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"must have the shape \(B, 3\), got \(4, 2\)"):
        layer(torch.ones(4, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    with pytest.raises(TypeError, match="convert one of them"):
        build().invert(torch.ones(4, 3))
