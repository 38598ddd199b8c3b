"""Blocks of every branch in `torch.compile`, without a graph break, from torch 2.13 on."""

from __future__ import annotations

import pytest
import torch
from cases import Bounded, hostile

from iresnet_flows import (
    ClaimedBranch,
    Exact,
    InvertibleResidualBlock,
    LipschitzConvNet,
    LipschitzDenseNet,
    LipschitzMLP,
    PowerSeries,
)
from iresnet_flows.lipschitz import LipschitzElementwise

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(
    TORCH < (2, 13), reason="older torch loses the fields of a frozen dataclass that it compiles"
)

BRANCHES = {
    "mlp": (lambda: LipschitzMLP(3, (4, 4)), (3,)),
    "mlp, context": (lambda: LipschitzMLP(2, (4,), context_features=2), (2,)),
    "convolutions": (lambda: LipschitzConvNet(2, (4, 4)), (2, 4, 3)),
    "convolutions, context": (
        lambda: LipschitzConvNet(1, (4,), (3, 3), context_features=2),
        (1, 3, 3),
    ),
    "dense": (lambda: LipschitzDenseNet(3, (4, 4)), (3,)),
    "dense, context": (lambda: LipschitzDenseNet(2, (4,), context_features=2), (2,)),
    "elementwise, context": (lambda: LipschitzElementwise(3, 4, context_features=2), (3,)),
    "claimed": (lambda: ClaimedBranch(Bounded(3), 0.8), (3,)),
    "claimed, context": (lambda: ClaimedBranch(Bounded(2, 3), 0.8, 3), (2,)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of dynamo about itself
@pytest.mark.parametrize(("make", "event"), BRANCHES.values(), ids=BRANCHES)
@pytest.mark.parametrize("log_det", [Exact(), PowerSeries(terms=3)])
def test_the_forward_compiles_without_a_graph_break_for_every_batch_size(make, event, log_det):
    block = InvertibleResidualBlock(hostile(make()), log_det)
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    for batch in (3, 5):  # with the second size, the shapes become dynamic
        x = torch.randn(batch, *event)
        features = block.context_features
        context = None if features is None else torch.randn(batch, features)
        torch.manual_seed(0)
        results = compiled(x, context)
        torch.manual_seed(0)
        torch.testing.assert_close(results, block(x, context))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", [n for n in BRANCHES if not n.startswith(("conv", "claimed"))])
def test_a_trace_follows_the_parameters_and_not_what_is_remembered(name):
    make, event = BRANCHES[name]
    block = InvertibleResidualBlock(make())
    features = block.context_features
    x = torch.randn(3, *event)
    arguments = (x,) if features is None else (x, torch.randn(3, features))
    with torch.no_grad():
        block.transform(*arguments)  # the bounds of these weights are at hand
        traced = torch.jit.trace_module(block, {"transform": arguments}, check_trace=False)
        hostile(block)
        torch.testing.assert_close(traced.transform(*arguments), block.transform(*arguments))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # which dynamo looks at
@pytest.mark.parametrize(("make", "event"), BRANCHES.values(), ids=BRANCHES)
def test_low_memory_runs_as_without_a_compiler(make, event):
    block = InvertibleResidualBlock(hostile(make()), Exact(), memory="low").double()
    torch._dynamo.reset()
    x = torch.randn(3, *event, dtype=torch.float64)
    features = block.context_features
    context = torch.randn(3, features, dtype=torch.float64) if features else None
    results = []
    for call in (torch.compile(block, backend="eager"), block):
        y, logabsdet = call(x, context)
        loss = y.square().sum() + logabsdet.sum()
        results.append((y, logabsdet, *torch.autograd.grad(loss, list(block.parameters()))))
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)
