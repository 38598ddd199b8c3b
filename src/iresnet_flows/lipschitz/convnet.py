"""The convolutional branch, bounded at every moment for images of every size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from iresnet_flows.checks import (
    check_context,
    check_count,
    check_images,
    check_kernel_sizes,
)
from iresnet_flows.lipschitz.activations import Activation, make_activations
from iresnet_flows.lipschitz.convolution_norms import convolution_norms
from iresnet_flows.lipschitz.layered import LayeredBranch
from iresnet_flows.lipschitz.norms import ProductLimiter
from iresnet_flows.maps.convolutional import ConvolutionalPerceptron
from iresnet_flows.maps.linear import Convolution
from iresnet_flows.maps.perceptrons import weight_shapes

__all__ = ["LipschitzConvNet"]


@dataclass(frozen=True)
class LipschitzConvolutions(ConvolutionalPerceptron):
    """A convolutional network with a certified bound of its Lipschitz constant, a scalar."""

    lipschitz: Tensor


class LipschitzConvNet(LayeredBranch):
    r"""A convolutional network whose Lipschitz constant is bounded by construction.

    .. math:: g(x; c) = \min\!\Big(1, \frac{\ell}{\prod_i \hat\sigma(K_i)}\Big)\, K_L * s_{L-1}\,
              a(\cdots s_1\, a(K_1 * x + b_1 + U_1 c) \cdots) + b_L + U_L c ,
              \quad s_i = \cos(S_i c)

    with stride one and zero padding, so that the image keeps its size, and with the product of
    norms bounded as in `LipschitzMLP`. Here :math:`\hat\sigma` is a certified upper bound of the
    convolution's norm on images of *every* size, at most 4.5 % above the norm on large ones: see
    `convolution_norm_bound`. It costs about
    ten products of 130 complex matrices (3 x 3 kernels) of the smaller number of channels, once a
    change of the weights. Small images have the smaller norm, by a few percent at 12 x 12.

    The bound is in the Euclidean norm of the whole image. The context c, a vector for each image,
    moves the bias of each channel in any way and scales each channel by :math:`|s_i| \leq 1`.
    There is no activation before the first layer. With kernels of sizes (k, 1, l), or with two
    convolutions alone, the trace of the Jacobian is exact at the price of a product or so.

    Arguments:
        channels: The channels of x.
        hidden_channels: Those of the hidden layers, at least one: the channels that each hands
            on, even where the activation gives two features for each entry (``csin``,
            ``clipswish``).
        kernel_sizes: The odd size of each kernel, one more than hidden layers.
        lipschitz: The bound of the whole branch, in (0, 1).
        context_features: The dimension of the context, or None.
        activation: ``csin``, ``sin``, ``lipswish``, ``clipswish``, ``elu``, ``tanh``,
            ``softplus``, or an `Activation`.

    Shapes:
        x and value (B, channels, H, W), context (B, context_features) or (context_features,).

    Raises:
        ValueError: A number of channels, a kernel's size, the bound or the activation's name is
            out of range.

    References:
        Behrmann et al., Invertible Residual Networks, 2019 (kernels of sizes 3, 1, 3); Xiao et
        al., Dynamical Isometry and a Mean Field Theory of CNNs, 2018 (the initial kernels).

    Example:
        >>> import torch
        >>> g = LipschitzConvNet(3, hidden_channels=(16, 16), lipschitz=0.5)
        >>> g(torch.randn(7, 3, 8, 8)).shape
        torch.Size([7, 3, 8, 8])
        >>> bool(g.lipschitz_bound() <= 0.5)
        True
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: Sequence[int] = (64, 64),
        kernel_sizes: Sequence[int] = (3, 1, 3),
        lipschitz: float = 0.9,
        context_features: int | None = None,
        activation: str | Activation = "csin",
    ) -> None:
        check_count("channels", channels)
        activations = make_activations(hidden_channels, activation, "hidden_channels")
        check_kernel_sizes(kernel_sizes, len(activations) + 1)
        matrices = weight_shapes(channels, hidden_channels, [a.copies for a in activations])
        shapes = [(*shape, k, k) for shape, k in zip(matrices, kernel_sizes, strict=True)]
        limiter = ProductLimiter(convolution_norms)
        super().__init__(shapes, limiter, lipschitz, context_features, activations)
        self.channels = channels
        self.hidden_channels = tuple(hidden_channels)
        self.kernel_sizes = tuple(kernel_sizes)
        self.reset_parameters()

    def reset_weight(self, weight: Tensor) -> None:
        """An orthogonal matrix at the centre and zero around it: of norm one at every frequency.

        An orthogonal kernel of other taps has a norm well above one at its worst frequency, and so
        spends the bound on few of them.
        """
        centre = weight.shape[-1] // 2
        nn.init.zeros_(weight)
        nn.init.orthogonal_(weight.detach()[..., centre, centre])

    def at(self, context: Tensor | None = None) -> LipschitzConvolutions:
        """The branch with its constrained kernels and its context in place."""
        weights, bound = self.constrained()
        biases, activations = self.conditioned(context)
        maps = tuple(Convolution(weight) for weight in weights)
        return LipschitzConvolutions(maps, biases, activations, bound)

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        check_images("x", x, self.channels, self.weights[0].dtype)
        check_context(context, x, self.context_features)

    def extra_repr(self) -> str:
        return (
            f"channels={self.channels}, hidden_channels={self.hidden_channels}, "
            f"kernel_sizes={self.kernel_sizes}, lipschitz={self.lipschitz}, "
            f"context_features={self.context_features}"
        )
