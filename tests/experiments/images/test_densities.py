"""The recipes of i-ResNet densities."""

import pytest
import torch

from iresnet_flows import InvertibleResidualBlock, LipschitzConvNet, LipschitzMLP
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.images.densities import DENSITIES

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


@EACH
@pytest.mark.parametrize("shape", [(1, 30, 28), (3, 32, 33), (1, 2, 2)])
def test_images_that_cannot_be_halved_are_refused_with_what_is_allowed(scale, name, shape):
    advice = f"multiples of 4, got {shape[1]} x {shape[2]}: crop or pad them"
    with pytest.raises(UsageError, match=f"{name} .*{advice}"):
        DENSITIES[scale][name].make(shape, 10)
