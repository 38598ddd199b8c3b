"""
A posterior that is no ellipse
==============================

Where is the walker? One mast measured the distance well, another one badly, and so the posterior
is a crescent. How much better than a normal guide is an i-ResNet guide in Pyro, and how would one
know without the answer? Two dimensions have an answer, by a sum over a grid.
"""

from functools import partial

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import iterated
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormalizingFlow

from iresnet_flows.pyro import invertible_residual

# %%
# The model
# ---------
#
# Positions are in kilometres.

masts = torch.tensor([[0.0, -1.0], [1.5, 2.5]])
noise = torch.tensor([0.1, 0.8])
measured = torch.tensor([2.0, 1.8])


def model():
    walker = pyro.sample("walker", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    distances = (walker[..., None, :] - masts).norm(dim=-1)
    pyro.sample("measured", dist.Normal(distances, noise).to_event(1), obs=measured)


# %%
# Two guides
# ----------
#
# The second one differs in a line: four residual blocks instead of a Cholesky factor. Samples are
# drawn on the explicit side, x + g(x), and scored from the cache; no step solves anything.


def trained(guide, steps=500):
    optimiser = pyro.optim.OneCycleLR(
        {
            "optimizer": torch.optim.Adam,
            "optim_args": {"lr": 1e-3},
            "max_lr": 2e-2,
            "total_steps": steps,
        }
    )
    elbo = Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, optimiser, elbo)
    for _ in range(steps):
        svi.step()
        optimiser.step()
    return guide.requires_grad_(False)


pyro.set_rng_seed(0)
pyro.clear_param_store()
residual = partial(iterated, 4, invertible_residual, hidden_dims=[32, 32], lipschitz=0.97)
guides = {
    "normal": trained(AutoMultivariateNormal(model)),
    "i-ResNet": trained(AutoNormalizingFlow(model, residual)),
}

# %%
# The answer
# ----------
#
# The joint density on a grid of cells of 2 cm, summed. It gives the evidence and the posterior.


def log_joint(walker):
    """log p(walker, measured) of each row."""
    conditioned = pyro.condition(model, data={"walker": walker})
    trace = pyro.poutine.trace(conditioned).get_trace()
    return trace.nodes["walker"]["fn"].log_prob(walker) + trace.nodes["measured"]["fn"].log_prob(
        measured
    )


side = torch.linspace(-4, 4, 401)
grid = torch.cartesian_prod(side, side)
cell = (side[1] - side[0]) ** 2
evidence = (log_joint(grid).double().logsumexp(0) + cell.log()).item()
exact = (log_joint(grid) - evidence).exp()

# %%
# How good are they?
# ------------------
#
# Draws from a guide q have weights w = p(walker, measured) / q(walker). The log evidence less the
# mean of log w, the ELBO, is the divergence of the guide from the posterior. The efficiency of
# importance sampling, (sum w)² / (n sum w²), is the share of the draws that would do if they came
# from the posterior itself. It needs no answer, and so it can be looked at in a model of your own.

for name, guide in guides.items():
    q = guide.get_posterior()
    walker = q.sample((20_000,))
    log_w = log_joint(walker) - q.log_prob(walker)
    efficiency = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp() / len(log_w)
    estimate = log_w.logsumexp(0) - torch.tensor(len(log_w)).log()
    print(
        f"{name:8}  divergence {evidence - log_w.mean():.3f} nats, efficiency {efficiency:.3f}, "
        f"log evidence {estimate:.3f} (grid: {evidence:.3f})"
    )

# %%
# What they look like
# -------------------
#
# The guide's density on the grid is the one place that solves x + g(x) = y, here for 160 801
# points, each to a certified error. Triangles are the masts.

densities = {"the answer": exact}
for name, guide in guides.items():
    densities[f"{name} guide"] = guide.get_posterior().log_prob(grid).exp()

figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained", sharey=True)
for axis, (name, density) in zip(axes, densities.items()):
    axis.pcolormesh(side, side, density.view(401, 401).T, vmax=exact.max(), cmap="magma")
    axis.scatter(*masts.T, marker="^", color="white")
    axis.set(title=name, xlim=(-3, 3.5), ylim=(-2.5, 3), aspect="equal", xlabel="km")
plt.show()

# %%
# What to take from it: a guide that follows the crescent gives the evidence nearly for free, and
# one that does not misses it without a sign in its own loss. The efficiency is such a sign, though
# not of a mode that no draw has met. :doc:`../posteriors` measures guides on harder targets.
