"""What the model saw in a photo, as a transparent picture to lay over it: computed when a moderator asks for it.

The graphs of two models are opened a second time for this, when they are first needed; photos take turns on one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final, Literal

from shoplens.bundles.bundle import Bundle
from shoplens.errors import RequestInvalid
from shoplens.images.copies import CopyLimits, CopyQueue
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.entities import ModerationPhoto
from shoplens.moderation.files import PhotoFiles
from shoplens.serving.activation_map import ActivationMap, overlay

Which = Literal["moderation", "general"]
_DECODED_SIDE: Final = 512


class HeatMaps:
    """Heat maps of stored photos. All methods block, and may be called from many threads.

    `find_bundle` gives a bundle by name, as the server has it.
    """

    def __init__(
        self,
        files: PhotoFiles,
        *,
        channels: Mapping[str, ModerationChannel],
        find_bundle: Callable[[str], Bundle],
        limits: Limits,
        sandbox: SandboxedDecoder,
    ) -> None:
        self._files = files
        self._channels = channels
        self._find_bundle = find_bundle
        self._limits = limits
        self._sandbox = sandbox
        self._turns = CopyQueue(CopyLimits(at_once=1, waiting=8))
        self._lock = threading.Lock()
        self._maps: dict[str, ActivationMap] = {}

    def of(self, photo: ModerationPhoto, *, model: Which = "moderation", signal: str | None = None) -> bytes:
        """A PNG with the shape of the photo, transparent where nothing speaks for the signal.

        Without `signal` it is the one of that model that is most above its threshold. Raises RequestInvalid for a model
        without such maps and for an unknown signal, BlobNotFound where the photo's files are deleted, SampleError, and
        QueueFull.
        """
        channel = self._channels.get(photo.channel)
        name = None if channel is None else channel.model if model == "moderation" else channel.general_model
        if channel is None or name is None:
            raise RequestInvalid(f"The channel {photo.channel} has no such model.")
        return self._turns.run(lambda: self._drawn(photo, name, self._labels(channel, photo, model, signal)))

    def _drawn(self, photo: ModerationPhoto, name: str, labels: Callable[[ActivationMap], list[str]]) -> bytes:
        with self._lock:
            if name not in self._maps:
                self._maps[name] = ActivationMap(self._find_bundle(name))
            maps = self._maps[name]
        data = self._files.original(photo)
        picture = decode(data, limits=self._limits, short_side=_DECODED_SIDE, sandbox=self._sandbox)
        heat, part = maps.of(picture, labels(maps))
        return overlay(heat, part, picture)

    def _labels(
        self, channel: ModerationChannel, photo: ModerationPhoto, model: Which, signal: str | None
    ) -> Callable[[ActivationMap], list[str]]:
        """The labels behind a signal; without one, behind that of this model which is most above its threshold."""

        def chosen(maps: ActivationMap) -> list[str]:
            groups = {name: list(labels) for name, labels in channel.groups.items()} if model == "general" else {}
            known = groups or {label: [label] for label in maps.labels}
            if signal is not None:
                if signal not in known:
                    raise RequestInvalid(f"The model has no signal {signal[:80]!r}. It has: {', '.join(known)[:500]}.")
                return known[signal]
            at = {band.signal: band.review_at or band.reject_at or 1.0 for band in channel.default_policy.bands}
            over = {each.name: each.score - at.get(each.name, 2.0) for each in photo.signals if each.name in known}
            return known[max(over, key=lambda name: over[name])] if over else [maps.labels[-1]]

        return chosen
