"""The recipe `transfer`: fine-tune the last stages of the built-in ImageNet network, starting from a fitted head.

Methods: a fitted head before fine-tuning (Kumar et al., "Fine-Tuning can Distort Pretrained Features", 2022), random
resized crops (Szegedy et al. 2015) with colour jitter, and mixing of pairs (Zhang et al., "mixup", 2018) at the values
where the tail begins (Verma et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import onnx.utils
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from shoplens.bundles.builtin.efficientnet import SIDE, Layer, Network
from shoplens.bundles.builtin.onnx_graph import INPUT, float_model
from shoplens.bundles.probe import open_session
from shoplens.images.picture import ImageSpec
from shoplens.images.preprocess import preprocess
from shoplens.training.fit import Schedule, fit
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.head import IMAGE, export_network, fit_head, in_parallel, parameter_count

if TYPE_CHECKING:
    from shoplens.training.samples import Sample

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

CUT: Final = "block11.expand"
"""The first layer that learns. The layers before it have two thirds of the work and a fifth of the weights."""
EPOCHS: Final = 10
BATCH: Final = 32
PEAK_RATE: Final = 2e-4
DECAY: Final = 0.02
MIXING: Final = 0.2
DROPOUT: Final = 0.2
_MIN_AREA: Final = 0.4
_STRETCH: Final = math.log(4 / 3)
_JITTER: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransferModel:
    """The network with its frozen trunk and its fine-tuned tail."""

    network: Network
    image: ImageSpec = IMAGE

    @property
    def parameters(self) -> int:
        """See TrainedModel."""
        return parameter_count(self.network)

    def logits(self, samples: Sequence[Sample]) -> Floats:
        """See TrainedModel."""
        layers, rest = cut_at(self.network, CUT)
        trunk, tail = Trunk(layers), Tail(rest, weight=self.network.weight, bias=self.network.bias).eval()
        rows = in_parallel(lambda sample: trunk(preprocess(sample.picture(IMAGE.resize), IMAGE)), samples)
        with torch.inference_mode():
            return np.stack([tail(torch.from_numpy(row[None]))[0].numpy() for row in rows])

    def export(self, *, temperature: float) -> bytes:
        """See TrainedModel."""
        return export_network(self.network, temperature=temperature)


def fit_transfer(
    samples: Sequence[Sample], classes: int, *, options: RecipeOptions, on_progress: Callable[[TrainProgress], None]
) -> TransferModel:
    """Fit a head, then fine-tune the tail. Raises TrainingDiverged."""
    start = fit_head(samples, classes, options=options, on_progress=on_progress)
    trunk, layers = cut_at(start.base, CUT)
    torch.manual_seed(options.seed)
    tail = fit(
        Tail(layers, weight=start.head.weight, bias=start.head.bias, dropout=DROPOUT),
        ViewLoader(samples, classes, trunk=Trunk(trunk), seed=options.seed),
        Schedule(
            epochs=options.epochs or EPOCHS, peak_rate=PEAK_RATE, weight_decay=DECAY, averaging=0.99, adaptive=True
        ),
        checkpoint=options.work_dir / "transfer.checkpoint" if options.work_dir else None,
        on_progress=on_progress,
    )
    assert isinstance(tail, Tail)
    return TransferModel(network=tail.merged_into(start.base))


def cut_at(network: Network, name: str) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers before the layer `name`, and the others. Raises ValueError for an unknown name."""
    at = [layer.name for layer in network.layers].index(name)
    return network.layers[:at], network.layers[at:]


def trunk_model(layers: tuple[Layer, ...]) -> bytes:
    """An ONNX graph of the first layers of a network; its only output is the value of the last one."""
    channels, last = len(layers[-1].bias), layers[-1]
    head = {"weight": np.zeros((1, channels), np.float32), "bias": np.zeros(1, np.float32)}
    whole = onnx.load_from_string(float_model(Network(layers=layers, **head)))
    value = f"{last.name}.sum" if last.adds else last.name
    shape: list[str | int | None] = ["batch", channels, "height", "width"]
    whole.graph.value_info.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape))
    return bytes(onnx.utils.Extractor(whole).extract_model([INPUT], [value]).SerializeToString())


class Trunk:
    """The frozen layers in ONNX Runtime: (side, side, 3) pixels in, (channels, height, width) values out."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._session: Any = open_session(trunk_model(layers), optimise=True)

    def __call__(self, pixels: Pixels) -> Floats:
        """The values where the tail begins."""
        return np.asarray(self._session.run(None, {INPUT: pixels[None]})[0][0], np.float32)


class Tail(nn.Module):
    """(batch, channels, height, width) values of the trunk in, logits out; computes the same as `Network`."""

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
        outputs: dict[str, Tensor] = {}
        for layer, weight, bias in zip(self._layers, self.weights, self.biases, strict=True):
            if weight.shape[2:] == (1, 1):
                # As a product of matrices: with the channels innermost it needs no copies and half the time.
                values = functional.linear(values.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
            else:
                top, left, bottom, right = layer.pads
                padded = functional.pad(values, (left, right, top, bottom))
                values = functional.conv2d(padded, weight, bias, layer.stride, groups=layer.groups)
            values = functional.relu6(values) if layer.relu6 else values
            values = values + outputs[layer.adds] if layer.adds else values
            outputs[layer.name] = values
        logits: Tensor = self.head(self.dropout(values.mean(dim=(2, 3))))
        return logits

    def merged_into(self, network: Network) -> Network:
        """`network` with the weights of this tail and head in place of its last layers."""

        def array(value: Tensor) -> Floats:
            return np.ascontiguousarray(value.detach().numpy())

        layers = [
            replace(layer, weight=array(weight), bias=array(bias))
            for layer, weight, bias in zip(self._layers, self.weights, self.biases, strict=True)
        ]
        kept = network.layers[: len(network.layers) - len(layers)]
        return Network(layers=(*kept, *layers), weight=array(self.head.weight), bias=array(self.head.bias))


class ViewLoader:
    """New random views of every sample in every epoch, as values of the trunk, mixed in pairs."""

    def __init__(self, samples: Sequence[Sample], classes: int, *, trunk: Trunk, seed: int) -> None:
        self._samples = samples
        self._classes = classes
        self._trunk = trunk
        self._seed = seed

    def __len__(self) -> int:
        return max(1, len(self._samples) // BATCH)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See DataLoader. Decoding and the trunk run on all cores, in threads of this process."""
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._samples))[: len(self) * BATCH].tolist()
        seeds = dict(zip(order, random.integers(0, 2**63, len(order)).tolist(), strict=True))

        def view(index: int) -> Floats:
            pixels = self._samples[index].picture(SIDE).pixels
            return self._trunk(random_view(pixels, SIDE, np.random.default_rng(seeds[index])))

        batch: list[tuple[Floats, int]] = []
        for row, index in zip(in_parallel(view, order), order, strict=True):
            batch.append((row, self._samples[index].label))
            if len(batch) == min(BATCH, len(order)):
                yield self._mixed(batch, random)
                batch = []

    def _mixed(self, batch: list[tuple[Floats, int]], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        values = torch.from_numpy(np.stack([row for row, _ in batch]))
        shares = torch.eye(self._classes)[[label for _, label in batch]]
        kept = float(random.beta(MIXING, MIXING))
        other = torch.from_numpy(random.permutation(len(batch)))
        mixed = kept * values + (1 - kept) * values[other]
        return mixed.contiguous(memory_format=torch.channels_last), kept * shares + (1 - kept) * shares[other]


def random_view(pixels: Pixels, side: int, random: np.random.Generator) -> Pixels:
    """(side, side, 3) uint8 of `pixels` (height, width, 3): a part of the picture, mirrored or not, in another light.

    The part has at least 40 % of the area and is stretched by at most 4 to 3. The same state of `random` gives the
    same view.
    """
    height, width = pixels.shape[:2]
    area = random.uniform(_MIN_AREA, 1.0)
    stretch = math.exp(random.uniform(-_STRETCH, _STRETCH) / 2)
    down = min(height, max(1, round(height * math.sqrt(area) / stretch)))
    across = min(width, max(1, round(width * math.sqrt(area) * stretch)))
    top, left = random.integers(0, height - down + 1), random.integers(0, width - across + 1)
    part = pixels[top : top + down, left : left + across]
    filtering = cv2.INTER_AREA if min(down, across) >= side else cv2.INTER_LINEAR
    view = np.asarray(cv2.resize(part, (side, side), interpolation=filtering), np.uint8)
    if random.random() < 0.5:
        view = view[:, ::-1]
    contrast, saturation = random.uniform(1 - _JITTER, 1 + _JITTER, 2)
    brightness_and_tint = random.uniform(-_JITTER, _JITTER) * 128 + random.uniform(-12, 12, 3)
    values = view.astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * np.float32(saturation)
    values = (values - 128) * np.float32(contrast) + 128 + brightness_and_tint.astype(np.float32)
    return np.asarray(np.clip(values, 0, 255), np.uint8)
