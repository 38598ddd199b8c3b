"""The rivals of Table 4: what every density promises."""

import math
from functools import partial

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("nflows")
pytest.importorskip("torchdiffeq")

from cases import hostile

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.images.architectures import (
    autoregressive,
    ffjord,
    glow,
    nice,
    realnvp,
    residual,
)
from iresnet_flows.experiments.images.catalogue import recipes
from iresnet_flows.experiments.images.densities import DENSITIES
from iresnet_flows.experiments.images.rivals import RIVALS
from iresnet_flows.experiments.widths import parameters

GREY, COLOUR = (1, 4, 4), (3, 4, 4)
FAMILIES = {
    "nice": nice,
    "realnvp": realnvp,
    "glow": partial(glow, depth=2),
    "ffjord": ffjord,
    "made": partial(autoregressive, layers=1),
    "maf": partial(autoregressive, layers=3),
}
each = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def trained(family, shape=GREY, dtype=torch.float64):
    """The density after its first batch and a random step."""
    torch.manual_seed(0)
    model = family(shape, 5)
    model.train().log_prob(torch.rand(20, *shape))
    model = hostile(model, 0.1).to(dtype).eval()
    if family is ffjord:
        for layer in model.modules():
            if hasattr(layer, "rtol"):
                layer.atol = layer.rtol = 1e-8 if dtype == torch.float64 else 1e-5
    return model


@each
@pytest.mark.parametrize("shape", [GREY, COLOUR], ids=str)
def test_log_density_is_that_of_the_dense_jacobian(family, shape):
    model = trained(family, shape)
    x = torch.rand(2, *shape, dtype=torch.float64)

    def latents(flat):
        return model.transform(model.logit.transform(flat.reshape(1, *shape)))[0][0]

    for image, log_prob in zip(x, model.log_prob(x), strict=True):
        flat = image.flatten()
        jacobian = torch.autograd.functional.jacobian(latents, flat)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(latents(flat)).sum()
        expected = normal + torch.linalg.slogdet(jacobian).logabsdet
        assert torch.allclose(log_prob, expected, atol=1e-6)


@each
def test_samples_are_the_images_of_their_latents(family):
    model = trained(family)
    for temperature in (0.5, 1.0):
        x = model.sample(4, temperature, generator=torch.Generator().manual_seed(3))
        z, _ = model.transform(model.logit.transform(x))
        noise = torch.Generator().manual_seed(3)
        expected = torch.randn(4, 16, generator=noise, dtype=torch.float64)
        assert torch.allclose(z, temperature * expected, atol=1e-4)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_any_batch_has_its_shape_and_type(family, dtype):
    model = trained(family, dtype=dtype)
    for train in (True, False):
        model.train(train)
        for batch in (0, 1, 3):
            log_prob = model.log_prob(torch.rand(batch, *GREY, dtype=dtype))
            assert log_prob.shape == (batch,) and log_prob.dtype == dtype
            x = model.sample(batch)
            assert x.shape == (batch, *GREY) and x.dtype == dtype
            assert ((x >= 0) & (x <= 1)).all()


@each
def test_each_sample_has_its_own_weight_in_the_gradient(family):
    model = trained(family)
    x = torch.rand(3, *GREY, dtype=torch.float64)
    weights = torch.tensor([0.2, 1.0, -0.7], dtype=torch.float64)
    together = torch.autograd.grad(
        (weights * model.log_prob(x)).sum(), list(model.parameters()), allow_unused=True
    )
    for weight, image in zip(weights, x, strict=True):
        (weight * model.log_prob(image[None]).sum()).backward()
    for p, found in zip(model.parameters(), together, strict=True):
        assert found is not None
        assert torch.allclose(found, p.grad, atol=1e-5 * (1 + float(found.abs().max())))


@each
def test_training_starts_and_gains(family):
    torch.manual_seed(1)
    model = family(GREY, 8)
    x = 0.3 * torch.rand(64, *GREY)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = -model(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_residual_blocks_of_normflows_score_within_their_noise_of_the_dense_jacobian():
    pytest.importorskip("normflows")
    torch.manual_seed(0)
    model = residual(GREY, 4, depth=2).double()
    model.train().log_prob(torch.rand(20, *GREY).double())
    recipe = RIVALS["quick"]["normflows-residual"]
    recipe.after_step(hostile(model, 0.1))
    x = torch.rand(1, *GREY, dtype=torch.float64)

    def latents(flat):
        return model.eval().transform(model.logit.transform(flat.reshape(1, *GREY)))[0][0]

    flat = x.flatten()
    jacobian = torch.autograd.functional.jacobian(latents, flat)
    z = latents(flat)
    expected = -(z.square().sum() + len(flat) * math.log(2 * math.pi)) / 2
    expected = expected + torch.linalg.slogdet(jacobian).logabsdet
    draws = torch.stack([model.log_prob(x)[0].detach() for _ in range(400)])
    assert draws.std() > 0
    assert (draws.mean() - expected).abs() < 5 * draws.std() / len(draws) ** 0.5


def test_residual_blocks_of_normflows_are_made_as_large_as_they_stay():
    pytest.importorskip("normflows")
    model = residual(GREY, 4, levels=2, depth=1)
    model.train().log_prob(torch.rand(20, *GREY)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    fresh = residual(GREY, 4, levels=2, depth=1)
    fresh.load_state_dict(model.state_dict())
    assert all(map(torch.equal, fresh.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("name", RIVALS["quick"])
def test_quick_rivals_are_as_large_as_ours(name):
    shape = (1, 28, 28)
    ours = parameters(lambda _: DENSITIES["quick"]["i-resnet"].make(shape, 10), 0)
    theirs = parameters(lambda _: RIVALS["quick"][name].make(shape, 10), 0)
    assert abs(theirs / ours - 1) < 0.1


@pytest.mark.parametrize("name", ["nice", "realnvp", "glow"])
def test_odd_sides_are_refused_in_words(name):
    with pytest.raises(UsageError, match="even height and width, got 7 x 8"):
        FAMILIES[name]((1, 7, 8), 4)


def test_labels_and_other_shapes_are_refused():
    model = trained(realnvp)
    with pytest.raises(ValueError, match="knows no classes"):
        model.log_prob(torch.rand(2, *GREY).double(), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="knows no classes"):
        model.sample(2, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(B, 1, 4, 4\), got \(2, 1, 4, 6\)"):
        model.log_prob(torch.rand(2, 1, 4, 6).double())


def test_constant_volume_is_what_tells_nice_from_realnvp():
    x = torch.rand(5, *GREY, dtype=torch.float64)
    spread = {}
    for name in ("nice", "realnvp"):
        model = trained(FAMILIES[name])
        _, ladj = model.transform(model.logit.transform(x))
        spread[name] = float(ladj.std().detach())
    assert spread["nice"] < 1e-10
    assert spread["realnvp"] > 1e-3


def test_both_scales_are_in_the_catalogue():
    for scale in ("quick", "paper"):
        assert {*RIVALS[scale], "i-resnet"} <= set(recipes("density", scale))
