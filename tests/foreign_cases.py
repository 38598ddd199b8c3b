"""Factories as users write them: one for each kind of object that may be compared."""

from __future__ import annotations

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import CompositeTransform, LULinear, MaskedAffineAutoregressiveTransform
from torch import nn
from torch.distributions import Independent, Laplace, Normal, TransformedDistribution

from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.experiments.comparison.contenders import Contender

NOT_A_FACTORY = 3


def nflows_flow(features, width=16):
    """One masked layer of nflows, and a linear one."""
    transform = MaskedAffineAutoregressiveTransform(features, hidden_features=width)
    return Flow(CompositeTransform([transform, LULinear(features)]), StandardNormal([features]))


def nflows_transform(features):
    return LULinear(features)


def normflows_flow(features):
    import normflows as nf

    layers = [nf.flows.LULinearPermute(features) for _ in range(2)]
    base = nf.distributions.DiagGaussian(features)
    return nf.NormalizingFlow(base, [*layers, nf.flows.AffineConstFlow(features)])


def normflows_layer(features):
    import normflows as nf

    return nf.flows.LULinearPermute(features)


def zuko_flow(features, width):
    from zuko.flows import MAF

    return MAF(features, transforms=2, hidden_features=(width, width))


def zuko_transform(features):
    from zuko.flows import MaskedAutoregressiveTransform

    return MaskedAutoregressiveTransform(features, hidden_features=(16,))


def pyro_list(features):
    from pyro.distributions.transforms import affine_autoregressive, householder

    return [affine_autoregressive(features, hidden_dims=[16]), householder(features, 2)]


def pyro_transform(features):
    from pyro.distributions.transforms import affine_autoregressive

    return affine_autoregressive(features, hidden_dims=[16])


def torch_distribution(features):
    from pyro.distributions.transforms import affine_autoregressive

    loc = nn.Parameter(torch.linspace(-1, 1, features))
    base = Independent(Laplace(loc, torch.full((features,), 0.7)), 1)
    return TransformedDistribution(base, [affine_autoregressive(features, hidden_dims=[16])])


class Owner(nn.Module):
    """A module that computes its base anew each time."""

    def __init__(self, features):
        super().__init__()
        from pyro.distributions.transforms import affine_autoregressive

        self.log_scale = nn.Parameter(torch.linspace(-0.5, 0.5, features))
        self.transforms = nn.ModuleList([affine_autoregressive(features, hidden_dims=[16])])

    @property
    def base_dist(self):
        return Independent(Normal(torch.zeros_like(self.log_scale), self.log_scale.exp()), 1)


def owner(features):
    return Owner(features)


def layer(features, width=16):
    return InvertibleResidualBlock(LipschitzMLP(features, (width, width)))


def stale_base(features):
    scale = nn.Parameter(torch.zeros(features)).exp()
    base = Independent(Normal(torch.zeros(features), scale), 1)
    return TransformedDistribution(base, pyro_list(features))


def broken(features):
    raise RuntimeError("no\nluck")


def unknown(features):
    return {"features": features}


def of_three(features):
    return layer(3)


def fixed(features):
    return torch.distributions.transforms.AffineTransform(torch.zeros(features), 2.0)


def mixed(features):
    return [nflows_transform(features), pyro_transform(features)]


def one_number_each(features):
    return torch.distributions.transforms.AffineTransform(nn.Parameter(torch.zeros(())), 2.0)


TUNED = Contender("any", "Tuned", "with a rate of its own", layer, learning_rate=0.01)
