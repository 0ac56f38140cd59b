"""Files in object stores and on servers, named by URL, where fsspec is installed.

Stores of objects (s3://, gs:// and their like) take an object when all of it has arrived: what is
interrupted leaves the old one as it was, or none. Other stores are as careful as fsspec is there.
"""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from bkcodec.errors import BkcError, InputError, UnsupportedError, extra, first_line

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # a single letter is a drive of Windows
_FILE = "file://"
_QUERIES = ("http", "https")  # in which a question mark does not belong to the name


def is_url(text: str) -> bool:
    """Whether a text begins like a URL."""
    return _URL.match(text) is not None


def without_file(text: str) -> str:
    """A path instead of a URL that begins with file://; other texts as they are.

    Raises:
        InputError: a URL of another machine's file.
    """
    if not text.startswith(_FILE):
        return text
    path = text.removeprefix(_FILE).removeprefix("localhost")
    if not path.startswith("/"):
        raise InputError(f"{text}: a file on this machine is file:/// and its path")
    return unquote(path)


def located(text: str) -> Path | Url:
    """What a text names: a file of this machine or one in a store."""
    text = without_file(text)
    return Url(text) if is_url(text) else Path(text)


@dataclass(frozen=True, slots=True, order=True)
class Url:
    """A file or folder in a store, with those parts of ``Path`` that are needed here.

    Reading and writing raise OSError where the store refuses, and UnsupportedError where the
    package for its kind of URL is missing.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, place: Path) -> Url:
        return Url(f"{self.text.rstrip('/')}/{place.as_posix()}")

    @property
    def name(self) -> str:
        """What comes after the last slash."""
        scheme, _, rest = self.text.partition("://")
        return (re.split("[?#]", rest)[0] if scheme in _QUERIES else rest).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The extension with its dot, or nothing."""
        return Path(self.name).suffix

    def with_name(self, name: str) -> Url:
        """Another file of the same folder."""
        return Url(f"{self.text.rpartition('/')[0]}/{name}")

    def with_suffix(self, suffix: str) -> Url:
        """The same name with another extension."""
        return self.with_name(str(Path(self.name).with_suffix(suffix)))

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[BinaryIO]:
        """A file object to read from."""
        with _store(self.text) as (store, path), store.open(path, mode) as file:
            yield cast(BinaryIO, io.BufferedReader(file))

    def exists(self) -> bool:
        """Whether there is such an object or folder (BkcError: the store does not say)."""
        return bool(self._ask("exists"))

    def n_bytes(self) -> int:
        """The object's size (BkcError: the store does not say)."""
        return int(self._ask("size"))

    def files(self, recursive: bool) -> dict[Url, Path]:
        """The objects of a folder, sorted, with their places below it."""
        with _store(self.text) as (store, path):
            names = store.find(path, maxdepth=None if recursive else 1)
            places = [Path(name[len(path) :].lstrip("/")) for name in sorted(names)]
            return {self / place: place for place in places}

    def write(self, content: bytes | Callable[[BinaryIO], object]) -> None:
        """Write an object, once everything is there."""
        if callable(content):
            buffer = io.BytesIO()
            content(buffer)
            content = buffer.getvalue()
        with _store(self.text) as (store, path):
            store.pipe_file(path, content)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object (BkcError: the store does not)."""
        if not missing_ok or self.exists():
            self._ask("rm_file")

    def _ask(self, question: str) -> Any:
        try:
            with _store(self.text) as (store, path):
                return getattr(store, question)(path)
        except OSError as error:
            raise BkcError(f"{self.text}: cannot be reached: {error}") from error


@contextmanager
def _store(url: str) -> Iterator[tuple[Any, str]]:
    """The store of a URL and the path in it; its errors, of any library, become OSError."""
    with extra("remote", url):
        import fsspec
    try:
        store, path = fsspec.url_to_fs(url)
    except ImportError as error:  # its message names the package
        raise UnsupportedError(f"{url}: {first_line(error)}") from error
    except ValueError as error:
        raise InputError(f"{url}: {first_line(error)}") from error
    try:
        yield store, path
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file") from error
    except (BkcError, OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {first_line(error)}") from error
