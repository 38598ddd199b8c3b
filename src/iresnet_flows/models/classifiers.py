"""Classifiers whose features can be turned back into the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from iresnet_flows.blocks import InvertibleResidualBlock
from iresnet_flows.checks import check_count, check_halves, check_widths
from iresnet_flows.inverse import Anderson
from iresnet_flows.layers import ActNorm, InjectivePadding, Layer, Squeeze, Stack
from iresnet_flows.layers.contract import require_layer
from iresnet_flows.lipschitz import Activation, LipschitzConvNet
from iresnet_flows.models.couplings import AdditiveCoupling, bottleneck
from iresnet_flows.models.unconstrained import IteratedBlock, convolutions

__all__ = [
    "CENTRE",
    "KERNELS",
    "SPREAD",
    "InvertibleClassifier",
    "Layout",
    "i_resnet_classifier",
    "i_revnet_classifier",
    "pooled_head",
    "vanilla_classifier",
]

CENTRE, SPREAD = 0.5, 0.25
KERNELS = (3, 1, 3)
SOLVER = Anderson(rtol=1e-10)  # each block's error is what the one before it begins with
ImageShape = tuple[int, int, int]


class InvertibleClassifier(nn.Module):
    r"""Logits of the features z of a layer, which is given :math:`(x - 0.5) / 0.25`.

    All that is lost of the image x is lost in the head. `decode` gives the image back to the
    error that the layer certifies; where the layer certifies none, as `IteratedBlock`, it gives
    what the layer's `invert` came to.

    Arguments:
        layers: From normalised images to features.
        head: From features to logits.

    Shapes:
        x (B, C, H, W) in [0, 1], features as the layer makes them, logits (B, classes).

    Raises:
        InverseNotConverged: `decode` missed the tolerance of a block.

    References:
        Behrmann et al., Invertible Residual Networks, 2019.

    Example:
        >>> import torch
        >>> model = i_resnet_classifier((1, 8, 8), 10, Layout((1, 1), (True, True)), (8, 8)).eval()
        >>> x = torch.rand(5, 1, 8, 8)
        >>> model(x).shape
        torch.Size([5, 10])
        >>> bool(torch.allclose(model.decode(model.encode(x)), x, atol=1e-5))
        True
    """

    def __init__(self, layers: Layer, head: nn.Module) -> None:
        super().__init__()
        self.layers = require_layer(layers)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """The logits of images."""
        logits: Tensor = self.head(self.encode(x))
        return logits

    def encode(self, x: Tensor) -> Tensor:
        """The features before the head."""
        return self.layers.transform((x - CENTRE) / SPREAD)

    def decode(self, features: Tensor) -> Tensor:
        """The image with these features, (B, C, H, W)."""
        return self.layers.invert(features) * SPREAD + CENTRE


@dataclass(frozen=True)
class Layout:
    """The stages of an invertible classifier: padding, then squeezes and blocks.

    Arguments:
        blocks: The number of blocks of each stage.
        squeezes: Whether each stage begins with a `Squeeze`, which halves height and width and
            makes four times the channels.
        padding: The channels of zeros that the image is given before the first stage.

    Raises:
        ValueError: A number is out of range, or there are not as many squeezes as stages.

    Example:
        >>> Layout((7, 7, 7), (False, True, True), padding=13).channels(3)
        (16, 64, 256)
    """

    blocks: tuple[int, ...]
    squeezes: tuple[bool, ...]
    padding: int = 0

    def __post_init__(self) -> None:
        for count in self.blocks:
            check_count("each of blocks", count)
        if not self.blocks or len(self.blocks) != len(self.squeezes):
            raise ValueError(
                "blocks and squeezes must both name each stage, got "
                f"{self.blocks!r} and {self.squeezes!r}."
            )
        check_count("padding", self.padding, least=0)

    def channels(self, image: int) -> tuple[int, ...]:
        """Those of each stage, from those of the image."""
        count, found = image + self.padding, []
        for squeeze in self.squeezes:
            count *= 4 if squeeze else 1
            found.append(count)
        return tuple(found)

    def stack(self, shape: ImageShape, block: Callable[[int, int], Layer]) -> Stack:
        """The layers.

        Arguments:
            shape: Channels, height and width of an image.
            block: Gives the next block from its channels and the index of its stage.

        Raises:
            ValueError: Height or width cannot be halved so often.
        """
        check_halves(shape, sum(self.squeezes))
        layers: list[Layer] = [InjectivePadding(self.padding)] if self.padding else []
        for stage, wide in enumerate(self.channels(shape[0])):
            layers += [Squeeze()] if self.squeezes[stage] else []
            layers += [block(wide, stage) for _ in range(self.blocks[stage])]
        return Stack(layers)

    def classifier(
        self, shape: ImageShape, classes: int, block: Callable[[int, int], Layer]
    ) -> InvertibleClassifier:
        """The layers, with a pooled head."""
        check_count("classes", classes)
        return InvertibleClassifier(
            self.stack(shape, block), pooled_head(self.channels(shape[0])[-1], classes)
        )


def check_stages(layout: Layout, hidden_channels: Sequence[int]) -> None:
    check_widths("hidden_channels", hidden_channels)
    if len(hidden_channels) != len(layout.blocks):
        raise ValueError(
            f"hidden_channels must name one width for each of {len(layout.blocks)} stages, "
            f"got {hidden_channels!r}."
        )


def pooled_head(channels: int, classes: int) -> nn.Module:
    """BatchNorm, ReLU, the mean over the pixels, and a linear layer."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )


def i_resnet_classifier(
    shape: ImageShape,
    classes: int,
    layout: Layout,
    hidden_channels: Sequence[int],
    coefficient: float = 0.9,
    activation: str | Activation = "elu",
) -> InvertibleClassifier:
    r"""The i-ResNet classifier: blocks of `ActNorm` and :math:`x + g(x)`, which always invert.

    The branches are convolutions of sizes 3, 1 and 3, each with a norm of at most c and thus
    :math:`\operatorname{Lip}(g) \leq c^3`, at every moment and for every size of image. A forward
    pass costs that of the unconstrained twin. A training step also costs the bounds of the
    kernels, see `LipschitzConvNet`, which grow with the cube of the smaller number of channels
    and not with the batch: with 16 hidden channels they were 18 of 58 ms, for 4 blocks and 256
    digits on one core.

    Arguments:
        shape: Channels, height and width of an image.
        classes: The number of classes.
        layout: The stages.
        hidden_channels: Those between the convolutions of a block, for each stage.
        coefficient: The paper's c of a convolution, in (0, 1); a branch of three has c^3.
        activation: That of the branches.

    Raises:
        ValueError: A size or the coefficient is out of range.

    References:
        Behrmann et al., Invertible Residual Networks, 2019 (Table 2).

    Example:
        >>> layout = Layout((2, 2), (True, True), padding=1)
        >>> model = i_resnet_classifier((1, 28, 28), 10, layout, (16, 16), coefficient=0.7)
        >>> block = model.layers.layers[-1].layers[-1]
        >>> bool(block.branch.lipschitz_bound() <= 0.7**3)
        True
    """
    if not 0 < coefficient < 1:
        raise ValueError(f"coefficient must lie in (0, 1), got {coefficient!r}.")
    check_stages(layout, hidden_channels)
    bound = coefficient ** len(KERNELS)

    def block(channels: int, stage: int) -> Layer:
        widths = (hidden_channels[stage],) * 2
        branch = LipschitzConvNet(channels, widths, KERNELS, bound, activation=activation)
        return Stack([ActNorm(channels), InvertibleResidualBlock(branch, solver=SOLVER)])

    return layout.classifier(shape, classes, block)


def vanilla_classifier(
    shape: ImageShape,
    classes: int,
    layout: Layout,
    hidden_channels: Sequence[int],
    activation: str | Activation = "elu",
    steps: int = 100,
) -> InvertibleClassifier:
    """The twin of `i_resnet_classifier` with the same layers, and nothing that bounds them.

    Arguments:
        steps: Those of the iteration with which `decode` tries to invert each block.

    The other arguments, and what it raises, are those of `i_resnet_classifier`.

    Example:
        >>> import torch
        >>> model = vanilla_classifier((1, 8, 8), 10, Layout((1, 1), (True, True)), (8, 8))
        >>> model(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    check_stages(layout, hidden_channels)

    def block(channels: int, stage: int) -> Layer:
        g = convolutions(channels, (hidden_channels[stage],) * 2, KERNELS, activation)
        return Stack([ActNorm(channels), IteratedBlock(g, steps)])

    return layout.classifier(shape, classes, block)


def i_revnet_classifier(
    shape: ImageShape, classes: int, layout: Layout, reduction: int = 4
) -> InvertibleClassifier:
    """The i-RevNet: additive couplings, in which either half of the channels moves in turn.

    Arguments:
        shape: Channels, height and width of an image.
        classes: The number of classes.
        layout: The stages; the channels of each must be even.
        reduction: How many times fewer channels there are within the nets of the couplings.

    Raises:
        ValueError: A size is out of range.

    References:
        Jacobsen et al., i-RevNet: Deep Invertible Networks, 2018.

    Example:
        >>> import torch
        >>> model = i_revnet_classifier((1, 8, 8), 10, Layout((2, 2), (True, True))).eval()
        >>> x = torch.rand(5, 1, 8, 8)
        >>> bool(torch.allclose(model.decode(model.encode(x)), x, atol=1e-5))
        True
    """
    check_count("reduction", reduction)
    if odd := [channels for channels in layout.channels(shape[0]) if channels % 2]:
        raise ValueError(
            f"the channels of each stage must be even, got {odd[0]}: one half moves the other. "
            "Pad or squeeze the image."
        )
    turn = 0

    def block(channels: int, _stage: int) -> Layer:
        nonlocal turn
        turn += 1
        half = channels // 2
        net = bottleneck(half, max(1, half // reduction))
        return AdditiveCoupling(channels, net, first=turn % 2 == 0)

    return layout.classifier(shape, classes, block)
