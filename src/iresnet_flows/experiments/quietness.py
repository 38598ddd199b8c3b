"""Without the advice of libraries that nobody who compares flows can follow."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice on data loaders and torch's on other libraries' use of it."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message="(?s).*torch.triangular_solve")
            warnings.filterwarnings("ignore", message="(?s).*torch.jit.script.* is deprecated")
            yield
    finally:
        logger.setLevel(level)
