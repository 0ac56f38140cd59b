"""What the command line does with one file, and with many."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bkcodec.config import DecodeOptions, EncodeOptions, Limits, level_to_quality
from bkcodec.container import MAGIC, Container, check_pixels, container_from_bytes
from bkcodec.errors import BkcError, InputError, LimitError
from bkcodec.files import (
    Content,
    Job,
    printable,
    read_input,
    refuse_special,
    write_stream,
    write_whole,
)

if TYPE_CHECKING:
    from bkcodec.codec import Codec
    from bkcodec.imageio import Picture


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What happens to the output file."""

    force: bool = False
    skip_existing: bool = False
    keep_mtime: bool = False
    dry_run: bool = False
    verify: bool = False


@dataclass(slots=True)
class Report:
    """What became of one file."""

    job: Job
    values: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    skipped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        target = str(self.job.target) if self.job.target is not None else "-"
        row: dict[str, Any] = {"input": self.job.name, "output": target}
        if self.error is not None:
            return row | {"error": str(self.error), "exit_code": exit_code(self.error)}
        return row | ({"skipped": True} if self.skipped else {}) | self.values

    def line(self) -> str:
        """For people."""
        target = printable(self.job.target) if self.job.target is not None else "standard output"
        head = f"{printable(self.job.name)} -> {target}"
        if self.skipped:
            return f"{head}   exists, skipped"
        v = self.values
        parts = [head, f"{v['width']}x{v['height']}"]
        if "bytes" in v:
            parts += [f"{v['bytes']:,} B".replace(",", " "), f"{v['bpp']:.4f} bpp"]
        if "quality" in v:
            parts += [f"q {v['quality']:g}"]
        if "frames_left_out" in v:
            parts += [f"first of {v['frames_left_out'] + 1} frames"]
        if "seconds" in v:
            parts += [f"{v['seconds']:.2f} s", f"{v['device']}"]
        return "   ".join(parts)


def exit_code(error: BaseException) -> int:
    """The exit code that an error stands for."""
    return error.exit_code if isinstance(error, BkcError) else 1


def run_all(jobs: list[Job], work: Callable[[Job], Report], n_jobs: int) -> Iterator[Report]:
    """Work through all jobs, ``n_jobs`` at a time; a failure is a report, not an exception."""

    def attempt(job: Job) -> Report:
        try:
            return work(job)
        except BrokenPipeError:
            raise
        except MemoryError:
            return Report(job, error=LimitError("out of memory"))
        except Exception as error:  # a batch goes on; the caller names what failed
            return Report(job, error=error)

    if n_jobs <= 1 or len(jobs) <= 1:
        yield from map(attempt, jobs)
        return
    with ThreadPoolExecutor(n_jobs) as pool:
        try:
            for future in as_completed([pool.submit(attempt, job) for job in jobs]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def encode_file(
    job: Job, codec: Codec, options: EncodeOptions, limits: Limits, write: WriteOptions
) -> Report:
    """Read a photo, encode it, write it. Raises the package's errors."""
    if _in_the_way(job, write):
        return Report(job, skipped=True)
    started = time.perf_counter()
    picture, frames = _read_picture(job, codec, options, limits)
    encoded = codec.encode_picture(picture, options)
    data = encoded.data
    seconds = time.perf_counter() - started
    width, height = picture.size
    values = {
        "width": width, "height": height, "bytes": len(data),
        "bpp": round(8 * len(data) / (width * height), 6),
        "quality": level_to_quality(encoded.level), "seconds": round(seconds, 4),
        "device": codec.device.type,
    }  # fmt: skip
    if frames > 1:
        values["frames_left_out"] = frames - 1
    if write.dry_run:
        return Report(job, values)
    _write(job, data, write)
    if write.verify and job.target is not None:
        _verify(job.target, codec, encoded.symbols)
        values["verified"] = True
    return Report(job, values)


def _read_picture(
    job: Job, codec: Codec, options: EncodeOptions, limits: Limits
) -> tuple[Picture, int]:
    """The picture of an input file, and how many frames there are."""
    from bkcodec.imageio import n_frames, open_image, picture_from_image

    def check(width: int, height: int) -> None:
        check_pixels(width, height, codec.model.stride, limits)  # as a reader will
        codec.check_memory(width, height, options.tile)

    image = open_image(io.BytesIO(read_input(job, limits.max_file_bytes)), limits, check)
    frames = n_frames(image)
    return picture_from_image(image), frames


def decode_file(job: Job, codec_of: Callable[[Container], Codec], options: DecodeOptions,
                extension: str, write: WriteOptions) -> Report:  # fmt: skip
    """Read a .bkc file, decode it, write the photo. Raises the package's errors."""
    if _in_the_way(job, write):
        return Report(job, skipped=True)
    from bkcodec.imageio import save_rows

    data = read_input(job, options.limits.max_file_bytes, MAGIC)
    container = container_from_bytes(data, options.limits)
    codec = codec_of(container)
    started = time.perf_counter()
    rows = codec.decode_rows(container, options)
    _write(job, lambda file: save_rows(rows, file, extension), write)
    seconds = time.perf_counter() - started
    values = {"width": container.width, "height": container.height, "seconds": round(seconds, 4),
              "quality": level_to_quality(container.level),
              "device": codec.device.type}  # fmt: skip
    return Report(job, values)


def _in_the_way(job: Job, write: WriteOptions) -> bool:
    """Whether the output exists and is to be left; refused early where it may not be."""
    if job.target is None or not (job.target.exists() or job.target.is_symlink()):
        return False
    refuse_special(job.target)
    if write.skip_existing:
        return True
    if not write.force:
        raise InputError(f"{printable(job.target)}: exists already; --force overwrites it")
    return False


def _write(job: Job, content: Content, write: WriteOptions) -> None:
    if job.target is None:
        write_stream(content)
        return
    write_whole(job.target, content, write.force)
    if write.keep_mtime and job.source is not None:
        status = job.source.stat()
        os.utime(job.target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _verify(path: Path, codec: Codec, symbols: Any) -> None:
    from bkcodec.levelmap import levels_of

    container = container_from_bytes(path.read_bytes())
    coder = codec.bundle.prior.at(levels_of(container))
    decoded = coder.decode(container.z, *container.z_shape)
    if not (decoded == symbols).all():
        raise BkcError(f"{printable(path)}: verification failed, the symbols differ")
