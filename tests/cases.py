"""Named layers with weights as training leaves them, for the tests of the contract.

A case is called for `(layer, x, context)`. To add a layer to all tests of the contract, add it to
`CASES`; what it cannot do is declared there, in `lacks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from iresnet_flows import (
    Anderson,
    CayleyBlock,
    ClaimedBranch,
    Exact,
    FixedPoint,
    InvertibleResidualBlock,
    LipschitzConvNet,
    LipschitzDenseNet,
    LipschitzMLP,
    Newton,
    PowerSeries,
    RussianRoulette,
)
from iresnet_flows.layers import (
    ActNorm,
    ElementwiseAffine,
    Flatten,
    Inverted,
    Layer,
    Logit,
    Squeeze,
    Stack,
)
from iresnet_flows.lipschitz import Elementwise, LipschitzElementwise

__all__ = ["CASES", "SIZES", "SOLVERS", "Case", "hostile", "params"]

ACTIVATIONS = ("csin", "sin", "lipswish", "clipswish", "elu", "tanh", "softplus")
SOLVERS = (FixedPoint, Anderson, Newton)
TIGHT = FixedPoint(atol=1e-13, rtol=1e-13)
ANDERSON = Anderson(atol=1e-13, rtol=1e-13)
NEWTON = Newton(atol=1e-13, rtol=1e-13)


@dataclass(frozen=True)
class Case:
    """A layer and what it is tested on.

    Arguments:
        make: Builds the layer as its user does.
        features: The dimension d of x, or the shape of a sample.
        context_features: That of the context, or None.
        tolerance: How exact the layer is in float64.
        step: The size of the random steps that its parameters have made.
        needs: The package without which it is skipped.
        lacks: The abilities that it does not have: ``float32``, ``func`` (`torch.func.grad`),
            ``vmap``.
        second: Whether its derivatives are compared with finite differences, which takes long.
        inside: Whether samples lie in the unit cube, as twice each of them then does too.
    """

    make: Callable[[], Layer]
    features: int | tuple[int, ...]
    context_features: int | None = None
    tolerance: float = 1e-9
    step: float = 0.5
    needs: str | None = None
    lacks: frozenset[str] = frozenset()
    second: bool = False
    inside: bool = False

    def __call__(
        self, dtype: torch.dtype = torch.float64, batch: int = 5, seed: int = 0
    ) -> tuple[Layer, Tensor, Tensor | None]:
        return self.layer(seed).to(dtype), *self.inputs(dtype, batch)

    def layer(self, seed: int = 0) -> Layer:
        torch.manual_seed(seed)
        return hostile(self.make().double(), self.step)

    def inputs(
        self, dtype: torch.dtype = torch.float64, batch: int = 5
    ) -> tuple[Tensor, Tensor | None]:
        torch.manual_seed(1)
        event = self.features if isinstance(self.features, tuple) else (self.features,)
        x = torch.randn(batch, *event, dtype=torch.float64)
        x = (0.45 * x.sigmoid() if self.inside else x).to(dtype)
        if self.context_features is None:
            return x, None
        return x, torch.randn(batch, self.context_features, dtype=torch.float64).to(dtype)


def hostile(module: nn.Module, step: float = 0.5) -> nn.Module:
    """The module after a random step of every parameter, away from its kind initial values."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(step * torch.randn_like(parameter))
    return module


def all_signs(shape: tuple[int, ...], like: Tensor, generator: Any = None) -> Tensor:
    """Every vector of signs once: their average of v v^T is exactly the identity."""
    d = math.prod(shape[2:])
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * d).reshape(-1, 1, *shape[2:])
    return signs.to(like).expand(-1, *shape[1:])


@dataclass(frozen=True)
class AllSigns(PowerSeries):
    """The power series with the probes of `all_signs`, with which no noise is left."""

    def draw(self, *args: Any, **kwargs: Any) -> Any:
        with mock.patch("iresnet_flows.logdet.series.rademacher", all_signs):
            return super().draw(*args, **kwargs)


@dataclass(frozen=True)
class AllSignsRoulette(RussianRoulette):
    """Russian roulette likewise, with as many terms as leave nothing to the tail."""

    def draw(self, *args: Any, **kwargs: Any) -> Any:
        with mock.patch("iresnet_flows.logdet.roulette.rademacher", all_signs):
            return super().draw(*args, **kwargs)


def block(
    features: int,
    *hidden: int,
    branch: Any = LipschitzMLP,
    log_det: Any = None,
    solver: Any = TIGHT,
    memory: Any = "full",
    second: bool = False,
    kind: Any = InvertibleResidualBlock,
    **kwargs: Any,
) -> Case:
    kwargs = {"lipschitz": 0.6, **kwargs}

    def make() -> Layer:
        g = branch(features, hidden_features=hidden, **kwargs)
        return kind(g, log_det or Exact(), solver, memory)

    # Second derivatives, which torch.func always prepares, are what low memory does without.
    lacks = frozenset() if memory == "full" else frozenset({"func", "vmap"})
    return Case(make, features, kwargs.get("context_features"), lacks=lacks, second=second)


def inverted(*arguments: Any) -> Layer:
    return Inverted(InvertibleResidualBlock(*arguments))


class Bounded(nn.Module):
    """A module of the user's: tanh of a matrix over its Frobenius norm, and so below 0.8."""

    def __init__(self, features: int, context_features: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(features, features)
        self.context = None if context_features is None else nn.Linear(context_features, features)
        self.register_buffer("limit", torch.tensor(0.8))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        weight = self.limit * self.linear.weight / (0.1 + self.linear.weight.norm())
        shift = self.linear.bias if context is None else self.linear.bias + self.context(context)
        return (x.flatten(1) @ weight.mT + shift).tanh().reshape(x.shape)


def claimed(
    *event: int, log_det: Any = None, second: bool = False, context: int | None = None
) -> Case:
    def make() -> Layer:
        branch = ClaimedBranch(Bounded(math.prod(event), context), 0.8, context)
        return InvertibleResidualBlock(branch, log_det or Exact(), TIGHT)

    return Case(make, event, context, second=second)


def of_one_width(features: int, hidden_features: tuple[int, ...], **kwargs: Any) -> Any:
    return LipschitzElementwise(features, *hidden_features, **kwargs)


dense = partial(block, branch=LipschitzDenseNet)
elementwise = partial(block, branch=of_one_width)


def convolutions(
    event: tuple[int, int, int],
    hidden: tuple[int, ...],
    kernels: tuple[int, ...],
    log_det: Any = None,
    second: bool = False,
    **kwargs: Any,
) -> Case:
    def make() -> Layer:
        branch = LipschitzConvNet(event[0], hidden, kernels, **{"lipschitz": 0.7, **kwargs})
        return InvertibleResidualBlock(branch, log_det or Exact(), TIGHT)

    return Case(make, event, kwargs.get("context_features"), second=second)


def ffjord(
    features: int,
    *hidden: int,
    tolerance: float = 1e-6,
    lacks: tuple[str, ...] = (),
    second: bool = False,
    **kwargs: Any,
) -> Case:
    def make() -> Layer:
        from iresnet_flows.ffjord import FFJORD

        return FFJORD(features, hidden_features=hidden, **kwargs)

    return Case(
        make,
        features,
        kwargs.get("context_features"),
        tolerance,
        step=0.3,
        needs="torchdiffeq",
        lacks=frozenset(lacks),
        second=second,
    )


def started(features: int) -> Layer:
    """An ActNorm that has seen its first batch; what the first one does is tested apart."""
    layer = ActNorm(features)
    layer.initialized.fill_(True)
    return layer


def around(*layers: Layer) -> Layer:
    """A stack that ends with the inverse of its first layer, and so in the shape of its input."""
    return Stack([*layers, Inverted(layers[0])])


def image_block(channels: int, context_features: int | None = None) -> Layer:
    branch = LipschitzConvNet(channels, (4, 4), (3, 1, 3), 0.7, context_features)
    return InvertibleResidualBlock(branch, Exact(), TIGHT)


CASES = {
    "block, d = 1": block(1, 6),
    "block, d = 2": block(2, 10, 8, lipschitz=0.9),
    "block, d = 5": block(5, 14, 12),
    "block, narrowest at its first hidden layer": block(5, 6, 14),
    "block, narrowest at its last hidden layer": block(5, 14, 4),
    "block, three hidden layers": block(3, 8, 10, 8, second=True),
    "block, one hidden layer": block(3, 8),
    "block, near the bound": block(2, 8, 8, lipschitz=0.99),
    "block, context": block(2, 8, 6, context_features=3, second=True),
    "block, context, d = 1": block(1, 6, context_features=2),
    **{f"block, {name}": block(2, 12, 10, activation=name, lipschitz=0.9) for name in ACTIVATIONS},
    "block, lipswish, d = 1": block(1, 4, activation="lipswish", second=True),
    "block, clipswish, d = 1": block(1, 4, activation="clipswish", second=True),
    "block, a module of the user's": block(2, 5, activation=Elementwise(nn.Softsign(), slope=1.0)),
    "series, d = 1": block(1, 6, log_det=PowerSeries(terms=90), lipschitz=0.7),
    "series, d = 2": block(2, 6, log_det=AllSigns(terms=90), lipschitz=0.7, second=True),
    "series, three hidden layers, context": block(
        3, 6, 8, 6, log_det=AllSigns(tolerance=1e-12), lipschitz=0.7, context_features=2
    ),
    "series, low memory": block(2, 8, 6, log_det=AllSigns(terms=90), memory="low"),
    "exact, low memory, context": block(2, 8, 6, memory="low", context_features=2),
    "exact, low memory, a module of the user's": block(
        2, 6, activation=Elementwise(nn.Softsign(), slope=1.0), memory="low"
    ),
    "roulette": block(2, 8, 6, log_det=AllSignsRoulette(terms=90)),
    "anderson": block(3, 8, 8, solver=ANDERSON, lipschitz=0.9, second=True),
    "anderson, context": block(5, 8, 6, solver=ANDERSON, lipschitz=0.9, context_features=2),
    "newton": block(2, 8, 6, solver=NEWTON, lipschitz=0.9, second=True),
    "newton, context": block(3, 8, 6, solver=NEWTON, lipschitz=0.9, context_features=2),
    "inverted block": block(3, 8, 6, kind=inverted, context_features=2),
    "cayley, d = 1": block(1, 6, kind=CayleyBlock),
    "cayley": block(2, 8, 6, kind=CayleyBlock, lipschitz=0.9, second=True),
    "cayley, narrow, context": block(5, 8, 6, kind=CayleyBlock, context_features=2),
    "cayley, series": block(
        2, 8, 6, kind=CayleyBlock, log_det=AllSigns(terms=90), lipschitz=0.7, second=True
    ),
    "cayley, series, one hidden layer": block(
        3, 8, kind=CayleyBlock, log_det=AllSigns(tolerance=1e-12), lipschitz=0.7
    ),
    "cayley, low memory": block(
        2, 8, 6, kind=CayleyBlock, log_det=AllSigns(terms=90), memory="low"
    ),
    "cayley, roulette": block(2, 8, 6, kind=CayleyBlock, log_det=AllSignsRoulette(terms=90)),
    "convolutions": convolutions((2, 3, 3), (6, 6), (3, 1, 3)),
    "convolutions, context": convolutions(
        (2, 2, 3), (4, 4), (3, 1, 3), context_features=3, second=True
    ),
    "convolutions, one pixel": convolutions((1, 1, 1), (8,), (3, 1)),
    "convolutions, two layers, clipswish": convolutions(
        (2, 2, 2), (6,), (3, 3), activation="clipswish"
    ),
    "convolutions, series": convolutions(
        (1, 2, 3), (6, 6), (3, 1, 3), log_det=AllSigns(tolerance=1e-12), second=True
    ),
    "convolutions, no cheap trace, series, context": convolutions(
        (2, 2, 1), (8, 8), (1, 3, 1), log_det=AllSigns(tolerance=1e-12), context_features=2
    ),
    "dense, d = 1": dense(1, 4),
    "dense, two hidden layers": dense(3, 6, 8),
    "dense, three hidden layers, context": dense(2, 4, 4, 6, context_features=3, second=True),
    "dense, csin, near the bound": dense(2, 6, 6, activation="csin", lipschitz=0.98),
    "dense, series": dense(2, 6, log_det=AllSigns(terms=90), activation="csin", second=True),
    "dense, series, two hidden layers, context": dense(
        3, 6, 4, log_det=AllSigns(tolerance=1e-12), activation="lipswish", context_features=2
    ),
    "dense, series, three hidden layers": dense(2, 6, 4, 4, log_det=AllSigns(tolerance=1e-12)),
    "dense, anderson": dense(2, 6, solver=ANDERSON, lipschitz=0.9, second=True),
    "cayley, dense, newton, context": dense(
        2, 4, solver=NEWTON, kind=CayleyBlock, context_features=2, second=True
    ),
    "dense, low memory": dense(2, 6, 4, memory="low"),
    "elementwise": elementwise(3, 6, lipschitz=0.9, second=True),
    "elementwise, d = 1, lipswish": elementwise(1, 3, activation="lipswish", second=True),
    "elementwise, newton, context": elementwise(
        3, 4, solver=NEWTON, lipschitz=0.9, context_features=2, second=True
    ),
    "elementwise, series": elementwise(3, 4, log_det=PowerSeries(terms=90), lipschitz=0.7),
    "elementwise, roulette, context": elementwise(
        2, 4, log_det=AllSignsRoulette(terms=90), context_features=2
    ),
    "elementwise, low memory": elementwise(2, 4, memory="low"),
    "cayley, elementwise, clipswish": elementwise(
        3, 4, kind=CayleyBlock, activation="clipswish", second=True
    ),
    "claimed": claimed(3),
    "claimed, d = 1": claimed(1, second=True),
    "claimed, context": claimed(2, context=3, second=True),
    "claimed, images": claimed(2, 2, 1),
    "claimed, series": claimed(2, log_det=AllSigns(tolerance=1e-12), second=True),
    "claimed, series, context": claimed(3, log_det=AllSigns(tolerance=1e-12), context=2),
    "affine": Case(lambda: ElementwiseAffine(3), 3, second=True),
    "affine, images": Case(lambda: ElementwiseAffine(2), (2, 3, 2), second=True),
    "actnorm": Case(lambda: started(3), 3, second=True),
    "actnorm, images": Case(lambda: started(2), (2, 3, 2), second=True),
    "logit": Case(lambda: Stack([Logit(), started(2)]), (2, 2, 3), second=True, inside=True),
    "squeeze": Case(lambda: around(Squeeze(), started(4), image_block(4)), (1, 4, 2), second=True),
    "flatten": Case(
        lambda: around(
            Flatten((2, 1, 2)),
            InvertibleResidualBlock(LipschitzMLP(4, (6, 6)), Exact(), TIGHT),
            started(4),
        ),
        (2, 1, 2),
    ),
    "stack, context": Case(
        lambda: Stack([started(2), image_block(2, 3), ElementwiseAffine(2), image_block(2, 3)]),
        (2, 2, 2),
        context_features=3,
    ),
    # torchdiffeq writes in place, which vmap cannot follow, and its adaptive methods are no
    # functions of torch.func; float32 cannot keep tolerances like these.
    "ffjord, dopri5": ffjord(
        2, 5, 5, method="dopri5", rtol=1e-9, atol=1e-9, lacks=("vmap", "func", "float32")
    ),
    "ffjord, dopri5, context": ffjord(
        2,
        5,
        method="dopri5",
        rtol=1e-9,
        atol=1e-9,
        context_features=3,
        lacks=("vmap", "func", "float32"),
    ),
    "ffjord, default tolerances": ffjord(2, 5, tolerance=1e-4, lacks=("vmap", "func")),
    "ffjord, rk4": ffjord(2, 5, method="rk4", steps=10, tolerance=1e-5, lacks=("vmap",)),
    "ffjord, rk4, three hidden layers, context": ffjord(
        3, 5, 4, 5, method="rk4", steps=10, tolerance=1e-5, context_features=2, lacks=("vmap",)
    ),
    "ffjord, two steps": ffjord(
        1, 4, method="rk4", steps=2, tolerance=1e-2, lacks=("vmap",), second=True
    ),
}


# What is cheap is checked of these, with every solver and estimator; they are built with neither.
SIZES = {
    **{
        f"{name}, d = {d}{', context' if context else ''}": block(
            d, *hidden, branch=branch, lipschitz=0.7, context_features=context
        )
        for d in (1, 2, 3, 8, 64)
        for name, branch, hidden in (
            ("mlp", LipschitzMLP, (2 * d + 6, d + d % 2 + 4)),
            ("dense", LipschitzDenseNet, (d + d % 2 + 4, 6)),
            ("elementwise", of_one_width, (6,)),
        )
        for context in (None, 2)
    },
    "convolutions, 3 x 8 x 8": convolutions((3, 8, 8), (6, 6), (3, 1, 3)),
    "convolutions, 3 x 8 x 8, context": convolutions(
        (3, 8, 8), (6, 6), (3, 1, 3), context_features=2
    ),
    "convolutions, 2 x 3 x 1": convolutions((2, 3, 1), (4, 6), (3, 3, 3)),
}


def params(*abilities: str, second: bool = False) -> list[Any]:
    """The cases that have these abilities, for `pytest.mark.parametrize`."""
    return [
        pytest.param(
            case,
            id=name,
            marks=pytest.mark.skipif(
                case.needs is not None and find_spec(case.needs) is None,
                reason=f"{case.needs} is not installed",
            ),
        )
        for name, case in CASES.items()
        if case.lacks.isdisjoint(abilities) and (case.second or not second)
    ]
