"""Everything that bkcodec raises on purpose.

```
BkcError (exit 1)
├── UsageError (2)         options that contradict each other
├── InputError (3)         input unreadable or unsupported, output exists
├── FormatError (4)        not a .bkc, corrupt, truncated, checksum
├── UnsupportedError (5)   newer format, unknown bundle, weights or backbone missing
├── LimitError (6)         a limit exceeded, out of memory
└── TargetError (7)        a size or quality target that cannot be reached
```

Each class carries its exit code; only ``cli.py`` exits.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

_NO_MEMORY = re.compile(
    r"(can't|cannot|failed to|unable to) (allocate|map segment)|ALLOC_FAILED|bad.alloc", re.I
)


class BkcError(Exception):
    """Base of all errors of this package; the message is one clear line."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; not all libraries have a class of their own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return not isinstance(error, BkcError) and _NO_MEMORY.search(str(error)) is not None


class TrainingError(BkcError):
    """A training run that cannot go on."""

    exit_code = 1


class UsageError(BkcError):
    """Options that contradict each other or do not apply."""

    exit_code = 2


class InputError(BkcError):
    """An input that cannot be read or is not supported, or an output that is in the way."""

    exit_code = 3


class FormatError(BkcError):
    """Bytes that are not a valid .bkc file: wrong magic, truncated, checksum, bad field."""

    exit_code = 4


class UnsupportedError(BkcError):
    """A valid file or bundle that this installation cannot use."""

    exit_code = 5


class LimitError(BkcError):
    """More pixels, bytes or memory than allowed."""

    exit_code = 6


class TargetError(BkcError):
    """A size or a metric that no quality reaches; the message says what is possible."""

    exit_code = 7


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Have a bug, or an error of the networks' libraries, become a BkcError that says where.

    Others could take it for one of theirs: a file that cannot be written, say.
    """
    try:
        yield
    except (BkcError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise BkcError(f"{what} failed: {type(error).__name__}: {first_line(error)}") from error


def install(name: str) -> str:
    """The command that brings an extra. There is no such package on an index yet."""
    return f"pip install '.[{name}]' in a checkout of bkcodec"


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Have a package that is missing become an UnsupportedError that says what brings it.

    Args:
        name: of the extra.
        what: needs it; begins the message.
    """
    try:
        yield
    except ImportError as error:
        raise UnsupportedError(
            f"{what} needs more packages ({first_line(error)}): {install(name)}"
        ) from error
