"""
One network classifies, restores and draws images
=================================================

Classifying, restoring and drawing images are often the work of three networks. Can one do it all?
Here an i-ResNet with one set of weights, trained once, reads scikit-learn's digits, gives them
back from its features, and draws new ones.
"""

import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split

from iresnet_flows.models import HybridFlow, ImageBlocks, i_resnet_flow

torch.manual_seed(0)
digits = load_digits()
pixels = torch.as_tensor(digits.images).float()[:, None]  # 0, 1, ..., 16
labels = torch.as_tensor(digits.target)
train, test = train_test_split(torch.arange(len(pixels)), test_size=360, random_state=0)


def noisy(pixels):
    """The pixels as real numbers in [0, 1], by noise within a grey level."""
    return (pixels + torch.rand_like(pixels)) / 17


# %%
# The model
# ---------
#
# ``i_resnet_flow`` is the density, two blocks at each of two scales and a normal distribution of
# the latents for each class; ``HybridFlow`` puts a small perceptron on the latents. No scale lets
# go of channels, so that the class has a say in all 64 of them.

blocks = ImageBlocks(hidden_channels=(24, 24), lipschitz=0.9)
density = i_resnet_flow((1, 8, 8), (2, 2), blocks, factor_out=False, classes=10)
model = HybridFlow(density, classes=10, hidden_features=64)

optimiser = torch.optim.Adam(model.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-2, total_steps=160)
for _ in range(160):
    rows = train[torch.randint(len(train), (128,))]
    loss = model.loss(noisy(pixels[rows]), labels[rows]).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
model.eval()

# %%
# Classify
# --------
#
# The measure is scikit-learn's logistic regression, on the same images.

x, y = noisy(pixels[test]), labels[test]
judge = LogisticRegression(max_iter=2000).fit(noisy(pixels[train]).flatten(1), labels[train])
with torch.no_grad():
    guesses = model(x).argmax(-1)

print(f"wrong: {(guesses != y).float().mean():.1%} of {len(test)} test images")
print(f"wrong by logistic regression: {1 - judge.score(x.flatten(1), y):.1%}")

# %%
# Restore
# -------
#
# The features are 64 numbers for 64 pixels, and nothing is lost in them: ``decode`` solves for the
# image, layer by layer, each to a certified error.

with torch.no_grad():
    features = density.latents(x)
    restored = density.decode(features)
print(f"largest error of a pixel in [0, 1]: {(restored - x).abs().max():.1e}")

# %%
# Score
# -----
#
# Bits per dimension of whole pixels, of which there are 17 grey levels, beside mixtures of normals
# with full covariances. That the number is a likelihood hangs on the log-determinants, so these
# are compared with those of the Jacobian by automatic differentiation, for 20 images.


def bits(log_prob):
    return math.log2(17) - log_prob.mean().item() / (64 * math.log(2))


with torch.no_grad():
    print(f"i-ResNet                 {bits(model.log_prob(x)):.2f} bits/dim")
    for count in (1, 10):
        mixture = GaussianMixture(count, reg_covar=1e-4, random_state=0)
        mixture.fit(noisy(pixels[train]).flatten(1))
        found = bits(mixture.score_samples(x.flatten(1)))
        print(f"mixture of {count:2} normal(s)  {found:.2f} bits/dim")

    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: density.latents(x[None])[0]))(x[:20])
    truth = torch.linalg.slogdet(jacobian.reshape(20, 64, 64)).logabsdet
    error = (density.encode(x[:20])[1] - truth).abs().max().item()
print(f"largest error of a log-determinant: {error:.1e} nats of {truth.mean().item():.0f}")

# %%
# Draw
# ----
#
# A label chooses the normal distribution, and the inverse makes an image of its draw. The judge is
# the logistic regression again, which knows nothing of the flow: how often does it read the
# digit that was asked for?

asked = torch.arange(10).repeat(50)
drawn = model.sample(len(asked), labels=asked)
print(f"read as asked: {judge.score(drawn.flatten(1), asked):.0%} of {len(asked)} drawn images")

# %%
# All three in one picture, a column for each digit: a test image with the network's guess, its
# features, what is restored of them, and four draws.

figure, axes = plt.subplots(7, 10, figsize=(9, 6.8), layout="constrained")
firsts = [int((y == digit).nonzero()[0]) for digit in range(10)]
rows = [x[firsts], features[firsts].reshape(10, 1, 8, 8), restored[firsts]]
rows += drawn.reshape(50, 10, 1, 8, 8)[:4]
names = ("test image", "features", "restored", "drawn", "drawn", "drawn", "drawn")
for name, line, images in zip(names, axes, rows):
    line[0].set_ylabel(name)
    for panel, image in zip(line, images):
        scale = {} if name == "features" else {"vmin": 0, "vmax": 1}
        panel.imshow(image[0], cmap="coolwarm" if name == "features" else "gray_r", **scale)
        panel.set(xticks=[], yticks=[])
for panel, first in zip(axes[0], firsts):
    panel.set_title(f"it reads {guesses[first]}")
plt.show()

# %%
# What to take from it: an i-ResNet keeps what a classifier throws away, so that one training
# serves all three. The weight of the density in ``model.loss`` sets how much each of them gets;
# :doc:`../training` does the same from the command line, on MNIST and on folders of your own.
