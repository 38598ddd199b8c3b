"""Any host's transform, or a layer of this package, in any other host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iresnet_flows.bridge.recognition import recognised

if TYPE_CHECKING:
    from iresnet_flows.nflows import LayerTransform
    from iresnet_flows.normflows import LayerFlow
    from iresnet_flows.pyro import ConditionalLayerTransformModule, LayerTransformModule
    from iresnet_flows.zuko import LayerLazyTransform

__all__ = ["to_nflows", "to_normflows", "to_pyro", "to_zuko"]


def to_nflows(transform: Any, explicit: str | None = None) -> LayerTransform:
    """Any transform as an nflows `Transform`, whose `forward` maps data to noise.

    Arguments:
        transform: A layer of this package such as `FFJORD`, or a transform of torch.distributions,
            Pyro, normflows or zuko.
        explicit: The side that is the own forward, or call, of what is given, ``"forward"`` or
            ``"inverse"``. None: the same density as in the host that it comes from, and
            ``"forward"`` for a layer of this package.

    Raises:
        InverseNotAvailable: On use, a side that the transform cannot compute. It is nflows' own
            exception of that name as well.
        TypeError: It is no transform that is known here.
        MissingExtra: nflows is not installed.

    Example:
        >>> import torch
        >>> from nflows.distributions import StandardNormal
        >>> from nflows.flows import Flow
        >>> from pyro.distributions.transforms import spline_coupling
        >>> flow = Flow(to_nflows(spline_coupling(2)), StandardNormal([2]))
        >>> flow.log_prob(flow.sample(5)).shape
        torch.Size([5])
    """
    from iresnet_flows.nflows import LayerTransform

    guest = recognised(transform)
    return LayerTransform(guest.layer, guest.side(explicit, forward_generates=False))


def to_pyro(
    transform: Any,
    explicit: str | None = None,
    event_dim: int | None = None,
    conditional: bool | None = None,
) -> LayerTransformModule | ConditionalLayerTransformModule:
    """Any transform as a Pyro `TransformModule`, whose call maps base to sample.

    Arguments:
        transform: A layer of this package such as `FFJORD`, or a transform of torch.distributions,
            nflows, normflows or zuko.
        explicit: The side that is the own forward, or call, of what is given, ``"forward"`` or
            ``"inverse"``. None: the same density as in the host that it comes from, and
            ``"forward"``, which is made for guides, for a layer of this package.
        event_dim: The number of dimensions of one event. None: as many as the transform says, at
            least 1.
        conditional: Whether the result is a `ConditionalTransformModule`. None: as the transform
            says; those of nflows, normflows and zuko do not say, and count as unconditional.

    Raises:
        InverseNotAvailable: On use, a side that the transform cannot compute.
        TypeError: It is no transform that is known here.
        MissingExtra: Pyro is not installed.

    Example:
        >>> import pyro.distributions as dist
        >>> import torch
        >>> from nflows.transforms import MaskedAffineAutoregressiveTransform
        >>> transform = to_pyro(MaskedAffineAutoregressiveTransform(2, hidden_features=8))
        >>> base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> flow = dist.TransformedDistribution(base, [transform])
        >>> flow.log_prob(flow.sample((3, 5))).shape
        torch.Size([3, 5])
    """
    from iresnet_flows.pyro import ConditionalLayerTransformModule, LayerTransformModule

    guest = recognised(transform)
    explicit = guest.side(explicit, forward_generates=True, prefer_generating=True)
    event_dim = guest.event_dim if event_dim is None else event_dim
    if guest.conditional if conditional is None else conditional:
        return ConditionalLayerTransformModule(guest.layer, explicit, event_dim)
    return LayerTransformModule(guest.layer, explicit, event_dim)


def to_normflows(transform: Any, explicit: str | None = None) -> LayerFlow:
    """Any transform as a normflows `Flow`, whose `forward` maps latent to data.

    Arguments:
        transform: A layer of this package such as `FFJORD`, or a transform of torch.distributions,
            nflows, Pyro or zuko.
        explicit: The side that is the own forward, or call, of what is given, ``"forward"`` or
            ``"inverse"``. None: the same density as in the host that it comes from, and
            ``"inverse"`` for a layer of this package.

    Raises:
        InverseNotAvailable: On use, a side that the transform cannot compute.
        TypeError: It is no transform that is known here.
        MissingExtra: normflows is not installed.

    Example:
        >>> import normflows as nf
        >>> import torch
        >>> from pyro.distributions.transforms import spline_coupling
        >>> base = nf.distributions.DiagGaussian(2)
        >>> flow = nf.NormalizingFlow(base, [to_normflows(spline_coupling(2))])
        >>> flow.log_prob(torch.randn(5, 2)).shape
        torch.Size([5])
    """
    from iresnet_flows.normflows import LayerFlow

    guest = recognised(transform)
    return LayerFlow(guest.layer, guest.side(explicit, forward_generates=True))


def to_zuko(
    transform: Any, explicit: str | None = None, event_dim: int | None = None
) -> LayerLazyTransform:
    """Any transform as a zuko `LazyTransform`, which builds a transform of data to noise.

    Arguments:
        transform: A layer of this package such as `FFJORD`, or a transform of torch.distributions,
            nflows, Pyro or normflows.
        explicit: The side that is the own forward, or call, of what is given, ``"forward"`` or
            ``"inverse"``. None: the same density as in the host that it comes from, and
            ``"forward"`` for a layer of this package.
        event_dim: The number of dimensions of one event. None: as many as the transform says, at
            least 1.

    Raises:
        InverseNotAvailable: On use, a side that the transform cannot compute.
        TypeError: It is no transform that is known here.
        MissingExtra: zuko is not installed.

    Example:
        >>> import normflows as nf
        >>> import torch
        >>> from zuko.distributions import DiagNormal
        >>> from zuko.flows import Flow, UnconditionalDistribution
        >>> loc, scale = torch.zeros(2), torch.ones(2)
        >>> base = UnconditionalDistribution(DiagNormal, loc, scale, buffer=True)
        >>> flow = Flow(to_zuko(nf.flows.LULinearPermute(2)), base)
        >>> flow().log_prob(flow().sample((3, 5))).shape
        torch.Size([3, 5])
    """
    from iresnet_flows.zuko import LayerLazyTransform

    guest = recognised(transform)
    event_dim = guest.event_dim if event_dim is None else event_dim
    side = guest.side(explicit, forward_generates=False)
    return LayerLazyTransform(guest.layer, side, event_dim)
