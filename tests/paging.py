"""How much memory a process asks the system for, in a module that a started process can import."""

from __future__ import annotations

import torch

SIZE = 2**20


def train():
    x = torch.ones(SIZE, requires_grad=True)
    x.sin().cos().exp().sum().backward()


def pages_of_trainings():
    """How many pages come from the system in a hundred steps, after some others."""
    import resource

    for _ in range(40):
        train()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        train()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
