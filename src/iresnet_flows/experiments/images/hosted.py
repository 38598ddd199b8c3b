"""Densities on images that are made of the layers of nflows."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Generator, Tensor, nn

from iresnet_flows.experiments.images.recipes import Shape
from iresnet_flows.experiments.quietness import quiet
from iresnet_flows.layers import Logit

__all__ = ["Flatten", "HostedDensity"]


class Flatten(Transform):
    """Images (B, C, H, W) as rows (B, C H W)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs.flatten(1), inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs.reshape(-1, *self.shape), inputs.new_zeros(len(inputs))


class HostedDensity(nn.Module):
    r"""The density of images whose logits a transform of nflows makes standard normal.

    .. math:: \log p(x) = \log \mathcal{N}(T(\ell(x)); 0, I) + \log|\det \partial T|
              + \log|\det \partial \ell|,
              \quad \ell(x) = \operatorname{logit}(\alpha + (1 - 2 \alpha) x) .

    It is a `Density` that knows no classes.

    Arguments:
        shape: Channels, height and width.
        transform: From (B, C, H, W) to (B, C H W), with the log-det in nats.
        alpha: That of `Logit`.
    """

    def __init__(self, shape: Shape, transform: Transform, alpha: float) -> None:
        super().__init__()
        self.shape = shape
        self.logit = Logit(alpha)
        self.transform = transform

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x), (B,) in nats, of images (B, C, H, W) in [0, 1].

        Raises:
            ValueError: The images have another shape, or there are labels.
        """
        refuse(labels)
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"x must have the shape (B, {', '.join(map(str, self.shape))}), "
                f"got {tuple(x.shape)}."
            )
        if not len(x):  # nflows cannot take an empty batch
            return x.flatten(1).sum(1)
        y, stretch = self.logit(x)
        z, ladj = self.transform(y)
        normal = -(z.square() + math.log(2 * math.pi)).sum(1) / 2
        return normal + ladj + stretch

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.log_prob(x, labels)

    @torch.no_grad()
    def sample(
        self,
        count: int,
        temperature: float = 1.0,
        labels: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Images, (count, C, H, W) in [0, 1].

        Raises:
            ValueError: There are labels.
        """
        refuse(labels)
        like = next(self.parameters())
        if not count:
            return like.new_zeros(0, *self.shape)
        noise = torch.randn(
            count,
            math.prod(self.shape),
            dtype=like.dtype,
            device=like.device if generator is None else generator.device,
            generator=generator,
        )
        with quiet():  # nflows asks torch for a function of old
            y, _ = self.transform.inverse(temperature * noise.to(like.device))
        return self.logit.invert(y).clamp(0, 1)


def refuse(labels: Tensor | None) -> None:
    if labels is not None:
        raise ValueError("this density knows no classes: leave out the labels.")
