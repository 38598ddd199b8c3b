"""Whose transform it is."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from iresnet_flows.bridge import torch
from iresnet_flows.bridge.guests import Guest
from iresnet_flows.layers.contract import Layer

__all__ = ["recognised"]

HOSTS = ("nflows", "normflows", "pyro", "zuko")


def recognised(transform: Any) -> Guest:
    """The transform as a layer; that of an adapter of ours is taken out of it.

    Raises:
        TypeError: Nobody knows it.
    """
    if isinstance(transform, Layer):
        return Guest.of(transform)

    # A transform of a host that nobody has imported yet cannot have been given.
    hosts = [import_module(f"{__package__}.{host}") for host in HOSTS if sys.modules.get(host)]
    for host in (*hosts, torch):
        guest = host.recognised(transform)
        if guest is not None:
            return guest

    raise TypeError(
        "expected a layer of this package, an iresnet_flows.layers.Layer such as FFJORD or "
        "InvertibleResidualBlock, or an nflows Transform, a normflows Flow (of normflows.flows), "
        "a Transform of torch.distributions or Pyro, a Pyro ConditionalTransform or a zuko "
        f"LazyTransform, got {type(transform).__name__}."
    )
