"""
Anomaly scores that know their error
====================================

Which of these images should somebody look at? A density ranks them: the less likely, the more
suspicious. In many dimensions its log-determinant is an estimate, and so is the rank. Here each
score comes with a standard error, which says whose place on the list is not settled, and only
those are scored again. There are 64 dimensions, few enough for an exact score as the truth.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from iresnet_flows import Exact, InvertibleResidualBlock, LipschitzMLP, RussianRoulette
from iresnet_flows.layers import ActNorm, Stack

# %%
# Digits from a faulty scanner
# ----------------------------
#
# The flow learns three quarters of scikit-learn's digits. Among the others, one in ten has two
# neighbouring columns exchanged.

torch.manual_seed(0)
digits = torch.as_tensor(load_digits().images).float()[torch.randperm(1797)]
train, stream = digits[:1347].flatten(1), digits[1347:]
broken = torch.arange(len(stream)) % 10 == 0
stream[broken] = stream[broken][:, :, [0, 1, 2, 4, 3, 5, 6, 7]]
x = (stream.flatten(1) + 0.5) / 17

# %%
# The flow
# --------
#
# While it trains, each block draws one probe for an unbiased estimate of its log-determinant.

blocks = [InvertibleResidualBlock(LipschitzMLP(64, (128, 128), lipschitz=0.97)) for _ in range(4)]
layers = [layer for block in blocks for layer in (ActNorm(64), block)]
stack = Stack(layers)
base = torch.distributions.Normal(0.0, 1.0)

optimiser = torch.optim.Adam(stack.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=5e-3, total_steps=300)
for _ in range(300):
    batch = train[torch.randint(len(train), (256,))]
    z, logabsdet = stack((batch + torch.rand_like(batch)) / 17)
    loss = -(base.log_prob(z).sum(-1) + logabsdet).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
stack.eval()

# %%
# A score and its standard error
# ------------------------------
#
# ``block.log_abs_det`` has the value, its standard error over the probes, and a bound of the bias,
# which is zero for ``RussianRoulette``. The blocks draw independently, so variances add.


@torch.no_grad()
def scores(x, log_det):
    log_prob, variance = torch.zeros(len(x)), torch.zeros(len(x))
    for layer in layers:
        if layer in blocks:
            layer.log_det = log_det
            value, error, _ = layer.log_abs_det(x)
            variance += error.square()
            x = layer.transform(x)
        else:
            x, value = layer(x)
        log_prob += value
    return log_prob + base.log_prob(x).sum(-1), variance.sqrt()


truth, _ = scores(x, Exact())
score, error = scores(x, RussianRoulette(probes=4))
off = (score - truth) / error

print(f"standard error: {error.mean():.2f} nats; deviation of the scores: {truth.std():.1f}")
print(f"root mean square of error / standard error: {off.square().mean().sqrt():.2f}")
print(f"within 2 standard errors: {(off.abs() < 2).float().mean():.1%}")

# %%
# Does it find them?
# ------------------
#
# The area under the ROC curve is the chance that a broken image is less likely than a sound one.

forest = IsolationForest(random_state=0).fit(train)
rivals = {
    "Mahalanobis distance": -EmpiricalCovariance().fit(train).mahalanobis(stream.flatten(1)),
    "isolation forest": forest.score_samples(stream.flatten(1)),
}
for name, found in {"i-ResNet, exact": truth, "i-ResNet, 4 probes": score, **rivals}.items():
    print(f"{name:20}  AUC {roc_auc_score(broken, -found):.3f}")

# %%
# Where the error bars matter
# ---------------------------
#
# The noise of an estimate is small beside the differences of images, and the area does not feel
# it. The edge of a list does. Say that 100 images can be looked at. Those within two standard
# errors of the line between the 100th and the 101st may belong to either side; they alone are
# scored again, with 128 probes. The exact list is the truth, and all of it is done 20 times.

COUNT = 100


def unlisted(score):
    """How many of the list are not on the exact one."""
    lists = [set(s.argsort()[:COUNT].tolist()) for s in (score, truth)]
    return len(lists[0] - lists[1])


wrong = []
for _ in range(20):
    first, first_error = scores(x, RussianRoulette(probes=4))
    line = first.sort().values[COUNT - 1 : COUNT + 1].mean()
    again = ((first - line).abs() < 2 * first_error).nonzero()[:, 0]
    second, second_error = first.clone(), first_error.clone()
    second[again], second_error[again] = scores(x[again], RussianRoulette(probes=128))
    wrong.append((len(again), unlisted(first), unlisted(second)))

rescored, before, after = torch.tensor(wrong).double().mean(0).tolist()
print(f"scored again: {rescored:.1f} of {len(x)} images, on average")
print(f"not on the exact list: {before:.2f} of {COUNT} at first, {after:.2f} then")

# %%
# Above, the twelve least likely images, the broken ones in orange. Below on the left, the edge of
# the list in the last repetition: what is scored again moves to its true score, the black line. On
# the right, how far estimates are from the exact score, in standard errors, beside the standard
# normal density.

figure = plt.figure(figsize=(11, 6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 2))

for panel, i in zip(above.subplots(1, 12), score.argsort()[:12].tolist()):
    panel.imshow(stream[i], cmap="Oranges" if broken[i] else "Greys")
    panel.set_title(f"{score[i]:.0f} ± {error[i]:.1f}", fontsize=9)
    panel.set(xticks=[], yticks=[])

left, right = below.subplots(1, 2)
order = truth.argsort()
places = torch.arange(COUNT - 15, COUNT + 15)
near = order[places]
left.plot(places + 1, truth[near], color="black", linewidth=1, label="exact")
options = {"fmt": "o", "markersize": 4, "capsize": 2}
left.errorbar(
    places + 1, first[near], 2 * first_error[near], color="0.7", label="4 probes", **options
)
new = torch.isin(near, again)
left.errorbar(
    places[new] + 1,
    second[near[new]],
    2 * second_error[near[new]],
    color="#0072B2",
    label="128 probes",
    **options,
)
left.axhline(line, color="#D55E00", linewidth=1, label="edge of the list")
left.set(xlabel="exact rank", ylabel="log p, nats, ± 2 standard errors")
left.legend(frameon=False)

grid = torch.linspace(-5, 5, 200)
right.hist(off, bins=40, range=(-5, 5), density=True, color="#56B4E9", label="measured")
right.plot(grid, base.log_prob(grid).exp(), color="black", label="standard normal")
right.set(xlabel="(estimate - exact) / standard error", yticks=[])
right.legend(frameon=False)
plt.show()

# %%
# What to take from it: four probes rank as well as the exact score, at a price that does not grow
# with the cube of the dimension. Where a single decision hangs on a score, its standard error says
# whether to ask again. :doc:`../choose` has which estimator to take when.
