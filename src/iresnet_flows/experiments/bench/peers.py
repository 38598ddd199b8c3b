"""The residual blocks of other libraries, each as its own documentation uses it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_flows.errors import UsageError, unknown
from iresnet_flows.experiments.bench.contestants import Block, Contestant, Net
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.upkeep import update_normflows
from iresnet_flows.experiments.versions import installed

__all__ = ["PEERS", "NormflowsBlock", "Peer", "chosen", "require_usable"]


@dataclass(frozen=True)
class Peer(Contestant):
    """Another library.

    Arguments:
        package: What to install.
        module: What to import.
    """

    package: str = ""
    module: str = ""

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


class NormflowsBlock(Block):
    """`normflows.flows.Residual`, whose `inverse` maps data to noise."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.block = import_module("normflows").flows.Residual(branch)

    @classmethod
    def of(cls, net: Net) -> NormflowsBlock:
        """The block around a multilayer perceptron of normflows' own."""
        widths = [net.features, *net.hidden, net.features]
        nets = import_module("normflows").nets
        return cls(nets.LipschitzMLP(widths, lipschitz_const=net.coefficient))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.block.inverse(x)
        return y, log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.block.forward(y)
        return x, log_det

    def residual(self, x: Tensor) -> Tensor:
        return self.block.iresblock.nnet(x)

    def weights(self) -> list[Tensor]:
        layers = [m for m in self.block.modules() if hasattr(m, "compute_weight")]
        return [layer.compute_weight(update=False) for layer in layers]

    def around(self, g: nn.Module) -> Block:
        copy = deepcopy(self)
        copy.block = import_module("normflows").flows.Residual(g).train(self.training)
        return copy

    def after_step(self) -> None:
        update_normflows(self.block)


class TorchflowsBlock(Block):
    """The `ResFlowBlock` of torchflows, with a network of the asked depth in its own layers."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        library = import_module("torchflows.bijections.finite.residual.iterative")
        widths = [net.features, *net.hidden, net.features]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [
                library.SpectralLinear(width, following, c=net.coefficient),
                nn.Tanh(),
            ]
        branch = nn.Sequential(*layers[:-1])
        self.block = library.ResFlowBlock((net.features,), g=branch)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.block(x)
        return y, log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.block.inverse(y)
        return x, log_det

    def invert(self, y: Tensor) -> Tensor:
        return self.block.inverse(y, skip_log_det=True)[0]

    def residual(self, x: Tensor) -> Tensor:
        return self.block.g(x)

    def weights(self) -> list[Tensor]:
        return [layer.w.normalized() for layer in self.block.g[::2]]

    def around(self, g: nn.Module) -> Block:
        library = import_module("torchflows.bijections.finite.residual.iterative")
        copy = deepcopy(self)
        copy.block = library.ResFlowBlock(self.block.event_shape, g=g).train(self.training)
        return copy


class FreiaBlock(Block):
    """The `IResNetLayer` of FrEIA, whose log-det can only be computed with gradients on."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.block = import_module("FrEIA.modules").IResNetLayer(
            [(net.features,)],
            internal_size=net.hidden[0],
            n_internal_layers=len(net.hidden) - 1,
            spectral_norm_max=net.coefficient,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.call(x, rev=False)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.call(y, rev=True)

    def invert(self, y: Tensor) -> Tensor:
        return self.block([y], rev=True, jac=False)[0][0]

    def call(self, x: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            (y,), log_det = self.block([x if recording else x.detach()], rev=rev)
        return (y, log_det) if recording else (y.detach(), log_det.detach())

    def residual(self, x: Tensor) -> Tensor:
        return self.block.residual(x)

    def weights(self) -> list[Tensor]:
        return [layer.weight for layer in self.block.layers]

    def after_step(self) -> None:
        self.block.lipschitz_correction()


class FlowconBlock(Block):
    """The `iResBlock` of FlowConductor with its i-DenseNet, one dense layer a hidden one."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        factory = import_module("flowcon.transforms").iResBlock.Factory()
        factory.set_densenet(
            dimension=net.features,
            densenet_depth=len(net.hidden),
            densenet_growth=net.hidden[0],
            lip_coeff=net.coefficient,
        )
        self.block = factory.set_logabsdet_estimator().build()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.block(x)
        return y, log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.block.inverse(y)
        return x, log_det

    def residual(self, x: Tensor) -> Tensor:
        return self.block.nnet(x)

    def weights(self) -> list[Tensor]:
        layers: list[Any] = [
            m for m in self.block.nnet.modules() if hasattr(m, "parametrizations")
        ]
        return [layer.weight for layer in layers]


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "normflows",
            "normflows",
            NormflowsBlock.of,
            "update_lipschitz is called once a step, with the 5 iterations of its layers' default",
            updates=True,
            package="normflows",
            module="normflows",
        ),
        Peer(
            "torchflows",
            "torchflows",
            TorchflowsBlock,
            "it ignores the coefficient asked for and bounds each layer by about one; its network "
            "of one hidden layer has as many as that is wide, so that its layers are put together "
            "here",
            package="torchflows",
            module="torchflows",
        ),
        Peer(
            "freia",
            "FrEIA",
            FreiaBlock,
            "its log-det has no gradient, so that a training step leaves that work out; "
            "lipschitz_correction is called once a step",
            updates=True,
            package="FrEIA",
            module="FrEIA",
        ),
        Peer(
            "flowcon",
            "flowcon",
            FlowconBlock,
            "its network is an i-DenseNet, which hands each layer's input on, with a growth of "
            "the width; its log-det in eval mode is exact, from d backward passes",
            package="flowcon",
            module="flowcon",
        ),
    )
}


def chosen(names: Sequence[str] | None) -> tuple[list[Peer], list[Peer]]:
    """The libraries to measure, and those that are left out since they are not installed.

    Raises:
        UsageError: A name is unknown, or a library that was asked for is not installed.
    """
    for name in names or ():
        if name not in PEERS:
            raise UsageError(unknown("library", name, PEERS))
        if not PEERS[name].installed:
            package = PEERS[name].package
            raise UsageError(
                f"{package} is not installed: pip install {package}, or leave it out of --against."
            )

    asked = [PEERS[name] for name in dict.fromkeys(names or PEERS)]
    return [p for p in asked if p.installed], [p for p in asked if not p.installed]


def require_usable(peer: Peer) -> None:
    """Refuse a library that this release of the benchmark does not know how to call.

    Raises:
        UsageError: Its smallest block cannot be built or called.
    """
    net = Net(2, (4,), blocks=1)
    try:
        with seeded():
            peer.make(net)(torch.zeros(2, 2))
    except (
        ArithmeticError,
        AttributeError,
        ImportError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as e:
        raise UsageError(
            f"{peer.package} {installed(peer.package)} cannot be measured ({e}): install another "
            "version, or leave it out of --against."
        ) from e
