"""The pre-activation residual network."""

import pytest
import torch
from cases import hostile
from torch import nn
from torch.nn import functional as F

from iresnet_flows.models import PreActivationResNet
from iresnet_flows.models.resnets import Bottleneck


def normal(x, norm):
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 1), (4, 2)])
def test_bottleneck_is_its_formula(channels, stride):
    block = hostile(Bottleneck(channels, 2, stride).double(), 0.3).eval()
    x = torch.randn(3, channels, 4, 4, dtype=torch.float64)
    norm1 = block.activate[0]
    conv1, norm2, _, conv2, norm3, _, conv3 = block.branch
    a = normal(x, norm1).relu()
    h = normal(F.conv2d(a, conv1.weight), norm2).relu()
    h = normal(F.conv2d(h, conv2.weight, stride=stride, padding=1), norm3).relu()
    kept = x if block.project is None else F.conv2d(a, block.project.weight, stride=stride)
    torch.testing.assert_close(block(x), kept + F.conv2d(h, conv3.weight))
    assert (block.project is None) == (channels == 8 and stride == 1)


@pytest.mark.parametrize("depth", [11, 20, 164])
def test_depth_counts_the_layers(depth):
    model = PreActivationResNet(3, 10, depth, width=2)
    convs = [
        m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "project" not in n
    ]
    assert len(convs) + 1 == depth


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_batches_of_any_size_keep_shape_and_dtype(dtype):
    model = PreActivationResNet(1, 5, 11, width=2).to(dtype).eval()
    for batch in (0, 1, 3):
        logits = model(torch.rand(batch, 1, 9, 7).to(dtype))
        assert logits.shape == (batch, 5)
        assert logits.dtype == dtype


def test_every_parameter_has_a_gradient():
    model = PreActivationResNet(1, 3, 11, width=2)
    F.cross_entropy(model(torch.rand(6, 1, 8, 8)), torch.arange(6) % 3).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_first_convolution_may_take_every_other_pixel():
    model = PreActivationResNet(1, 3, 11, width=2, stride=2)
    assert model.blocks(model.stem(torch.rand(2, 1, 28, 28))).shape == (2, 32, 4, 4)


@pytest.mark.parametrize("depth", [2, 10, 165])
def test_depths_that_do_not_exist_are_refused(depth):
    with pytest.raises(ValueError, match=r"9 n \+ 2"):
        PreActivationResNet(1, 10, depth)
