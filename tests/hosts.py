"""What the tests of the hosts share: blocks, data, and the truth of a dense Jacobian."""

from dataclasses import dataclass, field

import pytest
import torch
from cases import hostile

from iresnet_flows import (
    Exact,
    FixedPoint,
    InvertibleResidualBlock,
    LipschitzConvNet,
    LipschitzMLP,
)
from iresnet_flows.layers import ElementwiseAffine

WEIGHTS = torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def make_block(features=2, context_features=None, log_det=None):
    """A block with weights far from their initial ones, solved to the last digits of float64."""
    branch = LipschitzMLP(features, (8, 6), context_features=context_features).double()
    return InvertibleResidualBlock(hostile(branch), log_det, FixedPoint(atol=1e-13, rtol=1e-13))


def make_image_block(channels):
    branch = LipschitzConvNet(channels, (4, 4), lipschitz=0.7).double()
    return InvertibleResidualBlock(hostile(branch), Exact(), FixedPoint(atol=1e-13, rtol=1e-13))


def assert_replaces_its_block(adapter, block):
    """A block that is assigned is the one in use, and what is no layer is refused."""
    adapter.block = block
    assert adapter.block is block
    assert list(adapter.parameters()) == list(block.parameters())
    with pytest.raises(TypeError, match="got LipschitzMLP"):
        adapter.block = block.branch


def points(*shape):
    return torch.randn(*(shape or (5, 2)), dtype=torch.float64)


def dense_logabsdet(function, x):
    """log|det| of the function's dense Jacobian at each row of x, with its gradient."""
    jacobian = torch.autograd.functional.jacobian(
        lambda x: function(x).flatten(1).sum(0), x, create_graph=True
    )
    return torch.linalg.slogdet(jacobian.transpose(0, 1).flatten(2)).logabsdet


def assert_has_gradients_of(value, truth, wanted, rtol=1e-7, atol=1e-8):
    """Both have the same gradients, with unequal weights where they are of several samples."""
    weights = WEIGHTS[: len(value)] if value.dim() else None
    gradients = torch.autograd.grad(value, wanted, weights)
    for gradient, expected in zip(gradients, torch.autograd.grad(truth, wanted, weights)):
        assert gradient.any()
        torch.testing.assert_close(gradient, expected, rtol=rtol, atol=atol)


@dataclass(frozen=True)
class Counted(Exact):
    """The exact log-determinant, which counts how often it is asked for."""

    calls: list[int] = field(default_factory=list)

    def draw(self, *args, **kwargs):
        self.calls.append(1)
        return super().draw(*args, **kwargs)


def make_normflows(explicit="inverse", features=2, context_features=None, p=None):
    """A normflows model of two blocks, a permutation and a scale between them, in float64."""
    import normflows as nf

    from iresnet_flows.normflows import InvertibleResidual, LayerFlow

    parts = [
        InvertibleResidual(make_block(features, context_features), explicit),
        nf.flows.Permute(features, mode="swap"),
        LayerFlow(hostile(ElementwiseAffine(features).double())),
        InvertibleResidual(make_block(features, context_features), explicit),
    ]
    base = hostile(nf.distributions.DiagGaussian(features), 0.2)
    kind = nf.NormalizingFlow if context_features is None else nf.ConditionalNormalizingFlow
    return kind(base, parts, p).double()


def dense_log_prob(flow, x, **context):
    """log q(x) of a normflows model, by the dense Jacobian of its inverse."""

    def to_latent(x):
        return flow.inverse(x, **context)

    return flow.q0.log_prob(to_latent(x)) + dense_logabsdet(to_latent, x)
