"""
A branch of your own: particles that push each other
====================================================

Can the block have a branch that knows the problem? It can have any module whose Lipschitz constant
you can bound on paper. Here a sample is three particles in the plane, of which none is special:
the density must not change when they are exchanged, and the branch is built such that it cannot.
Then the bound is got wrong, in the usual way, to see what happens.
"""

import textwrap

import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch
from torch import nn

from iresnet_flows import (
    BrokenLipschitzClaim,
    ClaimedBranch,
    InvertibleResidualBlock,
    LipschitzMLP,
)
from iresnet_flows.pyro import InvertibleResidual

torch.manual_seed(0)
PARTICLES = 3

# %%
# A module and its bound
# ----------------------
#
# Each particle is moved by the mean of what all particles do to it,
#
# .. math:: g_i(x) = \frac{1}{n} \sum_j h(x_i - x_j), \qquad
#           h(r) = \frac{f(r) - f(-r)}{2}, \qquad \operatorname{Lip}(f) \leq 0.9 .
#
# f is a ``LipschitzMLP``, whose bound is certified. h has the same bound, and it is odd: particles
# push each other with opposite forces, and their centre stays where it is. Then g has that bound
# too. With :math:`A_{ij} = h'(x_i - x_j)`, which equals :math:`A_{ji}`,
#
# .. math::
#    u^\top J v = \frac{1}{2n} \sum_{ij} (u_i - u_j)^\top A_{ij} (v_i - v_j)
#    \leq \frac{0.9}{2n} \Bigl(\sum_{ij} \|u_i - u_j\|^2\Bigr)^{1/2}
#                        \Bigl(\sum_{ij} \|v_i - v_j\|^2\Bigr)^{1/2}
#    \leq 0.9\, \|u\|\, \|v\| ,
#
# for :math:`\sum_{ij} \|u_i - u_j\|^2 = 2n \|u\|^2 - 2 \|\sum_i u_i\|^2`.


class Pushes(nn.Module):
    def __init__(self, lipschitz=0.9):
        super().__init__()
        self.f = LipschitzMLP(2, hidden_features=(16, 16), lipschitz=lipschitz)

    def forward(self, x):
        n = x.shape[1]
        i, j = torch.triu_indices(n, n, 1)
        r = x[:, i] - x[:, j]
        h = (self.f(r.flatten(0, 1)) - self.f(-r.flatten(0, 1))).reshape(r.shape) / 2
        return torch.zeros_like(x).index_add(1, i, h / n).index_add(1, j, -h / n)


def block():
    return InvertibleResidualBlock(ClaimedBranch(Pushes(), lipschitz=0.9))


# %%
# A gas in a trap
# ---------------
#
# The target is :math:`p(x) = N(x)\, e^{-u(x)} / Z`: a harmonic trap, which alone would make the
# particles normal, and a repulsion u of each pair. A flow of three blocks in Pyro is fitted to it
# by the reverse divergence, from the energy alone; ``event_dim=2`` says that a sample is a matrix.

base = dist.Normal(torch.zeros(PARTICLES, 2), 1.0).to_event(2)


def repulsion(x):
    i, j = torch.triu_indices(PARTICLES, PARTICLES, 1)
    distance = (x[:, i] - x[:, j]).square().sum(-1)
    return 6 * (-distance / 2).exp().sum(-1)


transforms = nn.ModuleList(InvertibleResidual(block(), event_dim=2) for _ in range(3))
flow = dist.TransformedDistribution(base, list(transforms))

optimiser = torch.optim.Adam(transforms.parameters(), lr=2e-2)
for _ in range(150):
    x = flow.rsample((128,))
    loss = (flow.log_prob(x) - base.log_prob(x) + repulsion(x)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

# %%
# Is all of it true?
# ------------------
#
# There is a truth for each part: for the log-determinant, that of the Jacobian by automatic
# differentiation; for the bound, the largest stretch at 2000 samples, which must stay below 0.9;
# for the symmetry, the density after an exchange of two particles; and for the density, the
# constant Z. The mean of :math:`p Z / q` over samples of the flow q is Z, and so is that of
# :math:`e^{-u}` over a million samples of the normal base.

with torch.no_grad():
    x = flow.sample((2000,))
    for number, transform in enumerate(transforms, start=1):
        branch = transform.block.branch
        g = torch.func.vmap(torch.func.jacrev(lambda x, g=branch: g(x[None])[0]))(x)
        g = g.reshape(-1, 2 * PARTICLES, 2 * PARTICLES)
        truth = torch.linalg.slogdet(torch.eye(2 * PARTICLES) + g).logabsdet
        error = (transform.block(x)[1] - truth).abs().max()
        stretch = torch.linalg.matrix_norm(g, 2).max()
        print(f"block {number}: log-det wrong by {error:.1e} nats, largest stretch {stretch:.3f}")

    change = (flow.log_prob(x[:, [1, 0, 2]]) - flow.log_prob(x)).abs().max()
    print(f"an exchange changes log q by {change:.1e} nats at most")

    many = base.sample((1_000_000,))
    weights = {
        "flow": (base.log_prob(x) - repulsion(x) - flow.log_prob(x)).exp(),
        "base": (-repulsion(many)).exp(),
    }
    for name, w in weights.items():
        mean, error = w.mean(), w.std() / len(w) ** 0.5
        share = mean.square() / w.square().mean()
        print(
            f"Z = {mean:.4f} ± {error:.4f} from {len(w):,} draws of the {name}, "
            f"of which {share:.0%} count"
        )

# %%
# Left, what the flow makes of 25 draws of the base: grey triangles become blue ones. Right, the
# distances of two particles. The black curve is the million draws, weighted.


def distances(x):
    i, j = torch.triu_indices(PARTICLES, PARTICLES, 1)
    return (x[:, i] - x[:, j]).norm(dim=-1)


draws = base.sample((25,))
with torch.no_grad():
    pushed = draws
    for transform in transforms:
        pushed = transform(pushed)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
cells = 6.0 * torch.cartesian_prod(torch.arange(5), torch.arange(5))
for cell, before, after in zip(cells, draws, pushed):
    left.fill(*(cell + after).T, facecolor="#56B4E960", edgecolor="#0072B2")
    left.scatter(*(cell + after).T, s=12, color="#0072B2")
    left.fill(*(cell + before).T, facecolor="white", edgecolor="0.4")
left.set(title="base, and flow", aspect="equal", xticks=[], yticks=[])

bins = torch.linspace(0, 5, 41)
options = {"bins": bins.numpy(), "density": True}
right.hist(distances(many).flatten(), histtype="step", color="0.65", label="base", **options)
right.hist(distances(x).flatten(), color="#56B4E9", alpha=0.6, label="flow", **options)
weight = weights["base"][:, None].expand(-1, PARTICLES)
truth = torch.histogram(distances(many), bins, weight=weight.contiguous(), density=True).hist
right.plot((bins[1:] + bins[:-1]) / 2, truth, color="black", label="truth")
right.set(title="distance of two particles", yticks=[], xlim=(0, 5))
right.legend(frameon=False)
plt.show()

# %%
# When the claim is wrong
# -----------------------
#
# The usual mistake is a sum where a mean was meant. Then the bound is three times as large and the
# claim of 0.9 is wrong. A claim is tested on all that passes, and the first batch finds it broken.


class Summed(Pushes):
    def forward(self, x):
        return PARTICLES * super().forward(x)


summed = Summed()
summed.load_state_dict(transforms[-1].block.branch.module.state_dict())
wrong = InvertibleResidualBlock(ClaimedBranch(summed, lipschitz=0.9))
try:
    wrong(x)
except BrokenLipschitzClaim as error:
    print(textwrap.fill(str(error), 90))

# %%
# Without the test the block would have gone on, with the log-determinants of a map that has no
# inverse. To see that it has none, take states a to their images :math:`y = a + g(a)`, and search
# by Newton's method, which begins at y, for states b with the same image.


def sent(x):
    return x + summed(x[None])[0]


summed.double()
a = x[:500].double()
with torch.no_grad():
    y = torch.func.vmap(sent)(a)
    b = y.clone()
    for _ in range(30):
        jacobian = torch.func.vmap(torch.func.jacrev(sent))(b).reshape(-1, 6, 6)
        miss = torch.func.vmap(sent)(b) - y
        b = b - torch.linalg.solve(jacobian, miss.flatten(1)).reshape(b.shape)
    miss = (torch.func.vmap(sent)(b) - y).flatten(1).norm(dim=-1)

apart = (a - b).flatten(1).norm(dim=-1).where(miss < 1e-12, 0.0)
worst = apart.argmax()
print(f"{(apart > 0.1).sum()} of 500 images are those of two states or more")
print(f"two states are {apart[worst]:.2f} apart, and their images {miss[worst]:.0e}")

figure, panel = plt.subplots(figsize=(4.6, 4.6), layout="constrained")
for state, colour, name in ((a, "#0072B2", "a"), (b, "#D55E00", "b"), (y, "black", "y")):
    points = state[worst]
    panel.fill(*points.T, facecolor="none", edgecolor=colour, label=name)
    for start, end in zip(points, y[worst]):
        panel.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour})
panel.set(title="two states a and b, one image y", aspect="equal", xticks=[], yticks=[])
panel.legend(frameon=False)
plt.show()

# %%
# What to take from it: what you know of the problem goes into g, and nothing is asked of it but a
# bound. The bound is yours to prove: the test speaks up when samples break the claim, and its
# silence is no proof. :class:`~iresnet_flows.ClaimedBranch` says what is tested.
