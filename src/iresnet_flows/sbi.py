"""An i-ResNet as a density estimator of sbi."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from iresnet_flows.checks import check_kind
from iresnet_flows.errors import MissingExtra

try:
    from sbi.neural_nets.estimators import ZukoFlow
    from sbi.utils.nn_utils import get_numel
    from sbi.utils.sbiutils import (
        biject_transform_zuko,
        mcmc_transform,
        standardizing_net,
        standardizing_transform_zuko,
        z_score_parser,
    )
    from sbi.utils.user_input_checks import check_data_device
except ImportError as error:
    raise MissingExtra("sbi", "sbi") from error

from zuko.flows import ElementWiseTransform
from zuko.lazy import Flow, LazyTransform
from zuko.nn import MLP

from iresnet_flows.zuko import IResNet

__all__ = ["build_iresnet"]


def build_iresnet(
    batch_x: Tensor,
    batch_y: Tensor,
    z_score_x: str | None = "independent",
    z_score_y: str | None = "independent",
    hidden_features: int | Sequence[int] = 50,
    num_transforms: int = 5,
    embedding_net: nn.Module = nn.Identity(),  # noqa: B008 - without state, as in sbi
    encoder_features: int = 128,
    x_dist: Distribution | None = None,
    **kwargs: Any,
) -> ZukoFlow:
    r"""An i-ResNet for :math:`p(x | y)`, to stand beside sbi's `build_maf` and `build_zuko_nsf`.

    As ``density_estimator`` of `NPE` x is the parameters and y the data, of `NLE` the other way
    around, ``density_estimator=lambda theta, x: build_iresnet(x, theta)``: sbi calls every
    builder with the parameters first. `log_prob` is explicit, `sample` iterates. In `eval` mode,
    where sbi validates and samples, the log-det is exact if the branches are at most 64 entries
    wide at their narrowest, as with the default `hidden_features`; else it is an unbiased estimate
    unless ``log_det=Exact()`` is passed.

    A network encodes y once for all residual blocks. Before them stands an elementwise affine map
    whose scale and shift come from the encoding: it moves and widens the density with y at once,
    where a block, which scales no direction by two or more, takes many steps to follow.

    The result is sbi's `ZukoFlow` rather than its `NFlowsFlow`, which computes a log-det with each
    sample, and whose `inverse_transform` leaves out the embedding of y, z-scoring included.

    Arguments:
        batch_x: x, with shape ``(B, d)``, for its size and z-scores.
        batch_y: y, with shape ``(B, *condition)``, likewise.
        z_score_x: ``"none"``, ``"independent"``, ``"structured"`` or
            ``"transform_to_unconstrained"``, as in sbi's zuko builders.
        z_score_y: ``"none"``, ``"independent"`` or ``"structured"``.
        hidden_features: The width of each branch's two hidden layers, or the widths of all.
        num_transforms: The number of residual blocks with MLP branches.
        embedding_net: What y goes through after its z-score, and before it is encoded.
        encoder_features: The width of the network that encodes y, and the size of the encoding.
        x_dist: Where ``"transform_to_unconstrained"`` finds the support of x; the prior, in `NPE`.
        kwargs: Further arguments of `IResNet`, such as ``log_det=Exact()`` for the atomic loss of
            several rounds with more than eight features, where the log-det is else an estimate
            in train mode.

    Raises:
        TypeError: The `embedding_net` is no module.
        ValueError: A z-score is unknown, or needs an `x_dist` with a support.

    Example:
        >>> import torch
        >>> theta, x = torch.randn(100, 2), torch.randn(100, 3)
        >>> estimator = build_iresnet(theta, x, num_transforms=2)
        >>> estimator.sample((5,), x[:7]).shape
        torch.Size([5, 7, 2])
    """
    check_data_device(batch_x, batch_y)
    check_kind("embedding_net", embedding_net, nn.Module, "a torch.nn.Module")
    if not isinstance(hidden_features, Sequence):
        hidden_features = (hidden_features, hidden_features)

    features, width = get_numel(batch_x), encoder_features
    encoder = MLP(get_numel(batch_y, embedding_net=embedding_net), width, (width, width))
    flow = IResNet(features, width, num_transforms, hidden_features, **kwargs)
    transforms = [
        *x_scores(batch_x, z_score_x, x_dist),
        ElementWiseTransform(features, width, hidden_features=(width,)),
        *flow.transform.transforms,
    ]
    return ZukoFlow(
        Flow(transforms, flow.base),
        nn.Sequential(*y_scores(batch_y, z_score_y), embedding_net, encoder),
        input_shape=batch_x[0].shape,
        condition_shape=batch_y[0].shape,
    )


def x_scores(
    batch_x: Tensor, z_score: str | None, x_dist: Distribution | None
) -> list[LazyTransform]:
    """What x goes through first, if anything."""
    if z_score == "transform_to_unconstrained":
        if not hasattr(x_dist, "support"):
            raise ValueError(
                "z_score_x='transform_to_unconstrained' needs an x_dist with a support, such as "
                f"the prior, got {x_dist!r}."
            )
        return [biject_transform_zuko(mcmc_transform(x_dist, device=batch_x.device))]

    wanted, structured = z_score_parser(z_score)
    return [standardizing_transform_zuko(batch_x, structured)] if wanted else []


def y_scores(batch_y: Tensor, z_score: str | None) -> list[nn.Module]:
    """What y goes through first, if anything."""
    wanted, structured = z_score_parser(z_score)
    return [standardizing_net(batch_y, structured)] if wanted else []
