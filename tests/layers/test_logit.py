"""What is particular to the logit."""

import pytest
import torch

from iresnet_flows.layers import Logit


def dense_log_det(function, x):
    jacobian = torch.autograd.functional.jacobian(lambda t: function(t).sum(0).flatten(), x)
    return torch.linalg.slogdet(jacobian.transpose(0, 1).flatten(2)).logabsdet


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.3])
def test_the_log_det_is_that_of_the_jacobian_up_to_the_ends_of_the_interval(alpha):
    layer, x = Logit(alpha), torch.rand(4, 2, 3, dtype=torch.float64)
    x[0], x[1] = 0, 1
    y, logabsdet = layer(x)
    torch.testing.assert_close(logabsdet, dense_log_det(layer.transform, x))
    restored, back = layer.inverse(y)
    torch.testing.assert_close(restored, x)
    torch.testing.assert_close(back, -logabsdet)


def test_far_latents_give_finite_log_dets_and_gradients_in_float32():
    y = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    x, logabsdet = Logit(1e-6).inverse(y)
    (x.sum() + logabsdet.sum()).backward()
    assert logabsdet.isfinite().all()
    assert y.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, -1.0, float("nan")])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha must lie in \(0, 0.5\), got"):
        Logit(alpha)


@pytest.mark.parametrize(("end", "said"), [(255.0, "0 to 255"), (-0.2, "-0.2 to 0")])
def test_values_outside_of_the_interval_are_refused_with_their_range(end, said):
    x = torch.zeros(2, 3)
    x[1, 1] = end
    for call in (Logit(), Logit().transform, torch.func.vmap(Logit().transform)):
        with pytest.raises(ValueError, match=f"lie in .* got {said}: scale it"):
            call(x)
