"""Blocks of every branch in `torch.compile`, without a graph break."""

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
    PowerSeries,
)

BRANCHES = {
    "convolutions": (lambda: LipschitzConvNet(2, (4, 4)), (2, 4, 3)),
    "convolutions, context": (
        lambda: LipschitzConvNet(1, (4,), (3, 3), context_features=2),
        (1, 3, 3),
    ),
    "dense": (lambda: LipschitzDenseNet(3, (4, 4)), (3,)),
    "dense, context": (lambda: LipschitzDenseNet(2, (4,), context_features=2), (2,)),
    "claimed": (lambda: ClaimedBranch(Bounded(3), 0.8), (3,)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of dynamo about itself
@pytest.mark.parametrize(("make", "event"), BRANCHES.values(), ids=BRANCHES)
@pytest.mark.parametrize("log_det", [Exact(), PowerSeries(terms=3)])
def test_the_forward_compiles_without_a_graph_break(make, event, log_det):
    block = InvertibleResidualBlock(hostile(make()), log_det)
    x = torch.randn(3, *event)
    context = None if block.context_features is None else torch.randn(3, block.context_features)
    for function in (block.transform, block.forward):
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        torch.manual_seed(0)
        results = compiled(x, context)
        torch.manual_seed(0)
        torch.testing.assert_close(results, function(x, context))
