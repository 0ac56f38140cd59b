"""Options that are valid once they are built, limits, and the three scales of quality.

What people say is a *quality*, 0 to 100 in half steps. A file stores a *level*, 0 to 200. Networks
see a *position* on the ladder of levels, 0 to 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from numbers import Integral, Real
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from bkcodec.coding.targets import Target
from bkcodec.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

MAX_QUALITY, MAX_LEVEL = 100, 200
LEVELS = MAX_LEVEL + 1  # of a bundle
DEFAULT_QUALITY = 50.0
MAX_STEPS, MAX_EFFORT, MAX_SEED = 50, 9, 2**31 - 1
# What a search weighs: the share of MS-SSIM against the squared error; with LPIPS beside both.
TUNES = {"balanced": 0.5, "psnr": 0.0, "ms-ssim": 1.0, "lpips": 0.5}
METADATA = ("icc", "exif", "xmp")
STRIPPED = (*METADATA, "gps", "thumbnail")  # what can be left out
SCHEDULERS = ("ddim", "dpm++", "euler", "lcm")
UNETS = ("auto", "own", "bk-sdm")
DEVICES = ("auto", "cpu", "cuda", "mps")
ROI_STEPS = 30.0  # points of quality that a region gets where nobody says how many
FAR = 2**31 - 1  # pixels, more than any picture has along a side
AS_ASKED = 128  # grey of a quality map; a step of grey is half a point of quality


def quality_to_level(quality: float) -> int:
    """Quality 0..100 -> level 0..200, the nearest half step."""
    return round(quality * 2)


def level_to_quality(level: int) -> float:
    """Level 0..200 -> quality 0..100."""
    return level / 2


def level_to_position(level: int) -> float:
    """Level 0..200 -> position 0..1."""
    return level / MAX_LEVEL


def position_to_level(position: float) -> int:
    """Position 0..1 -> level 0..200, the nearest."""
    return round(position * MAX_LEVEL)


def at_most_one(**options: object) -> None:
    """Refuse options that exclude each other (UsageError); None and False are not given."""
    given = [name for name, value in options.items() if value is not None and value is not False]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other")


def in_range(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    """Refuse what is no (whole) number in low..high (UsageError)."""
    kind: type[Any] = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind):
        raise UsageError(f"{name} {value!r}: not a {'whole ' if whole else ''}number")
    if not low <= value <= high:
        raise UsageError(f"{name} {value}: not in {low}..{high}")


def unless_none(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    """The same, where None means that nothing is asked for."""
    if value is not None:
        in_range(name, value, low, high, whole)


def is_a(name: str, value: object, kind: type) -> None:
    """Refuse a value of another type (UsageError)."""
    if not isinstance(value, kind):
        raise UsageError(f"{name} {value!r}: not a {kind.__name__}")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is none of the choices (UsageError)."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} {value!r}: not one of {', '.join(choices)}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts before it allocates anything.

    Attributes:
        max_pixels: width x height of an image, from 2^20 pixels on of all its cells of z; 0 means
            no limit.
        max_file_bytes: size of a .bkc file.
        max_metadata_bytes: size of one inflated ICC, EXIF or XMP block.
    """

    max_pixels: int = 2**28
    max_file_bytes: int = 2**30
    max_metadata_bytes: int = 2**24

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_file_bytes", "max_metadata_bytes"):
            in_range(name, getattr(self, name), 0, float("inf"))


@dataclass(frozen=True, slots=True)
class Backbone:
    """Where pretrained parts come from.

    Attributes:
        bk_sdm: of VAE and U-Net: a directory in diffusers layout, a name that ``bkcodec models
            add`` recorded, or OWNER/NAME@COMMIT of a repository.
        vae: the same, of another VAE for the same latents.
        unet: "auto" uses the U-Net of ``bk_sdm`` where it has one, "own" the bundle's, "bk-sdm"
            insists.
    """

    bk_sdm: str | None = None
    vae: str | None = None
    unet: str = "auto"

    def __post_init__(self) -> None:
        one_of("unet", self.unet, UNETS)


NO_BACKBONE = Backbone()


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture that gets another quality.

    Attributes:
        x, y: its left upper corner in pixels of the upright picture.
        width, height: in pixels, 1 at least.
        steps: what is added to the quality there, -100..100 in half steps.
    """

    x: int
    y: int
    width: int
    height: int
    steps: float = ROI_STEPS

    def __post_init__(self) -> None:
        for name in ("x", "y", "width", "height"):
            in_range(f"a region's {name}", getattr(self, name), -FAR, FAR, whole=True)
        if min(self.x, self.y) < 0 or min(self.width, self.height) < 1:
            raise UsageError(f"region {self}: outside of any picture, or empty")
        in_range("a region's steps of quality", self.steps, -100, 100)

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}:{self.steps:+g}"

    @classmethod
    def parse(cls, text: str) -> Region:
        """From X,Y,W,H or X,Y,W,H:+N.

        Raises:
            UsageError: something else, or a region that no picture has.
        """
        number = r" *(\d{1,9}) *"
        match = re.fullmatch(
            rf"{number},{number},{number},{number}(?::([+-]?\d{{1,3}}(?:\.\d+)?))?", text
        )
        if match is None:
            raise UsageError(f"region {text!r}: not X,Y,W,H or X,Y,W,H:+N")
        x, y, width, height = (int(part) for part in match.groups()[:4])
        return cls(x, y, width, height, ROI_STEPS if match[5] is None else float(match[5]))

    def check(self, width: int, height: int) -> None:
        """Refuse a region that reaches beyond a picture of this size (UsageError)."""
        if self.x + self.width > width or self.y + self.height > height:
            raise UsageError(f"region {self} reaches beyond the picture of {width} x {height}")


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How an image becomes bytes.

    Attributes:
        quality: 0..100, in half steps; exclusive with the three targets, as these are.
        target_bpp: largest allowed bits (of the whole file) a pixel.
        target_size: largest allowed file size in bytes.
        target: METRIC=VALUE that the decoded picture has to reach, with psnr, ms-ssim or
            ssimulacra2, as in "ssimulacra2=70"; the smallest such file is made.
        regions: parts that get another quality than the rest; of those that overlap the last one
            counts.
        quality_map: a grey picture of the same: 128 is as asked, a step lighter is half a point of
            quality more; one of another size is scaled.
        adapt: let the picture find out where a bit is worth more than elsewhere, and move quality
            there; the regions and the map are added to that.
        model: name of a bundle or path of a bundle file.
        device: auto, cpu, cuda or mps.
        tile: side in pixels of the tiles that the networks see; 0 = whole image; None = auto.
        strip: any of "exif", "xmp", "icc", "gps" (the place, in EXIF and XMP) and "thumbnail"
            (EXIF's preview); these are not stored.
        keep_thumbnail: store a preview even if it is larger than a tenth of the picture; that of a
            photo that was turned upright never is.
        max_side: pixels; a picture with a longer side is reduced to it first. None = as it is.
        alpha: "keep", "drop", or a colour (Pillow's names and #rrggbb) to composite onto.
        effort: 1..9 search for a better file, ever longer, with gradients (needs PyTorch). With a
            bundle in floating point, or without a context prior, 1 searches the timestep at which
            a decoder's U-Net comes closest to the latent, 2 and more also the seed for several
            steps; the file tells the decoder; regions, maps, adapt and the target of a metric do
            not go with that. 0 searches nothing.
        tune: what the search weighs: psnr, ms-ssim, or both (balanced); lpips is both and LPIPS.
        lpips: file of LPIPS's weights, for the last one.
        timeout: seconds after which the searches of targets and efforts end with the best so far.
        backbone: where pretrained parts come from, for bundles that need some.
    """

    quality: float | None = None
    target_bpp: float | None = None
    target_size: int | None = None
    target: str | None = None
    regions: tuple[Region, ...] = ()
    quality_map: Image.Image | None = None
    adapt: bool = False
    model: str = "lite"
    device: str = "auto"
    tile: int | None = None
    strip: frozenset[str] = frozenset()
    keep_thumbnail: bool = False
    max_side: int | None = None
    alpha: str = "keep"
    effort: int = 0
    tune: str = "balanced"
    lpips: str | Path | None = None
    timeout: float | None = None
    backbone: Backbone = NO_BACKBONE

    def __post_init__(self) -> None:
        at_most_one(
            quality=self.quality,
            target_bpp=self.target_bpp,
            target_size=self.target_size,
            target=self.target,
        )
        _ = self.metric_target  # refuses what is none
        for name in ("target_bpp", "target_size"):
            target = getattr(self, name)
            unless_none(name, target, 0, float("inf"), whole=name == "target_size")
            if target in (0, float("inf")):
                raise UsageError(f"{name} {target}: must be above 0 and finite")
        unless_none("quality", self.quality, 0, 100)
        unless_none("tile", self.tile, 0, float("inf"), whole=True)
        unless_none("max_side", self.max_side, 1, float("inf"), whole=True)
        unless_none("timeout", self.timeout, 0, float("inf"))
        one_of("device", self.device, DEVICES)
        is_a("backbone", self.backbone, Backbone)
        if not isinstance(self.model, str | PathLike):
            raise UsageError(f"model {self.model!r}: neither a name nor a path")
        object.__setattr__(self, "model", fspath(self.model))
        self._check_map()
        self._check_search()
        self._check_strip()
        check_alpha(self.alpha)

    def _check_map(self) -> None:
        try:  # it may be a generator
            object.__setattr__(self, "regions", tuple(self.regions))
        except TypeError as error:
            raise UsageError("regions: not a sequence of Region") from error
        for region in self.regions:
            is_a("region", region, Region)
        if self.quality_map is not None and not hasattr(self.quality_map, "convert"):
            raise UsageError("quality_map: not a Pillow image")

    def _check_search(self) -> None:
        in_range("effort", self.effort, 0, MAX_EFFORT, whole=True)
        one_of("tune", self.tune, tuple(TUNES))
        if (self.tune == "lpips") != (self.lpips is not None):
            raise UsageError("the tune lpips, and no other, needs a file of LPIPS's weights")
        if self.tune != "balanced" and not self.effort:
            raise UsageError("a tune matters to a search: effort 1 to 9")

    def _check_strip(self) -> None:
        strip: Any = self.strip
        try:
            strip = {strip} if isinstance(strip, str) else strip
            object.__setattr__(self, "strip", frozenset(strip))
        except TypeError as error:
            raise UsageError(f"strip {strip!r}: not a set of words") from error
        if self.strip - set(STRIPPED):
            unknown = ", ".join(sorted(map(str, self.strip - set(STRIPPED))))
            raise UsageError(f"strip {unknown}: not one of {', '.join(STRIPPED)}")
        if self.keep_thumbnail and {"exif", "thumbnail"} & self.strip:
            raise UsageError("a thumbnail cannot be kept and stripped")

    @property
    def level(self) -> int:
        """The quality level where there is no target."""
        return quality_to_level(DEFAULT_QUALITY if self.quality is None else self.quality)

    def largest_file(self, width: int, height: int) -> int | None:
        """How many bytes the file of a picture may have; None without a target."""
        if self.target_bpp is not None:
            return int(self.target_bpp * width * height / 8)
        return self.target_size

    @property
    def metric_target(self) -> Target | None:
        """What the decoded picture has to reach."""
        if self.target is None:
            return None
        is_a("target", self.target, str)
        return Target.parse(self.target)

    @property
    def has_target(self) -> bool:
        """Whether a size or a metric decides, not a quality."""
        return (self.target_bpp, self.target_size, self.target) != (None, None, None)

    @property
    def has_map(self) -> bool:
        """Whether the quality differs over the picture."""
        return bool(self.regions) or self.quality_map is not None or self.adapt

    @property
    def needed_backbone(self) -> Backbone:
        """Without an effort nothing is denoised, so a pretrained U-Net need not be loaded."""
        return self.backbone if self.effort else replace(self.backbone, unet="own")


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How bytes become an image. Every field has a default: files are self-sufficient.

    Attributes:
        steps: denoising steps, 1..50. One gives the least distortion, more give texture.
        scheduler: ddim, dpm++, euler or lcm; matters with two steps or more.
        realism: 0..1, weight of the denoised latent against the hyper-decoder's mean. None = what
            is usual: 1, but for bundles in the latent space of Stable Diffusion with their own
            U-Net, where it is 0.5 up to quality 35, and grows to 1 at quality 70.
        seed: of the noise that two steps or more start from; None = what the file says.
        device, tile: as in EncodeOptions.
        limits: what is accepted before anything is allocated.
        backbone: as in EncodeOptions.
        model_path: name or file of the one bundle to decode with; None = the installed one that
            the file names. A ``Codec`` has its own and ignores this.
    """

    steps: int = 1
    scheduler: str = "ddim"
    realism: float | None = None
    seed: int | None = None
    device: str = "auto"
    tile: int | None = None
    limits: Limits = Limits()
    backbone: Backbone = NO_BACKBONE
    model_path: str | None = None

    def __post_init__(self) -> None:
        in_range("steps", self.steps, 1, MAX_STEPS, whole=True)
        unless_none("realism", self.realism, 0, 1)
        unless_none("seed", self.seed, 0, MAX_SEED, whole=True)
        unless_none("tile", self.tile, 0, float("inf"), whole=True)
        is_a("limits", self.limits, Limits)
        is_a("backbone", self.backbone, Backbone)
        if self.model_path is not None:
            is_a("model_path", self.model_path, str)
        one_of("device", self.device, DEVICES)
        one_of("scheduler", self.scheduler, SCHEDULERS)

    def realism_or(self, usual: float) -> float:
        """The realism that is asked for, or what is usual."""
        return usual if self.realism is None else self.realism


def check_alpha(alpha: str) -> None:
    """Refuse what is neither keep, drop nor a colour (UsageError)."""
    is_a("alpha", alpha, str)
    if alpha in ("keep", "drop"):
        return
    from PIL import ImageColor

    try:
        ImageColor.getrgb(alpha)
    except ValueError as error:
        raise UsageError(f"--alpha {alpha}: neither keep, drop nor a colour") from error
