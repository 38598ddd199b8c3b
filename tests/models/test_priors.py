"""The normal distributions of latents against torch.distributions."""

import math

import pytest
import torch
from cases import hostile
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from iresnet_flows.models import ConditionalNormal, DiagonalNormal

LABELS = torch.tensor([0, 2, 1, 2, 0])
DRAWS = 20_000


def prior(classes=None, event=(2, 3, 2), dtype=torch.float64):
    return hostile(DiagonalNormal(event, classes)).to(dtype)


def of_class(normal, labels):
    deviation = normal.log_deviation[labels].exp()
    return Independent(Normal(normal.mean[labels], deviation), len(normal.event))


def moments_agree(draws, mean, deviation):
    """Both within four and a half standard errors."""
    errors = deviation / math.sqrt(len(draws))
    assert ((draws.mean(0) - mean).abs() < 4.5 * errors + 1e-12).all()
    assert ((draws.std(0) - deviation).abs() < 4.5 * errors / math.sqrt(2) + 1e-12).all()


def test_the_density_is_that_of_a_normal_distribution():
    normal, z = prior(), torch.randn(5, 2, 3, 2, dtype=torch.float64)
    expected = of_class(normal, torch.zeros(5, dtype=torch.long)).log_prob(z)
    torch.testing.assert_close(normal.log_prob(z), expected)


def test_the_density_of_a_label_is_that_of_its_class():
    normal, z = prior(3), torch.randn(5, 2, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(normal.log_prob(z, LABELS), of_class(normal, LABELS).log_prob(z))


def test_without_labels_it_is_the_even_mixture_of_the_classes():
    normal, z = prior(3), torch.randn(5, 2, 3, 2, dtype=torch.float64)
    even = Categorical(probs=torch.ones(3, dtype=torch.float64))
    mixture = MixtureSameFamily(even, of_class(normal, torch.arange(3)))
    torch.testing.assert_close(normal.log_prob(z), mixture.log_prob(z))


def test_a_fresh_one_is_standard():
    z = torch.randn(5, 2, 3, 2)
    expected = Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    for classes in (None, 3):
        torch.testing.assert_close(DiagonalNormal((2, 3, 2), classes).log_prob(z), expected)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("label", [None, 1])
def test_samples_have_the_mean_and_the_deviation_times_the_temperature(temperature, label):
    normal = prior(None if label is None else 3, (2, 2))
    labels = None if label is None else torch.full((DRAWS,), label)
    generator = torch.Generator().manual_seed(3)
    draws = normal.sample(DRAWS, temperature, labels, generator).detach()
    deviation = temperature * normal.log_deviation[label or 0].exp()
    moments_agree(draws, normal.mean[label or 0].detach(), deviation.detach())


def test_samples_without_labels_are_of_all_classes_alike():
    normal = DiagonalNormal((1,), 3)
    with torch.no_grad():
        normal.mean.copy_(torch.tensor([[0.0], [1.0], [2.0]]))
    draws = normal.sample(DRAWS, 0.0, generator=torch.Generator().manual_seed(3))
    counts = draws.flatten().long().bincount(minlength=3)
    assert (counts - DRAWS / 3).abs().max() < 4.5 * math.sqrt(DRAWS * 2 / 9)


def test_conditional_densities_are_those_of_the_moments_that_the_convolution_gives():
    normal = hostile(ConditionalNormal(2, 3).double(), 0.2)
    z, h = torch.randn(5, 2, 3, 4).double(), torch.randn(5, 3, 3, 4).double()
    weight, bias = normal.moments.weight, normal.moments.bias
    moments = torch.nn.functional.conv2d(h, weight, bias, padding=1)
    expected = Independent(Normal(moments[:, :2], moments[:, 2:].exp()), 3).log_prob(z)
    torch.testing.assert_close(normal.log_prob(z, h), expected)


def test_a_fresh_conditional_one_is_standard():
    z = torch.randn(5, 2, 3, 4)
    expected = Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    result = ConditionalNormal(2, 3).log_prob(z, torch.randn(5, 3, 3, 4))
    torch.testing.assert_close(result, expected)


def test_conditional_samples_have_the_moments_given_the_other_channels():
    normal = hostile(ConditionalNormal(1, 2).double(), 0.2)
    h = torch.randn(1, 2, 2, 2).double()
    mean, log_deviation = normal.moments(h).detach()[0].chunk(2)
    generator = torch.Generator().manual_seed(3)
    draws = normal.sample(h.expand(DRAWS, -1, -1, -1), 0.5, generator).detach()
    moments_agree(draws, mean, 0.5 * log_deviation.exp())


def test_the_same_generator_gives_the_same_samples_and_leaves_the_global_one_alone():
    normal, state = prior(3), torch.get_rng_state()
    first, second = (normal.sample(4, generator=torch.Generator().manual_seed(1)) for _ in "ab")
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_dtype_and_shape_are_kept_down_to_an_empty_batch(dtype, batch):
    normal, z = prior(3, dtype=dtype), torch.randn(batch, 2, 3, 2, dtype=dtype)
    for labels in (None, LABELS[:batch]):
        assert normal.log_prob(z, labels).shape == (batch,)
        assert normal.log_prob(z, labels).dtype == dtype
        assert normal.sample(batch, labels=labels).shape == z.shape
        assert normal.sample(batch, labels=labels).dtype == dtype


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: prior().log_prob(torch.zeros(5, 4)), r"\(B, 2, 3, 2\), got \(5, 4\)"),
        (lambda: prior().sample(5, labels=LABELS), "build it with classes"),
        (lambda: prior(3).sample(4, labels=LABELS), r"the shape \(4,\), got \(5,\)"),
        (lambda: prior(3).log_prob(torch.zeros(5, 2, 3, 2), LABELS - 1), "0 to 2, .* -1 to 1"),
        (lambda: prior(2).sample(5, labels=LABELS), "0 to 1, got labels from 0 to 2"),
        (lambda: prior().sample(5, temperature=-1.0), "must not be negative, got -1.0"),
        (lambda: DiagonalNormal((2,), 0), "classes must be at least 1"),
        (lambda: ConditionalNormal(0, 1), "channels must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_labels_are_whole_numbers_of_any_size():
    normal, z = prior(5), torch.randn(5, 2, 3, 2, dtype=torch.float64)
    expected = normal.log_prob(z, LABELS)
    for dtype in (torch.uint8, torch.int8, torch.int32):
        torch.testing.assert_close(normal.log_prob(z, LABELS.to(dtype)), expected)
    with pytest.raises(TypeError, match=r"got torch.float64: labels.long\(\)"):
        normal.log_prob(z, LABELS.double())


def test_densities_of_labels_compile_and_map_over_samples():
    normal, z = prior(3), torch.randn(5, 2, 3, 2, dtype=torch.float64)
    expected = normal.log_prob(z, LABELS)
    compiled = torch.compile(normal.log_prob, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(z, LABELS), expected)
    alone = torch.func.vmap(lambda z, label: normal.log_prob(z[None], label[None])[0])
    torch.testing.assert_close(alone(z, LABELS), expected)
    with pytest.raises(ValueError, match="from 1 to 3"):
        alone(z, LABELS + 1)
