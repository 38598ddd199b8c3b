"""A transform of torch.distributions apart from its caches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import MethodType
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.distributions.transforms import _InverseTransform

__all__ = ["Visit", "renewed"]

Visit: TypeAlias = Callable[[str, Any], Any]


def renewed(transform: Transform, visit: Visit = lambda _, part: part, path: str = "") -> Any:
    """A copy of the transform, and of those that it is made of, with empty caches.

    torch and Pyro keep the latest x and y, and what they computed on the way, in the transform,
    and find them again by the identity of x alone, also when the parameters have changed. A copy
    for one use has nothing that is stale, and leaves nothing behind.

    Arguments:
        transform: The transform, which is not changed; the copy shares its parameters.
        visit: Called with the name of each module, and of each tensor that is in no module; the
            tensor that it returns takes the place of the other in the copy.
        path: The name of the transform.
    """
    return renew(transform, visit, path, {})


def renew(transform: Transform, visit: Visit, path: str, copies: dict[int, Any]) -> Any:
    """As `renewed`, with one copy of a transform that stands in several places.

    Arguments:
        copies: What became of the transforms that were met, by their identities.

    The other arguments are those of `renewed`.
    """
    if id(transform) not in copies:
        rebuild(transform, visit, path, copies)
    return copies[id(transform)]


def rebuild(transform: Transform, visit: Visit, path: str, copies: dict[int, Any]) -> None:
    """Note a copy, before its parts, which may refer to it."""
    is_module = isinstance(transform, nn.Module)
    if is_module:
        visit(path, transform)

    kind = Inverse if is_inverse(transform) else type(transform)
    copy = copies[id(transform)] = kind.__new__(kind)

    def part(name: str, value: Any) -> Any:
        if getattr(value, "__self__", None) is transform:
            return MethodType(value.__func__, copy)
        if isinstance(value, Transform):
            return renew(value, visit, name, copies)
        if isinstance(value, (list, tuple)) and holds(value):
            return [part(f"{name}_{i}", v) for i, v in enumerate(value)]
        if isinstance(value, dict) and holds(value.values()):
            return {key: part(f"{name}_{key}", v) for key, v in value.items()}
        return value if is_module else leaf(name, value, visit)

    for name, value in vars(transform).items():
        if is_cached(name, value) or (name == "_inv" and not is_inverse(transform)):
            copy.__dict__[name] = None
        elif not is_lazy(transform, name, value):
            copy.__dict__[name] = part(f"{path}_{name}" if path else name, value)

    # Within one use the log-det may find again what the value has computed.
    copy.__dict__.update(_cache_size=1, _cached_x_y=(None, None))


class Inverse(_InverseTransform):
    """torch's own, whose copies and pickles forget what they are the inverse of."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()


def leaf(name: str, value: Any, visit: Visit) -> Any:
    """A tensor or module, or a function that may belong to a module."""
    if isinstance(value, (Tensor, nn.Module)):
        return visit(name, value)
    if isinstance(value, Distribution) and asks_for_gradient(value):
        raise ValueError(
            f"{name} is a {type(value).__name__} of parameters, which were spent when it was "
            "built, and would stay as they are: let a module hold them, such as a TransformModule "
            "of Pyro that builds the distribution when it is called."
        )
    function = value.func if isinstance(value, partial) else value
    owner = getattr(function, "__self__", function)
    if isinstance(owner, nn.Module):
        visit(name, owner)
    return value


def asks_for_gradient(distribution: Distribution) -> bool:
    return any(isinstance(v, Tensor) and v.requires_grad for v in vars(distribution).values())


def holds(values: Iterable[Any]) -> bool:
    """Whether there is a transform, a tensor or a module among them."""
    return any(isinstance(value, (Transform, Tensor, nn.Module)) for value in values)


def is_inverse(transform: Transform) -> bool:
    return isinstance(transform, _InverseTransform)


def is_cached(name: str, value: Any) -> bool:
    """Whether it is what torch or Pyro have kept of an earlier call."""
    return name.startswith("_cache") and isinstance(value, (Tensor, list, tuple))


def is_lazy(transform: Transform, name: str, value: Any) -> bool:
    """Whether the class computes the tensor of that name when it is asked for."""
    return isinstance(value, Tensor) and hasattr(type(transform), name)
