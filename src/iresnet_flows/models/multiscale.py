"""Densities of images: layers, and normal distributions of what comes out of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Generator, Tensor, nn

from iresnet_flows.blocks.branched import BranchedLayer
from iresnet_flows.checks import check_count, check_event
from iresnet_flows.layers import Layer
from iresnet_flows.layers.contract import require_layer
from iresnet_flows.models.priors import ConditionalNormal, DiagonalNormal

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Latents", "MultiScaleFlow"]


class Latents(NamedTuple):
    """What one pass over images x tells.

    Attributes:
        value: The latents z, (B, d).
        logabsdet: log|det(dz/dx)|, (B,).
        log_prob: log p(x), or log p(x | label), (B,), in nats.

    Example:
        >>> import torch
        >>> from iresnet_flows.models import ImageBlocks, i_resnet_flow
        >>> flow = i_resnet_flow((1, 8, 8), (1, 1), ImageBlocks((8, 8)))
        >>> latents = flow(torch.rand(2, 1, 8, 8))
        >>> latents.value.shape, latents.log_prob.shape
        (torch.Size([2, 64]), torch.Size([2]))
    """

    value: Tensor
    logabsdet: Tensor
    log_prob: Tensor


class MultiScaleFlow(nn.Module):
    r"""A density of images: layers of several scales, each of which lets go of half the channels.

    After each scale but the last, the channels are halved: :math:`(h, z_i)`. The part h goes on to
    the next scale, and :math:`z_i` is normal given h. The last output is z_n, and

    .. math:: \log p(x) = \log p(z_n) + \sum_i \log p(z_i \mid h_i)
              + \sum_l \log|\det J_l| .

    With one scale nothing is let go of. The value is per sample throughout: it has no part in
    which samples of a batch meet, but for the first batch that `ActNorm` sees in train mode. The
    latents are the z_i, flat, in the order in which they are let go of.

    Arguments:
        scales: A layer for each scale, such as a `Stack`.
        event: The shape (C, H, W) of an image.
        classes: The number of classes, each with its own distribution of z_n, or None.

    Shapes:
        x (B, C, H, W), z (B, d) with d = C H W, labels (B,), log-densities (B,) in nats.

    Raises:
        ValueError: There is no scale, or a number of channels cannot be halved.

    References:
        Dinh et al., Density Estimation Using Real NVP, 2017.

    Example:
        >>> import torch
        >>> from iresnet_flows.layers import ActNorm, Logit, Squeeze, Stack
        >>> scales = [Stack([Logit(), Squeeze(), ActNorm(4)]), Stack([Squeeze(), ActNorm(8)])]
        >>> flow = MultiScaleFlow(scales, (1, 8, 8))
        >>> flow.log_prob(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5])
        >>> flow.sample(3, temperature=0.7).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self, scales: Sequence[Layer], event: Sequence[int], classes: int | None = None
    ) -> None:
        super().__init__()
        if not scales:
            raise ValueError("scales must hold at least one layer, got none.")
        self.event = tuple(event)
        self.features = math.prod(event)
        self.scales = nn.ModuleList(require_layer(layer) for layer in scales)

        splits = []
        self.parts: list[tuple[int, ...]] = []
        for layer in scales[:-1]:
            channels, *space = layer.event_of(tuple(event))
            if channels % 2:
                raise ValueError(
                    f"half of the channels are let go of after a scale, and one ends with "
                    f"{channels}: begin it with a Squeeze."
                )
            event = (channels // 2, *space)
            self.parts.append(event)
            splits.append(ConditionalNormal(channels // 2, channels // 2))
        self.parts.append(scales[-1].event_of(tuple(event)))
        self.splits = nn.ModuleList(splits)
        self.prior = DiagonalNormal(self.parts[-1], classes)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Latents:
        """The latents and log p(x) from one pass."""
        check_event("x", x, self.event)
        total = log_prob = x.new_zeros(len(x))
        parts = []
        for layer, split in self.levels():
            x, logabsdet = layer(x)
            total = total + logabsdet
            if split is not None:
                x, part = x.chunk(2, 1)
                log_prob = log_prob + split.log_prob(part, x)
                parts.append(part)
        log_prob = log_prob + self.prior.log_prob(x, labels)
        return Latents(flat(*parts, x), total, log_prob + total)

    def latents(self, x: Tensor) -> Tensor:
        """z alone, at the price of z alone."""
        check_event("x", x, self.event)
        parts = []
        for layer, split in self.levels():
            x = layer.transform(x)
            if split is not None:
                x, part = x.chunk(2, 1)
                parts.append(part)
        return flat(*parts, x)

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x | label), or without labels log p(x), the even mixture of the classes."""
        return cast("Latents", self(x, labels)).log_prob

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and log|det(dz/dx)|."""
        latents = cast("Latents", self(x))
        return latents.value, latents.logabsdet

    def decode(self, z: Tensor) -> Tensor:
        """The images x of these latents."""
        check_event("z", z, (self.features,))
        sizes = [math.prod(part) for part in self.parts]
        pieces = zip(z.split(sizes, 1), self.parts, strict=True)
        *parts, x = (piece.reshape(-1, *event) for piece, event in pieces)
        for layer, split in reversed(self.levels()):
            if split is not None:
                x = torch.cat((x, parts.pop()), 1)
            x = layer.invert(x)
        return x

    @torch.no_grad()
    def sample(
        self,
        count: int,
        temperature: float = 1.0,
        labels: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Images, clamped to [0, 1]; the temperature multiplies the deviation of each normal."""
        x = self.prior.sample(count, temperature, labels, generator)
        for layer, split in reversed(self.levels()):
            if split is not None:
                x = torch.cat((x, split.sample(x, temperature, generator)), 1)
            x = layer.invert(x)
        return x.clamp(0, 1)

    @contextmanager
    def frozen(self, seed: int = 0) -> Iterator[Self]:
        """Calls within draw the same for the log-dets: a function of the seed, block by block."""
        blocks = [module for module in self.modules() if isinstance(module, BranchedLayer)]
        check_count("seed", seed, least=0)
        generator = torch.Generator().manual_seed(int(seed))
        seeds = torch.randint(2**62, (len(blocks),), generator=generator).tolist()
        with ExitStack() as stack:
            for block, own in zip(blocks, seeds, strict=True):
                stack.enter_context(block.frozen(own))
            yield self

    def levels(self) -> list[tuple[Layer, ConditionalNormal | None]]:
        """Each scale with the distribution of what it lets go of."""
        splits = [*cast("list[ConditionalNormal]", list(self.splits)), None]
        return list(zip(cast("list[Layer]", list(self.scales)), splits, strict=True))


def flat(*parts: Tensor) -> Tensor:
    return torch.cat([part.flatten(1) for part in parts], 1)
