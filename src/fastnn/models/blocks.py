"""Parts of the nets, made from any namespace with torch.nn's names."""

from __future__ import annotations

from typing import Any


def convolution_and_norm(nn: Any, channels: int, width: int, size: int, stride: int = 1, groups: int = 1) -> list[Any]:
    """A convolution that keeps the image's size (but for the stride), without a bias, and its batch norm."""
    return [
        nn.Conv2d(channels, width, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
    ]


def residual(nn: Any, body: Any, shortcut: Any = None, activation: bool = True) -> Any:
    """ReLU(body(x) + shortcut(x)), the shortcut x itself if none is given; without `activation` the sum alone."""

    class Residual(nn.Module):  # type: ignore[misc]  # the namespace is known only now
        def __init__(self) -> None:
            super().__init__()
            self.body = body
            self.shortcut = nn.Identity() if shortcut is None else shortcut
            self.activation = nn.ReLU() if activation else nn.Identity()

        def forward(self, x: Any) -> Any:
            return self.activation(self.body(x) + self.shortcut(x))

    return Residual()


def basic_block(nn: Any, channels: int, width: int, stride: int = 1) -> Any:
    """Two 3x3 convolutions beside a shortcut (He, Zhang, Ren and Sun 2016, figure 5 left); the shortcut is a 1x1
    convolution where the shape changes."""
    body = nn.Sequential(
        *convolution_and_norm(nn, channels, width, 3, stride), nn.ReLU(), *convolution_and_norm(nn, width, width, 3)
    )
    changes = stride != 1 or channels != width
    shortcut = nn.Sequential(*convolution_and_norm(nn, channels, width, 1, stride)) if changes else None
    return residual(nn, body, shortcut)


def inverted_residual(nn: Any, channels: int, width: int, stride: int, expansion: int) -> Any:
    """1x1 up to `expansion` times the channels, 3x3 depthwise, 1x1 down (Sandler et al. 2018); a shortcut where the
    shape stays."""
    hidden = channels * expansion
    layers: list[Any] = []
    if expansion != 1:
        layers += [*convolution_and_norm(nn, channels, hidden, 1), nn.ReLU6()]
    layers += [*convolution_and_norm(nn, hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
    body = nn.Sequential(*layers, *convolution_and_norm(nn, hidden, width, 1))
    stays = stride == 1 and channels == width
    return residual(nn, body, activation=False) if stays else body
