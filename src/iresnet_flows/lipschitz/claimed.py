"""A module of the user's as a branch, with the bound that its author claims."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from iresnet_flows.checks import check_context, check_dtype, check_kind, check_tensor
from iresnet_flows.concrete import concrete
from iresnet_flows.errors import BrokenLipschitzClaim
from iresnet_flows.lipschitz.branches import BoundedBranch
from iresnet_flows.maps.contract import require_closed
from iresnet_flows.maps.functions import FunctionJacobian, FunctionMap
from iresnet_flows.stateless import call_with, floating

__all__ = ["ClaimedBranch"]

POWER_STEPS = 3


class ClaimedBranch(BoundedBranch):
    r"""A module g of the user's, with the Lipschitz constant :math:`\ell` that its author claims.

    .. math:: \|g(x; c) - g(x'; c)\| \leq \ell\, \|x - x'\| \quad \text{for all } x, x', c

    in the Euclidean norm of a whole sample. Invertibility, the sign and the error bounds of all
    log-dets, and those of the inverse stand and fall with the claim.

    The claim is *tested, not proven*: a test that passes says that these samples do not break it.
    Every evaluation, those of the inverse included, compares samples that are neighbours in the
    batch (where they have the same context), and every product with the Jacobian, its vector with
    the result: all of them are below the constant, if it holds. An exact log-det takes three steps
    of a power iteration, too. A claim that is found broken, by more than rounding errors, raises.
    The tests cost little beside an evaluation, and on a GPU a wait each; inside `torch.compile`
    there are none.

    The Jacobian is that of `torch.func`, one reverse pass for a product; its trace is not cheap,
    so that the noise of a series is larger than with the branches that come with the package.

    Arguments:
        module: Called as ``module(x)``, or ``module(x, context)`` with ``context_features``. It
            returns the shape of x, twice differentiable and without random numbers, and treats
            each sample alone: neither dropout nor batch normalization in train mode. Its tensors
            must be parameters or buffers, for they follow the dtype of the solver. Torch's
            ``spectral_norm`` is fit for it, though in train mode its weights differ a little
            between the evaluations of one call, and its norm is an estimate from below. It is
            called as a copy with the same tensors, so that attributes that it sets are lost.
        lipschitz: The claim :math:`\ell`, in (0, 1).
        context_features: The dimension of the context, or None.

    Shapes:
        x and value ``(B, *event)``, context (B, context_features) or (context_features,); the
        module is given (B, context_features).

    Raises:
        BrokenLipschitzClaim: A test has found the claim broken.
        ValueError: The claim is out of range, the module does not return the shape of x, or a part
            of it mixes the samples of a batch.
        TypeError: The module is none, or a dtype is not that of its parameters.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock
        >>> block = InvertibleResidualBlock(ClaimedBranch(torch.nn.Softsign(), lipschitz=0.9))
        >>> block(torch.tensor([[0.0, 3.0], [0.1, 3.0]]))
        Traceback (most recent call last):
        ...
        iresnet_flows.errors.BrokenLipschitzClaim: the module was claimed to have ...
    """

    def __init__(
        self, module: nn.Module, lipschitz: float, context_features: int | None = None
    ) -> None:
        super().__init__(lipschitz, context_features)
        check_kind("module", module, nn.Module, "a torch.nn.Module")
        self.module = module

    def at(self, context: Tensor | None = None) -> ClaimedMap:
        """The module with its present parameters and a context in place."""
        state = dict(floating(self.module))
        call, tensors = ModuleCall(self.module, tuple(state)), tuple(state.values())
        claim = Claim(
            self.lipschitz, max([torch.finfo(t.dtype).eps for t in tensors], default=0.0)
        )
        if context is None:
            return ClaimedMap(call, (), tensors, claim=claim)
        if context.dim() == 1 or len(context) == 1:
            return ClaimedMap(call, (), (context.reshape(-1), *tensors), claim=claim)
        return ClaimedMap(call, (context,), tensors, claim=claim)

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        require_single_samples(self.module)
        check_tensor("x", x)
        if x.dim() < 2 or not all(x.shape[1:]):
            raise ValueError(f"x must have the shape (B, *event), got {tuple(x.shape)}.")
        dtype = next((tensor.dtype for _, tensor in floating(self.module)), x.dtype)
        check_dtype("x", x, dtype)
        check_context(context, x, self.context_features)

    def extra_repr(self) -> str:
        return f"lipschitz={self.lipschitz}, context_features={self.context_features}"


def require_single_samples(module: nn.Module) -> None:
    """Refuse a part that mixes the samples of a batch."""
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and (part.training or not part.track_running_stats):
            raise ValueError(
                f"{type(part).__name__} ({name or 'the module'}) mixes the samples of a batch, so "
                "that g is no map of one sample: put an ActNorm layer between blocks in its "
                "place, or call eval() on it."
            )


@dataclass(frozen=True)
class ModuleCall:
    """A module as a function of x, a context if there is one, and its named tensors.

    Arguments:
        module: The module.
        names: The names of the tensors, in their order.
    """

    module: nn.Module
    names: tuple[str, ...]

    def __call__(self, x: Tensor, *tensors: Tensor) -> Tensor:
        given = len(tensors) - len(self.names)
        context = tuple(t.expand(len(x), t.shape[-1]) for t in tensors[:given])
        state = dict(zip(self.names, tensors[given:], strict=True))
        value: Tensor = call_with(self.module, state, (x, *context))
        if value.shape != x.shape:
            raise ValueError(
                f"the module must return the shape of x, {tuple(x.shape)}, "
                f"and has returned {tuple(value.shape)}."
            )
        return value


@dataclass(frozen=True)
class Claim:
    """A Lipschitz constant that is claimed, and what speaks against it.

    Arguments:
        lipschitz: The constant.
        eps: The relative precision of the function at least.
    """

    lipschitz: float
    eps: float

    def with_precision_of(self, x: Tensor) -> Claim:
        """The claim for a function that is computed as one of x is."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        eps = max(self.eps, torch.finfo(x.dtype).eps, torch.finfo(dtype).eps)
        return Claim(self.lipschitz, eps)

    def compare(self, before: Tensor, after: Tensor, rounding: Tensor | float, what: str) -> None:
        """Raise where a length is multiplied by too much; the last dimension is the samples'."""
        limit = self.lipschitz * before * (1 + self.eps**0.5)
        limit = limit + rounding + torch.finfo(before.dtype).tiny / self.eps
        ratio = concrete(after / limit)
        ratio = torch.where(ratio.isfinite(), ratio, 0.0)  # for others to tell
        if not (ratio > 1).any():
            return
        claim, first = self.lipschitz, int(ratio.argmax()) % before.shape[-1]
        raise BrokenLipschitzClaim(
            f"the module was claimed to have the Lipschitz constant {claim:.6g}, but it "
            f"multiplies {what.format(first, first + 1)} of a batch by "
            f"{claim * float(ratio.max()):.6g}, and x + g(x) may not be invertible: claim a "
            "larger constant, below 1, or bound the module's weights. Such a module must draw no "
            "random numbers and treat each sample alone."
        )


@dataclass(frozen=True)
class ClaimedMap(FunctionMap):
    """A `FunctionMap` that tests what is claimed of it in each evaluation."""

    claim: Claim = field(kw_only=True)

    @property
    def lipschitz(self) -> Tensor:
        device = self.others[0].device if self.others else None
        return torch.tensor(self.claim.lipschitz, dtype=torch.float64, device=device)

    def __call__(self, x: Tensor) -> Tensor:
        return self.tested(x, super().__call__(x))

    def linearize(self, x: Tensor) -> tuple[Tensor, ClaimedJacobian]:
        if torch.is_grad_enabled():
            require_closed(self, x)
        claim = self.claim.with_precision_of(x)
        jacobian = ClaimedJacobian(self.call, x, self.rows, self.others, claim)
        return self.tested(x, jacobian.value()), jacobian

    def tested(self, x: Tensor, value: Tensor) -> Tensor:
        """The value, whose samples are compared with their neighbours in the batch."""
        if len(x) > 1 and not torch.compiler.is_compiling():
            self.compare(x, value)
        return value

    @torch.no_grad()
    def compare(self, x: Tensor, value: Tensor) -> None:
        claim = self.claim.with_precision_of(x)
        before, after = (distances(t) for t in (x, value))
        rounding = 100 * claim.eps * (sums(value) + sums(x))
        for row in self.rows:
            after = after * (row[1:] == row[:-1]).flatten(1).all(-1)
        claim.compare(before, after, rounding, "the distance of samples {0} and {1}")


@dataclass(frozen=True)
class ClaimedJacobian(FunctionJacobian):
    """A `FunctionJacobian` in which every product is a test of what is claimed."""

    claim: Claim

    def apply(self, v: Tensor) -> Tensor:
        return self.tested(v, super().apply(v))

    def apply_transposed(self, w: Tensor) -> Tensor:
        return self.tested(w, super().apply_transposed(w))

    def tested(self, v: Tensor, product: Tensor) -> Tensor:
        """The product, whose vectors are compared with those that it came from."""
        if product.numel() and not torch.compiler.is_compiling():
            self.compare(v, product)
        return product

    @torch.no_grad()
    def compare(self, v: Tensor, product: Tensor) -> None:
        before, after = (t.flatten(2).norm(dim=-1) for t in (v, product))
        self.claim.compare(before, after, 0.0, "the length of a vector at sample {0}")

    def dense(self) -> Tensor:
        matrices = super().dense()
        if matrices.numel() and not torch.compiler.is_compiling():
            self.iterate(matrices)
        return matrices

    @torch.no_grad()
    def iterate(self, matrices: Tensor) -> None:
        """A power iteration from each largest row; no step of it is longer than the norm."""
        largest = matrices.norm(dim=-1).argmax(-1)[:, None, None]
        v = matrices.take_along_dim(largest, 1).mT
        for _ in range(POWER_STEPS):
            w = matrices @ v
            self.compare(v[None, ..., 0], w[None, ..., 0])
            v = matrices.mT @ w


def distances(t: Tensor) -> Tensor:
    """Those of neighbours."""
    return (t[1:] - t[:-1]).flatten(1).norm(dim=-1)


def sums(t: Tensor) -> Tensor:
    """The sums of the norms of neighbours."""
    norms = t.flatten(1).norm(dim=-1)
    return norms[1:] + norms[:-1]
