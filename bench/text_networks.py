"""`python -m bench.text_networks --data products`: other ways to learn from titles, beside the one of `fusion`.

The same split as `bench.products`, whole titles. Each network reads at most 24 words (or 96 characters), is trained for
`--epochs` and measured once. Widths and rates were not searched for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bench.products import held_products, read, row
from shoplens.texts.features import features, words_of
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.fusion import TEXT, FusionData, fit_fusion

Labels = NDArray[np.int64]
_WORDS: Final = 24
_CHARACTERS: Final = 96
_VOCABULARY: Final = 20_000
_SIZE: Final = 96
_BATCH: Final = 64
_RATE: Final = 2e-3


class Lstm(nn.Module):
    """A bidirectional LSTM; the greatest value over all words."""

    def __init__(self, tokens: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, _SIZE, padding_idx=0)
        self.lstm = nn.LSTM(_SIZE, _SIZE, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * _SIZE, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, classes)."""
        values, _ = self.lstm(self.dropout(self.embedding(tokens)))
        logits: Tensor = self.head(self.dropout(values.amax(dim=1)))
        return logits


class Cnn(nn.Module):
    """Convolutions over two to four (of characters: three to seven) tokens (Kim 2014); the greatest of each."""

    def __init__(self, tokens: int, classes: int, lengths: Sequence[int]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, _SIZE, padding_idx=0)
        self.convolutions = nn.ModuleList([nn.Conv1d(_SIZE, _SIZE, each, padding=each // 2) for each in lengths])
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(_SIZE * len(lengths), classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, classes)."""
        values = self.dropout(self.embedding(tokens)).transpose(1, 2)
        found = [functional.relu(each(values)).amax(dim=2) for each in self.convolutions]
        logits: Tensor = self.head(self.dropout(torch.cat(found, dim=1)))
        return logits


class MeanOfRows(nn.Module):
    """The mean of learned rows of hashed n-grams of words and characters, then a hidden layer."""

    def __init__(self, tokens: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(tokens, _SIZE, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(_SIZE, _SIZE), nn.ReLU(), nn.Dropout(0.3), nn.Linear(_SIZE, classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, classes)."""
        logits: Tensor = self.layers(self.embedding(tokens))
        return logits


def numbered(pieces: Sequence[Sequence[str]], train: Labels, most: int) -> tuple[NDArray[np.int64], int]:
    """(n, most) tokens: those of the training texts from 2, others 1, and 0 behind the end; and how many there are."""
    counts: dict[str, int] = {}
    for index in train:
        for piece in pieces[index]:
            counts[piece] = counts.get(piece, 0) + 1
    kept = sorted(counts, key=lambda piece: (-counts[piece], piece))[:_VOCABULARY]
    number = {piece: place for place, piece in enumerate(kept, start=2)}
    table = np.zeros((len(pieces), most), np.int64)
    for row_of, each in zip(table, pieces, strict=True):
        found = [number.get(piece, 1) for piece in each[:most]]
        row_of[: len(found)] = found
    return table, len(kept) + 2


def trained(net: nn.Module, tokens: NDArray[np.int64], labels: Labels, train: Labels, epochs: int) -> nn.Module:
    """`net` after `epochs` of AdamW with a rate that falls to zero."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=_RATE)
    steps = epochs * -(-len(train) // _BATCH)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    random = np.random.default_rng(0)
    for _ in range(epochs):
        order = random.permutation(train)
        for chosen in (order[at : at + _BATCH] for at in range(0, len(order), _BATCH)):
            logits = net(torch.from_numpy(tokens[chosen]))
            optimiser.zero_grad(set_to_none=True)
            functional.cross_entropy(logits, torch.from_numpy(labels[chosen])).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rate.step()
    return net.eval()


def answers(net: nn.Module, tokens: NDArray[np.int64]) -> Labels:
    """The best class of each text."""
    with torch.inference_mode():
        return np.concatenate([net(torch.from_numpy(part)).argmax(1).numpy() for part in np.array_split(tokens, 20)])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    products, paths = read(options.data)
    codes = sorted(paths)
    labels = np.array([codes.index(product.label) for product in products], np.int64)
    held = held_products(products)
    train, test = np.flatnonzero(~held), np.flatnonzero(held)
    texts = [product.text for product in products]
    words = [[word.text.casefold() for word in words_of(text)] for text in texts]
    hashed = [[str(token) for token in features(text, TEXT).tokens] for text in texts]
    inputs = {
        "words": numbered(words, train, _WORDS),
        "characters": numbered([text.casefold() for text in texts], train, _CHARACTERS),
        "n-grams": numbered(hashed, train, 4 * _CHARACTERS),
    }
    networks: list[tuple[str, str, Callable[[int, int], nn.Module]]] = [
        ("LSTM over words", "words", Lstm),
        ("CNN over words", "words", lambda tokens, classes: Cnn(tokens, classes, (2, 3, 4))),
        ("CNN over characters", "characters", lambda tokens, classes: Cnn(tokens, classes, (3, 5, 7))),
        ("mean of learned n-gram rows", "n-grams", MeanOfRows),
    ]
    print("| model | weighted F1 | macro F1 | CPU s to train |\n|---|---|---|---|")
    began = time.process_time()
    data = FusionData.of([features(text, TEXT) for text in texts])
    model = fit_fusion(_chosen(texts, train), labels[train], len(codes), options=RecipeOptions())
    row("fusion: text", labels[test], model.logits(data, "text")[test].argmax(axis=1), time.process_time() - began)
    for name, kind, make in networks:
        torch.manual_seed(0)
        began, (tokens, most) = time.process_time(), inputs[kind]
        net = trained(make(most, len(codes)), tokens, labels, train, options.epochs)
        row(name, labels[test], answers(net, tokens[test]), time.process_time() - began)


def _chosen(texts: Sequence[str], train: Labels) -> FusionData:
    return FusionData.of([features(texts[index], TEXT) for index in train])


if __name__ == "__main__":
    main()
