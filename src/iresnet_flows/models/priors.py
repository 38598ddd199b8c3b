"""Normal distributions of latents, with learned moments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from iresnet_flows.checks import check_count, check_event
from iresnet_flows.concrete import concrete, is_recorded

__all__ = ["ConditionalNormal", "DiagonalNormal"]


class DiagonalNormal(nn.Module):
    r"""The normal distribution :math:`N(\mu, e^{2 s})` of each entry, standard at first.

    With classes there is one for each, and without labels z has their even mixture,

    .. math:: p(z) = \frac{1}{K} \sum_{k=1}^K N(z; \mu_k, e^{2 s_k}) .

    Costs O(d) a class.

    Arguments:
        event: The shape of a sample.
        classes: The number K of classes, or None.

    Shapes:
        z ``(B, *event)``, labels (B,) in 0 to K - 1, log-densities (B,) in nats.

    Raises:
        ValueError: On use, a shape or a label that does not fit.
        TypeError: On use, labels that are no whole numbers.

    Example:
        >>> import torch
        >>> prior = DiagonalNormal((3, 4, 4), classes=10)
        >>> prior.log_prob(prior.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, event: Sequence[int], classes: int | None = None) -> None:
        super().__init__()
        for size in event:
            check_count("each of event", size)
        if classes is not None:
            check_count("classes", classes)
        self.event = tuple(event)
        self.classes = classes
        self.mean = nn.Parameter(torch.zeros(classes or 1, *event))
        self.log_deviation = nn.Parameter(torch.zeros(classes or 1, *event))

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(z | label), or that of the mixture."""
        check_event("z", z, self.event)
        if labels is None:
            return self.log_probs(z).logsumexp(1) - math.log(len(self.mean))
        labels = self.checked(labels, len(z))
        return normal_log_prob(z, self.mean[labels], self.log_deviation[labels])

    def log_probs(self, z: Tensor) -> Tensor:
        """log p(z | k) for each class k, with shape (B, K)."""
        check_event("z", z, self.event)
        moments = zip(self.mean, self.log_deviation, strict=True)
        return torch.stack([normal_log_prob(z, mean, s) for mean, s in moments], 1)

    def sample(
        self,
        count: int,
        temperature: float = 1.0,
        labels: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Latents of these or of random classes; the temperature multiplies the deviation."""
        device = self.mean.device
        if labels is None:
            classes = len(self.mean)
            labels = torch.randint(classes, (count,), device=device, generator=generator)
        else:
            labels = self.checked(labels, count)
        return normal_sample(self.mean[labels], self.log_deviation[labels], temperature, generator)

    def checked(self, labels: Tensor, count: int) -> Tensor:
        if self.classes is None:
            raise ValueError("labels were given to a density without: build it with classes.")
        if labels.shape != (count,):
            raise ValueError(f"labels must have the shape ({count},), got {tuple(labels.shape)}.")
        if labels.is_floating_point():
            raise TypeError(f"labels must be whole numbers, got {labels.dtype}: labels.long().")
        outside = (labels < 0) | (labels >= self.classes)
        if not is_recorded() and concrete(outside).any():
            least, most = (int(end) for end in concrete(labels).aminmax())
            raise ValueError(
                f"labels must lie in 0 to {self.classes - 1}, got labels from {least} to {most}."
            )
        return labels.to(self.mean.device, torch.long)  # torch takes those of a byte for a mask

    def extra_repr(self) -> str:
        return f"event={self.event}, classes={self.classes}"


class ConditionalNormal(nn.Module):
    r"""The normal distribution of some channels whose moments are a convolution of others.

    .. math:: z \mid h \sim N(\mu(h), e^{2 s(h)}) , \quad (\mu, s) = K * h + b

    with a kernel of size 3, which starts at zero and the distribution with it as a standard one.

    Arguments:
        channels: Those of z.
        given: Those of h.

    Shapes:
        z (B, channels, H, W), h (B, given, H, W), log-densities (B,) in nats.

    References:
        Kingma & Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018.

    Example:
        >>> import torch
        >>> prior, h = ConditionalNormal(2, 4), torch.randn(5, 4, 8, 8)
        >>> prior.log_prob(prior.sample(h), h).shape
        torch.Size([5])
    """

    def __init__(self, channels: int, given: int) -> None:
        super().__init__()
        check_count("channels", channels)
        check_count("given", given)
        self.moments = nn.Conv2d(given, 2 * channels, 3, padding=1)
        for parameter in self.moments.parameters():
            nn.init.zeros_(parameter)

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """log p(z | h)."""
        mean, log_deviation = self.moments(h).chunk(2, 1)
        return normal_log_prob(z, mean, log_deviation)

    def sample(
        self, h: Tensor, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """One z for each h, with a deviation times the temperature."""
        mean, log_deviation = self.moments(h).chunk(2, 1)
        return normal_sample(mean, log_deviation, temperature, generator)


def normal_log_prob(z: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    standard = (z - mean) * (-log_deviation).exp()
    terms = standard.square() / 2 + log_deviation + math.log(2 * math.pi) / 2
    return -terms.expand_as(z).flatten(1).sum(1)


def normal_sample(
    mean: Tensor, log_deviation: Tensor, temperature: float, generator: Generator | None
) -> Tensor:
    if not temperature >= 0:
        raise ValueError(f"temperature must not be negative, got {temperature!r}.")
    noise = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
    return mean + temperature * log_deviation.exp() * noise
