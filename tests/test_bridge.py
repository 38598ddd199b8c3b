"""Layers of this package in any host: the side, the sign and the context."""

import pytest
import torch
from cases import hostile
from torch.distributions import CumulativeDistributionTransform, Normal

pytest.importorskip("torchdiffeq")

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.bridge import to_nflows, to_normflows, to_pyro, to_zuko
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.layers import ElementwiseAffine, Layer

BRIDGES = {"nflows": to_nflows, "normflows": to_normflows, "pyro": to_pyro, "zuko": to_zuko}
TIGHT = FixedPoint(atol=1e-13, rtol=1e-13)

LAYERS = {
    "affine": lambda context: ElementwiseAffine(2),
    "block": lambda context: InvertibleResidualBlock(
        LipschitzMLP(2, (8, 6), context_features=context), solver=TIGHT
    ),
    "ffjord": lambda context: FFJORD(2, (6, 5), context, method="rk4", steps=10),
    "ffjord, dopri5": lambda context: FFJORD(2, (6, 5), context, atol=1e-11, rtol=1e-11),
}
CONDITIONAL = {name: make for name, make in LAYERS.items() if name != "affine"}

each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
each_conditional = pytest.mark.parametrize("make", CONDITIONAL.values(), ids=CONDITIONAL)
both_sides = pytest.mark.parametrize("explicit", ["forward", "inverse"])


@pytest.fixture(params=BRIDGES)
def host(request):
    pytest.importorskip(request.param)
    return request.param


def build(make, context=None) -> Layer:
    return hostile(make(context).double(), 0.3)


def points(count=5, features=2):
    return torch.randn(count, features, dtype=torch.float64)


def sides(host, layer, explicit, context=None):
    """The host's `forward` and `inverse`, each giving a value and a log-det."""
    if host == "nflows":
        transform = to_nflows(layer, explicit)
        return tuple(
            lambda x, side=side: side(x, context) for side in (transform, transform.inverse)
        )
    if host == "normflows":
        flow = to_normflows(layer, explicit)
        return tuple(
            lambda x, side=side: side(x, context=context) for side in (flow, flow.inverse)
        )
    if host == "zuko":
        transform = to_zuko(layer, explicit)(context)
    else:
        transform = to_pyro(layer, explicit)
        transform = transform if context is None else transform.condition(context)
    return tuple(
        lambda x, side=side: (side(x), side.log_abs_det_jacobian(x, side(x)))
        for side in (transform, transform.inv)
    )


@both_sides
@each_layer
def test_the_explicit_side_is_the_layer_and_the_other_its_inverse(host, make, explicit):
    layer, x = build(make), points()
    expected = [layer(x), layer.inverse(x)]
    if explicit == "inverse":
        expected.reverse()
    for side, (value, logabsdet) in zip(sides(host, layer, explicit), expected):
        result, ladj = side(x)
        torch.testing.assert_close(result, value, rtol=0, atol=1e-8)
        # Pyro asks for the log-det of a solved side at its result, where rk4 errs differently.
        torch.testing.assert_close(ladj, logabsdet, rtol=0, atol=1e-5)


@both_sides
@each_layer
def test_log_dets_are_those_of_the_dense_jacobian(host, make, explicit):
    layer, x = build(make), points()
    # Under rk4, value and trace are discretised each on its own.
    atol = 1e-5 if getattr(layer, "method", None) == "rk4" else 1e-8
    for side in sides(host, layer, explicit):
        jacobian = torch.autograd.functional.jacobian(lambda x, side=side: side(x)[0].sum(0), x)
        truth = torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet
        assert truth.abs().min() > 1e-3
        torch.testing.assert_close(side(x)[1], truth, rtol=0, atol=atol)


@both_sides
@each_conditional
def test_the_context_reaches_the_layer(host, make, explicit):
    layer, x, context = build(make, 3), points(), points(features=3)
    expected = [layer(x, context)[0], layer.inverse(x, context)[0]]
    if explicit == "inverse":
        expected.reverse()
    for side, value in zip(sides(host, layer, explicit, context), expected):
        torch.testing.assert_close(side(x)[0], value, rtol=0, atol=1e-8)


@each_layer
def test_the_parameters_are_those_of_the_layer(host, make):
    layer = build(make)
    adapted = BRIDGES[host](layer)
    assert isinstance(adapted, torch.nn.Module)
    assert list(map(id, adapted.parameters())) == list(map(id, layer.parameters()))
    assert adapted.layer is layer


def test_whatever_is_no_layer_is_refused(host):
    with pytest.raises(TypeError, match=r"layer.*Linear"):
        BRIDGES[host](torch.nn.Linear(2, 2))


def test_a_distribution_of_parameters_within_a_transform_is_refused():
    loc = torch.nn.Parameter(torch.zeros(2))
    transform = CumulativeDistributionTransform(Normal(loc, 1.0))
    pytest.importorskip("nflows")
    with pytest.raises(ValueError, match="distribution is a Normal of parameters"):
        to_nflows(transform)
    to_nflows(CumulativeDistributionTransform(Normal(torch.zeros(2), 1.0)))


def test_an_unknown_side_is_refused(host):
    with pytest.raises(ValueError, match="'backward'"):
        BRIDGES[host](ElementwiseAffine(2), "backward")


def test_pyro_conditions_only_layers_with_a_context():
    pyro = pytest.importorskip("pyro.distributions")
    assert not isinstance(to_pyro(FFJORD(2)), pyro.ConditionalTransformModule)
    conditional = to_pyro(FFJORD(2, context_features=3))
    assert isinstance(conditional, pyro.ConditionalTransformModule)


def test_pyro_conditions_a_layer_that_comes_by_way_of_another_host(host):
    pyro = pytest.importorskip("pyro.distributions")
    crossed = to_pyro(BRIDGES[host](FFJORD(2, context_features=3)))
    assert isinstance(crossed, pyro.ConditionalTransformModule)


def test_each_host_has_a_side_that_it_prefers(host):
    layer, x = build(LAYERS["affine"]), points()
    value = sides(host, layer, None)[0 if host != "normflows" else 1](x)[0]
    torch.testing.assert_close(value, layer.transform(x))
