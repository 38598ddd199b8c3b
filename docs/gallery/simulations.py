"""
How was the ball thrown?
========================

A ball came down so many metres away. A simulator of throws can be run, but, so we pretend, not
scored: can sbi's NPE with an i-ResNet tell from simulations alone which angles and speeds explain
the distance? High and low throws go equally far, so that the answer is a long curved ridge.
"""

from functools import partial

import matplotlib.pyplot as plt
import torch
from sbi.inference import NPE
from sbi.utils import BoxUniform

from iresnet_flows.sbi import build_iresnet

# %%
# The simulator
# -------------
#
# Angles in degrees, speeds in metres a second; the distance is measured with an error of 2 m.

torch.manual_seed(0)
prior = BoxUniform(torch.tensor([5.0, 5.0]), torch.tensor([85.0, 25.0]))


def distance(theta):
    angle, speed = theta.unbind(-1)
    return speed**2 / 9.81 * torch.sin(2 * torch.deg2rad(angle))


theta = prior.sample((5000,))
x = distance(theta)[:, None] + 2 * torch.randn(5000, 1)

# %%
# The estimator
# -------------
#
# ``build_iresnet`` goes where the name of an estimator would, and the rest is sbi. The option
# lets the flow live on the whole plane, and its density within the prior's box.

build = partial(build_iresnet, z_score_x="transform_to_unconstrained", x_dist=prior)
trainer = NPE(prior, density_estimator=build, show_progress_bars=False)
trainer.append_simulations(theta, x)
trainer.train(training_batch_size=500, learning_rate=5e-3, stop_after_epochs=10)
posterior = trainer.build_posterior()

# %%
# The answer
# ----------
#
# The likelihood of this simulator is a normal density, and a grid over the box normalises it. The
# divergence of NPE from the posterior, the mean of log p - log q under p, is a sum over the grid.

angles, speeds = torch.linspace(5, 85, 152)[1:-1], torch.linspace(5, 25, 152)[1:-1]
grid = torch.cartesian_prod(angles, speeds)
cell = (angles[1] - angles[0]) * (speeds[1] - speeds[0])

densities, samples = {}, {}
for metres in (10.0, 25.0, 45.0):
    observed = torch.tensor([[metres]])
    exact = torch.distributions.Normal(distance(grid), 2.0).log_prob(observed[0])
    exact = exact - exact.logsumexp(0) - cell.log()
    found = posterior.log_prob(grid, x=observed)
    densities[metres] = exact.exp(), found.exp()
    samples[metres] = posterior.sample((500,), x=observed, show_progress_bars=False)

    lost = (exact.exp() * (exact - found)).sum() * cell
    learned = (exact.exp() * (exact - prior.log_prob(grid))).sum() * cell
    print(
        f"{metres:.0f} m: the posterior is {learned:.2f} nats from the prior, "
        f"and NPE {lost:.3f} nats from the posterior"
    )

# %%
# The pictures
# ------------
#
# Above the answer; below what NPE found, with 500 of its samples.

figure, axes = plt.subplots(2, 3, figsize=(11, 7), layout="constrained", sharex=True, sharey=True)
for column, metres in zip(axes.T, densities):
    exact, found = densities[metres]
    for axis, density in zip(column, (exact, found)):
        axis.pcolormesh(angles, speeds, density.view(150, 150).T, vmax=exact.max(), cmap="magma")
        axis.set(xlim=(5, 85), ylim=(5, 25))
    column[1].scatter(*samples[metres].T, s=2, color="white", linewidths=0)
    column[0].set_title(f"{metres:.0f} m")
    column[1].set_xlabel("angle, degrees")
for axis in axes[:, 0]:
    axis.set_ylabel("speed, m/s")
plt.show()

# %%
# What to take from it: one training serves every distance, and the ridge is followed up to the
# walls of the prior's box. :doc:`../hosts/sbi` has the settings, for likelihoods (``NLE``) and
# further rounds too.
