"""The recipes of i-ResNet densities."""

import math

import pytest
import torch

pytest.importorskip("nflows")

from iresnet_flows import InvertibleResidualBlock, LipschitzConvNet, LipschitzMLP
from iresnet_flows.experiments.images.densities import DENSITIES
from iresnet_flows.experiments.images.rivals import RIVALS
from iresnet_flows.layers import Squeeze

EACH = pytest.mark.parametrize(
    ("scale", "name"), [(scale, name) for scale in DENSITIES for name in DENSITIES[scale]]
)


def branches(model, kind):
    found = [m.branch for m in model.modules() if isinstance(m, InvertibleResidualBlock)]
    return [branch for branch in found if isinstance(branch, kind)]


@EACH
def test_a_recipe_is_under_its_name_and_says_what_it_is(scale, name):
    recipe = DENSITIES[scale][name]
    assert recipe.name == name
    assert "blocks" in recipe.text


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 8, 12), (1, 4, 4)])
def test_the_quick_recipe_scores_and_draws_images_of_every_shape_that_it_allows(shape):
    model = DENSITIES["quick"]["i-resnet"].make(shape, 10)
    x = torch.rand(3, *shape)
    assert model.log_prob(x).isfinite().all()
    sample = model.eval().sample(2, 0.7, generator=torch.Generator().manual_seed(0))
    assert sample.shape == (2, *shape)
    assert 0 <= sample.min() <= sample.max() <= 1


def test_the_quick_recipe_learns():
    recipe = DENSITIES["quick"]["i-resnet"]
    torch.manual_seed(0)
    model = recipe.make((1, 8, 8), 10)
    optimiser = recipe.optimiser(model.parameters())
    x = torch.rand(64, 1, 8, 8)
    x[:, :, 2:] = x[:, :, :1].expand(-1, -1, 6, -1) * 0.9 + 0.1 * x[:, :, 2:]
    losses = []
    for _ in range(25):
        loss = -model.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[1] - 20


@pytest.mark.parametrize(("event", "counts"), [((1, 8, 8), [32, 32, 32]), ((1, 4, 12), [48, 48])])
def test_the_paper_has_three_scales_where_the_sides_can_be_halved_thrice(event, counts):
    model = DENSITIES["paper"]["i-resnet"].make(event, 10)
    found = [branches(scale, LipschitzConvNet) for scale in model.scales]
    assert [len(scale) for scale in found] == counts
    assert {b.hidden_channels for scale in found for b in scale} == {(32, 32)}
    assert {b.lipschitz for scale in found for b in scale} == {0.9**3}


def test_residual_flow_ends_with_connected_blocks_and_lets_go_of_nothing():
    model = DENSITIES["paper"]["residual-flow"].make((1, 4, 4), 10)
    assert len(model.scales) == 1
    convolutional = branches(model, LipschitzConvNet)
    assert [b.channels for b in convolutional] == [1] * 16 + [4] * 16 + [16] * 16
    assert {b.hidden_channels for b in convolutional} == {(512, 512)}
    assert [b.hidden_features for b in branches(model, LipschitzMLP)] == [(128, 128)] * 4


COUNTS = {
    ("quick", "i-resnet"): [(8, 8), (16,), (16,)],
    ("paper", "i-resnet"): [(48, 48), (96,), (96,)],
    ("paper", "residual-flow"): [(48,), (48,), (48,)],
}


@pytest.mark.parametrize(("scale", "name"), COUNTS)
def test_scales_are_fewer_where_sides_cannot_be_halved(scale, name):
    shapes = [(1, 4, 12), (1, 6, 10), (1, 5, 7)]
    models = [DENSITIES[scale][name].make(shape, 10) for shape in shapes]
    found = [
        tuple(len(branches(level, LipschitzConvNet)) for level in model.scales) for model in models
    ]
    assert found == COUNTS[scale, name]
    squeezes = [sum(isinstance(m, Squeeze) for m in model.modules()) for model in models]
    assert squeezes == [2, 1, 0]


@pytest.mark.parametrize("shape", [(1, 5, 7), (1, 6, 10), (2, 50, 50), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("name", DENSITIES["quick"])
def test_images_of_any_size_are_scored_and_restored(name, shape):
    torch.manual_seed(0)
    model = DENSITIES["quick"][name].make(shape, 3)
    x = 0.05 + 0.9 * torch.rand(4, *shape)
    assert model.log_prob(x).isfinite().all()
    density = getattr(model, "density", model).eval()
    with torch.no_grad():
        z, _ = density.encode(x)
        assert z.shape == (4, math.prod(shape))
        torch.testing.assert_close(density.decode(z), x, atol=1e-4, rtol=0)


def test_the_paper_has_what_is_there_in_small():
    for table in (DENSITIES, RIVALS):
        assert table["quick"].keys() <= table["paper"].keys()
    for name, recipe in DENSITIES["paper"].items():
        assert recipe.average == 0.999, name
