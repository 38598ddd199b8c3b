"""Additive couplings of images."""

import pytest
import torch
from cases import hostile

from iresnet_flows.models import AdditiveCoupling
from iresnet_flows.models.couplings import bottleneck

first = pytest.mark.parametrize("first", [True, False])


def layer(first, dtype=torch.float64):
    torch.manual_seed(0)
    return hostile(AdditiveCoupling(4, bottleneck(2, 3), first).to(dtype), 0.5)


@first
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_inverse_is_exact(first, training, dtype):
    coupling = layer(first, dtype).train(training)
    x = torch.randn(5, 4, 3, 5, dtype=dtype)
    y, log_abs_det = coupling(x)
    restored, back = coupling.inverse(y)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert (y - x).abs().max() > 0.1
    torch.testing.assert_close(restored, x, rtol=0, atol=tolerance)
    assert torch.equal(log_abs_det, torch.zeros(5, dtype=dtype))
    assert torch.equal(back, torch.zeros(5, dtype=dtype))


@first
def test_log_det_is_that_of_the_dense_jacobian(first):
    coupling = layer(first).eval()
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda t: coupling.transform(t).flatten(), x)
    sign, truth = torch.linalg.slogdet(jacobian.flatten(1))
    assert sign == coupling.sign
    torch.testing.assert_close(truth, torch.zeros((), dtype=torch.float64))


def test_halves_take_turns():
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    assert torch.equal(layer(first=False).transform(x)[:, :2], x[:, :2])
    assert torch.equal(layer(first=True).transform(x)[:, 2:], x[:, 2:])


def test_empty_batches_pass_in_eval_mode():
    assert layer(first=True).eval().transform(torch.zeros(0, 4, 3, 3).double()).shape[0] == 0


def test_channels_must_be_even_and_those_of_the_layer():
    with pytest.raises(ValueError, match="channels must be even, got 3"):
        AdditiveCoupling(3, torch.nn.Identity())
    with pytest.raises(ValueError, match=r"\(B, 4, H, W\), got \(2, 6, 3, 3\)"):
        layer(first=True).transform(torch.zeros(2, 6, 3, 3).double())
