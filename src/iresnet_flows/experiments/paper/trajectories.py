"""Points on a line that layers move: their paths, where these cross, and the slope of the map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iresnet_flows.layers import Layer

__all__ = ["crossings", "slopes", "trajectories"]


def trajectories(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """The points x, (N,), and where they are after each of the n layers, (n + 1, N)."""
    points = [x.unsqueeze(1)]
    for layer in layers:
        points.append(layer.transform(points[-1]))
    return torch.cat(points, 1).T


def crossings(paths: Tensor) -> Tensor:
    r"""Where paths meet between one layer and the next, as rows (depth, value).

    Two that are neighbours at depth l, a distance :math:`a > 0` apart, and are :math:`b \leq 0`
    apart in the same order at depth l + 1, meet at :math:`l + a / (a - b)` on straight lines.
    An invertible map of the line has none: it keeps the order of all points.

    Arguments:
        paths: As `trajectories` gives them.
    """
    found = [paths.new_zeros(0, 2)]
    for depth, layer in enumerate(paths.unfold(0, 2, 1)):
        here, there = layer[layer[:, 0].argsort()].T
        a, b = here.diff(), there.diff()
        meet = (a > 0) & (b <= 0)
        share = (a / (a - b))[meet]
        value = here[:-1][meet].lerp(there[:-1][meet], share)
        found.append(torch.stack((depth + share, value), 1))
    return torch.cat(found)


def slopes(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """The derivative of the map of all layers at the points x, (N,)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = trajectories(layers, x)[-1]
        return torch.autograd.grad(y.sum(), x)[0]
