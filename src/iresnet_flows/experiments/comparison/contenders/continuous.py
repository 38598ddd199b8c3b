"""Continuous flows: FFJORD of this package and the CNF of zuko."""

from __future__ import annotations

from typing import Any

from nflows.distributions.normal import StandardNormal
from nflows.transforms.base import CompositeTransform
from torch import Tensor

from iresnet_flows.bridge import to_nflows
from iresnet_flows.experiments.comparison.contenders.recipes import Contender
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.nflows import Flow, LayerTransform

__all__ = ["CONTINUOUS", "CnfTransform", "cnf", "ffjord"]

EXACT_FEATURES = {"train": 8, "eval": 64}


def ffjord(features: int, width: int, context_features: int | None = None) -> Flow:
    layer = FFJORD(features, (width, width), context_features, rtol=1e-4, atol=1e-4)
    scale = ElementwiseAffine(features)
    transform = CompositeTransform([to_nflows(scale), to_nflows(layer)])
    return Flow(transform, StandardNormal([features]))


def cnf(features: int, width: int, context_features: int | None = None) -> Flow:
    from zuko.flows import CNF

    context = context_features or 0
    lazy = CNF(features, context, hidden_features=(width, width), atol=1e-4, rtol=1e-4).transform
    return Flow(CnfTransform(lazy, features), StandardNormal([features]))


class CnfTransform(LayerTransform):
    """zuko's `FFJTransform` with the exact trace wherever that is affordable.

    The exact trace costs d backward passes in each evaluation of the field; beyond 8 features in
    train mode, and 64 in eval mode, it is zuko's estimate.

    Arguments:
        lazy: The transform.
        features: The dimension d.
    """

    def __init__(self, lazy: Any, features: int) -> None:
        super().__init__(to_nflows(lazy).layer)
        self.features = features

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.choose()
        return super().forward(inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.choose()
        return super().inverse(inputs, context)

    def choose(self) -> None:
        mode = "train" if self.training else "eval"
        guest: Any = self.layer.guest
        guest.exact = self.features <= EXACT_FEATURES[mode]


CONTINUOUS = (
    Contender(
        "ffjord",
        "FFJORD",
        "1 continuous layer on torchdiffeq, dopri5 at 1e-4, MLP of 2 hidden layers with exact "
        "trace, after an elementwise affine layer",
        ffjord,
        learning_rate=1e-2,
        width=64,
        requires="torchdiffeq",
    ),
    Contender(
        "cnf",
        "CNF (zuko)",
        "1 continuous layer: CNF of zuko at tolerances of 1e-4, MLP of 2 hidden layers",
        cnf,
        learning_rate=1e-2,
        width=64,
        origin="beyond",
        remark="its trace is exact up to 8 features in training and 64 in scoring, and beyond "
        "these zuko's unbiased estimate",
        requires="zuko",
    ),
)
