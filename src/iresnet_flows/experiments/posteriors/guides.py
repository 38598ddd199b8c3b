"""The families of approximations, each as its host makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from nflows.transforms import LULinear
from pyro.distributions import TransformModule
from pyro.distributions.transforms import (
    ComposeTransformModule,
    affine_coupling,
    block_autoregressive,
    permute,
    spline_coupling,
)
from pyro.infer.autoguide import (
    AutoGuide,
    AutoIAFNormal,
    AutoMultivariateNormal,
    AutoNormalizingFlow,
)

from iresnet_flows import Exact
from iresnet_flows.bridge import to_pyro
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.pyro import LayerTransformModule, invertible_residual

__all__ = ["GUIDES", "Guide"]

Model = Callable[..., Any]


@dataclass(frozen=True)
class Guide:
    """A family of approximate posteriors.

    Arguments:
        title: What tables call it.
        make: The guide of a model.
        learning_rate: That of Adam at the start.
    """

    title: str
    make: Callable[[Model], AutoGuide]
    learning_rate: float


def flow(layers: Callable[[int], list[Any]]) -> Callable[[Model], AutoGuide]:
    """A guide of layers that depend on the number of parameters."""

    def compose(features: int) -> ComposeTransformModule:
        return ComposeTransformModule(layers(features))

    return partial(AutoNormalizingFlow, init_transform_fn=compose)


def alternating(layer: Callable[[int], TransformModule], count: int, features: int) -> list[Any]:
    """Layers with the order of the parameters reversed between them."""
    parts: list[Any] = []
    for _ in range(count):
        parts += [layer(features), permute(features, torch.arange(features).flip(0))]
    return parts


def residual(features: int, blocks: int = 4, width: int = 32) -> list[Any]:
    """Residual blocks of two hidden layers, each after a scale and a shift, then a full matrix.

    Their log-dets are exact, for an estimated one would add its noise to the ELBO.
    """
    parts: list[Any] = []
    for _ in range(blocks):
        block = invertible_residual(features, (width, width), lipschitz=0.99, log_det=Exact())
        parts += [LayerTransformModule(ElementwiseAffine(features)), block]
    return [*parts, to_pyro(LULinear(features), explicit="forward")]


GUIDES = {
    "normal": Guide("multivariate normal", partial(AutoMultivariateNormal, init_scale=0.5), 1e-2),
    "iaf": Guide("IAF", partial(AutoIAFNormal, hidden_dim=[64, 64], num_transforms=4), 3e-3),
    "coupling": Guide(
        "affine coupling",
        flow(partial(alternating, partial(affine_coupling, hidden_dims=[64, 64]), 8)),
        3e-3,
    ),
    "spline": Guide(
        "spline coupling",
        flow(partial(alternating, partial(spline_coupling, hidden_dims=[64, 64], bound=5.0), 4)),
        3e-3,
    ),
    "bnaf": Guide(
        "block autoregressive",
        flow(partial(alternating, partial(block_autoregressive, hidden_factors=[8, 8]), 2)),
        3e-3,
    ),
    "i-resnet": Guide("i-ResNet", flow(residual), 2e-2),
}
