"""Classifiers trained and measured alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.experiments.averages import worst
from iresnet_flows.experiments.images.classifiers import CLAIMS
from iresnet_flows.experiments.images.evaluation import mean_and_error, mistakes
from iresnet_flows.experiments.images.sets import Images
from iresnet_flows.experiments.images.specs import Spec, kept
from iresnet_flows.experiments.images.tasks import scaled
from iresnet_flows.lipschitz import Activation, LipschitzConvNet, convolution_norm_bound
from iresnet_flows.models import InvertibleClassifier, UnconstrainedBlock

__all__ = ["RESTORED", "Outcome", "perform"]

RESTORED = 100


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Arguments:
        data: The name of the data.
        model: The name of the classifier.
        seed: That of the run.
        train_images: How many it is trained on.
        test_images: How many it is measured on.
        failure: Why there is no result, or None.
        wrong: The share of test images that it gets wrong.
        wrong_error: Its standard error over the test images.
        guaranteed: Whether it has an inverse for every image.
        decodes: Whether it was asked for one.
        pixel_error: The largest error of a pixel that is decoded again, of 100 test images with
            pixels in [0, 1]; None where it is not finite or the inverse says that it failed.
        bound: A certified bound of the largest Lipschitz constant of a residual branch; None
            without such branches, or where that of one is no number.
        claim: What that bound should be at most.
        steps: The steps of training.
        seconds: Their time.
        parameters: The trainable numbers.
    """

    data: str
    model: str
    seed: int
    train_images: int
    test_images: int
    failure: str | None = None
    wrong: float | None = None
    wrong_error: float | None = None
    guaranteed: bool = False
    decodes: bool = False
    pixel_error: float | None = None
    bound: float | None = None
    claim: float | None = None
    steps: int = 0
    seconds: float = 0.0
    parameters: int = 0


def perform(spec: Spec) -> Outcome:
    """Train and measure, or read what was."""
    return kept(spec, Outcome, measure)


def measure(spec: Spec, model: nn.Module, test: Images) -> dict[str, Any]:
    """What an `Outcome` says of the trained model."""
    wrong, error = mean_and_error(mistakes(model, test))
    return {
        "wrong": wrong,
        "wrong_error": error,
        "claim": CLAIMS.get(spec.run.model.replace("-glow", "")),
        **inversion(model, scaled(test.pixels[:RESTORED])),
    }


@torch.no_grad()
def inversion(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """What an `Outcome` says of the inverse."""
    if not isinstance(model, InvertibleClassifier):
        return {}
    images = images.to(next(model.parameters()).device)
    try:
        restored = model.decode(model.encode(images))
        error = float((restored - images).abs().max())
    except InverseNotConverged:
        error = float("nan")
    return {
        "guaranteed": not any(isinstance(m, UnconstrainedBlock) for m in model.modules()),
        "decodes": True,
        "pixel_error": error,
        "bound": largest_bound(model),
    }


def largest_bound(model: nn.Module) -> float | None:
    """A certified bound of the largest Lipschitz constant of a residual branch, or None."""
    bounds = []
    for module in model.modules():
        if isinstance(module, LipschitzConvNet):
            kernels = list(module.constrained()[0])
        elif isinstance(module, UnconstrainedBlock):
            kernels = [m.weight for m in module.modules() if isinstance(m, nn.Conv2d)]
        else:
            continue
        slopes = [m.slope for m in module.modules() if isinstance(m, Activation)]
        norms = [float(convolution_norm_bound(kernel)) for kernel in kernels]
        bounds.append(math.prod(norms) * math.prod(slopes))
    return worst(bounds)
