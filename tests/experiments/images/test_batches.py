"""What a model sees at a step."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("numpy")
pytest.importorskip("lightning")
pytest.importorskip("nflows")

from image_cases import images
from torch import nn

from iresnet_flows.experiments.images import evaluation
from iresnet_flows.experiments.images.batches import Batches, augmented, dequantised, mirrored
from iresnet_flows.experiments.images.sets import Images


def numbered(count, height=3, width=3):
    """Images that tell their number."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None]
    return Images(pixels.expand(count, 1, height, width).clone(), torch.zeros(count).long())


def seen(batches, steps):
    """The numbers of the images of some steps."""
    return torch.cat([batches.at(step)[0].pixels[:, 0, 0, 0] for step in steps]).tolist()


def test_each_image_comes_once_an_epoch_in_a_new_order():
    batches = Batches(numbered(20), size=5, seed=0)
    first, second = (seen(batches, range(k, k + 4)) for k in (0, 4))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_images_that_fill_no_batch_wait_for_another_epoch():
    batches = Batches(numbered(20), size=6, seed=0)
    assert batches.per_epoch == 3
    assert len(set(seen(batches, range(3)))) == 18


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_what_one_process_sees(ranks):
    batches = Batches(images(), size=8, seed=3, shift=2, flip=True)
    whole, noise = batches.at(11)
    shares = [batches.at(11, rank, ranks) for rank in range(ranks)]
    assert torch.equal(torch.cat([share.pixels for share, _ in shares]), whole.pixels)
    assert torch.equal(torch.cat([share.labels for share, _ in shares]), whole.labels)
    assert torch.equal(torch.cat([u for _, u in shares]), noise)


def test_batch_is_a_function_of_seed_and_step():
    one, other = (Batches(images(), 8, seed=1, shift=1, flip=True) for _ in range(2))
    for step in (7, 2, 7):
        for a, b in zip(one.at(step), other.at(step), strict=True):
            torch.testing.assert_close(
                a.pixels if isinstance(a, Images) else a,
                b.pixels if isinstance(b, Images) else b,
                atol=0,
                rtol=0,
            )
    assert not torch.equal(one.at(0)[1], one.at(1)[1])
    assert not torch.equal(one.at(0)[1], Batches(images(), 8, seed=2).at(0)[1])


def test_images_are_moved_by_all_shifts_and_mirrored_half_of_the_time():
    pixels = torch.arange(30, dtype=torch.uint8).reshape(1, 1, 5, 6).expand(4000, 2, 5, 6)
    found = augmented(pixels, 1, True, torch.Generator().manual_seed(0))
    padded = nn.ReplicationPad2d(1)(pixels[:1].float()).byte()  # a shift of one sees the edge
    possible = {
        tuple((part.flip(-1) if flip else part).flatten().tolist())
        for flip in (False, True)
        for row in range(3)
        for column in range(3)
        for part in [padded[0, :, row : row + 5, column : column + 6]]
    }
    kinds = [tuple(image.flatten().tolist()) for image in found]
    assert set(kinds) == possible
    counts = [kinds.count(kind) for kind in possible]
    assert all(abs(count - 4000 / 18) < 5 * math.sqrt(4000 / 18) for count in counts)


def test_nothing_is_changed_without_augmentation():
    pixels = images().pixels
    assert torch.equal(augmented(pixels, 0, False, torch.Generator()), pixels)


def test_index_beyond_an_edge_is_reflected():
    assert mirrored(torch.arange(-3, 7), 4).tolist() == [2, 1, 0, 0, 1, 2, 3, 3, 2, 1]


def test_noise_stays_in_the_cell_of_its_pixel():
    pixels = torch.arange(256, dtype=torch.uint8)
    for noise in (torch.zeros(256), torch.full((256,), 1 - 2**-24)):
        x = dequantised(pixels, noise)
        assert 0 <= x.min() <= x.max() < 1
        assert (x >= pixels / 256).all()


class Uniform(nn.Module):
    """The density of 1 on the unit cube, and a draw, to see that draws are fixed."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def log_prob(self, x, labels=None):
        assert not self.training
        assert not torch.is_grad_enabled()
        return self.weight * torch.rand(len(x))


def test_uniform_density_has_eight_bits_a_dimension():
    mean, error = evaluation.bits_per_dim(Uniform(), images(10))
    assert mean == pytest.approx(8, abs=1e-12)
    assert error == 0


def test_nats_of_whole_pixels_are_those_of_a_cell_of_the_density():
    class Triangle(Uniform):
        """The density 2 x in each dimension; the mass of a cell has a closed form."""

        def log_prob(self, x, labels=None):
            return (2 * x).log().flatten(1).sum(1)

    pixels = torch.full((4000, 1, 1, 1), 9, dtype=torch.uint8)
    nats = evaluation.nats(Triangle(), Images(pixels, torch.zeros(4000).long()))
    grid = (torch.arange(100_000).double() + 0.5) / 100_000
    truth = -(2 * (9 + grid) / 256).log().mean() + math.log(256)
    mean, error = evaluation.mean_and_error(nats)
    assert abs(mean - truth) < 4 * error
    assert truth > -math.log((100 - 81) / 256**2)  # a bound from above


def test_evaluation_is_the_same_each_time_and_keeps_the_mode():
    model = Uniform().train()
    with torch.no_grad():
        model.weight.fill_(1.0)
    one, other = (evaluation.nats(model, images()) for _ in range(2))
    assert torch.equal(one, other)
    assert model.training


def test_evaluation_of_no_images_is_empty():
    assert evaluation.nats(Uniform(), images(10)[:0]).shape == (0,)


def test_share_of_mistakes_is_counted():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([0.0, 1.0, 0.0]))

        def forward(self, x):
            return self.logits.expand(len(x), 3)

    assert evaluation.test_error(Constant(), images(12)) == pytest.approx(2 / 3)
    assert evaluation.test_error(Constant(), images(12), batch=5) == pytest.approx(2 / 3)


def test_a_density_that_classifies_is_asked_about_images_as_it_was_trained_on():
    class Joint(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def joint(self, x):
            """Class 0 where every pixel lies within the cell of its level, and not on its edge."""
            inside = ((256 * x) % 1 > 0).flatten(1).all(1)
            logits = torch.stack((inside.float(), 1 - inside.float()), 1)
            return x.flatten(1).sum(1), logits

    part = images(12)
    part.labels.zero_()
    assert evaluation.test_error(Joint(), part) == 0
