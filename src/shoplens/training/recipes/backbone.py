"""The built-in ImageNet network in two parts: a trunk that stays as it is, and a tail of torch layers that learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from shoplens.bundles.builtin.efficientnet import Floats, Layer, Network

CUT: Final = "block11.expand"
"""The first layer that learns: before it lie two thirds of the work and a fifth of the weights."""


def cut_at(network: Network, name: str) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers before the layer `name`, and it with those after it. Raises ValueError for an unknown one."""
    at = [layer.name for layer in network.layers].index(name)
    return network.layers[:at], network.layers[at:]


class Tail(nn.Module):
    """(batch, channels, height, width) values of the trunk in, logits out. The numbers are those of `Network`."""

    def __init__(self, layers: Sequence[Layer], *, weight: Floats, bias: Floats, dropout: float = 0.0) -> None:
        super().__init__()
        self._layers = tuple(layers)
        self.weights = nn.ParameterList([torch.from_numpy(layer.weight.copy()) for layer in layers])
        self.biases = nn.ParameterList([torch.from_numpy(layer.bias.copy()) for layer in layers])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})

    def forward(self, values: Tensor) -> Tensor:
        """(batch, classes) logits."""
        before: dict[str, Tensor] = {}
        for layer, weight, bias in zip(self._layers, self.weights, self.biases, strict=True):
            values = _convolved(values, layer, weight, bias)
            if layer.adds:
                values = values + before[layer.adds]
            before[layer.name] = values
        logits: Tensor = self.head(self.dropout(values.mean(dim=(2, 3))))
        return logits

    def learned(self, network: Network) -> Network:
        """`network` with what this tail has learned in place of its last layers, and with this head."""
        at = len(network.layers) - len(self._layers)
        layers = [
            replace(layer, weight=_numbers(weight), bias=_numbers(bias))
            for layer, weight, bias in zip(self._layers, self.weights, self.biases, strict=True)
        ]
        return Network(
            layers=(*network.layers[:at], *layers), weight=_numbers(self.head.weight), bias=_numbers(self.head.bias)
        )


def _convolved(values: Tensor, layer: Layer, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.shape[2:] == (1, 1):
        # The same numbers as a product of matrices: with the channels innermost it needs no copies and half the time.
        result = functional.linear(values.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    else:
        top, left, bottom, right = layer.pads
        padded = functional.pad(values, (left, right, top, bottom))
        result = functional.conv2d(padded, weight, bias, layer.stride, groups=layer.groups)
    return functional.relu6(result) if layer.relu6 else result


def _numbers(value: Tensor) -> Floats:
    return np.ascontiguousarray(value.detach().numpy())
