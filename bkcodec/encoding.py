"""One photo on its way to a file: level, map, targets, effort."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bkcodec.coding.adapt import own_offsets
from bkcodec.coding.bands import finished
from bkcodec.coding.integers import IntegerCoder
from bkcodec.coding.regions import added, mapped, offsets_of
from bkcodec.coding.search import largest, smallest
from bkcodec.coding.targets import Target
from bkcodec.container import Container, container_to_bytes, extra_bytes
from bkcodec.errors import UsageError, extra
from bkcodec.image.exif import thumbnail_bytes
from bkcodec.image.metadata import stripped
from bkcodec.image.picture import Picture, Pixels, Rows, apply_alpha, reduced
from bkcodec.image.writing import alpha_to_png
from bkcodec.machine import ADVICE, out_of_memory
from bkcodec.options import TUNES, DecodeOptions, EncodeOptions
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.levelmap import Levels, Offsets
from bkcodec.prior.tables import Symbols

if TYPE_CHECKING:
    from bkcodec.codec import Codec
    from bkcodec.coding.effort import Tell

SHARE = 10  # a preview may have one byte for so many of the picture
HINT_BYTES = 7  # of the section with timestep and seed, at most


@dataclass(frozen=True, slots=True)
class Encoded:
    """A finished file, its parts, the symbols in it, and what a metric's target was met with."""

    data: bytes
    container: Container
    symbols: Symbols
    reached: float | None = None

    def __len__(self) -> int:
        return len(self.data)


class Encoding:
    """The work on one photo.

    Args:
        codec: whose networks and prior.
        picture: the photo.
        options: how.
        offsets: a level map instead of the options' regions and map.

    Raises:
        UsageError: a map of another size or beyond the levels, or one that the bundle cannot search
            with.
    """

    def __init__(
        self, codec: Codec, picture: Picture, options: EncodeOptions, offsets: Offsets | None
    ) -> None:
        self.codec, self.options = codec, options
        self.deadline = math.inf
        if options.timeout is not None:
            self.deadline = time.monotonic() + options.timeout
        self.picture = apply_alpha(reduced(picture, options.max_side), options.alpha)
        stride = codec.coder.stride
        self.offsets = offsets_of(options, picture.size, self.picture.size, stride, offsets)
        is_exact = isinstance(codec.coder, IntegerCoder)
        is_predicted = isinstance(codec.bundle.prior, ContextPrior)
        self.searches = options.effort > 0 and is_exact and is_predicted
        self.wants_hints = options.effort > 0 and not self.searches
        if self.wants_hints and (self.offsets is not None or options.adapt):
            raise UsageError("with this bundle, a level map goes without an effort")
        if self.wants_hints and options.metric_target is not None:
            raise UsageError("with this bundle, the target of a metric goes without an effort")

    def file(self, tell: Tell) -> Encoded:
        """The file; for ``tell`` and errors see ``Codec``."""
        codec, picture, options = self.codec, self.picture, self.options
        with codec.turn(), out_of_memory(ADVICE):
            y, self.z = codec.encoder.analyse(picture.rgb, options.tile, keep_y=self.wants_hints)
        if options.adapt:
            own = own_offsets(picture.rgb, codec.coder.stride, self._trial)
            self.offsets = added(self.offsets, own)
        self.frame = self._frame()
        limit = options.largest_file(*picture.size)
        if limit is not None:
            self.frame = self._with_small_thumbnail(self.frame, limit)
            reserve = HINT_BYTES if self.wants_hints else 0
            extras = extra_bytes(self.frame)
            encoded = largest(self._plain, limit, self.deadline, reserve, extras)
        elif options.metric_target is not None:
            encoded = self._reaching(options.metric_target)
        else:
            encoded = self._plain(options.level)
        if self.searches:
            return self._improved(encoded, limit, tell)
        return encoded if y is None else self._with_hints(encoded, y)

    def _frame(self) -> Container:
        """All of the file but its symbols."""
        codec, picture = self.codec, self.picture
        return Container(
            codec.bundle.fingerprint,
            *picture.size,
            codec.coder.stride,
            self.options.level,
            b"",
            alpha=alpha_to_png(picture.alpha) if picture.alpha is not None else None,
            metadata=stripped(picture.metadata, self.options.strip),
            greyscale=picture.greyscale,
        )

    @property
    def _cells(self) -> tuple[int, int]:
        """Rows and columns of z."""
        return self.z.shape[1], self.z.shape[2]

    def _levels(self, level: int) -> int | Levels:
        """The levels of all cells, for a base level."""
        return mapped(level, self.offsets, self._cells)[0]

    def _plain(self, level: int) -> Encoded:
        """The file of a level, without a search."""
        return self._packed(self.codec.encoder.quantise(self.z, self._levels(level)), level)

    def _packed(self, symbols: Symbols, level: int) -> Encoded:
        """The file of these symbols, or of what the prior can say of them."""
        levels, level_map = mapped(level, self.offsets, self._cells)
        with out_of_memory(ADVICE):
            string, coded = self.codec.bundle.prior.at(levels).encode(symbols)
        container = replace(self.frame, level=level, level_map=level_map, z=string)
        if self.options.largest_file(*self.picture.size) is None:
            container = self._with_small_thumbnail(container, len(string))
        return Encoded(container_to_bytes(container), container, coded)

    def _with_small_thumbnail(self, container: Container, n_bytes: int) -> Container:
        """Without EXIF's preview, where that is larger than a tenth of so many bytes."""
        exif = container.metadata.exif
        if self.options.keep_thumbnail or not exif or SHARE * thumbnail_bytes(exif) <= n_bytes:
            return container
        return replace(container, metadata=stripped(container.metadata, {"thumbnail"}))

    def _shown(self, symbols: Symbols, levels: int | Levels) -> Pixels:
        """The colours that a decoder makes of symbols, uint8 [H, W, 3]."""
        size, way = self.picture.size, DecodeOptions(tile=self.options.tile)
        colours = self.codec.coder.bands(symbols, levels, size, way, 0, None)
        return Rows(*size, "RGB", finished(colours, False, None, self.codec.turn)).whole()

    def _trial(self, level: int) -> tuple[Symbols, Pixels]:
        """Symbols at one level for all cells, and the colours that they decode to."""
        symbols = self.codec.encoder.quantise(self.z, level)
        return symbols, self._shown(symbols, level)

    def _reaching(self, target: Target) -> Encoded:
        """The smallest file that reaches a metric's value."""

        def probe(level: int) -> tuple[Encoded, float]:
            encoded = self._plain(level)
            return encoded, self._measured(encoded, target)

        encoded, value = smallest(probe, target, self.deadline)
        return replace(encoded, reached=value)

    def _measured(self, encoded: Encoded, target: Target) -> float:
        """What a decoder's picture of a file has of a target's metric."""
        picture, container = self.picture, replace(encoded.container, alpha=None)
        original = picture.rgb[..., :1] if picture.greyscale else picture.rgb
        way = DecodeOptions(tile=self.options.tile)
        rows = self.codec.decode_rows(container, way, whole=True)
        return target.metric.measure(original, rows.whole())

    def _improved(self, plain: Encoded, limit: int | None, tell: Tell) -> Encoded:
        """What a search with gradients makes of a plain file."""
        coder, prior, options = self.codec.coder, self.codec.bundle.prior, self.options
        assert isinstance(coder, IntegerCoder) and isinstance(prior, ContextPrior)
        with extra("torch", "--effort"):
            from bkcodec.coding.effort import Effort, Photo
            from bkcodec.coding.latent import Goal, LatentSearch, own_state
            from bkcodec.models.lpips import Lpips

        level, target = plain.container.level, options.metric_target
        with own_state(), out_of_memory(ADVICE):
            lpips = None if options.lpips is None else Lpips(Path(options.lpips))
            photo = Photo(
                self.picture.rgb,
                self._levels,
                lambda level: coder.encoder.scaled(self.z, self._levels(level)),
                self._packed,
                len,
                lambda file, level: self._shown(file.symbols, self._levels(level)),
            )
            goal = Goal(TUNES[options.tune], lpips=lpips)
            search = LatentSearch(self.codec.model, prior)
            effort = Effort(search, photo, goal, options.effort, self.deadline, tell)
            if limit is not None:
                return effort.at_size(plain, level, limit)
            if target is None or plain.reached is None:
                return effort.at_quality(plain, level)
            best = plain, plain.reached
            file, value = effort.at_value(
                best, level, target.value, lambda file: self._measured(file, target)
            )
            return replace(file, reached=value)

    def _with_hints(self, encoded: Encoded, y: np.ndarray[Any, Any]) -> Encoded:
        """The file with what a decoder's U-Net should start from."""
        options, level = self.options, encoded.container.level
        with self.codec.turn(), out_of_memory(ADVICE):
            timestep, seed = self.codec.coder.hints(
                y,
                encoded.symbols,
                level,
                self.picture.size,
                options.tile,
                options.effort,
                self.deadline,
            )
        container = replace(encoded.container, timestep=timestep, seed=seed)
        return Encoded(container_to_bytes(container), container, encoded.symbols)
