"""Branches that were trained against their bound, and the places where they stretch the most."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from cases import ACTIVATIONS
from torch import Tensor

from iresnet_flows import (
    Exact,
    InvertibleResidualBlock,
    LipschitzConvNet,
    LipschitzDenseNet,
    LipschitzMLP,
)
from iresnet_flows.lipschitz import Elementwise, LipschitzElementwise
from iresnet_flows.lipschitz.layered import LayeredBranch

__all__ = ["BRANCHES", "jacobians", "near_and_far", "norms", "squeezed", "stretched", "stretches"]


class Steep(torch.nn.Module):
    def forward(self, z):
        return (3 * z).sin()


BRANCHES: dict[str, tuple[Callable[[], LayeredBranch], tuple[int, ...]]] = {
    **{
        f"mlp, {name}": (partial(LipschitzMLP, 3, (8, 6), activation=name), (3,))
        for name in ACTIVATIONS
    },
    "mlp, one hidden layer": (partial(LipschitzMLP, 3, (6,)), (3,)),
    "mlp, one hidden layer, 0.99": (partial(LipschitzMLP, 2, (6,), lipschitz=0.99), (2,)),
    "mlp, d = 1": (partial(LipschitzMLP, 1, (16,), lipschitz=0.5), (1,)),
    "mlp, three hidden layers": (partial(LipschitzMLP, 3, (6, 4, 6)), (3,)),
    "mlp, context": (partial(LipschitzMLP, 2, (8, 8), context_features=2), (2,)),
    "dense": (partial(LipschitzDenseNet, 3, (6, 6)), (3,)),
    "dense, csin, 0.99": (
        partial(LipschitzDenseNet, 2, (6,), lipschitz=0.99, activation="csin"),
        (2,),
    ),
    "dense, d = 1": (partial(LipschitzDenseNet, 1, (16,), lipschitz=0.5), (1,)),
    "dense, three hidden layers": (
        partial(LipschitzDenseNet, 4, (6, 2, 6), lipschitz=0.99),
        (4,),
    ),
    "dense, a steep activation": (
        partial(LipschitzDenseNet, 2, (5,), activation=Elementwise(Steep(), slope=3.0)),
        (2,),
    ),
    "dense, context": (partial(LipschitzDenseNet, 2, (4, 4), context_features=2), (2,)),
    "elementwise": (partial(LipschitzElementwise, 3, 6), (3,)),
    "elementwise, clipswish, 0.99": (
        partial(LipschitzElementwise, 2, 4, lipschitz=0.99, activation="clipswish"),
        (2,),
    ),
    "elementwise, a steep activation, context": (
        partial(
            LipschitzElementwise,
            2,
            3,
            activation=Elementwise(Steep(), slope=3.0),
            context_features=2,
        ),
        (2,),
    ),
    "convolutions": (partial(LipschitzConvNet, 2, (4, 4)), (2, 3, 3)),
    "convolutions, context": (
        partial(LipschitzConvNet, 1, (4,), (3, 3), activation="clipswish", context_features=2),
        (1, 3, 4),
    ),
}


def points(g: LayeredBranch, event: tuple[int, ...], batch: int) -> tuple[Tensor, Tensor | None]:
    dtype = g.weights[0].dtype
    context = None
    if g.context_features is not None:
        context = torch.randn(batch, g.context_features, dtype=dtype)
    return torch.randn(batch, *event, dtype=dtype), context


def stretches(g: LayeredBranch, x: Tensor, v: Tensor, context: Tensor | None = None) -> Tensor:
    """|J v| / |v| at each x."""
    product = g.at(context).linearize(x)[1].apply(v.unsqueeze(0)).squeeze(0)
    return product.flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1)


def ascend(leaves: list[Tensor], height: Callable[[], Tensor], steps: int, lr: float) -> None:
    optimizer = torch.optim.Adam(leaves, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (-height()).backward()
        optimizer.step()


@cache
def stretched(name: str, dtype: torch.dtype) -> LayeredBranch:
    """The branch after Adam has raised its stretch, at points and in directions that Adam found.

    It is shared by the tests, which take a copy to change it.
    """
    g, leaves = start(name, dtype)
    x, *context = leaves
    v = torch.randn_like(x).requires_grad_()
    lr = 0.1 if dtype == torch.float64 else 0.05
    leaves += [v, *g.parameters()]
    ascend(leaves, lambda: stretches(g, x, v, *context).sum(), 600, lr)
    return g.requires_grad_(False)


@cache
def squeezed(name: str) -> tuple[LayeredBranch, Tensor, Tensor | None]:
    """The branch after Adam has lowered the log-det of x + g(x), with the points and contexts."""
    g, leaves = start(name, torch.float64)
    block = InvertibleResidualBlock(g, Exact())
    ascend([*leaves, *g.parameters()], lambda: -block(*leaves)[1].sum(), 200, 0.1)
    x, context = (*(leaf.detach() for leaf in leaves), None)[:2]
    return g.requires_grad_(False), x, context


def start(name: str, dtype: torch.dtype) -> tuple[LayeredBranch, list[Tensor]]:
    torch.manual_seed(0)
    make, event = BRANCHES[name]
    g = make().to(dtype)
    leaves = [t for t in points(g, event, 8) if t is not None]
    return g, [leaf.requires_grad_() for leaf in leaves]


def near_and_far(
    g: LayeredBranch, event: tuple[int, ...], batch: int = 30
) -> tuple[Tensor, Tensor | None]:
    """Points of several sizes, the last of them where ascent has found the largest stretch."""
    parts = [points(g, event, batch) for _ in range(4)]
    xs = [scale * x for (x, _), scale in zip(parts, (0.01, 1.0, 30.0, 1.0), strict=True)]
    contexts = [c for _, c in parts if c is not None]
    top, best = xs[-1].requires_grad_(), torch.randn_like(xs[-1]).requires_grad_()
    context = contexts[-1].requires_grad_() if contexts else None
    leaves = [top, best] if context is None else [top, best, context]
    ascend(leaves, lambda: stretches(g, top, best, context).sum(), 60, 0.1)
    return torch.cat(xs).detach(), torch.cat(contexts).detach() if contexts else None


def jacobians(g: LayeredBranch, x: Tensor, context: Tensor | None) -> Tensor:
    """Those of the branch with the weights in use, by autograd, in float64."""
    # Casting what is in use, and not the parameters, leaves the weights as they were rounded.
    residual = g.at(context).to(torch.float64)

    def total(t: Tensor) -> Tensor:
        return residual(t).sum(0).flatten()

    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(total, x.double())
    return jacobian.transpose(0, 1).flatten(2)


def norms(g: LayeredBranch, x: Tensor, context: Tensor | None) -> Tensor:
    return torch.linalg.matrix_norm(jacobians(g, x, context), 2)
