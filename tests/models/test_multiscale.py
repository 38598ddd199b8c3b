"""Image densities against dense Jacobians."""

import copy
import math

import pytest
import torch
from cases import ANDERSON, hostile
from contract import WEIGHTS
from torch.distributions import Independent, Normal

from iresnet_flows import Exact, InvertibleResidualBlock, LipschitzConvNet, RussianRoulette
from iresnet_flows.layers import ActNorm, Logit, Squeeze, Stack
from iresnet_flows.models import ImageBlocks, MultiScaleFlow, i_resnet_flow

LABELS = torch.tensor([0, 2, 1, 2, 0])
SMALL = ImageBlocks((4, 4), lipschitz=0.7, log_det=Exact())
SHAPES = {
    "the paper's": {"counts": (1, 1)},
    "Residual Flow's": {
        "counts": (1, 1),
        "squeeze_first": False,
        "factor_out": False,
        "connected": (6,),
    },
    "one scale": {"counts": (2,)},
    "from the pixels": {"counts": (1, 1), "start": Stack([])},
    "classes": {"counts": (1, 1), "classes": 3},
}
EACH = pytest.mark.parametrize("shape", SHAPES)


def flow(shape="the paper's", dtype=torch.float64, seed=0, blocks=SMALL):
    """One with weights as training leaves them, and ActNorm as the first batch does."""
    torch.manual_seed(seed)
    model = i_resnet_flow((1, 4, 4), blocks=blocks, **copy.deepcopy(SHAPES[shape])).double()
    model.latents(images())
    for module in model.modules():
        if isinstance(module, InvertibleResidualBlock):
            module.solver = ANDERSON
    return hostile(model, 0.2).to(dtype)


def images(batch=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 1, 4, 4, dtype=torch.float64, generator=generator).to(dtype)


def dense_log_det(model, x):
    jacobian = torch.autograd.functional.jacobian(lambda t: model.latents(t).sum(0), x)
    return torch.linalg.slogdet(jacobian.transpose(0, 1).flatten(2)).logabsdet


def normal(z, mean, log_deviation):
    return Independent(Normal(mean, log_deviation.exp()), z.dim() - 1).log_prob(z)


@EACH
def test_the_log_det_is_that_of_the_dense_jacobian(shape):
    model, x = flow(shape), images()
    z, logabsdet = model.encode(x)
    torch.testing.assert_close(logabsdet, dense_log_det(model, x))
    torch.testing.assert_close(z, model.latents(x))
    assert logabsdet.abs().min() > 0.1


def test_the_density_is_that_of_the_last_latents_and_of_the_others_given_what_went_on():
    model, x = flow(), images()
    first, second = model.scales
    h, let_go = first.transform(x).chunk(2, 1)
    last = second.transform(h)
    mean, log_deviation = model.splits[0].moments(h).chunk(2, 1)
    expected = (
        normal(last, model.prior.mean[0], model.prior.log_deviation[0])
        + normal(let_go, mean, log_deviation)
        + dense_log_det(model, x)
    )
    torch.testing.assert_close(model.log_prob(x), expected)
    assert torch.equal(model.latents(x), torch.cat((let_go.flatten(1), last.flatten(1)), 1))


def test_the_density_of_one_scale_is_that_of_all_latents():
    model, x = flow("Residual Flow's"), images()
    expected = normal(model.latents(x), model.prior.mean[0], model.prior.log_deviation[0])
    torch.testing.assert_close(model.log_prob(x), expected + dense_log_det(model, x))


def test_without_labels_the_density_is_the_even_mixture_of_the_classes():
    model, x = flow("classes"), images()
    each = torch.stack([model.log_prob(x, torch.full((5,), k)) for k in range(3)])
    torch.testing.assert_close(model.log_prob(x), each.logsumexp(0) - math.log(3))
    expected = each[LABELS, torch.arange(5)]
    torch.testing.assert_close(model.log_prob(x, LABELS), expected)
    assert each.std(0).min() > 0.1


@EACH
def test_decoding_undoes_encoding_and_encoding_decoding(shape):
    model, x = flow(shape), images()
    z = model.latents(x)
    torch.testing.assert_close(model.decode(z), x)
    other = z.detach() + 0.1 * torch.randn_like(z)
    torch.testing.assert_close(model.latents(model.decode(other)), other)


@EACH
def test_gradients_with_unequal_weights_are_those_of_each_sample(shape):
    model, x = flow(shape), images()
    parameters = [*model.parameters()]

    def gradients(rows):
        weighted = WEIGHTS[rows] @ model.log_prob(x[rows])
        return torch.autograd.grad(weighted, parameters)

    alone = zip(*(gradients(slice(i, i + 1)) for i in range(len(x))), strict=True)
    for together, parts in zip(gradients(slice(None)), alone, strict=True):
        torch.testing.assert_close(together, sum(parts), rtol=1e-8, atol=1e-8)
        assert together.abs().max() > 0


def test_gradients_are_those_of_finite_differences():
    model, x = flow("classes"), images(2)
    names, parameters = zip(*model.named_parameters(), strict=True)

    def log_prob(x, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), x)[2]

    leaves = tuple(t.detach().requires_grad_() for t in (x, *parameters))
    assert torch.autograd.gradcheck(log_prob, leaves, atol=1e-4, fast_mode=True)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_dtype_and_shape_are_kept_down_to_an_empty_batch(shape, dtype, batch):
    model, x = flow(shape, dtype), images(batch, dtype)
    z, logabsdet, log_prob = model(x)
    assert z.shape == (batch, 16)
    assert logabsdet.shape == log_prob.shape == (batch,)
    assert model.decode(z).shape == model.sample(batch).shape == x.shape
    results = (z, logabsdet, log_prob, model.decode(z), model.sample(batch))
    assert {t.dtype for t in results} == {dtype}


def test_float32_agrees_with_float64():
    single = flow(dtype=torch.float32).log_prob(images(dtype=torch.float32))
    torch.testing.assert_close(single.double(), flow().log_prob(images()), rtol=1e-4, atol=1e-4)


@EACH
def test_train_and_eval_agree_and_so_do_a_loaded_model_and_a_copy(shape):
    model, x = flow(shape), images()
    expected = model.log_prob(x)
    assert torch.equal(copy.deepcopy(model).log_prob(x), expected)
    fresh = flow(shape, seed=7)
    assert not torch.allclose(fresh.log_prob(x), expected)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x), expected)
    assert torch.equal(model.eval().log_prob(x), expected)


def test_samples_are_the_images_of_latents_at_that_temperature():
    """With layers that are known: the upper two pixels go on, the lower two are let go of."""
    model = MultiScaleFlow([Squeeze(), Stack([])], (1, 2, 2))
    with torch.no_grad():
        model.prior.mean.fill_(0.5)
        model.prior.log_deviation.fill_(math.log(0.05))
        model.splits[0].moments.bias.copy_(torch.tensor([0.4, 0.6, -3.0, -3.0]))
    x = model.sample(20_000, temperature=0.5, generator=torch.Generator().manual_seed(1))
    deviation = 0.5 * torch.tensor([[0.05, 0.05], [math.exp(-3), math.exp(-3)]])
    errors = deviation / math.sqrt(len(x))
    mean = torch.tensor([[0.5, 0.5], [0.4, 0.6]])
    assert ((x.mean(0)[0] - mean).abs() < 4.5 * errors).all()
    assert ((x.std(0)[0] - deviation).abs() < 4.5 * errors).all()


@EACH
def test_a_generator_determines_samples_which_stay_within_the_unit_cube(shape):
    model, state = flow(shape, torch.float32), torch.get_rng_state()
    first, second = (
        model.sample(6, 2.0, generator=torch.Generator().manual_seed(5)) for _ in "ab"
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 <= first.min() <= first.max() <= 1
    assert not first.requires_grad


def test_samples_of_a_class_are_the_likeliest_in_it():
    model = flow("classes")
    with torch.no_grad():
        model.prior.mean += 4 * torch.randn_like(model.prior.mean)
    labels = LABELS.repeat(10)
    x = model.sample(50, labels=labels, generator=torch.Generator().manual_seed(5))
    each = torch.stack([model.log_prob(x.clamp(1e-6), torch.full((50,), k)) for k in range(3)])
    assert (each.argmax(0) == labels).float().mean() > 0.9


def test_within_frozen_the_estimates_repeat_with_draws_of_its_own_for_each_block():
    random = ImageBlocks((4, 4), lipschitz=0.7, log_det=RussianRoulette())
    model, x = flow(blocks=random), images()
    with model.frozen(3):
        first = model.log_prob(x)
        assert torch.equal(model.log_prob(x), first)
        seeds = {m.seed for m in model.modules() if isinstance(m, InvertibleResidualBlock)}
        assert len(seeds) == 2
    with model.frozen(4):
        assert not torch.equal(model.log_prob(x), first)
    assert not torch.equal(model.log_prob(x), model.log_prob(x))


def test_random_estimates_of_the_density_have_the_exact_one_as_their_mean():
    random = ImageBlocks((4, 4), lipschitz=0.7, log_det=RussianRoulette())
    model, x = flow(blocks=random), images(2)
    with torch.no_grad():
        draws = torch.stack([model.log_prob(x) for _ in range(400)])
    error = draws.std(0) / math.sqrt(len(draws))
    truth = flow().log_prob(x)
    assert ((draws.mean(0) - truth).abs() < 4.5 * error).all()


def test_an_actnorm_in_a_fresh_flow_begins_from_the_first_batch_in_train_mode_alone():
    model = i_resnet_flow((1, 4, 4), (1, 1), SMALL)
    norms = [m for m in model.modules() if isinstance(m, ActNorm)]
    x = images(dtype=torch.float32)
    model.eval().log_prob(x)
    assert not any(norm.initialized for norm in norms)
    model.train().log_prob(x)
    assert all(norm.initialized for norm in norms)


def test_the_shapes_are_those_of_the_papers():
    paper = i_resnet_flow((3, 32, 32), (1, 1, 1), ImageBlocks((8, 8)))
    assert paper.parts == [(6, 16, 16), (12, 8, 8), (48, 4, 4)]
    residual = i_resnet_flow(
        (3, 32, 32), (1, 1, 1), ImageBlocks((8, 8)), squeeze_first=False, factor_out=False
    )
    assert residual.parts == [(48, 8, 8)]
    widths = [m.channels for m in residual.modules() if isinstance(m, LipschitzConvNet)]
    assert widths == [3, 12, 48]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: i_resnet_flow((1, 6, 8), (1, 1)), "multiples of 4, got 6 x 8"),
        (lambda: i_resnet_flow((1, 4, 4), ()), "counts must name"),
        (lambda: MultiScaleFlow([], (1, 4, 4)), "at least one layer, got none"),
        (lambda: MultiScaleFlow([Logit(), Logit()], (3, 4, 4)), "one ends with 3"),
        (lambda: flow().log_prob(images()[:, :, :2]), r"\(B, 1, 4, 4\), got \(5, 1, 2, 4\)"),
        (lambda: flow().decode(torch.zeros(5, 3)), r"\(B, 16\), got \(5, 3\)"),
        (lambda: flow().log_prob(images(), LABELS), "build it with classes"),
    ],
)
def test_what_does_not_fit_is_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()
