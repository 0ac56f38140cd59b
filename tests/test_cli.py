from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, fresh, names, psnr
from PIL import Image

import bkcodec
from bkcodec import cli
from bkcodec.container import MAGIC

Run = Callable[..., int]


def test_there_and_back_in_fresh_processes(here: Path, small: Image.Image) -> None:
    encoded = fresh("encode", "one.png")
    assert encoded.returncode == 0 and encoded.stdout == b""
    assert b"one.png -> one.bkc" in encoded.stderr and b"130x87" in encoded.stderr
    decoded = fresh("decode", "one.bkc", "-o", "back.png")
    assert decoded.returncode == 0, decoded.stderr
    assert psnr(small, Image.open("back.png")) > 20


def test_pipes(here: Path) -> None:
    photo = Path("one.png").read_bytes()
    encoded = fresh("encode", "-", "-q", "40", input=photo)
    assert encoded.returncode == 0 and encoded.stdout.startswith(MAGIC)
    decoded = fresh("decode", "-", "-o", "-", "--format", "ppm", input=encoded.stdout)
    assert decoded.stdout.startswith(b"P6\n130 87\n255\n")
    assert len(decoded.stdout) == 14 + 130 * 87 * 3
    info = fresh("info", "-", "--json", input=encoded.stdout)
    assert json.loads(info.stdout)["quality"] == 40


def test_directories_keep_their_tree(run: Run, here: Path) -> None:
    (here / "in" / "deep").mkdir(parents=True)
    os.rename("one.png", "in/one.png")
    os.rename("two.png", "in/deep/two.png")
    assert run("encode", "in", "-r", "-o", "out/", "-j", "2") == 0
    assert names(here / "out") == ["deep/two.bkc", "one.bkc"]
    assert run("decode", "out", "-r", "-o", "back/", "--format", "webp") == 0
    assert names(here / "back") == ["deep/two.webp", "one.webp"]
    with Image.open("back/deep/two.webp") as image:
        assert image.size == (50, 40)


def test_targets(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("encode", "one.png", "--target-size", "0.5k", "--json", "--verify") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["bytes"] == Path("one.bkc").stat().st_size <= 500 and row["verified"]
    assert run("encode", "one.png", "--target-bpp", "0.5", "-f", "--json") == 0
    assert json.loads(capsys.readouterr().out)["bpp"] <= 0.5
    assert run("encode", "one.png", "--target-size", "30", "-f") == 7
    assert "the smallest file has" in capsys.readouterr().err


def test_options_of_the_output_file(run: Run, here: Path) -> None:
    os.utime("one.png", (1e9, 1e9))
    assert run("encode", "one.png", "--dry-run") == 0
    assert names(here) == ["one.png", "two.png"]
    assert run("encode", "one.png", "--keep-mtime") == 0
    assert Path("one.bkc").stat().st_mtime == 1e9
    before = Path("one.bkc").read_bytes()
    assert run("encode", "one.png", "-q", "5") == 3
    assert run("encode", "one.png", "-q", "5", "--skip-existing") == 0
    assert Path("one.bkc").read_bytes() == before
    assert run("encode", "one.png", "-q", "5", "--force") == 0
    assert Path("one.bkc").read_bytes() != before


def test_metadata_options(run: Run, here: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    image = Image.open("one.png").convert("RGBA")
    exif = Image.Exif()
    exif[0x010F] = "maker"
    image.save("meta.png", exif=exif, icc_profile=b"profile")
    assert run("encode", "meta.png", "--strip", "icc", "--alpha", "white") == 0
    assert run("info", "meta.bkc", "--json") == 0
    values = json.loads(capsysbinary.readouterr().out)
    assert values["exif_bytes"] and not values["icc_bytes"] and not values["alpha_bytes"]
    assert run("info", "meta.bkc", "--extract", "exif", "-o", "-") == 0
    assert b"maker" in capsysbinary.readouterr().out
    assert run("info", "meta.bkc", "--extract", "exif", "-o", "block") == 0
    assert b"maker" in Path("block").read_bytes()
    assert run("info", "meta.bkc", "--extract", "icc", "-o", "none") == 3
    assert not Path("none").exists()


def test_decoder_options(run: Run, here: Path) -> None:
    run("encode", "one.png", "-q", "10")
    for name, more in (("a", []), ("b", ["--seed", "1"]), ("c", ["--seed", "1"])):
        assert (
            run(
                "decode",
                "one.bkc",
                "-o",
                f"{name}.png",
                "--steps",
                "3",
                "--scheduler",
                "euler",
                *more,
            )
            == 0
        )
    a, b, c = (np.asarray(Image.open(f"{name}.png")) for name in "abc")
    assert (a != b).any() and (b == c).all()
    assert run("decode", "one.bkc", "-o", "d.jpg", "--realism", "0.5", "--tile", "256") == 0


def test_info_and_models_for_people(
    run: Run, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("encode", "one.png")
    capsys.readouterr()
    assert run("info", "one.bkc", "--verify") == 0
    shown = capsys.readouterr().out
    for word in ("130 x 87", "quality   50", "lite", "symbols"):
        assert word in shown
    assert run("models") == 0
    assert capsys.readouterr().out.startswith("lite ")
    assert run("models", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["licence"] == "MIT"
    assert run("--version") == 0
    assert bkcodec.__version__ in capsys.readouterr().out


BAD_INPUT = [
    (["encode", "text.png"], 3, "not an image"),
    (["encode", "empty.png"], 3, "the input is empty"),
    (["encode", "cut.png"], 3, "damaged PNG"),
    (["encode", "nothing"], 3, "nothing to do in this directory"),
    (["encode", "gone.png"], 3, "no such file"),
    (["encode", "one.png", "-m", "gone"], 5, "unknown bundle"),
    (["encode", "one.png", "-m", "text.png"], 5, "not a bkcodec bundle"),
    (["encode", "one.png", "--device", "mps"], 5, "not available"),
    (["encode", "one.png", "-q", "101"], 2, "not in the range"),
    (["encode", "one.png", "-q", "5", "--target-bpp", "1"], 2, "exclude each other"),
    (["encode", "one.png", "--target-size", "big"], 2, "not a size"),
    (["encode", "one.png", "--strip", "soul"], 2, "not a list of"),
    (["encode", "one.png", "--alpha", "nocolour"], 2, "nocolour"),
    (["encode", "one.png", "--tile", "5"], 2, "neither auto, off"),
    (["encode", "one.png", "-o", "one.png", "-f"], 2, "would be overwritten"),
    (["encode", "one.png", "--bk-sdm", "dir"], 2, "do not apply"),
    (["encode", "one.png", "-f", "--skip-existing"], 2, "exclude each other"),
    (["encode", "one.png", "--dry-run", "--verify"], 2, "no file to work on"),
    (["encode", "one.png", "-o", "-", "--json"], 2, "--json"),
    (["encode", "one.png", "-o", "-", "--keep-mtime"], 2, "--keep-mtime"),
    (["encode", "one.png", "-o", "-", "--verify"], 2, "--verify"),
    (["encode", "one.png", "--no-such-flag"], 2, "No such option"),
    (["encode"], 2, "Missing argument"),
    (["decode", "text.png", "-o", "x.png"], 4, "not a .bkc file"),
    (["decode", "short.bkc"], 4, "checksum mismatch"),
    (["decode", "newer.bkc"], 5, "version 2"),
    (["decode", "foreign.bkc"], 5, "deadbeef"),
    (["decode", "foreign.bkc", "-m", "lite"], 5, "deadbeef"),
    (["decode", "good.bkc", "--max-pixels", "100"], 6, "the limit is 100"),
    (["decode", "good.bkc", "-o", "-"], 2, "needs --format"),
    (["decode", "good.bkc", "-o", "x.xyz"], 2, "unknown extension"),
    (["decode", "good.bkc", "-o", "x.png", "--format", "jpg"], 2, "contradicts"),
    (["decode", "good.bkc", "--seed", "1"], 2, "--steps 2"),
    (["decode", "good.bkc", "--bk-sdm", "dir"], 2, "do not apply"),
    (["decode", "good.bkc", "-o", "folder"], 3, "folder"),
    (["info", "text.png"], 4, "not a .bkc file"),
    (["info", "gone.bkc"], 3, "gone.bkc: no such file"),
    (["info", "foreign.bkc", "--verify"], 5, "deadbeef"),
    (["info", "good.bkc", "--extract", "icc"], 2, "go together"),
    (["info", "good.bkc", "--extract", "icc", "-o", "x", "--verify"], 2, "exclude each other"),
    (["info", "-", "-"], 2, "named twice"),
    (["decode", "good.bkc", "-o", "x.jpg", "--png-effort", "3"], 2, "does not apply to jpg"),
    (["encode", "one.png", "-q", "0", "--target-size", "6k"], 2, "exclude each other"),
    (["info", "good.bkc", "-m", "lite"], 2, "--verify"),
    (["train", "-o", "run"], 2, "--data is needed"),
    (["train", "-o", "run", "--data", "gone"], 2, "--val is needed"),
    (["train", "-o", "run", "--data", "gone", "--val", "."], 3, "not a folder"),
    (["train", "-o", "run", "--data", ".", "--val", "."], 3, "no readable photo"),
    (["train", "-o", "run", "--data", ".=0", "--val", "."], 2, "weight must be above 0"),
    (["train", "-o", "run", "--lambda", "2:1"], 2, "LOW <= HIGH"),
    (["train", "-o", "run", "--config", "gone.toml"], 2, "gone.toml"),
    (["train", "-o", "run", "--data", ".", "--val", ".", "--phase", "prior"], 2, "--init-from"),
    (
        [
            "train",
            "-o",
            "run",
            "--data",
            ".",
            "--val",
            ".",
            "--phase",
            "texture",
            "--init-from",
            "lite",
        ],
        2,
        "--lpips",
    ),
    (
        ["train", "-o", "run", "--data", ".", "--export", "gone", "--lr", "1"],
        2,
        "--lr does not apply",
    ),
    (
        ["train", "-o", "run", "--data", ".", "--val", ".", "--name", "x"],
        2,
        "--name does not apply",
    ),
    (["train", "-o", "run", "--data", ".", "--export", "gone"], 3, "not a run's folder"),
    (
        ["train", "-o", "run", "--data", ".", "--val", ".", "--init-from", "lite", "--M", "64"],
        2,
        "--init-from settles",
    ),
    (
        ["train", "-o", "run", "--data", ".", "--val", ".", "--pretrained-vae"],
        2,
        "--pretrained-vae goes",
    ),
    (
        ["train", "-o", "run", "--data", ".", "--val", ".", "--pretrained-unet"],
        2,
        "goes with --phase denoiser",
    ),
    (
        [
            "train",
            "-o",
            "run",
            "--data",
            ".",
            "--val",
            ".",
            "--phase",
            "vae",
            "--init-from",
            "bk-sdm",
        ],
        2,
        "needs --pretrained-vae",
    ),
    (
        ["train", "-o", "run", "--data", ".", "--val", ".", "--latents", "file"],
        2,
        "--latents goes with",
    ),
    (
        [
            "train",
            "-o",
            "run",
            "--data",
            ".",
            "--val",
            ".",
            "--pretrained-vae",
            "--vae",
            "dir",
            "--ms-ssim-weight",
            "1",
        ],
        2,
        "do not apply to training on latents",
    ),
    (
        ["train", "-o", "run", "--data", ".", "--val", ".", "--unroll-steps", "2"],
        2,
        "need --phase denoiser",
    ),
    (
        ["train", "-o", "run", "--data", ".", "--val", ".", "--lpips-weight", "1"],
        2,
        "needs --lpips",
    ),
    (["train", "-o", "run", "--data", ".", "--val", ".", "--resume"], 3, "no run to resume"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_INPUT, ids=lambda v: str(v)[:40])
def test_bad_input(
    run: Run,
    here: Path,
    bkc: bytes,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """One clear line, the right exit code, no file left behind, none lost."""
    photo = Path("one.png").read_bytes()
    Path("text.png").write_text("just words, no picture, no bundle")
    Path("empty.png").touch()
    Path("cut.png").write_bytes(photo[: len(photo) // 2])
    Path("nothing").mkdir()
    (here / "folder" / "good.png").mkdir(parents=True)
    Path("good.bkc").write_bytes(bkc)
    Path("short.bkc").write_bytes(bkc[:-9])
    Path("newer.bkc").write_bytes(bkc[:4] + b"\x02" + bkc[5:])
    header = bkc[:5] + bytes.fromhex("deadbeef") + bkc[9:-4]
    Path("foreign.bkc").write_bytes(header + zlib.crc32(header).to_bytes(4, "little"))
    before = names(here)
    assert run(*arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    errors = [line for line in shown.err.splitlines() if "error:" in line]
    assert len(errors) == 1 and len(shown.err.splitlines()) == 1
    assert errors[0].startswith("bkcodec: error: ") and message in errors[0]
    assert names(here) == before and Path("one.png").read_bytes() == photo


def test_an_unreadable_file(here: Path) -> None:
    """Root reads everything, so the process gives up that right first."""
    os.chmod("one.png", 0)
    code = (
        "import os; from pathlib import Path; from bkcodec.files import read_whole\n"
        "os.geteuid() or os.setuid(65534)\n"
        "os.chdir('.'); read_whole(Path('one.png'), 10**6)\n"
    )
    for folder in (here, *here.parents[:3]):
        os.chmod(folder, 0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InputError: cannot be read: Permission denied" in done.stderr


def test_a_full_disk(here: Path) -> None:
    code = (
        "import resource, signal, sys; from bkcodec import cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "sys.argv = ['bkcodec', 'encode', 'one.png', '-q', '90']; cli.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "cannot be written" in done.stderr
    assert names(here) == ["one.png", "two.png"]


def test_an_interrupt_leaves_nothing(here: Path) -> None:
    command = [sys.executable, "-m", "bkcodec", "encode", "-", "-o", "out.bkc"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and b"interrupted" in errors
    assert names(here) == ["one.png", "two.png"]


def test_startup_is_quick() -> None:
    vector = ROOT / "formats" / "vectors" / "lake-q30.bkc"
    for arguments in (["--help"], ["info", vector]):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            assert fresh(*arguments).returncode == 0
            times.append(time.perf_counter() - start)
        assert min(times) < 0.5  # 0.3 s on an idle machine


def test_a_timeout_needs_a_search(
    run: Callable[..., int], tmp_path: Path, small: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save(tmp_path / "a.png")
    assert run("encode", tmp_path / "a.png", "--timeout", 5) == 2
    assert "--timeout needs a search" in capsys.readouterr().err
    assert run("encode", tmp_path / "a.png", "--timeout", 0, "--target-size", "2k") == 0


def test_nothing_binary_goes_to_a_terminal(
    run: Callable[..., int],
    tmp_path: Path,
    small: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small.save(tmp_path / "a.png")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run("encode", tmp_path / "a.png", "-o", "-") == 2
    assert "standard output is closed or a terminal" in capsys.readouterr().err


ENDINGS = {"SIGHUP": 129, "SIGQUIT": 131, "SIGXCPU": 152, "SIGTERM": 143, "SIGINT": 130}


@pytest.mark.parametrize(("name", "times"), [*((n, 1) for n in ENDINGS), ("SIGINT", 2)])
def test_no_signal_leaves_temporary_files(
    tmp_path: Path, small: Image.Image, name: str, times: int
) -> None:
    big = bkcodec.encode(small.resize((2048, 1536)))
    for i in range(40):  # so many that they are not all done before the signal comes
        (tmp_path / f"{i}.bkc").write_bytes(big)
    command = [sys.executable, "-m", "bkcodec", "decode", ".", "-o", "out/", "-j", "2"]
    number = getattr(signal, name)

    def heed() -> None:
        signal.signal(number, signal.SIG_DFL)  # who started the tests may ignore it

    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, preexec_fn=heed)
    while not list(tmp_path.glob("out/.bkcodec-*")):
        assert process.poll() is None
        time.sleep(0.002)
    began = time.monotonic()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.wait() == ENDINGS[name]
    assert time.monotonic() - began < 1
    assert not list(tmp_path.glob("out/.bkcodec-*"))


def test_what_is_ignored_stays_ignored(tmp_path: Path, small: Image.Image) -> None:
    small.save(tmp_path / "a.png")
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "from bkcodec import cli; cli._stop_on_signals(); os.kill(os.getpid(), signal.SIGHUP); "
        "sys.argv[1:] = ['encode', 'a.png']; cli.run()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.bkc").exists()


def test_streams_are_written_to_and_never_replaced(here: Path) -> None:
    link = here / "link"
    link.symlink_to("/proc/self/fd/1")
    for options in ((), ("--force",), ("--skip-existing",)):
        done = fresh("encode", "one.png", "-o", "link", *options)
        assert done.returncode == 0 and done.stdout.startswith(MAGIC) and link.is_symlink()
    os.mkfifo(here / "pipe")
    reader = subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE)
    assert fresh("encode", "one.png", "-o", "pipe").returncode == 0
    assert reader.communicate()[0].startswith(MAGIC) and (here / "pipe").is_fifo()


def test_force_keeps_the_mode(run: Run, tmp_path: Path, small: Image.Image) -> None:
    small.save(tmp_path / "a.png")
    target = tmp_path / "a.bkc"
    assert run("encode", tmp_path / "a.png") == 0
    target.chmod(0o640)
    assert run("encode", tmp_path / "a.png", "-f") == 0
    assert target.stat().st_mode & 0o777 == 0o640


def test_out_of_memory_anywhere_is_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise ImportError("libtorch.so: failed to map segment from shared object")

    monkeypatch.setattr(cli, "main", fail)
    with pytest.raises(SystemExit) as stop:
        cli.run()
    assert stop.value.code == 6 and capsys.readouterr().err == "bkcodec: error: out of memory\n"
