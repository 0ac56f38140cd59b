"""Files as latents, which the decoder makes pixels of: to train other models on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bkcodec.codec import codec_for
from bkcodec.container import container_from_bytes
from bkcodec.errors import FormatError, failures
from bkcodec.image.sources import FileSource, bytes_from
from bkcodec.inspection import read_symbols
from bkcodec.machine import ADVICE, out_of_memory
from bkcodec.options import DecodeOptions


def decode_latents(file: FileSource, options: DecodeOptions | None = None) -> NDArray[np.float32]:
    """A .bkc file, by path or as bytes -> its latents y_hat.

    Of a file of ``lite`` these are the same on every machine, as the pixels are. An alpha plane and
    metadata are not part of them, and a grey picture has the latents of its three equal channels.

    Args:
        file: the path or the bytes.
        options: as for ``decode``; ``steps``, ``realism`` and ``seed`` matter here too.

    Returns:
        float32 [C, h, w], standardised: each channel is divided by its size over many photos, so
        that most values are in -3..3. With ``lite`` C is 224, and h and w are the picture's sides
        over 16, rounded up; cells at the right and lower edge may go beyond the picture.

    Raises:
        TypeError, FormatError, UnsupportedError, LimitError: as ``decode``.
    """
    options = options or DecodeOptions()
    container = container_from_bytes(bytes_from(file, options.limits), options.limits)
    codec, timestep = codec_for(container, options), container.timestep
    coder, size = codec.coder, (container.width, container.height)
    if timestep is not None and timestep >= coder.timesteps:
        raise FormatError(f"timestep {timestep} is beyond the bundle's schedule")
    codec.check_memory(*size, options.tile, steps=2)  # all of y_hat is there, as with several steps
    seed = container.seed if options.seed is None else options.seed
    with codec.turn(), out_of_memory(ADVICE), failures("decoding"):
        levels, symbols = read_symbols(container, codec.bundle)
        return coder.latents(symbols, levels, size, options, seed, timestep)
