"""
Glow steps, residual blocks and an FFJORD layer in one flow
===========================================================

Which layer should a flow be made of? It need not be one kind. Here nflows' Glow steps, residual
blocks and a continuous layer stand in one nflows ``Flow``, learn a pinwheel together, and the
pictures show what each of them does to the plane. The pinwheel's density is known, so that what
the flow misses is a number and not an impression.
"""

import matplotlib.pyplot as plt
import torch
from nflows.nn.nets import ResidualNet
from nflows.transforms import ActNorm, AffineCouplingTransform, CompositeTransform, LULinear

from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.bridge import to_nflows
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.nflows import Flow, StandardNormal

# %%
# A pinwheel with a density
# -------------------------
#
# Five normal blobs around the centre, and then a turn by an angle that depends on the radius
# alone. Such a turn keeps every volume, so the density at x is that of the blobs at the point that
# x came from.

angles = 2 * torch.pi * torch.arange(5) / 5
centres = 2 * torch.stack([angles.cos(), angles.sin()], -1)
outward = torch.stack([angles.cos(), angles.sin(), -angles.sin(), angles.cos()], -1)
axes = outward.reshape(5, 2, 2).mT * torch.tensor([0.6, 0.15])  # along the arm, across it
blobs = torch.distributions.MixtureSameFamily(
    torch.distributions.Categorical(torch.ones(5)),
    torch.distributions.MultivariateNormal(centres, axes @ axes.mT),
)


def turned(x, sign):
    angle = sign * 0.7 * x.norm(dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], -1)


torch.manual_seed(0)
x, test = turned(blobs.sample((10_000,)), 1), turned(blobs.sample((2_000,)), 1)

# %%
# The stack
# ---------
#
# It is listed from data to noise. nflows' own transforms stand in it as they are, layers of this
# package through :func:`~iresnet_flows.bridge.to_nflows`.


def glow():
    def net(inputs, outputs):
        return ResidualNet(inputs, outputs, hidden_features=32, num_blocks=1)

    mask = torch.tensor([1.0, -1.0])
    return CompositeTransform([ActNorm(2), LULinear(2), AffineCouplingTransform(mask, net)])


def residual():
    block = InvertibleResidualBlock(LipschitzMLP(2, hidden_features=(32, 32), lipschitz=0.97))
    return CompositeTransform([ActNorm(2), to_nflows(block)])


ffjord = FFJORD(2, hidden_features=(32,), atol=1e-4, rtol=1e-4)
parts = {
    "residual 1": residual(),
    "Glow 1": glow(),
    "residual 2": residual(),
    "FFJORD": to_nflows(ffjord),
    "Glow 2": glow(),
    "residual 3": residual(),
}
flow = Flow(CompositeTransform(list(parts.values())), StandardNormal([2]))

optimiser = torch.optim.Adam(flow.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-2, total_steps=250)
for _ in range(250):
    loss = -flow.log_prob(x[torch.randint(len(x), (512,))]).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
flow.eval().double()

# %%
# Is each log-determinant that of the layer's map?
# ------------------------------------------------
#
# A flow's likelihood is a likelihood only if it is. The truth is the Jacobian of the map by
# automatic differentiation, and ``slogdet`` of it, both in float64. Each part is given what the
# one before it made of 200 test points.


def log_det_errors(points):
    for name, part in parts.items():
        points = points.detach()
        outputs, logabsdet = part(points)
        jacobian = torch.autograd.functional.jacobian(lambda x, f=part: f(x)[0].sum(0), points)
        error = (logabsdet - torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet).abs()
        print(f"{name:10}  mean {error.mean().item():.1e}, largest {error.max().item():.1e} nats")
        points = outputs


log_det_errors(test[:200].double())

# %%
# Residual blocks and Glow steps are exact. An FFJORD layer integrates, and its log-determinant is
# right up to the tolerance of the integration: loose is quick and will do in training, but what
# is reported should be measured with a tight one, for the same weights.

ffjord.atol = ffjord.rtol = 1e-7
log_det_errors(test[:200].double())

# %%
# How much is missed?
# -------------------
#
# The mean of log p(x) - log q(x) over test points is the Kullback-Leibler divergence of the flow
# q from the pinwheel p, up to the standard error of that mean.

with torch.no_grad():
    difference = blobs.log_prob(turned(test, -1)) - flow.log_prob(test.double())
divergence, error = difference.mean().item(), difference.std().item() / len(test) ** 0.5
print(f"the flow misses {divergence:.3f} ± {error:.3f} nats")

# %%
# What each layer does
# --------------------
#
# Above, the test points on their way from data to noise, coloured by their arm; below, what the
# layer named above makes of a square grid. Up to a linear map, a Glow step moves one coordinate
# and keeps the other. Residual blocks and FFJORD bend the plane freely.

arms = (blobs.component_distribution.log_prob(turned(test, -1)[:, None])).argmax(-1)
ticks, lines = torch.linspace(-2, 2, 101).double(), torch.linspace(-2, 2, 17).double()
grid = torch.cat([torch.cartesian_prod(lines, ticks), torch.cartesian_prod(ticks, lines)])

figure, axes = plt.subplots(2, 7, figsize=(15, 4.6), layout="constrained")
axes[0, 0].set_title("data")
axes[0, 0].scatter(*test.T, c=arms, cmap="Set2", s=1)

plane = torch.cartesian_prod(*[torch.linspace(-4.5, 4.5, 120).double()] * 2)
with torch.no_grad():
    density = flow.log_prob(plane).exp().reshape(120, 120)
axes[1, 0].imshow(density.T, origin="lower", cmap="magma", extent=(-4.5, 4.5) * 2)
axes[1, 0].set_xlabel("the flow's density")

points = test.double()
for (name, part), above, below in zip(parts.items(), axes[0, 1:], axes[1, 1:]):
    with torch.no_grad():
        centre, size = points.mean(0), points.std(0)
        moved = part(centre + size * grid)[0]
        points = part(points)[0]
    above.set_title(name)
    above.scatter(*points.T, c=arms, cmap="Set2", s=1)
    upright, level = moved.reshape(2, -1, 2)
    for curve in (*upright.reshape(17, 101, 2), *level.reshape(101, 17, 2).transpose(0, 1)):
        below.plot(*curve.T, color="#0072B2", linewidth=0.7)
for panel in axes.flat:
    panel.set(xticks=[], yticks=[], box_aspect=1)
    panel.set_aspect("equal", adjustable="datalim")
plt.show()

# %%
# What to take from it: the kinds mix freely, and a stack is as exact as its least exact layer. So
# check the log-determinant of a new stack once, as above, before its likelihood is believed; it
# takes three lines. :doc:`../hosts/bridge` has stacks in the other libraries.
