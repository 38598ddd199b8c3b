"""What is checked once, at the public door."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from contextlib import suppress

import torch
from torch import Tensor

__all__ = [
    "check_channels",
    "check_context",
    "check_count",
    "check_dtype",
    "check_event",
    "check_explicit",
    "check_generator",
    "check_halves",
    "check_images",
    "check_input",
    "check_kernel_sizes",
    "check_kind",
    "check_lipschitz",
    "check_number",
    "check_tensor",
    "check_widths",
]


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse what is not a whole number, or is below the least one."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}.")


def check_number(name: str, value: float) -> None:
    """Refuse what is not one real number."""
    with suppress(TypeError, ValueError, RuntimeError):  # there are several
        if hasattr(value, "__float__"):  # text has none, though `float` would read it
            float(value)
            return
    raise TypeError(f"{name} must be a number, got {value!r}.")


def size_of(values: object) -> int:
    """How many values there are; none in what is no sequence of them."""
    return len(values) if isinstance(values, Sized) and not isinstance(values, str) else 0


def check_widths(name: str, values: Sequence[int]) -> None:
    if not size_of(values):
        raise ValueError(f"{name} must name the width of each hidden layer, got {values!r}.")
    for value in values:
        check_count(f"each of {name}", value)


def check_kind(name: str, value: object, kind: type, expected: str) -> None:
    """Refuse an object of another kind, and a class given in place of an object."""
    if isinstance(value, type) or not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name} must be {expected}, got {given}.")


def check_generator(value: torch.Generator | None) -> None:
    """Refuse a seed, say, where a generator or None is wanted."""
    if value is not None:
        check_kind("generator", value, torch.Generator, "a torch.Generator or None")


def check_lipschitz(value: float) -> None:
    check_number("lipschitz", value)
    if not 0 < value < 1:
        raise ValueError(
            f"lipschitz must lie in (0, 1), got {value!r}: x + g(x) is certain to be invertible "
            "only below 1."
        )


def check_kernel_sizes(values: Sequence[int], count: int) -> None:
    if size_of(values) != count:
        raise ValueError(
            f"kernel_sizes must name {count} sizes, one more than there are hidden layers, "
            f"got {values!r}."
        )
    for value in values:
        check_count("each of kernel_sizes", value)
        if value % 2 == 0:
            raise ValueError(
                f"each of kernel_sizes must be odd, got {value}: the image keeps its size."
            )


def check_input(name: str, x: Tensor, features: int, dtype: torch.dtype) -> None:
    """Refuse a tensor that is not (B, features) in the layer's dtype."""
    check_tensor(name, x)
    if x.dim() != 2 or x.shape[-1] != features:
        raise ValueError(f"{name} must have the shape (B, {features}), got {tuple(x.shape)}.")
    check_dtype(name, x, dtype)


def check_channels(name: str, x: Tensor, channels: int, dtype: torch.dtype) -> None:
    """Refuse a tensor that is not (B, channels, *space) in the layer's dtype."""
    check_tensor(name, x)
    if x.dim() < 2 or x.shape[1] != channels:
        raise ValueError(
            f"{name} must have the shape (B, {channels}) or (B, {channels}, *space), "
            f"got {tuple(x.shape)}."
        )
    check_dtype(name, x, dtype)


def check_images(name: str, x: Tensor, channels: int, dtype: torch.dtype) -> None:
    """Refuse a tensor that is not (B, channels, H, W), with pixels, in the layer's dtype."""
    check_tensor(name, x)
    if x.dim() != 4 or x.shape[1] != channels or not all(x.shape[2:]):
        raise ValueError(
            f"{name} must have the shape (B, {channels}, H, W), got {tuple(x.shape)}."
        )
    check_dtype(name, x, dtype)


def check_event(name: str, x: Tensor, event: tuple[int, ...]) -> None:
    """Refuse a tensor that is not (B, *event)."""
    check_tensor(name, x)
    if x.dim() < 1 or x.shape[1:] != event:
        wanted = ", ".join(map(str, event))
        raise ValueError(f"{name} must have the shape (B, {wanted}), got {tuple(x.shape)}.")


def check_tensor(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}.")


def check_dtype(name: str, x: Tensor, dtype: torch.dtype) -> None:
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}: {name}.to({dtype}).")
    if x.dtype != dtype and not is_cast((x.dtype, dtype), x.device):
        raise TypeError(
            f"{name} is {x.dtype} and the layer's weights are {dtype}: convert one of them, "
            f"{name}.to({dtype}) or layer.to({x.dtype})."
        )


def is_cast(dtypes: tuple[torch.dtype, ...], device: torch.device) -> bool:
    """Whether autocast brings tensors of these dtypes together, as it does all but float64."""
    return torch.is_autocast_enabled(device.type) and torch.float64 not in dtypes


def check_context(context: Tensor | None, x: Tensor, features: int | None) -> None:
    """Refuse a context that is missing, not asked for, or does not fit the samples x."""
    if context is None and features is None:
        return
    if features is None:
        raise ValueError(
            "a context was given to a layer without one: build it with context_features."
        )
    if context is None:
        raise ValueError(f"the layer was built for a context of {features} features: pass it.")
    check_tensor("context", context)
    if context.shape not in ((features,), (1, features), (len(x), features)):
        raise ValueError(
            f"context must have the shape ({len(x)}, {features}), a row for each sample, or "
            f"({features},), got {tuple(context.shape)}."
        )
    if context.dtype != x.dtype and not is_cast((context.dtype, x.dtype), x.device):
        raise TypeError(
            f"context is {context.dtype} and the samples are {x.dtype}: convert one of them."
        )


def check_halves(event: Sequence[int], times: int) -> None:
    """Refuse images whose height and width cannot be halved so many times."""
    multiple = 2**times
    _, height, width = event
    if height % multiple or width % multiple:
        raise ValueError(
            f"{times} squeezes halve the height and the width, which must be multiples of "
            f"{multiple}, got {height} x {width}."
        )


def check_explicit(value: str) -> None:
    if value not in ("forward", "inverse"):
        raise ValueError(f"explicit must be 'forward' or 'inverse', got {value!r}.")
