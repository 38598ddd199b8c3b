"""
Regression with a fork in it
============================

What to report of a response that forks and whose noise grows? A mean and an error bar describe
neither. A conditional density does, and in one dimension an i-ResNet gives it with quantiles and
no sampling: it is an increasing map, and so a quantile is one certified solve. Here in zuko, on
data whose density is known.
"""

import matplotlib.pyplot as plt
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from iresnet_flows.zuko import IResNet

# %%
# The truth
# ---------
#
# From the middle on the response forks; the upper branch takes 60 % and is the noisier one.


def truth(c):
    """p(y | c) for each row of c."""
    fork = 2.5 * torch.sigmoid(8 * (c - 0.5))
    means = torch.cat([torch.sin(6 * c) + fork, torch.sin(6 * c) - fork], -1)
    scales = torch.cat([0.15 + 0.5 * c, 0.15 + 0.1 * c], -1)
    weights = torch.tensor([0.6, 0.4]).expand_as(means)
    return MixtureSameFamily(Categorical(weights), Normal(means, scales))


torch.manual_seed(0)
c = torch.rand(5000, 1)
y = truth(c).sample()[:, None]

# %%
# The flow
# --------
#
# ``IResNet(1, context=1)`` is a zuko flow: called with contexts, it gives distributions.

flow = IResNet(1, context=1, transforms=5, hidden_features=(64, 64), lipschitz=0.97)
optimiser = torch.optim.Adam(flow.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-2, total_steps=500)
for _ in range(500):
    rows = torch.randint(len(c), (512,))
    loss = -flow(c[rows]).log_prob(y[rows]).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
flow.eval().requires_grad_(False)

# %%
# Its density
# -----------
#
# On new rows, the mean of log p - log q estimates the divergence of the flow q from the truth p.

c = torch.rand(5000, 1)
y = truth(c).sample()
lost = truth(c).log_prob(y) - flow(c).log_prob(y[:, None])
print(f"{lost.mean():.3f} ± {lost.std() / len(lost) ** 0.5:.3f} nats from the truth")

# %%
# Its quantiles
# -------------
#
# ``flow(c).transform`` takes y to a standard normal z and increases. So the inverse takes the
# quantiles of z to those of y. How much of the truth lies below each is known too.

levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
line = torch.linspace(0, 1, 200)[:, None]
z = Normal(0.0, 1.0).icdf(levels)[:, None, None].expand(-1, 200, 1)
quantiles = flow(line).transform.inv(z)[..., 0]

for level, below in zip(levels, truth(line).cdf(quantiles)):
    print(
        f"{level:.2f} below, says the flow; in truth {below.mean():.3f} on average over c, "
        f"{below.min():.3f} to {below.max():.3f}"
    )

# %%
# The picture
# -----------

height = torch.linspace(-4.5, 5, 300)
grid = height[:, None, None].expand(-1, 200, 1)
densities = {
    "the truth": truth(line).log_prob(grid[..., 0]).exp(),
    "the flow, with its quantiles at 5, 25, 50, 75 and 95 %": flow(line).log_prob(grid).exp(),
}

figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
for axis, (name, density) in zip(axes, densities.items()):
    axis.pcolormesh(line[:, 0], height, density, vmax=1.2, cmap="magma")
    axis.set(title=name, xlabel="c")
axes[0].set_ylabel("y")
axes[1].plot(line, quantiles.T, color="white", linewidth=1)
plt.show()

# %%
# What to take from it: nothing was said of forks or of noise that grows, and neither is an option
# of the flow. More features work alike, but then there are samples and densities and no quantiles.
