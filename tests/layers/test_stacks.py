"""What is particular to a stack."""

from unittest.mock import patch

import pytest
import torch
from cases import hostile
from torch import nn

from iresnet_flows import CayleyBlock, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.inverse import Equation
from iresnet_flows.layers import ElementwiseAffine, Inverted, Layer, Stack


def block(context_features=None):
    return InvertibleResidualBlock(LipschitzMLP(2, (4, 4), context_features=context_features))


class Flip(Layer):
    """A reflection, whose determinant is negative."""

    sign = -1

    def forward(self, x, context=None):
        return self.transform(x), x.new_zeros(len(x))

    def inverse(self, y, context=None):
        return self.transform(y), y.new_zeros(len(y))

    def transform(self, x, context=None):
        return x * torch.tensor([-1.0, 1.0])

    def invert(self, y, context=None):
        return self.transform(y)


def test_the_first_layer_is_applied_first():
    layers = [block(), block()]
    x = torch.randn(5, 2)
    assert torch.equal(Stack(layers).transform(x), layers[1].transform(layers[0].transform(x)))


def test_a_branch_is_no_layer():
    for make in (Inverted, lambda layer: Stack([layer])):
        with pytest.raises(TypeError, match="got LipschitzMLP"):
            make(LipschitzMLP(2))


def test_no_layers_are_the_identity():
    stack, x = Stack([]), torch.randn(5, 2)
    for value, logabsdet in (stack(x), stack.inverse(x)):
        assert torch.equal(value, x)
        assert torch.equal(logabsdet, torch.zeros(5))


def test_a_context_reaches_the_layers_that_ask_for_it():
    stack = Stack([block(), block(3), ElementwiseAffine(2)])
    x, context = torch.randn(5, 2), torch.randn(5, 3)
    assert stack.context_features == 3
    assert not torch.equal(stack.transform(x, context), stack.transform(x, context + 1))


def test_a_context_is_refused_where_no_layer_asks_for_it():
    with pytest.raises(ValueError, match="a context was given to a layer without one"):
        Stack([block()]).transform(torch.randn(5, 2), torch.randn(5, 3))


def test_a_missing_context_is_asked_for():
    with pytest.raises(ValueError, match="built for a context of 3 features"):
        Stack([block(3)]).transform(torch.randn(5, 2))


def test_contexts_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"share one context, and these ask for \[2, 3\]"):
        Stack([block(2), block(3)])


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="expected a layer of this package"):
        Stack([nn.Linear(2, 2)])


def test_signs_multiply():
    assert Stack([Flip(), block()]).sign == -1
    assert Stack([Flip(), Flip()]).sign == 1
    assert Inverted(Flip()).sign == -1


@pytest.mark.parametrize("kind", [CayleyBlock, lambda g: Inverted(InvertibleResidualBlock(g))])
def test_a_deferred_log_det_costs_no_second_solve(kind):
    layer, x = kind(LipschitzMLP(2)), torch.randn(5, 2)
    root = Equation.root
    with patch.object(Equation, "root", autospec=True, side_effect=root) as solve:
        y, measure = layer.deferred(x)
        logabsdet = measure()
    assert solve.call_count == 1
    torch.testing.assert_close(logabsdet, -layer.inverse(y)[1])


def test_a_deferred_log_det_is_of_the_pass_that_gave_the_value():
    stack, x = Stack([block(), block()]), torch.randn(5, 2)
    expected = stack(x)
    y, measure = stack.deferred(x)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(1)
    assert torch.equal(y, expected[0])
    torch.testing.assert_close(measure(), expected[1])


def test_a_context_reaches_a_layer_of_another_host_beside_a_conditional_one():
    """Which cannot tell whether it asks for one."""
    transforms = pytest.importorskip("nflows.transforms")
    from iresnet_flows.bridge import to_nflows, to_pyro

    maf = transforms.MaskedAffineAutoregressiveTransform(2, 8, context_features=3)
    maf = hostile(maf.double())
    own = block(3).double()
    x, context = torch.randn(5, 2).double(), torch.randn(5, 3).double()
    hidden, first = maf(x, context)
    expected, second = own(hidden, context)
    stack = Stack([to_nflows(maf).layer, own, ElementwiseAffine(2).double()])
    assert stack.takes_context
    y, logabsdet = stack(x, context)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(logabsdet, first + second)
    torch.testing.assert_close(stack.invert(y, context), x)

    alone = Stack([to_nflows(maf).layer])
    assert alone.takes_context is None
    generated = to_pyro(alone, conditional=True, explicit="forward").condition(context)(x)
    torch.testing.assert_close(generated, hidden)
