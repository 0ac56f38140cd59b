"""Which input becomes which output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bkcodec.errors import BkcError, InputError, UsageError
from bkcodec.files import STREAM, is_stream, printable
from bkcodec.remote import Url, is_url, located

EXTENSION = ".bkc"
ERRORS = ".errors.json"  # what lists the failures in a tar shard ends so
_MACOS = ("._", ".DS_Store")  # how its files that belong to others begin
_MACOS_FOLDER = "__MACOSX"
_FILES = (EXTENSION, ".png", ".jpg", ".jpeg", ".webp", ".ppm", ".tif", ".tiff")
_READERS = {
    ".heic": "pillow-heif",
    ".heif": "pillow-heif",
    ".jxl": "pillow-jxl-plugin",
    ".tar": "--tar",
    ".tgz": "--tar",
}
_PARTIAL = (".crdownload", ".part", ".tmp")  # not there yet, or ours


@dataclass(frozen=True, slots=True)
class Job:
    """One file to make. ``None`` stands for standard input or output."""

    source: Path | Url | None
    target: Path | Url | None

    @property
    def name(self) -> str:
        """The input, for messages."""
        return str(self.source) if self.source is not None else "standard input"


@dataclass(slots=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: one for each file to make.
        failures: what cannot be done, and why.
        left_out: files of folders by their extension, which nobody asked for.
        is_batch: whether more than one input was meant.
    """

    jobs: list[Job] = field(default_factory=list)
    failures: list[tuple[Job, BkcError]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    is_batch: bool = False


@dataclass(frozen=True, slots=True)
class Naming:
    """How outputs are called.

    Attributes:
        output: a file, a directory (exists, ends in a slash, or an input is one), "-", or None =
            beside the input.
        extension: of the outputs, with the dot.
        keep_extension: whether it is added to the input's name instead of replacing its extension.
    """

    output: str | None
    extension: str
    keep_extension: bool = False

    def of(self, place: Path) -> Path:
        """The name of an input as that of its output."""
        if self.keep_extension:
            return place.with_name(place.name + self.extension)
        return place.with_suffix(self.extension)


def plan(inputs: Iterable[str], naming: Naming, suffixes: frozenset[str], recursive: bool) -> Plan:
    """Pair every input file with its output.

    Args:
        inputs: files, directories, or "-".
        naming: of the outputs.
        suffixes: which files of an input directory count, lower case.
        recursive: look into subdirectories too; their tree is recreated below the output.

    Raises:
        InputError: the only input does not exist, or is a directory without a fitting file.
        UsageError: inputs and output do not go together.
    """
    result = Plan()
    sources: dict[Path | Url | None, Path] = {}  # source and its place below an output directory
    texts, output, folders = list(inputs), naming.output, set[str]()
    if output == "":
        raise UsageError("--output: an empty name")
    if texts.count(STREAM) > 1:
        raise UsageError("standard input was named twice")
    for text in texts:
        if text == STREAM:
            sources[None] = Path()
        elif is_url(text):
            sources |= _in_store(text, suffixes, recursive)
        elif text and os.path.isdir(text):
            if os.path.realpath(text) in folders:
                continue  # named twice, done once
            folders.add(os.path.realpath(text))
            try:
                sources |= _in_directory(Path(text), suffixes, recursive, result)
            except InputError as error:
                if len(texts) == 1:
                    raise
                result.failures.append((Job(Path(text), None), error))
        elif text and "\0" not in text and not (_is_missing(text) and len(texts) == 1):
            sources.setdefault(Path(text), Path(Path(text).name))  # named twice, done once
        else:
            missing = InputError(f"{printable(text) or repr(text)}: no such file")
            if len(texts) == 1:
                raise missing
            result.failures.append((Job(Path(text), None), missing))
    n_inputs = len(sources) + len(result.failures)
    has_folder = any(is_folder(text) for text in texts if text)
    result.is_batch = has_folder or n_inputs > 1
    _check(result.is_batch, has_folder, n_inputs, output)
    jobs = [
        Job(source, _target(source, place, naming, has_folder)) for source, place in sources.items()
    ]
    _sort_out(jobs, result, naming)
    return result


def _is_missing(text: str) -> bool:
    """Whether there is no such file; what cannot be looked at fails later, with its reason."""
    try:
        os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        pass
    return False


def is_folder(text: str) -> bool:
    """Whether an input is a folder; a URL of one ends in a slash."""
    return text.endswith("/") if is_url(text) else os.path.isdir(text)


def _in_store(
    text: str, suffixes: frozenset[str], recursive: bool
) -> dict[Path | Url | None, Path]:
    """An object by its URL, or the fitting ones of a folder."""
    url = Url(text)
    if not is_folder(text):
        return {url: Path(url.name)}
    try:
        files = url.files(recursive)
    except OSError as error:
        raise InputError(f"{printable(text)}: cannot be read: {error}") from error
    fitting: dict[Path | Url | None, Path] = {
        file: place for file, place in files.items() if place.suffix.lower() in suffixes
    }
    if not fitting:
        raise InputError(f"{printable(text)}: nothing to do in this directory")
    return fitting


def _in_directory(
    folder: Path, suffixes: frozenset[str], recursive: bool, result: Plan
) -> dict[Path | Url | None, Path]:
    def failed(error: OSError) -> None:
        name = Path(error.filename or folder)
        reason = InputError(f"{printable(name)}: cannot be read: {error.strerror or error}")
        result.failures.append((Job(name, None), reason))

    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=failed, followlinks=False):
        if recursive:
            n_links = sum(os.path.islink(os.path.join(place, f)) for f in folders)
            result.left_out["linked folder"] += n_links
        folders[:] = [] if not recursive else sorted(f for f in folders if f != _MACOS_FOLDER)
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            if name.startswith(_MACOS) or name.endswith(ERRORS):
                continue
            if suffix in suffixes:
                files.append(Path(place) / name)
            elif suffix not in (EXTENSION, *_PARTIAL) and EXTENSION not in suffixes:
                result.left_out[suffix or "no extension"] += 1
    result.left_out["pipe or device"] += sum(is_stream(path) for path in files)
    result.left_out += Counter()  # forgets what there is none of
    files = [path for path in files if not is_stream(path)]
    if not files and not result.failures:
        known = hints(result.left_out) or ([] if recursive else ["subdirectories need --recursive"])
        hint = f" ({'; '.join(known)})" if known else ""
        raise InputError(f"{printable(folder)}: nothing to do in this directory{hint}")
    return {path: path.relative_to(folder) for path in sorted(files)}


def hints(left_out: Iterable[str]) -> list[str]:
    """How to read kinds of files that were left out."""
    known = {_READERS[kind]: kind for kind in sorted(left_out) if kind in _READERS}
    return [f"{kind[1:]} needs {reader}" for reader, kind in known.items()]


def _target(
    source: Path | Url | None, place: Path, naming: Naming, has_folder: bool
) -> Path | Url | None:
    output = naming.output
    if output == STREAM or (source is None and output is None):
        return None
    if output is None:
        assert source is not None
        return source.with_name(naming.of(Path(source.name)).name)
    if has_folder or is_directory(output):
        if source is None:
            raise UsageError("standard input needs a file name as output, not a directory")
        return located(output) / naming.of(place)
    return located(output)


def is_named_as_file(output: str) -> bool:
    """Whether an output that does not exist looks like the name of a file."""
    return not is_directory(output) and Path(output).suffix.lower() in _FILES


def is_directory(output: str) -> bool:
    """Whether an output names a directory: it exists as one, or ends in a slash."""
    return output.endswith(("/", os.sep)) or os.path.isdir(output)


def _check(is_batch: bool, has_folder: bool, n_inputs: int, output: str | None) -> None:
    if not is_batch or output is None:
        return
    if has_folder and output != STREAM:
        if os.path.exists(output) and not os.path.isdir(output):
            raise UsageError(f"{printable(output)} is a file; a directory as input needs one")
        if is_named_as_file(output):
            name = printable(output)
            raise UsageError(f"a directory as input needs one as output; say {name}/ to mean one")
    elif n_inputs > 1 and (output == STREAM or not is_directory(output)):
        raise UsageError(f"{n_inputs} inputs need a directory as output, not {printable(output)}")
    elif has_folder:
        raise UsageError("a directory as input needs a directory as output, not -")


def _sort_out(jobs: list[Job], result: Plan, naming: Naming) -> None:
    """Keep the jobs whose output is theirs alone; the others become failures.

    Raises:
        UsageError: the only job would overwrite another input.
        InputError: it would overwrite its own.
    """
    sources = {_key(job.source) for job in jobs if job.source is not None}
    targets: dict[str, list[Job]] = {}
    for job in jobs:
        key = _key(job.target)
        targets.setdefault(key, []).append(job)
    for job in jobs:
        key = _key(job.target)
        rivals = [printable(other.name) for other in targets[key] if other is not job]
        target = printable(job.target)
        if key in sources:
            problem: BkcError = UsageError(f"{target} is an input; it would be overwritten")
            if naming.output is None and key == _key(job.source):
                problem = _wrong_way(job, naming)
            if len(jobs) == 1:
                raise problem
            result.failures.append((job, problem))
        elif rivals:
            differ = len({Path(other.name).name for other in targets[key]}) > 1
            hint = "; --keep-extension keeps them apart" if differ else ""
            more = f" and {len(rivals) - 1} more" if len(rivals) > 1 else ""
            text = f"would become {target}, as would {rivals[0]}{more}{hint}"
            result.failures.append((job, UsageError(text)))
        else:
            result.jobs.append(job)


def _wrong_way(job: Job, naming: Naming) -> BkcError:
    """What to say of an input that would become itself."""
    name = printable(job.name)
    if naming.extension == EXTENSION:
        return InputError(f"{name} is a .bkc file; use decode")
    return InputError(f"{name} is not a .bkc file; use encode")


def _key(place: Path | Url | None) -> str:
    """The same for two names of one file."""
    if place is None:
        return STREAM
    return os.path.realpath(place) if isinstance(place, Path) else str(place)
