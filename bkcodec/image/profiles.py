"""ICC profiles: written for primaries and curves, asked what they are for, applied.

Profiles follow ICC.1:2022 (version 4, matrix and parametric curves). Codes of primaries and of
transfer functions are those of ITU-T H.273, which PNG's cICP and AVIF's nclx share.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from bkcodec.errors import InputError
from bkcodec.files import printable
from bkcodec.image.metadata import DECODER_ERRORS

Numbers = NDArray[np.float64]
Chromaticities = tuple[float, ...]  # x and y of white, red, green and blue
Curve = tuple[int, tuple[float, ...]]  # type and parameters of ICC's parametricCurveType

_D65 = (0.3127, 0.329)
SRGB = (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
PRIMARIES = {
    1: SRGB,
    2: SRGB,  # unspecified
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
SRGB_CURVE: Curve = (3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
_BT709_CURVE: Curve = (3, (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081))
TRANSFERS: dict[int, Curve] = {
    1: _BT709_CURVE,
    2: SRGB_CURVE,  # unspecified
    4: (0, (2.2,)),
    5: (0, (2.8,)),
    6: _BT709_CURVE,
    8: (0, (1.0,)),
    13: SRGB_CURVE,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
}
HDR = {16: "PQ", 18: "HLG"}
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_HEADER = struct.Struct(">I4sI4s4s4s6H4s4sIIIQI3i4s")
_SPACES = {b"RGB ": "RGB", b"GRAY": "grey", b"CMYK": "CMYK", b"Lab ": "Lab"}
_CLOSE = 0.002  # of chromaticities and exponents that mean the same


@dataclass(frozen=True, slots=True)
class Signal:
    """How samples become light.

    Attributes:
        chromaticities: of white and primaries (CIE 1931 xy).
        curve: from samples 0..1 to light.
    """

    chromaticities: Chromaticities = SRGB
    curve: Curve = SRGB_CURVE

    @property
    def is_srgb(self) -> bool:
        """Whether readers take it for granted; a gamma of 2.2 is what sRGB was once called."""
        near = max(abs(a - b) for a, b in zip(self.chromaticities, SRGB, strict=True)) < _CLOSE
        is_gamma = self.curve[0] == 0 and abs(1 / self.curve[1][0] - 0.45455) < _CLOSE
        return near and (self.curve == SRGB_CURVE or is_gamma)


def is_sound(chromaticities: object) -> bool:
    """Whether these can be the white and the primaries of a display."""
    if not isinstance(chromaticities, tuple | list) or len(chromaticities) != len(SRGB):
        return False
    points = np.array(chromaticities, np.float64).reshape(-1, 2)
    (a, b), (c, d) = points[2] - points[1], points[3] - points[1]
    is_inside = (points > 0).all() and (points.sum(axis=1) <= 1).all()
    return bool(is_inside and abs(a * d - b * c) > 1e-3)  # primaries make a triangle


def signal_from_codes(primaries: int, transfer: int) -> Signal:
    """The signal of two codes of H.273.

    Raises:
        InputError: HDR, which 8 bits do not hold, or unknown.
    """
    if transfer in HDR:
        raise InputError(f"an HDR picture ({HDR[transfer]}); convert it to SDR first")
    if primaries not in PRIMARIES or transfer not in TRANSFERS:
        raise InputError(
            f"colours of an unknown kind (primaries {primaries}, transfer {transfer}); convert the "
            "picture to sRGB first"
        )
    return Signal(PRIMARIES[primaries], TRANSFERS[transfer])


def profile_of(signal: Signal, greyscale: bool) -> bytes:
    """The ICC profile of a signal, for three channels or for one."""
    white, columns, adaptation = _to_d50(signal.chromaticities)
    kind, parameters = signal.curve
    curve = b"para" + bytes(4) + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, parameters))
    tags = {b"desc": _text("bkcodec"), b"cprt": _text("No copyright, use freely")}
    tags |= {b"wtpt": _xyz(white), b"chad": b"sf32" + bytes(4) + _numbers(adaptation.ravel())}
    if greyscale:
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True):
            tags[name] = _xyz(column)
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _profile(b"GRAY" if greyscale else b"RGB ", tags)


def _to_d50(xy: Chromaticities) -> tuple[tuple[float, ...], Numbers, Numbers]:
    """White, matrix of primaries and Bradford adaptation, as profiles have them."""
    points = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in zip(xy[::2], xy[1::2])])  # noqa: B905
    white, primaries = points[0], points[1:].T
    matrix = primaries * np.linalg.solve(primaries, white)
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD
    return _D50, adaptation @ matrix, adaptation


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = _HEADER.pack(
        start + len(body), b"", 0x04300000, b"mntr", space, b"XYZ ", 2026, 1, 1, 0, 0, 0, b"acsp",
        b"", 0, 0, 0, 0, 0, *(round(v * 65536) for v in _D50), b"",
    )  # fmt: skip
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _numbers(values: Numbers | tuple[float, ...]) -> bytes:
    return b"".join(_fixed(float(value)) for value in values)


def _xyz(values: Numbers | tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + _numbers(values)


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def space_of(profile: bytes | None) -> str | None:
    """What a profile is for: RGB, grey, CMYK, Lab or what it says; None without a say."""
    if profile is None or profile[36:40] != b"acsp":
        return None
    space = profile[16:20]
    return _SPACES.get(space) or printable(space.decode("latin-1").strip())


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of mode RGB, CMYK or LAB as sRGB, by a profile (Lab has one of its own).

    Raises:
        ValueError: the profile cannot be used.
    """
    try:
        source = ImageCms.createProfile("LAB")
        if profile is not None:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))  # type: ignore[assignment]
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, *DECODER_ERRORS) as error:
        raise ValueError(f"its ICC profile cannot be used ({error})") from error
    assert converted is not None  # only in place there is none
    return converted


def grey_to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of mode L or LA in greys of sRGB, by a profile for grey.

    Raises:
        ValueError: the profile cannot be used.
    """
    grey = to_srgb(image.getchannel("L"), profile).convert("L")
    if image.mode == "LA":
        grey.putalpha(image.getchannel("A"))
    return grey
