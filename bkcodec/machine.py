"""This machine: devices, free memory, versions. Heavy imports are inside of functions."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from bkcodec import __version__
from bkcodec.errors import LimitError, UnsupportedError, extra, is_out_of_memory

if TYPE_CHECKING:
    import torch

# Bytes, measured with lite on a CPU (scripts/figures/huge.py) and rounded up.
_ONCE = 60_000_000  # what sessions and libraries keep
_SEEN_PIXEL = 150  # a pixel that the networks see at once
_SYMBOL = 13  # a symbol while it is coded
_Z = 4  # a symbol before rounding, or after
_Y_HAT = 56  # a value of y_hat and what a chain of several steps needs beside it (floats: 36)
ADVICE = (  # where coding needs too much memory
    "A smaller --tile needs less; with a backbone also a tiny VAE (--vae), --unet own, or "
    "--device cpu."
)
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")  # that kernels use
_M_ARENA_MAX = -8  # of glibc's mallopt
_CGROUP = Path("/sys/fs/cgroup")
_MAX_THREADS = 1024
_SETTINGS = {"threads": 0}  # for each network of this process; 0 = as the machine has them


def estimate(symbols: int, seen: int = 0, steps: int = 1, beside: int = 0) -> int:
    """Bytes that encoding or decoding takes beyond the loaded program.

    Args:
        symbols: of z.
        seen: pixels that the networks see at once.
        steps: denoising steps of a decoder; 0 = for encoding.
        beside: bytes of whole pictures.
    """
    networks = symbols * _Z + seen * _SEEN_PIXEL
    if steps > 1:
        networks += symbols * _Y_HAT
    return _ONCE + max(networks, symbols * _SYMBOL) + beside


def available() -> int:
    """Bytes that this process can still get: free memory, less where a limit is set."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limits = [free, *_address_space_left(), *_cgroup_left()]
    return max(0, min(limits))


def require(needed: int) -> None:
    """Refuse work that needs more than there is.

    Raises:
        LimitError: with both numbers.
    """
    free = available()
    if needed > free:
        raise LimitError(
            f"needs about {needed / 1e6:,.0f} MB of memory, {free / 1e6:,.0f} MB are free. "
            "Fewer --jobs, a smaller --tile and, in decoding, --steps 1 need less."
        )


def _address_space_left() -> list[int]:
    """What ``ulimit -v`` leaves."""
    if sys.platform == "win32":
        return []
    import resource

    import psutil

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return []
    return [soft - int(psutil.Process().memory_info().vms)]


def _cgroup_left() -> list[int]:
    """What a container's limit leaves (cgroup version 2)."""
    try:
        limit, used, statistics = (
            (_CGROUP / f"memory.{k}").read_text() for k in ("max", "current", "stat")
        )
        cached = dict(line.split() for line in statistics.splitlines())["inactive_file"]
        return [int(limit) - int(used) + int(cached)]  # a cache makes room
    except (OSError, ValueError, KeyError):
        return []  # no such group, or "max": no limit


@contextmanager
def out_of_memory(advice: str) -> Iterator[None]:
    """Have running out of memory, of this machine or of a GPU, become a LimitError with advice."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise LimitError(f"out of memory. {advice}") from error


def python_command(module: str) -> list[str]:
    """The command that runs a module in another Python, which finds packages where this one does.

    Neither finds them in the current folder: a file there may have the name of any module. The
    first place of the path is left out, which is that folder, a script's, or empty.
    """
    root = str(Path(__file__).resolve().parent.parent)
    places = [place for place in sys.path[1:] if place]
    begin = f"import sys; sys.path[:] = {[*places, root]!r}; import runpy; "
    return [sys.executable, "-I", "-c", f"{begin}runpy.run_module({module!r}, run_name='__main__')"]


def devices() -> list[str]:
    """Where networks can run here: cuda, mps, cpu, the fastest first."""
    try:
        import torch
    except ImportError:
        return ["cpu"]
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, is_here in available.items() if is_here), "cpu"]


def pick_device(device: str) -> torch.device:
    """Find a device; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UnsupportedError: a device that this machine or this PyTorch lacks.
    """
    with extra("torch", f"device {device}"):
        import torch
    if device != "auto" and device not in devices():
        raise UnsupportedError(f"device {device} is not available here; try --device cpu")
    return torch.device(devices()[0] if device == "auto" else device)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Ours, and those of the packages that are installed."""
    numbers = {"bkcodec": __version__}
    for name in packages:
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            continue
    return numbers


def processor() -> str:
    """Model and vector instructions of the processor, as far as the system says."""
    path, said = Path("/proc/cpuinfo"), {}
    if path.is_file():
        lines = [line.partition(":") for line in path.read_text("utf-8", "replace").splitlines()]
        said = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    model = said.get("model name") or platform.processor() or platform.machine()
    flags = [name for name in INSTRUCTIONS if name in said.get("flags", "").split()]
    return f"{model} ({', '.join(flags)})" if flags else model


def n_cores() -> int:
    """Logical cores."""
    return os.cpu_count() or 1


def n_threads() -> int:
    """Threads that each network may use: as set, as OMP_NUM_THREADS says, or a core each."""
    if _SETTINGS["threads"]:
        return _SETTINGS["threads"]
    wish = os.environ.get("OMP_NUM_THREADS", "")
    usable = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(usable(0)) if usable is not None else n_cores()
    return min(max(1, int(wish)), _MAX_THREADS) if re.fullmatch("[0-9]{1,9}", wish) else cores


def share_heap() -> None:
    """Have all threads take memory from one heap, so that what one gives back serves another.

    Elsewhere than with glibc nothing happens. Large pictures take a sixth less memory then.
    """
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)


def share_threads(n_jobs: int) -> int:
    """Divide the threads among jobs; returns how many jobs there can be, one for each thread."""
    torch = sys.modules.get("torch")  # where it is not loaded yet, it does not run anything
    available: int = torch.get_num_threads() if torch is not None else n_threads()
    n_jobs = min(n_jobs, available)  # more would only wait for one another
    _SETTINGS["threads"] = available // n_jobs
    if torch is not None:
        torch.set_num_threads(available // n_jobs)
    return n_jobs
