"""A density and a classifier in one model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from iresnet_flows.checks import check_count
from iresnet_flows.models.multiscale import Latents, MultiScaleFlow

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["HybridFlow"]


class HybridFlow(nn.Module):
    r"""A density of images whose latents are classified by a perceptron.

    Called as a module it gives logits; `log_prob` and `sample` are those of the density. `joint`
    gives logits and log-density from one pass, and both are trained together by

    .. math:: \operatorname{loss} = - \frac{\lambda}{d} \log p(x \mid y) + \operatorname{CE}(y) .

    Arguments:
        density: The density; with classes, it is that of an image given its label.
        classes: The number of classes.
        hidden_features: The width of the perceptron.

    Shapes:
        x (B, C, H, W), labels (B,), logits (B, classes), log-densities and losses (B,).

    Raises:
        ValueError: The density has classes, and of another number.

    References:
        Nalisnick et al., Hybrid Models with Deep and Invertible Features, 2019; Chen et al.,
        Residual Flows for Invertible Generative Modeling, 2019.

    Example:
        >>> import torch
        >>> from iresnet_flows.models import ImageBlocks, i_resnet_flow
        >>> small = ImageBlocks(hidden_channels=(8, 8))
        >>> model = HybridFlow(i_resnet_flow((1, 8, 8), (1, 1), small, classes=10), 10)
        >>> x, labels = torch.rand(5, 1, 8, 8), torch.arange(5)
        >>> model.loss(x, labels).shape
        torch.Size([5])
        >>> model.sample(5, labels=labels).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(self, density: MultiScaleFlow, classes: int, hidden_features: int = 256) -> None:
        super().__init__()
        check_count("classes", classes)
        check_count("hidden_features", hidden_features)
        if density.prior.classes not in (None, classes):
            raise ValueError(
                f"the density tells {density.prior.classes} classes apart and the classifier "
                f"{classes}: build both with the same classes."
            )
        self.density = density
        self.head = nn.Sequential(
            nn.Linear(density.features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The logits alone, at the price of the latents alone."""
        logits: Tensor = self.head(self.density.latents(x))
        return logits

    def joint(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log p(x), or log p(x | label) where the density has classes, and the logits."""
        given = labels if self.density.prior.classes is not None else None
        latents = cast("Latents", self.density(x, given))
        return latents.log_prob, self.head(latents.value)

    def loss(self, x: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        r"""The loss of each sample in nats, with :math:`\lambda` the weight of the density."""
        log_prob, logits = self.joint(x, labels)
        cross_entropy = F.cross_entropy(logits, labels, reduction="none")
        return cross_entropy - weight * log_prob / self.density.features

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x | label), or log p(x), of the density."""
        return self.density.log_prob(x, labels)

    def sample(
        self,
        count: int,
        temperature: float = 1.0,
        labels: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Images of the density; labels are for one with classes."""
        return self.density.sample(count, temperature, labels, generator)

    @contextmanager
    def frozen(self, seed: int = 0) -> Iterator[Self]:
        """As `MultiScaleFlow.frozen`."""
        with self.density.frozen(seed):
            yield self
