"""The contenders and their recipes: one place to read what is compared with what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.autoregressive import MaskedAutoregressiveFlow
from nflows.flows.base import Flow
from nflows.flows.realnvp import SimpleRealNVP
from nflows.nn.nets import ResidualNet
from nflows.transforms.base import CompositeTransform
from nflows.transforms.coupling import AffineCouplingTransform
from nflows.transforms.lu import LULinear
from nflows.transforms.normalization import ActNorm
from torch import nn

from iresnet_flows.bridge import to_nflows
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.widths import fitting_width, parameters
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.nflows import InvertibleResidualFlow

__all__ = ["CONTENDERS", "Contender", "build", "chosen"]


@dataclass(frozen=True)
class Contender:
    """A family of flows with one free width.

    Arguments:
        name: What `--models` calls it.
        title: What tables call it.
        recipe: The architecture in a sentence.
        make: Gives the flow from the number of features and the width.
        learning_rate: That of AdamW at the start; it decays linearly over the budget.
        weight_decay: That of AdamW. Those of Glow and i-ResNet were chosen among 0, 0.3 and 1 by
            the validation loss on digits; the others take Glow's.
        least_features: The smallest dimension for which the family exists.
    """

    name: str
    title: str
    recipe: str
    make: Callable[[int, int], Flow]
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    least_features: int = 1


def nice(features: int, width: int) -> Flow:
    flow = SimpleRealNVP(features, width, 8, 2, use_volume_preserving=True)
    scale = to_nflows(ElementwiseAffine(features))
    return Flow(CompositeTransform([flow._transform, scale]), StandardNormal([features]))


def realnvp(features: int, width: int) -> Flow:
    return SimpleRealNVP(features, width, num_layers=8, num_blocks_per_layer=2)


def glow(features: int, width: int) -> Flow:
    mask = torch.ones(features)
    mask[::2] = -1

    def net(fan_in: int, fan_out: int) -> nn.Module:
        return ResidualNet(fan_in, fan_out, hidden_features=width, num_blocks=2)

    steps = []
    for _ in range(8):
        coupling = AffineCouplingTransform(mask, net)
        steps += [ActNorm(features), LULinear(features, identity_init=True), coupling]
    return Flow(CompositeTransform(steps), StandardNormal([features]))


def maf(features: int, width: int) -> Flow:
    return MaskedAutoregressiveFlow(features, width, num_layers=5, num_blocks_per_layer=2)


def made(features: int, width: int) -> Flow:
    return MaskedAutoregressiveFlow(features, width, num_layers=1, num_blocks_per_layer=2)


def ffjord(features: int, width: int) -> Flow:
    layer = FFJORD(features, (width, width), rtol=1e-4, atol=1e-4)
    scale = ElementwiseAffine(features)
    transform = CompositeTransform([to_nflows(scale), to_nflows(layer)])
    return Flow(transform, StandardNormal([features]))


def i_resnet(features: int, width: int) -> Flow:
    features_of_entries = 2 * width  # a sine and a cosine
    return InvertibleResidualFlow(features, features_of_entries, 8, num_blocks_per_layer=2)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            "nice",
            "NICE",
            "8 additive couplings of nflows, residual nets of 2 blocks, then a scale for each "
            "feature",
            nice,
            least_features=2,
        ),
        Contender(
            "realnvp",
            "Real-NVP",
            "8 affine couplings: SimpleRealNVP of nflows, residual nets of 2 blocks",
            realnvp,
            least_features=2,
        ),
        Contender(
            "glow",
            "Glow",
            "8 steps of nflows' ActNorm, LULinear and affine coupling, residual nets of 2 blocks",
            glow,
            least_features=2,
        ),
        Contender(
            "ffjord",
            "FFJORD",
            "1 continuous layer on torchdiffeq, dopri5 at 1e-4, MLP of 2 hidden layers with exact "
            "trace, after an elementwise affine layer",
            ffjord,
            learning_rate=3e-3,
        ),
        Contender(
            "i-resnet",
            "i-ResNet",
            "8 residual blocks of this package, MLP branches of 2 hidden layers, (sin, cos) "
            "activation, Lipschitz bound 0.97, an elementwise affine layer before each",
            i_resnet,
            learning_rate=5e-3,
            weight_decay=1.0,
        ),
        Contender(
            "made",
            "MADE",
            "1 masked autoregressive layer of nflows, 2 residual blocks",
            made,
            least_features=2,
        ),
        Contender(
            "maf",
            "MAF",
            "5 masked autoregressive layers of nflows, 2 residual blocks each",
            maf,
            least_features=2,
        ),
    )
}
DEFAULT = ("nice", "realnvp", "glow", "ffjord", "i-resnet")
WIDTH = 32


def chosen(names: Sequence[str] | None) -> list[Contender]:
    """The contenders of those names, or those that are compared by default.

    Raises:
        UsageError: There is no contender of a name.
    """
    for name in names or ():
        if name not in CONTENDERS:
            near = get_close_matches(name, CONTENDERS, n=1, cutoff=0.5)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"unknown model {name!r}:{hint} Known: {', '.join(CONTENDERS)}.")
    return [CONTENDERS[name] for name in dict.fromkeys(names or DEFAULT)]


def build(contender: Contender, features: int) -> Flow:
    """The flow with the width that brings its parameters nearest to those of i-ResNet.

    Raises:
        UsageError: The family does not exist at so few features.
    """
    if features < contender.least_features:
        raise UsageError(
            f"{contender.title} needs at least {contender.least_features} columns, the data have "
            f"{features}: leave it out of --models."
        )
    target = parameters(partial(CONTENDERS["i-resnet"].make, features), WIDTH)
    make = partial(contender.make, features)
    return make(fitting_width(make, target))
