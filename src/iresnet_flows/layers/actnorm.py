"""Affine maps of each channel that begin at the statistics of the first batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor, distributed

from iresnet_flows.concrete import is_recorded, is_wrapped
from iresnet_flows.layers.affine import ElementwiseAffine

__all__ = ["ActNorm", "measuring"]

BEGINS = ContextVar("BEGINS", default=True)


def measuring() -> AbstractContextManager[None]:
    """No layer begins within: the log-det is that of a map that was taken before."""
    return nullcontext() if is_recorded() else settled()


@contextmanager
def settled() -> Iterator[None]:
    token = BEGINS.set(False)
    try:
        yield
    finally:
        BEGINS.reset(token)


class ActNorm(ElementwiseAffine):
    r"""An `ElementwiseAffine` whose first batch in train mode comes out standardised.

    That batch sets s and t so that each channel of y has mean zero and variance one; from then on
    they are parameters like others. In a process group of `torch.distributed` the batch is that
    of all ranks together, so that all of them begin alike. Whether it has happened is in the state
    dict, so that a model that was loaded does not begin again. Before it, and in eval mode, the
    layer is the identity. A batch that `torch.func` hides sets nothing.

    Arguments:
        features: The dimension d of x, or the channels of images.

    Attributes:
        initialized: Whether a batch has set the parameters.

    Shapes:
        x and y (B, features) or (B, features, \*space), logabsdet (B,) in nats.

    References:
        Kingma & Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018.

    Example:
        >>> import torch
        >>> y = ActNorm(3).transform(5 * torch.randn(1000, 3) + 7)
        >>> bool(torch.allclose(y.std(0, unbiased=False), torch.ones(3)))
        True
    """

    initialized: Tensor

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_buffer("initialized", torch.tensor(False))

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check("x", x)
        if self.training and BEGINS.get() and not (self.is_hidden(x) or self.has_begun()):
            self.initialize(x.detach())
        return super().transform(x, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.transform(x, context)  # sets the scale that the log-det is of
        return y, self.log_abs_det(x)

    def has_begun(self) -> bool:
        """Whether a batch has set the parameters, or a load of parameters alone."""
        return any(map(bool, (self.initialized, self.log_scale.any(), self.shift.any())))

    def is_hidden(self, x: Tensor) -> bool:
        """Whether `torch.func` hides the values of x or of the layer."""
        return any(map(is_wrapped, (x, self.initialized, self.log_scale, self.shift)))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set the parameters by the moments of x on all ranks; an empty batch sets nothing."""
        columns = x.transpose(0, 1).flatten(1).double()
        moments = torch.stack(
            (torch.ones_like(columns).sum(1), columns.sum(1), columns.square().sum(1))
        )
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(moments)
        count, total, squares = moments
        if not count[0]:
            return

        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        varies = variance > torch.finfo(x.dtype).eps * mean.square()
        deviation = torch.where(varies, variance, 1.0).sqrt()
        self.log_scale.copy_(-deviation.log())
        self.shift.copy_(-mean / deviation)
        self.initialized.fill_(True)
