"""Stacks of a residual block, a Glow step, couplings and an FFJORD layer, in each host.

One of each host's own layers, and one of the layers of all hosts.
"""

from dataclasses import dataclass
from functools import partial

import pytest

for package in ("nflows", "normflows", "pyro", "zuko", "torchdiffeq"):
    pytest.importorskip(package)

import normflows as nf
import pyro.distributions as dist
import pyro.distributions.transforms as pt
import torch
import zuko
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms.base import CompositeTransform
from nflows.transforms.coupling import AffineCouplingTransform
from nflows.transforms.lu import LULinear
from nflows.transforms.normalization import ActNorm

from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.bridge import to_nflows, to_normflows, to_pyro, to_zuko
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.nflows import InvertibleResidualTransform
from iresnet_flows.normflows import InvertibleResidual as NormflowsResidual
from iresnet_flows.pyro import InvertibleResidual

FEATURES = 4
WIDTH = 16


def residual():
    return InvertibleResidualBlock(LipschitzMLP(FEATURES, (WIDTH, WIDTH), lipschitz=0.8))


def ffjord():
    # dopri5 in float32 adds rounding at each of its many steps; rk4 needs few.
    return FFJORD(FEATURES, (WIDTH, WIDTH), method="rk4", steps=16)


def nflows_coupling(sign=1.0):
    mask = sign * torch.tensor([1.0, -1.0, 1.0, -1.0])
    return AffineCouplingTransform(mask, partial(ResidualNet, hidden_features=WIDTH, num_blocks=1))


def normflows_coupling():
    net = nf.nets.MLP([FEATURES // 2, WIDTH, FEATURES], init_zeros=True)
    return nf.flows.AffineCouplingBlock(net)


def pyro_coupling():
    return pt.affine_coupling(FEATURES, [WIDTH], log_scale_min_clip=-1.0)


def of_all_hosts():
    """Layers of every host, from data to noise."""
    return [
        residual(),
        *(nf.flows.ActNorm(FEATURES), nf.flows.LULinearPermute(FEATURES), normflows_coupling()),
        nflows_coupling(),
        zuko.flows.NSF(FEATURES, transforms=1, hidden_features=[WIDTH]).transform,
        pyro_coupling(),
        pt.Permute(torch.arange(FEATURES).flip(0)),
        ffjord(),
    ]


class NflowsStack(torch.nn.Module):
    """An nflows `Flow`, whose transform takes data to noise."""

    def __init__(self):
        super().__init__()
        transforms = CompositeTransform(self.transforms())
        self.flow = Flow(transforms, StandardNormal([FEATURES]))

    def transforms(self):
        return [
            InvertibleResidualTransform(residual()),
            *(ActNorm(FEATURES), LULinear(FEATURES, identity_init=True)),
            nflows_coupling(),
            nflows_coupling(-1.0),
            to_nflows(ffjord()),
        ]

    def log_prob(self, x):
        return self.flow.log_prob(x)

    def to_noise(self, x):
        return self.flow.transform_to_noise(x)

    def to_data(self, z):
        return self.flow._transform.inverse(z)[0]

    def sample(self, count):
        return self.flow.sample(count)


class AllInNflows(NflowsStack):
    def transforms(self):
        return [to_nflows(layer) for layer in of_all_hosts()]


class PyroStack(torch.nn.Module):
    """A Pyro `TransformedDistribution`, whose transforms take noise to data."""

    def __init__(self):
        super().__init__()
        self.transforms = torch.nn.ModuleList(self.modules_to_data())
        self.register_buffer("zero", torch.zeros(FEATURES))

    def modules_to_data(self):
        return [
            to_pyro(ffjord(), explicit="inverse"),
            pyro_coupling(),
            to_pyro(pt.Permute(torch.arange(FEATURES).flip(0))),
            pyro_coupling(),
            *(
                pt.matrix_exponential(FEATURES, iterations=20),
                to_pyro(ElementwiseAffine(FEATURES)),
            ),
            InvertibleResidual(residual(), explicit="inverse"),
        ]

    @property
    def distribution(self):
        base = dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(1)
        return dist.TransformedDistribution(base, [*self.transforms])

    def log_prob(self, x):
        return self.distribution.log_prob(x)

    def to_noise(self, x):
        for transform in reversed(self.distribution.transforms):
            x = transform.inv(x)
        return x

    def to_data(self, z):
        for transform in self.distribution.transforms:
            z = transform(z)
        return z

    def sample(self, count):
        return self.distribution.sample((count,))


class AllInPyro(PyroStack):
    def modules_to_data(self):
        # For density estimation a layer of this package is explicit from data to noise.
        first, *others, last = of_all_hosts()
        return [
            to_pyro(last, explicit="inverse"),
            *map(to_pyro, reversed(others)),
            to_pyro(first, explicit="inverse"),
        ]


class NormflowsStack(torch.nn.Module):
    """A normflows `NormalizingFlow`, whose flows take latent to data."""

    def __init__(self):
        super().__init__()

        base = nf.distributions.DiagGaussian(FEATURES)
        self.flow = nf.NormalizingFlow(base, self.flows())

    def flows(self):
        return [
            to_normflows(ffjord()),
            normflows_coupling(),
            nf.flows.Permute(FEATURES, mode="swap"),
            normflows_coupling(),
            *(nf.flows.LULinearPermute(FEATURES), nf.flows.ActNorm(FEATURES)),
            NormflowsResidual(residual()),
        ]

    def log_prob(self, x):
        return self.flow.log_prob(x)

    def to_noise(self, x):
        return self.flow.inverse(x)

    def to_data(self, z):
        return self.flow.forward(z)

    def sample(self, count):
        return self.flow.sample(count)[0]


class AllInNormflows(NormflowsStack):
    def flows(self):
        return [to_normflows(layer) for layer in reversed(of_all_hosts())]


class AllInZuko(torch.nn.Module):
    """A zuko `Flow`, whose transforms take data to noise."""

    def __init__(self):
        super().__init__()
        base = zuko.lazy.UnconditionalDistribution(
            zuko.distributions.DiagNormal,
            torch.zeros(FEATURES),
            torch.ones(FEATURES),
            buffer=True,
        )
        self.flow = zuko.lazy.Flow([to_zuko(layer) for layer in of_all_hosts()], base)

    def log_prob(self, x):
        return self.flow().log_prob(x)

    def to_noise(self, x):
        return self.flow.transform()(x)

    def to_data(self, z):
        return self.flow.transform().inv(z)

    def sample(self, count):
        return self.flow().sample((count,))


STACKS = {
    "nflows": NflowsStack,
    "pyro": PyroStack,
    "normflows": NormflowsStack,
    "all in nflows": AllInNflows,
    "all in pyro": AllInPyro,
    "all in normflows": AllInNormflows,
    "all in zuko": AllInZuko,
}


@dataclass
class Trained:
    """A stack after some steps, what it was trained on and how that went."""

    stack: torch.nn.Module
    x: torch.Tensor
    losses: list[float]
    start: dict[str, torch.Tensor]


def train(host, steps=15):
    """Maximum likelihood on skewed data."""
    torch.manual_seed(0)
    stack = STACKS[host]()
    x = torch.randn(256, FEATURES)
    x = x + 0.3 * x.roll(1, -1).square()

    start = {name: p.detach().clone() for name, p in stack.named_parameters()}
    optimiser = torch.optim.Adam(stack.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        loss = -stack.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return Trained(stack, x, losses, start)


def dense_log_prob(stack, x):
    """The base density of the noise, and the determinant of the dense Jacobian."""
    jacobian = torch.autograd.functional.jacobian(lambda x: stack.to_noise(x).sum(0), x)
    noise = stack.to_noise(x).detach()
    if isinstance(stack, NormflowsStack):
        base = stack.flow.q0.log_prob(noise).detach()
    else:
        base = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(-1)
    return base + torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet


def log_prob_error(trained):
    """The largest error of log_prob, in float64 and with FFJORD integrated to the end."""
    # A fresh stack: the caches of Pyro's own coupling cannot be deep-copied.
    stack = type(trained.stack)()
    stack.load_state_dict(trained.stack.state_dict())
    stack.double().eval()
    for layer in stack.modules():
        if isinstance(layer, FFJORD):
            layer.method, layer.atol, layer.rtol = "dopri5", 1e-10, 1e-10
    x = trained.x[:20].double()
    return (stack.log_prob(x).detach() - dense_log_prob(stack, x)).abs().max().item()


@torch.no_grad()
def round_trip_error(trained):
    """The largest error of data to noise to data, and of noise to data to noise, in float32."""
    stack = trained.stack.eval()
    noise = stack.to_noise(trained.x)
    data = stack.to_data(noise.clone())  # a clone is in no cache
    return max(
        (data - trained.x).abs().max().item(),
        (stack.to_noise(data.clone()) - noise).abs().max().item(),
    )


def largest_errors():
    """By host, the largest errors of log_prob (float64) and of the round trip (float32)."""
    trained = {host: train(host) for host in STACKS}
    return {host: (log_prob_error(t), round_trip_error(t)) for host, t in trained.items()}
