"""Classifiers that can be inverted, with weights as training leaves them."""

import copy

import pytest
import torch
from cases import hostile
from torch.nn import functional as F

from iresnet_flows import Exact, FixedPoint, InvertibleResidualBlock
from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.layers import ActNorm
from iresnet_flows.models import (
    InvertibleClassifier,
    Layout,
    UnconstrainedBlock,
    i_resnet_classifier,
    i_revnet_classifier,
    vanilla_classifier,
)

SHAPE, CLASSES = (2, 8, 8), 3
PADDED = Layout((2, 1), (False, True), padding=2)
SQUEEZED = Layout((1, 1), (True, True))

INVERTIBLE = {
    "i-resnet": lambda: i_resnet_classifier(SHAPE, CLASSES, PADDED, (6, 4)),
    "i-resnet, c = 0.5": lambda: i_resnet_classifier(SHAPE, CLASSES, PADDED, (6, 4), 0.5),
    "i-resnet, csin": lambda: i_resnet_classifier(
        SHAPE, CLASSES, PADDED, (6, 4), activation="csin"
    ),
    "i-resnet, no padding": lambda: i_resnet_classifier(SHAPE, CLASSES, SQUEEZED, (6, 6)),
    "i-revnet": lambda: i_revnet_classifier(SHAPE, CLASSES, PADDED),
}
ALL = {**INVERTIBLE, "vanilla": lambda: vanilla_classifier(SHAPE, CLASSES, PADDED, (6, 4))}

invertible = pytest.mark.parametrize("make", INVERTIBLE.values(), ids=INVERTIBLE)
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


def trained(make, dtype=torch.float64, rate=0.1, steps=10):
    """The model after steps of SGD at a high rate on random labels, and images."""
    torch.manual_seed(0)
    model = make().to(dtype)
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    x, labels = torch.rand(12, *SHAPE).to(dtype), torch.arange(12) % CLASSES
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimiser.step()
    return model.eval(), x


@invertible
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_images_come_back_after_training(make, dtype):
    model, x = trained(make, dtype)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-5
    with torch.no_grad():
        features = model.encode(x)
        restored = model.decode(features)
    assert (features.mean() - x.mean()).abs() > 0.01
    torch.testing.assert_close(restored, x, rtol=0, atol=tolerance)


@invertible
def test_images_come_back_after_hostile_steps_in_train_mode(make):
    model = hostile(make().double()).train()
    x = torch.rand(5, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        model.encode(x)
        torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=0, atol=1e-7)


@every
def test_logits_are_those_of_the_head(make):
    model, x = trained(make)
    torch.testing.assert_close(model(x), model.head(model.encode(x)))
    normalised = (x - 0.5) / 0.25
    torch.testing.assert_close(model.encode(x), model.layers.transform(normalised))


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_batches_of_any_size_keep_shape_and_dtype(make, dtype):
    model = make().to(dtype).eval()
    for batch in (0, 1, 3):
        logits = model(torch.rand(batch, *SHAPE).to(dtype))
        assert logits.shape == (batch, CLASSES)
        assert logits.dtype == dtype
        assert model.decode(model.encode(torch.rand(batch, *SHAPE).to(dtype))).shape[0] == batch


@every
def test_each_image_is_classified_alone(make):
    model, x = trained(make)
    alone = torch.cat([model(row) for row in x.split(1)])
    torch.testing.assert_close(model(x), alone)


@every
def test_every_parameter_has_a_gradient(make):
    model = hostile(make(), 0.3).train()
    F.cross_entropy(model(torch.rand(6, *SHAPE)), torch.arange(6) % CLASSES).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@every
def test_saved_weights_give_a_fresh_model_the_same_logits(make, tmp_path):
    model, x = trained(make)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    fresh = make().double().eval()
    fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(fresh(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize("coefficient", [0.9, 0.5])
def test_branches_stay_below_their_bound_in_training(coefficient):
    def make():
        return i_resnet_classifier(SHAPE, CLASSES, PADDED, (6, 4), coefficient)

    torch.manual_seed(0)
    model = make().double()
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x, labels = torch.rand(12, *SHAPE).double(), torch.arange(12) % CLASSES
    for _ in range(5):
        optimiser.zero_grad()
        F.cross_entropy(10 * model(x), labels).backward()
        optimiser.step()
        for block in blocks(model):
            assert block.branch.lipschitz_bound() <= coefficient**3

    h = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    g = blocks(model)[0].branch
    jacobian = torch.autograd.functional.jacobian(lambda t: g(t).flatten(), h).flatten(1)
    norm = torch.linalg.matrix_norm(jacobian, 2)
    assert 0.1 * coefficient**3 < norm <= coefficient**3


def blocks(model):
    return [m for m in model.modules() if isinstance(m, InvertibleResidualBlock)]


@pytest.mark.parametrize("name", ["i-resnet, no padding", "i-revnet, no padding"])
def test_log_det_is_that_of_the_dense_jacobian(name):
    makers = {
        "i-resnet, no padding": INVERTIBLE["i-resnet, no padding"],
        "i-revnet, no padding": lambda: i_revnet_classifier(SHAPE, CLASSES, SQUEEZED),
    }
    model = trained(makers[name], steps=4)[0]
    z = torch.randn(2, *SHAPE, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda t: model.layers.transform(t).sum(0).flatten(), z
    )
    sign, truth = torch.linalg.slogdet(jacobian.transpose(0, 1).flatten(2))
    for module in model.modules():
        if isinstance(module, InvertibleResidualBlock):
            module.log_det = Exact()
    assert (sign.abs() == 1).all()
    torch.testing.assert_close(model.layers(z)[1], truth)


def test_decoding_says_when_it_misses_its_tolerance():
    model, x = trained(INVERTIBLE["i-resnet"])
    for block in blocks(model):
        block.solver = FixedPoint(max_steps=2)
    with pytest.raises(InverseNotConverged, match="raise max_steps"):
        model.decode(model.encode(x))


def test_twin_has_the_same_layers_and_parameters():
    ours, twin = ALL["i-resnet"](), ALL["vanilla"]()
    for kind in (ActNorm,):
        count = [sum(isinstance(m, kind) for m in model.modules()) for model in (ours, twin)]
        assert count[0] == count[1] == 3
    assert len(blocks(ours)) == sum(isinstance(m, UnconstrainedBlock) for m in twin.modules())
    sizes = [sorted(p.shape for p in model.parameters()) for model in (ours, twin)]
    assert sizes[0] == sizes[1]


def test_layout_has_the_papers_shapes():
    layout = Layout((7, 7, 7), (False, True, True), padding=13)
    model = i_resnet_classifier((3, 32, 32), 10, layout, (4, 4, 4)).eval()
    assert len(blocks(model)) == 21
    with torch.no_grad():
        assert model.encode(torch.rand(1, 3, 32, 32)).shape == (1, 256, 8, 8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Layout((1, 1), (True,)), "both name each stage"),
        (lambda: Layout((0,), (True,)), "at least 1"),
        (lambda: Layout((1,), (True,), padding=-1), "padding must be at least 0"),
        (lambda: i_resnet_classifier((1, 6, 8), 3, SQUEEZED, (4, 4)), "multiples of 4, got 6 x 8"),
        (lambda: i_resnet_classifier(SHAPE, 3, PADDED, (4, 4), 1.0), r"lie in \(0, 1\), got 1.0"),
        (lambda: i_resnet_classifier(SHAPE, 3, PADDED, (4,)), "one width for each of 2 stages"),
        (lambda: i_revnet_classifier((1, 8, 8), 3, Layout((1,), (False,))), "must be even"),
        (lambda: vanilla_classifier(SHAPE, 0, PADDED, (4, 4)), "classes must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_layers_must_be_layers():
    with pytest.raises(TypeError, match="expected a layer"):
        InvertibleClassifier(torch.nn.Identity(), torch.nn.Identity())
