r"""Data sets, split once and standardised by their training rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.tables import Array, Table

__all__ = ["SPLIT_SEED", "Dataset", "joined", "require_variation", "split"]

PART = 10
SPLIT_SEED = 0

Marks: TypeAlias = bool | npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Dataset:
    r"""A data set, split once: 80/10/10 by a fixed permutation, or as its source has split it.

    Models see :math:`z = (x + u - \mu) / \sigma`, with noise :math:`u \sim U[0, 1)` in columns of
    whole numbers and :math:`u = 0` in others. So, with :math:`-\log p` in nats,

    .. math:: -\log p_x(x) = -\log p_z(z) + \sum_i \log \sigma_i .

    For whole numbers the mean of :math:`-\log p_x(x + u)` over the noise bounds
    :math:`-\log P(x)` from above (Theis, van den Oord and Bethge, A note on the evaluation of
    generative models, 2016, https://arxiv.org/abs/1511.01844).

    The rows are kept in float64 and standardised before the cast to float32, so that a column
    with a large offset keeps its digits.

    Arguments:
        name: What reports call it.
        columns: The names of the d columns.
        train: The training rows, (N, d) float64, in the data's own units.
        validation: The rows for early stopping, likewise.
        test: The rows for the one final reading, likewise.
        discrete: Which columns hold whole numbers, to be dequantised, (d,) bool.
        mean: The mean of the (dequantised) training rows, (d,) float64; for whole numbers
            that of the rows plus 1/2.
        std: Their standard deviation, (d,) float64; for whole numbers the root of the variance
            of the rows plus 1/12.

    Raises:
        DataError: A part, the mean or the deviation does not fit d, or a deviation is not
            positive.
    """

    name: str
    columns: tuple[str, ...]
    train: Tensor
    validation: Tensor
    test: Tensor
    discrete: Tensor
    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        for part in (self.train, self.validation, self.test):
            self._require_rows(part)

        if not self.mean.shape == self.std.shape == (self.features,):
            raise DataError(
                f"{self.name}: mean and std need one entry for each of {self.features} columns, "
                f"got shapes {tuple(self.mean.shape)} and {tuple(self.std.shape)}."
            )

        if not (self.std > 0).all():
            raise DataError(f"{self.name}: std must be positive, got {self.std.tolist()}.")

    @property
    def features(self) -> int:
        """The number d of columns."""
        return len(self.columns)

    @property
    def log_scale(self) -> float:
        r"""What a nat in model space lacks: :math:`\sum_i \log \sigma_i`, in nats.

        .. math:: \text{nats}_x = \text{nats}_z + \text{log\_scale} , \qquad
            \text{nats} = -\log p .
        """
        return float(self.std.log().sum())

    def prepare(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""The rows as a model sees them: :math:`z = (x + u - \mu) / \sigma`, float32.

        Arguments:
            rows: Rows x in the data's units, (B, d).
            generator: Draws the noise u of whole numbers; without it `torch.manual_seed` governs.
                Unused for other data.

        Raises:
            DataError: The rows are not (B, d).
        """
        self._require_rows(rows)
        if not self.discrete.any():
            return self.standardised(rows)

        x = rows.double()
        mean, std = self.mean.to(x.device), self.std.to(x.device)
        source = x.device if generator is None else generator.device
        u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=source).to(x.device)
        noise = u * self.discrete.to(x.device)

        return self._into_cell(((x + noise - mean) / std).float(), x)

    def standardised(self, x: Tensor) -> Tensor:
        r"""The points :math:`(x - \mu) / \sigma` of model space, float32, without any noise."""
        return ((x.double() - self.mean.to(x.device)) / self.std.to(x.device)).float()

    def restore(self, z: Tensor) -> Tensor:
        r"""The rows, float64, that a model's values stand for: :math:`x = \mu + \sigma z`.

        Whole numbers are rounded down, which takes the noise off, and clipped in each of their
        columns to the range of the training rows.

        Arguments:
            z: Values in model space, (B, d).

        Raises:
            DataError: The values are not (B, d).
        """
        self._require_rows(z)

        x = z.double() * self.std.to(z.device) + self.mean.to(z.device)
        lowest, highest = self.train.aminmax(dim=0)
        whole = x.floor().clamp(lowest.to(x), highest.to(x))
        return torch.where(self.discrete.to(x.device), whole, x)

    def bits_per_dim(self, nats: float) -> float:
        r"""Nats a row, in the data's units, as bits a column: :math:`\text{nats} / (d \ln 2)`."""
        return nats / (self.features * math.log(2))

    def first(self, rows: int | None) -> Dataset:
        """The same data with at most the first so many training rows; None for all.

        Raises:
            DataError: Too few are asked for, or a column is constant in them.
        """
        if rows is None or rows >= len(self.train):
            return self

        if rows < PART:
            raise DataError(f"{self.name}: --rows must be at least {PART}, got {rows}.")

        train = self.train[:rows]
        mean, std = _moments(train, self.discrete)
        return replace(self, train=train, mean=mean, std=std)

    def _into_cell(self, z: Tensor, x: Tensor) -> Tensor:
        """z, moved to the next float32 where the cast has carried it out of [x, x + 1)."""
        mean, std = self.mean.to(x.device), self.std.to(x.device)
        outside = self.discrete.to(x.device) & ((z.double() * std + mean).floor() != x)
        middle = ((x + 0.5 - mean) / std).float()
        step = torch.nextafter(z.detach(), middle.detach()) - z.detach()

        return z + outside * step

    def _require_rows(self, rows: Tensor) -> None:
        if rows.dim() != 2 or rows.shape[1] != self.features:
            raise DataError(
                f"{self.name}: rows must be of shape (*, {self.features}), one entry a column, "
                f"got {tuple(rows.shape)}."
            )


def split(name: str, table: Table, discrete: Marks) -> Dataset:
    """A data set of 80 % training, 10 % validation and 10 % test rows.

    The permutation depends on the number of rows alone. It is drawn by NumPy's `RandomState`,
    whose stream is frozen, so that it is the same in every version of NumPy.

    Arguments:
        name: What reports call it.
        table: The rows, at least 100.
        discrete: Which columns hold whole numbers, to be dequantised, or whether all do.

    Raises:
        DataError: There are too few rows, or a column hardly varies in the training rows.
    """
    count = len(table.values)
    if count < 10 * PART:
        raise DataError(
            f"{table.source}: {count} rows, but a split into 80/10/10 with {PART} rows in the "
            f"smallest part needs at least {10 * PART}: add rows."
        )

    order = np.random.RandomState(SPLIT_SEED).permutation(count)
    part = count // 10
    test, validation, train = np.split(table.values[order], [part, 2 * part])

    return _measured(name, table, (train, validation, test), discrete)


def joined(name: str, train: Table, validation: Table, test: Table, discrete: Marks) -> Dataset:
    """A data set that its source has split.

    Arguments:
        name: What reports call it.
        train: The training rows; at least 10, as in the other parts.
        validation: The validation rows, of the same columns.
        test: The test rows, of the same columns.
        discrete: Which columns hold whole numbers, to be dequantised, or whether all do.

    Raises:
        DataError: A part has too few rows, or a column hardly varies in the training rows.
    """
    for table in (train, validation, test):
        if len(table.values) < PART:
            raise DataError(
                f"{table.source}: {len(table.values)} rows, but each part of a split needs at "
                f"least {PART}: add rows."
            )

    return _measured(name, train, (train.values, validation.values, test.values), discrete)


def _measured(name: str, table: Table, parts: tuple[Array, ...], discrete: Marks) -> Dataset:
    """The data set of three parts; only the first of them is measured."""
    train, validation, test = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    columns = table.columns.names
    marks = torch.as_tensor(discrete).expand(len(columns)).clone()
    require_variation(table, train, ~marks)

    return Dataset(name, columns, train, validation, test, marks, *_moments(train, marks))


def _moments(train: Tensor, discrete: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the (dequantised) training rows."""
    mean, variance = train.mean(dim=0), train.var(dim=0, unbiased=False)

    return mean + discrete / 2, (variance + discrete.double() / 12).sqrt()


def require_variation(table: Table, train: Tensor, columns: Tensor) -> None:
    """Refuses a column whose density has no width, or less than float64 resolves.

    Arguments:
        table: The table that the training rows are from.
        train: The training rows, (N, d) float64.
        columns: Which columns are looked at, (d,) bool.

    Raises:
        DataError: A column is constant in the training rows, or its deviation is at most 1e-12
            of its mean.
    """
    mean, std = train.mean(dim=0), train.std(dim=0, unbiased=False)
    for index in ((std <= 1e-12 * mean.abs()) & columns).nonzero().flatten().tolist():
        value = float(train[0, index])
        if (table.values[:, index] == value).all():
            trouble = f"constant ({value!r}): remove it"
        elif (train[:, index] == value).all():
            trouble = f"constant ({value!r}) in the training rows: remove it"
        else:
            trouble = (
                f"too narrow for float64 (std {std[index]:.1e} about {mean[index]:.1e}): "
                "rescale it or take off its offset"
            )

        raise DataError(f"{table.source}: {table.columns.label(index)} is {trouble}.")
