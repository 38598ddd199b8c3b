r"""Two-dimensional densities to look at.

Most are those of Grathwohl et al., FFJORD, 2019 (https://arxiv.org/abs/1810.01367). Each maker
draws `count` points, (count, 2), from a generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from iresnet_flows.experiments.data.tables import Array, Columns, Table
from iresnet_flows.experiments.extras import optional

__all__ = ["TOYS", "toy"]

COUNT = 12_000
SEED = 0

Maker = Callable[[int, np.random.Generator], Array]


def toy(name: str) -> Table:
    """The 12000 points of a toy: the same in every call.

    Arguments:
        name: A key of `TOYS`.

    Raises:
        MissingExtra: scikit-learn, which makes some of them, is not installed.
    """
    return Table(name, Columns(("x1", "x2")), TOYS[name](COUNT, np.random.default_rng(SEED)))


def two_moons(count: int, rng: np.random.Generator) -> Array:
    """Two interleaved half circles of radius 1, with normal noise of deviation 0.1."""
    return _scikit("make_moons", count, rng, noise=0.1)


def circles(count: int, rng: np.random.Generator) -> Array:
    """Two circles of radius 1 and 1/2, with normal noise of deviation 0.08."""
    return _scikit("make_circles", count, rng, noise=0.08, factor=0.5)


def swiss_roll(count: int, rng: np.random.Generator) -> Array:
    r"""The spiral :math:`t (\cos t, \sin t) / 5` for t in [3/2, 9/2] pi, with noise of 0.2."""
    points = _scikit("make_swiss_roll", count, rng, noise=1.0)

    return np.delete(points, 1, axis=1) / 5


def eight_gaussians(count: int, rng: np.random.Generator) -> Array:
    r"""Normals of deviation 0.5, centred at :math:`4 (\cos, \sin)(2 \pi k / 8)`, over root 2."""
    angle = 2 * np.pi * rng.integers(8, size=count) / 8

    return (4 * _circle(angle) + 0.5 * rng.standard_normal((count, 2))) / np.sqrt(2)


def checkerboard(count: int, rng: np.random.Generator) -> Array:
    r"""Uniform on the squares of side 2 in [-4, 4]^2 whose indices :math:`i + j` are even."""
    x = rng.uniform(-2, 2, count)
    y = rng.random(count) - 2 * rng.integers(2, size=count) + np.floor(x) % 2

    return 2 * np.stack([x, y], axis=1)


def pinwheel(count: int, rng: np.random.Generator) -> Array:
    r"""Five arms: a normal :math:`(r, t)` about (1, 0), turned by :math:`2 \pi k / 5 + e^r / 4`.

    The deviations are 0.3 along an arm and 0.1 across (Johnson et al., Composing graphical
    models with neural networks, 2016).
    """
    r, t = 1 + 0.3 * rng.standard_normal(count), 0.1 * rng.standard_normal(count)
    angle = 2 * np.pi * rng.integers(5, size=count) / 5 + np.exp(r) / 4
    along = _circle(angle)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)

    return 2 * (r[:, None] * along + t[:, None] * across)


def two_spirals(count: int, rng: np.random.Generator) -> Array:
    r"""The spirals :math:`\pm (t (-\cos t, \sin t) + b) / 3` with :math:`t = 3 \pi \sqrt{u}`.

    u is uniform on [0, 1], the blur b on [0, 1/2]^2; normal noise of deviation 0.1 comes on top.
    """
    t = 3 * np.pi * np.sqrt(rng.random((count, 1)))
    arm = t * _circle(np.pi - t[:, 0])
    sign = 2 * rng.integers(2, size=(count, 1)) - 1
    blur = rng.uniform(0, 0.5, (count, 2))

    return sign * (arm + blur) / 3 + 0.1 * rng.standard_normal((count, 2))


def rings(count: int, rng: np.random.Generator) -> Array:
    """Four circles of radius 3/4, 3/2, 9/4 and 3, equally likely, with noise of 0.08."""
    radius = 0.75 * rng.integers(1, 5, size=(count, 1))
    noise = 0.08 * rng.standard_normal((count, 2))

    return radius * _circle(rng.uniform(0, 2 * np.pi, count)) + noise


def _circle(angle: Array) -> Array:
    """The points (cos, sin), (N, 2), of angles (N,)."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _scikit(maker: str, count: int, rng: np.random.Generator, **options: float) -> Array:
    """The points of one of scikit-learn's makers, which take a seed and give (points, labels)."""
    datasets = optional("sklearn.datasets", "scikit-learn")
    seed = int(rng.integers(2**31))
    points: Array = getattr(datasets, maker)(count, random_state=seed, **options)[0]

    return points


TOYS: dict[str, Maker] = {
    "two-moons": two_moons,
    "eight-gaussians": eight_gaussians,
    "checkerboard": checkerboard,
    "pinwheel": pinwheel,
    "two-spirals": two_spirals,
    "rings": rings,
    "swiss-roll": swiss_roll,
    "circles": circles,
}
