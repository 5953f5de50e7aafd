"""The compact network of the recipe `scratch`, for small pictures: a residual network of nine layers.

Source of the shape: David Page, "How to train your ResNet" (2018); here narrower, for one channel or three.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

WIDTH: Final = 24


class ConvUnit(nn.Sequential):
    """Convolution 3 x 3, batch normalisation, ReLU, and a halving of the sides where asked for."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool = False) -> None:
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers, *([nn.MaxPool2d(2)] if halve else []))

    @property
    def convolution(self) -> nn.Conv2d:
        """The convolution."""
        layer = self[0]
        assert isinstance(layer, nn.Conv2d)
        return layer

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The normalisation."""
        layer = self[1]
        assert isinstance(layer, nn.BatchNorm2d)
        return layer


class Residual(nn.Module):
    """Two units whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.units = nn.Sequential(ConvUnit(channels, channels), ConvUnit(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as `x`, (batch, channels, height, width)."""
        changed: Tensor = self.units(x)
        return x + changed


class CompactNetwork(nn.Module):
    """(batch, channels, side, side) float32 in, (batch, classes) logits out; any side of 16 pixels or more."""

    def __init__(self, *, channels: int, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvUnit(channels, width),
            ConvUnit(width, 2 * width, halve=True),
            Residual(2 * width),
            ConvUnit(2 * width, 4 * width, halve=True),
            ConvUnit(4 * width, 8 * width, halve=True),
            Residual(8 * width),
        )
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.embed(x))
        return logits

    def embed(self, x: Tensor) -> Tensor:
        """(batch, 8 * width) values that describe a picture."""
        features: Tensor = self.body(x)
        return features.amax(dim=(2, 3))


def parameter_count(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in module.parameters())
