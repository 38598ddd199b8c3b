"""Blocks that claim no inverse."""

import pytest
import torch
from cases import hostile

from iresnet_flows.bridge import to_nflows
from iresnet_flows.errors import InverseNotAvailable
from iresnet_flows.models import IteratedBlock, UnconstrainedBlock
from iresnet_flows.models.unconstrained import convolutions


def block(steps=100, size=1.0):
    torch.manual_seed(0)
    g = hostile(convolutions(2, (4, 6), (3, 1, 3), "csin").double(), 0.3)
    with torch.no_grad():
        g[-1].weight.mul_(size)
    return IteratedBlock(g, steps)


@pytest.mark.parametrize("training", [True, False])
def test_log_det_is_that_of_the_dense_jacobian(training):
    layer, x = block().train(training), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    y, log_abs_det = layer(x)
    jacobian = torch.autograd.functional.jacobian(lambda t: layer.transform(t).sum(0).flatten(), x)
    truth = torch.linalg.slogdet(jacobian.transpose(0, 1).flatten(2))[1]
    torch.testing.assert_close(y, x + layer.g(x))
    torch.testing.assert_close(log_abs_det, truth)
    assert layer(x[:0])[1].shape == (0,)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x.clone())[1], truth)


def test_iteration_finds_the_solution_where_there_is_a_contraction():
    layer, x = block(size=0.05), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(layer.invert(layer.transform(x)), x)


def test_iteration_ends_where_it_is_after_its_steps():
    g = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(g.weight, -2.0)
    y = torch.ones(1, 1, dtype=torch.float64)
    for steps in (1, 2, 5):  # x <- 1 + 2 x from 1
        assert IteratedBlock(g, steps).invert(y).item() == 2 ** (steps + 1) - 1


def test_no_inverse_is_claimed():
    layer, y = block(), torch.randn(1, 2, 3, 3, dtype=torch.float64)
    plain = UnconstrainedBlock(layer.g)
    for side in (layer.inverse, plain.inverse, plain.invert):
        with pytest.raises(InverseNotAvailable, match="use IteratedBlock to see"):
            side(y)
    transforms = pytest.importorskip("nflows.transforms.base")
    with pytest.raises(transforms.InverseNotAvailable):
        to_nflows(plain).inverse(y)
    with pytest.raises(NotImplementedError, match="either sign"):
        _ = layer.sign
    with pytest.raises(ValueError, match="steps must be at least 1"):
        IteratedBlock(torch.nn.Identity(), 0)
