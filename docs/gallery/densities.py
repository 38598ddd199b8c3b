"""
Densities in the plane
======================

How close does a flow come to a density in parts? An i-ResNet is continuous in both directions and
tears nothing: it has to stretch what lies between two parts until next to nothing is left. Three
of the bundled data sets show how well that goes in a short training, in nflows.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from iresnet_flows.experiments import data
from iresnet_flows.nflows import InvertibleResidualFlow

# %%
# The truth
# ---------
#
# Each set is a curve, or eight points, blurred by normal noise. So its density is known: it is
# that of a mixture of normals, which stand closely along a curve.

step = (torch.arange(500) + 0.5) / 500


def arc(first, last):
    angle = torch.pi * (first + (last - first) * step)
    return torch.stack([angle.cos(), angle.sin()], -1)


moons = torch.cat([arc(0, 1), torch.tensor([1.0, 0.5]) - arc(0, 1)])
spiral = torch.pi * (1.5 + 3 * step)[:, None] / 5 * arc(1.5, 4.5)
turns = torch.pi / 4 * torch.arange(8)
corners = 4 / math.sqrt(2) * torch.stack([turns.cos(), turns.sin()], -1)
truths = {
    name: MixtureSameFamily(
        Categorical(torch.ones(len(curve))), Independent(Normal(curve, blur), 1)
    )
    for name, curve, blur in (
        ("two-moons", moons, 0.1),
        ("eight-gaussians", corners, 0.5 / math.sqrt(2)),
        ("swiss-roll", spiral, 0.2),
    )
}

# %%
# The flows
# ---------
#
# ``InvertibleResidualFlow`` begins with the arguments of nflows' ``SimpleRealNVP`` and is trained
# as any flow of nflows. Nothing is called between the steps. ``prepare`` standardises the rows;
# it belongs to the commands and may change, so put your own rows in their place.


def trained(rows, steps=300):
    flow = InvertibleResidualFlow(2, hidden_features=64, num_layers=6, num_blocks_per_layer=2)
    optimiser = torch.optim.Adam(flow.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-2, total_steps=steps)
    for _ in range(steps):
        loss = -flow.log_prob(rows[torch.randint(len(rows), (512,))]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return flow.eval()


torch.manual_seed(0)
sets = {name: data.load(name) for name in truths}
flows = {name: trained(rows.prepare(rows.train)) for name, rows in sets.items()}

# %%
# What the flow lost
# ------------------
#
# The mean of log p - log q over test rows is the Kullback-Leibler divergence from the truth p to
# the flow q, but for the error of a finite mean: zero for a perfect flow. ``log_scale`` takes
# the density of standardised rows back to the data's units.


def log_prob(name, x):
    with torch.no_grad():
        return flows[name].log_prob(sets[name].prepare(x)) - sets[name].log_scale


for name, truth in truths.items():
    test = sets[name].test
    lost = truth.log_prob(test.float()) - log_prob(name, test)
    error = lost.std() / math.sqrt(len(lost))
    print(f"{name:15}  {lost.mean():.3f} ± {error:.3f} nats from the truth")

# %%
# The pictures
# ------------

figure, axes = plt.subplots(3, 3, figsize=(9, 9), layout="constrained")
for column, (name, truth) in zip(axes.T, truths.items()):
    rows = sets[name]
    reach = 1.2 * rows.train.abs().max().item()
    side = torch.linspace(-reach, reach, 140)
    grid = torch.cartesian_prod(side, side)
    density = truth.log_prob(grid).exp()
    found = log_prob(name, grid).exp()
    for axis, values in zip(column, (density, found)):
        axis.pcolormesh(side, side, values.view(140, 140).T, vmax=density.max(), cmap="magma")
    with torch.no_grad():
        samples = rows.restore(flows[name].sample(2000))
    column[2].scatter(*samples.T, s=1, color="#0072B2", linewidths=0)
    column[2].set(xlim=(-reach, reach), ylim=(-reach, reach))
    column[0].set_title(name)
for axis, label in zip(axes[:, 0], ("the truth", "the flow", "2000 samples of the flow")):
    axis.set_ylabel(label)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[], aspect="equal")
plt.show()

# %%
# What to take from it: bridges remain between parts that a longer training thins out; they are
# what a continuous map pays. :doc:`../choose` says which blocks stretch further, and
# ``iresnet-flows compare two-moons`` trains other flows beside this one on any of these sets.
