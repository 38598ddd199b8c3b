"""What is particular to the layers that change a shape."""

import pytest
import torch

from iresnet_flows.layers import ActNorm, Flatten, InjectivePadding, Inverted, Squeeze, Stack


@pytest.fixture
def x():
    return torch.randn(5, 3, 4, 6)


def test_a_squeeze_moves_each_square_into_one_pixel(x):
    y = Squeeze().transform(x)
    for row in range(2):
        for column in range(2):
            assert torch.equal(y[:, 2 * row + column :: 4], x[:, :, row::2, column::2])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Squeeze(), (12, 2, 3)),
        (InjectivePadding(4), (7, 4, 6)),
        (Flatten((3, 4, 6)), (72,)),
        (Stack([Squeeze(), ActNorm(12), Flatten((12, 2, 3))]), (72,)),
        (ActNorm(3), (3, 4, 6)),
    ],
    ids=["squeeze", "padding", "flatten", "stack", "actnorm"],
)
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_each_tells_its_shape_and_is_undone_to_the_bit(layer, shape, batch, x):
    layer.eval()
    y, logabsdet = layer(x[:batch])
    assert y.shape == (batch, *shape)
    assert layer.event_of((3, 4, 6)) == shape
    assert torch.equal(logabsdet, torch.zeros(batch))
    assert torch.equal(layer.invert(y), x[:batch])
    restored, back = layer.inverse(y)
    assert torch.equal(restored, x[:batch])
    assert torch.equal(back, torch.zeros(batch))


def test_an_inverted_layer_tells_the_shape_that_it_goes_back_to():
    assert Inverted(Squeeze()).event_of((12, 2, 3)) == (3, 4, 6)
    assert Inverted(InjectivePadding(4)).event_of((7, 4, 6)) == (3, 4, 6)
    assert Inverted(Flatten((3, 4, 6))).event_of((72,)) == (3, 4, 6)
    assert Inverted(Stack([Squeeze(), Squeeze()])).event_of((16, 2, 2)) == (1, 8, 8)


def test_a_padding_adds_zeros_at_the_end_and_its_inverse_drops_whatever_is_there(x):
    layer = InjectivePadding(2)
    y = layer.transform(x)
    assert torch.equal(y[:, :3], x)
    assert not y[:, 3:].any()
    y[:, 3:] = 7.0
    assert torch.equal(layer.invert(y), x)


def test_a_padding_keeps_distances(x):
    y = InjectivePadding(2).transform(x)
    torch.testing.assert_close(torch.pdist(y.flatten(1)), torch.pdist(x.flatten(1)))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Squeeze().transform(torch.zeros(5, 1, 3, 4)), "even H and W"),
        (lambda: Squeeze().transform(torch.zeros(5, 4)), "even H and W"),
        (lambda: Squeeze().invert(torch.zeros(5, 6, 2, 2)), "multiple of four"),
        (lambda: InjectivePadding(3).transform(torch.zeros(5)), r"\(B, C, \*space\), got \(5,\)"),
        (lambda: InjectivePadding(3).invert(torch.zeros(5, 3, 2, 2)), "more than the 3 channels"),
        (lambda: InjectivePadding(0), "at least 1"),
        (lambda: Flatten((1, 2, 2)).transform(torch.zeros(5, 2, 2)), r"\(B, 1, 2, 2\)"),
        (lambda: Flatten((1, 2, 2)).invert(torch.zeros(5, 5)), r"\(B, 4\)"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_with_what_would(call, told):
    with pytest.raises(ValueError, match=told):
        call()
