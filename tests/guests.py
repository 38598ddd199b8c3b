"""Transforms of every host by name, and what each host computes with a transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import pytest

for package in ("nflows", "normflows", "pyro", "zuko"):
    pytest.importorskip(package)

import nflows.transforms as nt
import normflows as nf
import pyro.distributions as dist
import pyro.distributions.transforms as pt
import torch
import torch.distributions.transforms as tt
import zuko
from cases import hostile
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.nn.nets import ResidualNet
from torch import Tensor, nn

from iresnet_flows.bridge import to_nflows, to_normflows, to_pyro, to_zuko

BRIDGES = {"nflows": to_nflows, "normflows": to_normflows, "pyro": to_pyro, "zuko": to_zuko}
MASK = torch.tensor([1.0, -1.0, 1.0, -1.0])
IMAGE = (4, 2, 2)


@dataclass(frozen=True)
class Case:
    """A transform of a host and what it is tested on.

    Arguments:
        host: Its host; ``"pyro"`` for torch.distributions as well.
        make: Builds it.
        event: The shape of a sample.
        context_features: The size of its context, or None.
        lacks: The way that it cannot go, ``"to_noise"`` or ``"to_data"``, or None.
        range: The largest absolute value of the data that it takes.
        tolerance: How exact its host is in float64.
    """

    host: str
    make: Callable[[], Any]
    event: tuple[int, ...] = (4,)
    context_features: int | None = None
    lacks: str | None = None
    range: float = float("inf")
    tolerance: float = 1e-9

    def __call__(self, seed: int = 0) -> tuple[Any, Tensor, Tensor | None]:
        """The transform with weights as training leaves them, data, and a context."""
        torch.manual_seed(seed)
        transform = self.make()
        if isinstance(transform, nn.Module):
            transform = hostile(transform.double(), 0.2).eval()
        torch.manual_seed(1)
        data = torch.randn(5, *self.event, dtype=torch.float64)
        data = data.clamp(-0.9 * self.range, 0.9 * self.range)
        if self.context_features is None:
            return transform, data, None
        return transform, data, torch.randn(5, self.context_features, dtype=torch.float64)

    def bridged(self, host: str, transform: Any) -> Any:
        """The transform in a host, told what nflows, normflows and zuko do not say of it."""
        if host == "pyro":
            return to_pyro(transform, None, len(self.event), self.context_features is not None)
        if host == "zuko":
            return to_zuko(transform, None, len(self.event))
        return BRIDGES[host](transform)

    @property
    def ways(self) -> tuple[str, ...]:
        return tuple(way for way in ("to_noise", "to_data") if way != self.lacks)


def to_noise(host: str, transform: Any, x: Tensor, context: Tensor | None = None) -> Any:
    """The noise of the data and the log-det, as the host asks a transform of it."""
    if host == "nflows":
        return transform(x, context)
    if host == "normflows":
        return transform.inverse(x) if context is None else transform.inverse(x, context=context)
    if host == "zuko":
        return asked_of_torch(transform(context), x)
    return asked_of_torch((transform if context is None else transform.condition(context)).inv, x)


def to_data(host: str, transform: Any, z: Tensor, context: Tensor | None = None) -> Any:
    """The data of the noise and the log-det, likewise."""
    if host == "nflows":
        return transform.inverse(z, context)
    if host == "normflows":
        return transform(z) if context is None else transform(z, context=context)
    if host == "zuko":
        return asked_of_torch(transform(context).inv, z)
    return asked_of_torch(transform if context is None else transform.condition(context), z)


def asked_of_torch(transform: tt.Transform, x: Tensor) -> Any:
    y = transform(x)
    ladj = transform.log_abs_det_jacobian(x, y)
    if transform.domain.event_dim == 0:  # one for each element
        ladj = ladj.expand(x.shape).flatten(1).sum(1)
    return y, ladj


WAYS = {"to_noise": to_noise, "to_data": to_data}


class Density:
    """The host's own distribution around a transform of vectors, with a standard normal base."""

    def __init__(self, host: str, transform: Any, context: Tensor | None = None) -> None:
        zero, one = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
        self.host, self.context = host, context
        if host == "nflows":
            self.flow = Flow(transform, StandardNormal([4]))
        elif host == "normflows":
            base = nf.distributions.DiagGaussian(4, trainable=False).double()
            kind = nf.NormalizingFlow if context is None else nf.ConditionalNormalizingFlow
            self.flow = kind(base, [transform])
        elif host == "zuko":
            base = zuko.lazy.UnconditionalDistribution(
                zuko.distributions.DiagNormal, zero, one, buffer=True
            )
            self.flow = zuko.lazy.Flow(transform, base)(context)
        else:
            if context is not None:
                transform = transform.condition(context)
            base = dist.Normal(zero, one).to_event(1)
            self.flow = dist.TransformedDistribution(base, [transform])

    def log_prob(self, x: Tensor) -> Tensor:
        if self.host in ("pyro", "zuko") or self.context is None:
            return self.flow.log_prob(x)
        return self.flow.log_prob(x, context=self.context)

    def sample(self, count: int) -> Tensor:
        if self.host == "nflows":
            # It draws its noise in the default dtype.
            torch.set_default_dtype(torch.float64)
            try:
                if self.context is None:
                    return self.flow.sample(count)
                return self.flow.sample(1, context=self.context).squeeze(1)
            finally:
                torch.set_default_dtype(torch.float32)
        if self.host == "normflows":
            if self.context is None:
                return self.flow.sample(count)[0]
            return self.flow.sample(count, context=self.context)[0]
        return self.flow.sample((count,) if self.context is None else ())


def glow_block():
    return nf.flows.GlowBlock(IMAGE[0], 6, scale_map="sigmoid", init_zeros=False)


def coupling():
    return hostile(pt.affine_coupling(4, [6]).double(), 0.2)


def planar():
    return hostile(pt.planar(4).double(), 0.2)


def composed():
    """A transform of transforms, one inverted, whose parameters Pyro itself does not see."""
    scale = nn.Parameter(torch.tensor([2.0, 0.5, 1.5, 0.7], dtype=torch.float64))
    shift = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    affine = tt.AffineTransform(shift, scale)
    return tt.ComposeTransform([coupling().inv, affine, tt.TanhTransform()])


net = partial(ResidualNet, hidden_features=6, num_blocks=1)
conditional_net = partial(net, context_features=3)
nflows = partial(Case, "nflows")
pyro = partial(Case, "pyro")
normflows = partial(Case, "normflows")
lazy = partial(Case, "zuko")

CASES = {
    "nflows, affine coupling": nflows(lambda: nt.AffineCouplingTransform(MASK, net)),
    "nflows, affine coupling, context": nflows(
        lambda: nt.AffineCouplingTransform(MASK, conditional_net), context_features=3
    ),
    "nflows, spline coupling": nflows(
        lambda: nt.PiecewiseRationalQuadraticCouplingTransform(
            MASK, net, tails="linear", tail_bound=4.0
        )
    ),
    "nflows, autoregressive, context": nflows(
        lambda: nt.MaskedAffineAutoregressiveTransform(4, 8, context_features=2),
        context_features=2,
    ),
    "nflows, batch norm and a permutation": nflows(
        lambda: nt.CompositeTransform([nt.BatchNorm(4), nt.ReversePermutation(4)])
    ),
    "nflows, tanh": nflows(nt.Tanh),
    "nflows, images": nflows(lambda: nt.OneByOneConvolution(IMAGE[0]), IMAGE),
    "pyro, spline coupling": pyro(lambda: pt.spline_coupling(4, hidden_dims=[6])),
    "pyro, affine coupling": pyro(lambda: pt.affine_coupling(4, [6])),
    "pyro, planar": pyro(lambda: pt.planar(4), lacks="to_noise"),
    "pyro, planar inverted": pyro(lambda: planar().inv, lacks="to_data"),
    "pyro, affine coupling inverted": pyro(lambda: coupling().inv),
    "pyro, radial": pyro(lambda: pt.radial(4), lacks="to_noise"),
    "pyro, spline, context": pyro(
        lambda: pt.conditional_spline(4, 3, hidden_dims=[6]), context_features=3
    ),
    "pyro, planar, context": pyro(
        lambda: pt.conditional_planar(4, 3, [6]), context_features=3, lacks="to_noise"
    ),
    "pyro, batch norm": pyro(lambda: pt.batchnorm(4)),
    "pyro, images": pyro(lambda: pt.generalized_channel_permute(channels=IMAGE[0]), IMAGE),
    "torch, composed": pyro(composed, range=1.0),
    "torch, exp of images": pyro(
        lambda: tt.ComposeTransform([tt.ExpTransform(), tt.AffineTransform(-5.0, 2.0)]), IMAGE
    ),
    "normflows, affine coupling": normflows(
        lambda: nf.flows.AffineCouplingBlock(nf.nets.MLP([2, 8, 4]))
    ),
    "normflows, spline": normflows(lambda: nf.flows.CoupledRationalQuadraticSpline(4, 1, 8)),
    "normflows, autoregressive spline, context": normflows(
        lambda: nf.flows.AutoregressiveRationalQuadraticSpline(4, 1, 8, num_context_channels=3),
        context_features=3,
    ),
    "normflows, autoregressive, context": normflows(
        lambda: nf.flows.MaskedAffineAutoregressive(4, 8, context_features=2), context_features=2
    ),
    "normflows, Glow block": normflows(glow_block, IMAGE),
    "normflows, planar": normflows(lambda: nf.flows.Planar((4,)), lacks="to_noise"),
    "normflows, composite and reverse": normflows(
        lambda: nf.flows.Composite(
            [nf.flows.Reverse(nf.flows.LULinearPermute(4)), nf.flows.InvertibleAffine(4)]
        )
    ),
    "zuko, MAF": lazy(lambda: zuko.flows.MAF(4, transforms=2, hidden_features=[8]).transform),
    "zuko, MAF, context": lazy(
        lambda: zuko.flows.MAF(4, 3, transforms=1, hidden_features=[8]).transform,
        context_features=3,
    ),
    "zuko, NSF, inverted": lazy(
        lambda: zuko.flows.NSF(4, transforms=1, hidden_features=[8]).transform.inv
    ),
    "zuko, affine": lazy(
        lambda: zuko.lazy.UnconditionalTransform(
            zuko.transforms.MonotonicAffineTransform, torch.randn(4), torch.randn(4)
        )
    ),
}
coupled_spline = nf.flows.CoupledRationalQuadraticSpline
if "num_context_channels" in signature(coupled_spline).parameters:  # normflows 1.7.3 or newer
    CASES["normflows, spline, context"] = normflows(
        lambda: coupled_spline(4, 1, 8, num_context_channels=3), context_features=3
    )
