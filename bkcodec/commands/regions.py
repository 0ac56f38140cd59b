"""The options of encode by which parts of a picture get another quality."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bkcodec.errors import InputError
from bkcodec.files import printable, read_whole
from bkcodec.options import EncodeOptions, Limits, Region

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Marks:
    """What is marked in every picture of a call.

    Attributes:
        regions: as in ``EncodeOptions``.
        quality_map: the file of the map.
        adapt: as in ``EncodeOptions``.
    """

    regions: tuple[Region, ...]
    quality_map: Path | None
    adapt: bool

    def read_map(self, limits: Limits) -> Image.Image | None:
        """The map as a grey picture.

        Raises:
            InputError: a file that is no picture.
            LimitError: one that is too large.
        """
        if self.quality_map is None:
            return None
        from bkcodec.image.opening import open_header
        from bkcodec.image.picture import image_from_pixels
        from bkcodec.image.reading import picture_from_image

        try:
            data = read_whole(self.quality_map, limits.max_file_bytes)
            picture = picture_from_image(open_header(io.BytesIO(data), limits))
        except InputError as error:
            raise InputError(f"{printable(self.quality_map)}: {error}") from error
        return image_from_pixels(picture.rgb).convert("L")


def region_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; it gets them as one ``Marks``, named ``marks``."""

    @click.option(
        "--adapt",
        is_flag=True,
        help="Let each photo find out where a bit is worth more, for the same structural "
        "similarity in a smaller file; its PSNR is lower.",
    )
    @click.option(
        "--map",
        "quality_map",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="A grey picture: 128 is coded as asked, each lighter step half a point of quality "
        "better. One of another size is scaled.",
    )
    @click.option(
        "--roi",
        "regions",
        multiple=True,
        type=Region.parse,
        metavar="X,Y,W,H[:+N]",
        help="Code a region, in pixels of the upright photo, N points of quality better (30), or "
        "worse with :-N; may be given several times.",
    )
    @functools.wraps(command)
    def with_marks(
        regions: tuple[Region, ...], quality_map: Path | None, adapt: bool, **others: Any
    ) -> Any:
        return command(marks=Marks(regions, quality_map, adapt), **others)

    return with_marks


def scaled_map(options: EncodeOptions, size: tuple[int, int]) -> list[str]:
    """A note where the map has another size than the picture."""
    grey = options.quality_map
    if grey is None or grey.size == size:
        return []
    return ["map scaled from {}x{}".format(*grey.size)]
