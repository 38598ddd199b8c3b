"""What is particular to ActNorm: how it begins."""

import copy

import pytest
import torch
from ranks import begin_norms, images
from torch import distributed, multiprocessing

from iresnet_flows.distributions import LayerTransform
from iresnet_flows.layers import ActNorm, ElementwiseAffine, Inverted, Stack

DTYPES = [torch.float32, torch.float64]


def begun(x):
    layer = ActNorm(x.shape[1]).to(x.dtype)
    layer.transform(x)
    return layer


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [(0,), (0, 2, 3)], ids=["vectors", "images"])
def test_the_first_batch_has_mean_zero_and_variance_one_in_each_channel(dtype, dims):
    x = images(dtype=dtype) if len(dims) == 3 else images(dtype=dtype)[..., 0, 0]
    y = ActNorm(3).to(dtype).transform(x)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    assert y.dtype == dtype
    assert y.mean(dims).abs().max() < tolerance
    assert (y.var(dims, unbiased=False) - 1).abs().max() < tolerance


@pytest.mark.parametrize("value", [0.0, 7.3])
def test_a_constant_channel_is_centred_and_not_scaled(value):
    x = torch.randn(20, 2, 3, 3)
    x[:, 0] = value
    layer = begun(x)
    assert layer.log_scale[0] == 0
    assert layer.log_scale[1] != 0
    assert layer.transform(x)[:, 0].abs().max() < 1e-6
    assert all(p.isfinite().all() for p in layer.parameters())


def test_one_sample_is_a_batch_whose_features_are_centred():
    layer = begun(torch.tensor([[3.0, -2.0]]))
    assert torch.equal(layer.shift, torch.tensor([-3.0, 2.0]))
    assert not layer.log_scale.any()


def test_an_empty_batch_leaves_the_beginning_to_the_next():
    layer, x = ActNorm(3).double(), images()
    y, logabsdet = layer(x[:0])
    assert y.shape == (0, 3, 4, 5)
    assert logabsdet.shape == (0,)
    assert not layer.initialized
    assert torch.equal(layer(x)[0], begun(x).transform(x))


def test_the_second_batch_changes_nothing():
    x = images()
    layer = begun(x)
    before = copy.deepcopy(layer.state_dict())
    layer.transform(7 * x + 1)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_loaded_model_does_not_begin_again():
    x = images()
    layer, fresh = begun(x), ActNorm(3).double()
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.transform(2 * x), layer.transform(2 * x))


def test_a_layer_whose_parameters_alone_were_loaded_does_not_begin_again():
    x = images()
    layer, fresh = begun(x), ActNorm(3).double()
    fresh.load_state_dict(dict(layer.named_parameters()), strict=False)
    assert torch.equal(fresh.transform(2 * x), layer.transform(2 * x))


def test_a_copy_of_a_begun_layer_does_not_begin_again():
    x = images()
    layer = begun(x)
    assert torch.equal(copy.deepcopy(layer).transform(2 * x), layer.transform(2 * x))


def test_a_copy_of_a_fresh_layer_begins_by_itself():
    layer, x = ActNorm(3).double(), images()
    other = copy.deepcopy(layer)
    layer.transform(x)
    assert not other.initialized
    assert torch.equal(other.transform(2 * x), begun(2 * x).transform(2 * x))


def test_a_fresh_layer_is_the_identity_in_eval_mode_and_does_not_begin():
    layer, x = ActNorm(3).double().eval(), images()
    y, logabsdet = layer(x)
    assert torch.equal(y, x)
    assert not logabsdet.any()
    assert not layer.initialized


def test_the_inverse_does_not_begin():
    layer = ActNorm(3).double()
    layer.inverse(images())
    assert not layer.initialized


@pytest.mark.parametrize("cache_size", [0, 1])
@pytest.mark.parametrize("kind", ["explicit inverse", "inverted"])
def test_a_log_det_of_what_the_inverse_gave_does_not_begin(kind, cache_size):
    stack = Stack([ElementwiseAffine(2), ActNorm(2)])
    torch.nn.init.constant_(stack.layers[0].log_scale, 1.0)
    layer, explicit = (
        (stack, "inverse") if kind == "explicit inverse" else (Inverted(stack), "forward")
    )
    transform = LayerTransform(layer, explicit, cache_size=cache_size)
    x = torch.randn(64, 2)
    y = transform(x)
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), torch.full((64,), -2.0))
    assert not stack.layers[1].initialized
    stack(y)
    assert stack.layers[1].initialized


def test_an_ensemble_under_vmap_does_not_begin():
    layers = [ActNorm(3), ActNorm(3)]
    state = torch.func.stack_module_state(layers)
    x = images().float()

    def call(parameters, buffers):
        return torch.func.functional_call(layers[0], (parameters, buffers), (x,))[0]

    assert torch.equal(torch.func.vmap(call)(*state), x.expand(2, *x.shape))


def test_forward_begins_before_it_takes_the_log_det_which_is_that_of_the_jacobian():
    layer, x = ActNorm(2).double(), 3 * torch.randn(4, 2, 2, 3, dtype=torch.float64) + 1
    y, logabsdet = layer(x)
    jacobian = torch.autograd.functional.jacobian(lambda t: layer.transform(t).sum(0).flatten(), x)
    truth = torch.linalg.slogdet(jacobian.transpose(0, 1).flatten(2)).logabsdet
    assert truth.abs().min() > 1
    torch.testing.assert_close(logabsdet, truth)
    torch.testing.assert_close(layer.invert(y), x)


def test_the_first_batch_has_the_gradients_of_the_layer_that_it_has_made():
    x = images().requires_grad_()
    layer = ActNorm(3).double()
    y, logabsdet = layer(x)
    expected = torch.autograd.grad(sum(r.square().sum() for r in layer(x)), layer.parameters())
    loss = y.square().sum() + logabsdet.square().sum()
    for result, truth in zip(torch.autograd.grad(loss, layer.parameters()), expected, strict=True):
        assert torch.equal(result, truth)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_begins_without_gradients_too_and_trains_on(mode):
    layer, x = ActNorm(3).double(), images()
    with mode():
        layer.transform(x)
    assert layer.initialized
    layer.transform(x).square().sum().backward()
    assert layer.log_scale.grad.isfinite().all()


@pytest.mark.skipif(not distributed.is_available(), reason="torch is built without it")
def test_two_ranks_begin_alike_from_the_batch_of_both(tmp_path):
    multiprocessing.spawn(begin_norms, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    torch.manual_seed(0)
    alone = begun(images(30, torch.float32)).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name])
        torch.testing.assert_close(value, alone[name.partition(".")[2]])
