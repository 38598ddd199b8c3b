"""
The same weights in four libraries
==================================

Is a flow that was trained in nflows still the same flow in Pyro, in normflows and in zuko? Here
one list of layers stands in all four. Each library trains it for a while and hands it on, and then
each gives densities and samples, which are compared.
"""

import matplotlib.pyplot as plt
import normflows as nf
import pyro.distributions as dist
import torch
import zuko
from nflows.transforms import CompositeTransform
from sklearn.datasets import make_moons

from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.bridge import to_nflows, to_normflows, to_pyro, to_zuko
from iresnet_flows.layers import ElementwiseAffine, Stack
from iresnet_flows.nflows import Flow, StandardNormal

torch.manual_seed(0)
x = torch.as_tensor(make_moons(2000, noise=0.1, random_state=0)[0])  # float64

layers = []  # from data to noise
for _ in range(4):
    block = InvertibleResidualBlock(LipschitzMLP(2, hidden_features=(32, 32), lipschitz=0.97))
    layers += [ElementwiseAffine(2).double(), block.double()]

# %%
# One list, four flows
# --------------------
#
# nflows and zuko list their transforms from data to noise; Pyro and normflows from noise to data,
# so that there the list is turned around. The bridge keeps the direction of each layer, except
# that Pyro's default is made for guides: ``explicit="inverse"`` says that data to noise is the
# side that is computed, and noise to data the one that is solved.

zeros, ones = torch.zeros(2).double(), torch.ones(2).double()

in_nflows = Flow(CompositeTransform([to_nflows(layer) for layer in layers]), StandardNormal([2]))
in_nflows.double()

in_pyro = dist.TransformedDistribution(
    dist.Normal(zeros, ones).to_event(1),
    [to_pyro(layer, explicit="inverse") for layer in reversed(layers)],
)

in_normflows = nf.NormalizingFlow(
    nf.distributions.DiagGaussian(2, trainable=False),
    [to_normflows(layer) for layer in reversed(layers)],
).double()

in_zuko = zuko.flows.Flow(
    [to_zuko(layer) for layer in layers],
    zuko.flows.UnconditionalDistribution(zuko.distributions.DiagNormal, zeros, ones, buffer=True),
)

log_probs = {
    "nflows": in_nflows.log_prob,
    "Pyro": in_pyro.log_prob,
    "normflows": in_normflows.log_prob,
    "zuko": lambda x: in_zuko().log_prob(x),
}

# %%
# Trained in turns
# ----------------
#
# The parameters are shared and not copied, so one optimiser serves all, and each library goes on
# where the one before it stopped.

stack = Stack(layers)
optimiser = torch.optim.Adam(stack.parameters(), lr=1e-2)
losses = {}
for name, log_prob in log_probs.items():
    losses[name] = []
    for _ in range(150):
        batch = x[torch.randint(len(x), (256,))]
        loss = -log_prob(batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses[name].append(loss.item())

# %%
# The same densities
# ------------------
#
# The independent truth is the change of variables, written out with torch alone: the map's
# Jacobian by automatic differentiation, its determinant by ``slogdet``, and torch's own normal
# density. Each library's ``log_prob`` of the data is compared with that.

with torch.no_grad():
    z = stack.transform(x)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: stack.transform(x[None])[0]))(x)
    base = torch.distributions.Normal(zeros, ones)
    truth = base.log_prob(z).sum(-1) + torch.linalg.slogdet(jacobians).logabsdet

    for name, log_prob in log_probs.items():
        error = (log_prob(x) - truth).abs().max().item()
        print(f"{name:9}  largest difference from the change of variables: {error:.1e} nats")

# %%
# The same samples
# ----------------
#
# Each library draws its own base samples. From the same seed they are the same numbers, and then
# so are the samples.

draws = {
    "nflows": lambda: in_nflows.sample(40),
    "Pyro": lambda: in_pyro.sample((40,)),
    "normflows": lambda: in_normflows.sample(40)[0],
    "zuko": lambda: in_zuko().sample((40,)),
}
samples = {}
for name, draw in draws.items():
    torch.manual_seed(7)
    with torch.no_grad():
        samples[name] = draw()

for name, points in samples.items():
    print(f"{name:9}  {(points - samples['nflows']).abs().max().item():.1e} from those of nflows")

# %%
# What that looks like
# --------------------
#
# In the middle, each quarter of the plane is the density of another library, and no seam shows
# but the white lines drawn on it. On the right each draw is four rings, one of each library; where
# they were not equal they would not be concentric.

colours = {"nflows": "#0072B2", "Pyro": "#E69F00", "normflows": "#009E73", "zuko": "#CC79A7"}
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")

for turn, (name, values) in enumerate(losses.items()):
    steps = range(150 * turn, 150 * (turn + 1))
    left.plot(steps, values, color=colours[name], label=name, linewidth=1)
left.set(xlabel="step", ylabel="nats", title="one training, four libraries")
left.legend(frameon=False)

axes = torch.linspace(-1.6, 2.6, 160).double(), torch.linspace(-1.1, 1.6, 160).double()
grid = torch.cartesian_prod(*axes)
is_right, is_high = grid[:, 0] > 0.5, grid[:, 1] > 0.25
quarters = {
    "nflows": ~is_right & is_high,
    "Pyro": is_right & is_high,
    "normflows": ~is_right & ~is_high,
    "zuko": is_right & ~is_high,
}
density = torch.empty(len(grid)).double()
with torch.no_grad():
    for name, quarter in quarters.items():
        density[quarter] = log_probs[name](grid[quarter]).exp()
        corner = grid[quarter].mean(0) + 0.55 * (grid[quarter].mean(0) - grid.mean(0))
        middle.text(*corner, name, color="white", ha="center", va="center")
middle.pcolormesh(*axes, density.reshape(160, 160).T, cmap="magma", rasterized=True)
middle.axvline(0.5, color="white", linewidth=0.5)
middle.axhline(0.25, color="white", linewidth=0.5)
middle.set(title="one density, a quarter by each", xticks=[], yticks=[])

right.scatter(*x.T, s=2, color="0.85")
for size, (name, points) in zip((110, 60, 28, 8), samples.items()):
    right.scatter(*points.T, s=size, facecolors="none", edgecolors=colours[name], label=name)
right.set(title="40 samples, drawn by each", xticks=[], yticks=[])
plt.show()

# %%
# What to take from it: a host is a matter of taste and of what stands around the flow. The weights
# move between them, in the middle of a training too, and neither a density nor a sample changes by
# more than rounding. :doc:`../hosts/bridge` has what goes where, with contexts and other
# libraries' own layers.
