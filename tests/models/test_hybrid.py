"""The density and the classifier of a hybrid model."""

import pytest
import torch
from cases import hostile
from contract import WEIGHTS
from torch.nn import functional as F

from iresnet_flows import Exact
from iresnet_flows.models import HybridFlow, ImageBlocks, i_resnet_flow

LABELS = torch.tensor([0, 2, 1, 2, 0])
BOTH = pytest.mark.parametrize("classes", [None, 3])


def hybrid(classes=3, seed=0):
    torch.manual_seed(seed)
    blocks = ImageBlocks((4, 4), lipschitz=0.7, log_det=Exact())
    density = i_resnet_flow((1, 4, 4), (1, 1), blocks, classes=classes)
    model = HybridFlow(density, 3, hidden_features=8).double()
    model(torch.rand(5, 1, 4, 4).double())
    return hostile(model, 0.2)


@pytest.fixture
def x():
    return torch.rand(5, 1, 4, 4, dtype=torch.float64)


@BOTH
def test_one_pass_gives_the_density_and_the_logits_that_each_call_gives(classes, x):
    model = hybrid(classes)
    log_prob, logits = model.joint(x, LABELS)
    given = None if classes is None else LABELS
    assert torch.equal(log_prob, model.density.log_prob(x, given))
    torch.testing.assert_close(logits, model(x))
    assert torch.equal(model.joint(x)[0], model.log_prob(x))
    assert logits.shape == (5, 3)


@BOTH
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_loss_is_the_cross_entropy_and_the_weighted_density_a_dimension(classes, weight, x):
    model = hybrid(classes)
    log_prob, logits = model.joint(x, LABELS)
    expected = -logits.log_softmax(1)[torch.arange(5), LABELS] - weight * log_prob / 16
    torch.testing.assert_close(model.loss(x, LABELS, weight), expected)


def test_gradients_with_unequal_weights_are_those_of_each_sample(x):
    model = hybrid()
    parameters = [*model.parameters()]

    def gradients(rows):
        loss = WEIGHTS[rows] @ model.loss(x[rows], LABELS[rows])
        return torch.autograd.grad(loss, parameters)

    alone = zip(*(gradients(slice(i, i + 1)) for i in range(len(x))), strict=True)
    for together, parts in zip(gradients(slice(None)), alone, strict=True):
        torch.testing.assert_close(together, sum(parts), rtol=1e-8, atol=1e-8)


def test_training_lowers_both_parts_of_the_loss():
    torch.manual_seed(0)
    labels = torch.arange(3).repeat(20)
    x = torch.rand(60, 1, 4, 4)
    x[:, 0, 0] = 0.1 * x[:, 0, 0] + 0.4 * labels[:, None]
    blocks = ImageBlocks((4, 4), lipschitz=0.7)
    model = HybridFlow(i_resnet_flow((1, 4, 4), (1, 1), blocks, classes=3), 3)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    with torch.no_grad():
        log_prob, logits = model.joint(x, labels)
        before = log_prob.mean(), F.cross_entropy(logits, labels)
    for _ in range(40):
        optimiser.zero_grad()
        model.loss(x, labels).mean().backward()
        optimiser.step()
    log_prob, logits = model.joint(x, labels)
    assert log_prob.mean() > before[0] + 2
    assert F.cross_entropy(logits, labels) < before[1] / 2


def test_samples_of_labels_are_those_of_the_density():
    model = hybrid()
    first, second = (
        m.sample(5, 0.7, LABELS, torch.Generator().manual_seed(1)) for m in (model, model.density)
    )
    assert torch.equal(first, second)


def test_a_loaded_model_is_the_same(x):
    model, fresh = hybrid(), hybrid(seed=7)
    fresh.load_state_dict(model.state_dict())
    for result, expected in zip(fresh.joint(x, LABELS), model.joint(x, LABELS), strict=True):
        assert torch.equal(result, expected)


def test_frozen_reaches_the_density(x):
    model = hybrid()
    for block in model.density.scales[0].layers:
        block.log_det = None
    with model.frozen(3):
        assert torch.equal(model.log_prob(x), model.log_prob(x))


def test_classes_of_different_numbers_are_refused():
    with pytest.raises(ValueError, match="tells 3 classes apart and the classifier 4"):
        HybridFlow(hybrid().density, 4)
