"""What a model sees at a step: a function of the seed and of the step, on any devices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from iresnet_flows.experiments.images.sets import Images
from iresnet_flows.experiments.seeds import NOISE, ORDER, stream

__all__ = ["LEVELS", "Batches", "augmented", "dequantised"]

LEVELS = 256


@dataclass(frozen=True)
class Batches:
    """The batches of a training, one for each step.

    The images of an epoch are those of a permutation, of which what does not fill a batch is left
    out. All ranks draw the same numbers, those of the whole batch, and take their share.

    Arguments:
        images: The training images.
        size: The images of a step, over all ranks.
        seed: That of the run.
        shift: The most pixels that an image is moved by.
        flip: Whether half of the images are mirrored.
    """

    images: Images
    size: int
    seed: int
    shift: int = 0
    flip: bool = False

    @property
    def per_epoch(self) -> int:
        """The steps of an epoch."""
        return len(self.images) // self.size

    def at(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[Images, Tensor]:
        """The images of a rank, augmented, and uniform noise like them, (B, C, H, W) float32."""
        epoch, index = divmod(step, self.per_epoch)
        order = torch.randperm(len(self.images), generator=self.generator(ORDER, epoch))
        images = self.images[order[index * self.size : (index + 1) * self.size]]

        generator = self.generator(NOISE, step)
        pixels = augmented(images.pixels, self.shift, self.flip, generator)
        noise = torch.rand(pixels.shape, generator=generator)
        mine = slice(rank * self.size // ranks, (rank + 1) * self.size // ranks)
        return Images(pixels, images.labels)[mine], noise[mine]

    def generator(self, kind: int, index: int) -> Generator:
        return Generator().manual_seed(stream(self.seed, kind, index))


def augmented(pixels: Tensor, shift: int, flip: bool, generator: Generator) -> Tensor:
    """Images moved by up to `shift` pixels in each direction, and half of them mirrored.

    What comes in at an edge is the mirror image of what is there.
    """
    count, _, height, width = pixels.shape
    moves = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator)
    rows = mirrored(torch.arange(height) + moves[0], height)
    columns = mirrored(torch.arange(width) + moves[1], width)
    if flip:
        turned = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(turned, columns.flip(1), columns)

    each = torch.arange(count)[:, None, None]
    taken = pixels.movedim(1, -1)[each, rows[:, :, None], columns[:, None, :]]
    return taken.movedim(-1, 1)


def mirrored(index: Tensor, size: int) -> Tensor:
    """Indices beyond an edge, reflected at it."""
    folded = index % (2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


def dequantised(pixels: Tensor, noise: Tensor) -> Tensor:
    r"""The point :math:`x = (k + u) / 256` in the cell of the pixels k, float32, below one."""
    x = (pixels + noise) / LEVELS
    return x.clamp_max(1 - torch.finfo(x.dtype).eps / 2)
