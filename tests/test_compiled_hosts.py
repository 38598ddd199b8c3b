"""Flows of each host in `torch.compile`: densities in one graph, samples as without it."""

from __future__ import annotations

import pytest
import torch
from cases import hostile

from iresnet_flows import CayleyBlock, Exact, InvertibleResidualBlock, LipschitzMLP

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = [
    pytest.mark.skipif(
        TORCH < (2, 13), reason="older torch loses the fields of a frozen dataclass"
    ),
    # Of dynamo, about itself.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute"),
]


def block():
    return InvertibleResidualBlock(hostile(LipschitzMLP(2, (4,))), Exact())


def of_nflows():
    pytest.importorskip("nflows")
    from iresnet_flows.nflows import Flow, InvertibleResidualTransform, StandardNormal

    return Flow(InvertibleResidualTransform(block()), StandardNormal([2]))


def of_normflows():
    nf = pytest.importorskip("normflows")
    from iresnet_flows.normflows import InvertibleResidual

    return nf.NormalizingFlow(nf.distributions.DiagGaussian(2), [InvertibleResidual(block())])


def of_pyro():
    dist = pytest.importorskip("pyro.distributions")
    from iresnet_flows.pyro import InvertibleResidual

    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    return dist.TransformedDistribution(base, [InvertibleResidual(block(), "inverse")])


def of_zuko():
    zuko = pytest.importorskip("zuko")
    from iresnet_flows.zuko import InvertibleResidual

    base = zuko.distributions.DiagNormal(torch.zeros(2), torch.ones(2))
    return zuko.lazy.Flow([InvertibleResidual(block())], lambda _: base)()


def shape_of(host, count):
    """What the host's `sample` takes."""
    return count if host in (of_nflows, of_normflows) else (count,)


hosts = pytest.mark.parametrize(
    "host", [of_nflows, of_normflows, of_pyro, of_zuko], ids=lambda f: f.__name__
)


@hosts
def test_a_density_compiles_into_one_graph(host):
    flow, x = host(), torch.randn(5, 2)
    torch._dynamo.reset()
    # torch.distributions itself breaks the graph, where it checks values.
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=host is not of_pyro)
    torch.testing.assert_close(compiled(x), flow.log_prob(x))


def test_a_pyro_transform_compiles_into_one_graph():
    pytest.importorskip("pyro")
    from iresnet_flows.pyro import InvertibleResidual

    transform, x = InvertibleResidual(block()), torch.randn(5, 2)
    torch._dynamo.reset()

    def call(x):
        y = transform(x)
        return y, transform.log_abs_det_jacobian(x, y)

    compiled = torch.compile(call, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), call(x))
    y = transform(x)
    assert transform.inv(y) is x  # the cache works again


@hosts
def test_samples_are_solved_as_without_a_compiler(host):
    flow = host()
    torch._dynamo.reset()
    torch.manual_seed(0)
    expected = flow.sample(shape_of(host, 5))
    torch.manual_seed(0)
    samples = torch.compile(flow.sample, backend="eager")(shape_of(host, 5))
    torch.testing.assert_close(samples, expected)


@pytest.mark.parametrize("make", [InvertibleResidualBlock, CayleyBlock])
def test_every_solved_side_gives_its_gradient(make):
    layer, x = make(hostile(LipschitzMLP(2, (4,))), Exact()), torch.randn(5, 2)
    torch._dynamo.reset()

    def score(x):
        y, logabsdet = layer.inverse(x.sin())
        return (y.square().sum(-1) + logabsdet + layer.invert(x).sum(-1)).sum()

    parameters = list(layer.parameters())
    results, expected = (
        torch.autograd.grad(f(x), parameters)
        for f in (torch.compile(score, backend="eager"), score)
    )
    torch.testing.assert_close(results, expected)
