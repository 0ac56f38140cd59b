"""A file system of 200 kB that runs full under encode, decode, bench and train."""

from __future__ import annotations

from pathlib import Path

from tests.faults.common import contents, finish, is_whole, leftovers, mounted, photos


def fault(folder: Path, count: int = 1) -> str:
    source, files = photos(folder / "photos", 60), folder / "files"
    large = photos(folder / "large", 2, (400, 340))
    assert finish("encode", source, "-o", f"{files}/", "-q", 90)[0] == 0
    originals = contents(source) | contents(files)
    whole_ones = {"bkc": 0, "png": 0}
    for _ in range(count):
        with mounted(folder / "disk", "size=200k") as disk:
            (disk / "0059.bkc").write_bytes(b"precious")
            code, err, _ = finish("encode", source, "-o", f"{disk}/", "-q", 90, "-f")
            assert code == 1 and "No space left on device" in err
            found = contents(disk)
            old = found.pop("0059.bkc")
            assert all(is_whole(data) for data in found.values()) and not leftovers(disk)
            assert old == b"precious" or is_whole(old)
            whole_ones["bkc"] += len(found)
        (folder / "disk").rmdir()
        with mounted(folder / "disk", "size=200k") as disk:
            code, err, _ = finish("decode", files, "-o", f"{disk}/")
            assert code == 1 and "No space left on device" in err
            found = contents(disk)
            assert all(data.endswith(b"IEND\xaeB`\x82") for data in found.values())
            assert not leftovers(disk)
            whole_ones["png"] += len(found)
            for command in (
                ("bench", source / "0000.png", "-o", disk / "bench", "-q", "50"),
                ("train", "--data", large, "--val", large, "-o", disk / "run", "--max-steps", 1),
            ):
                code, err, _ = finish(*command)
                assert code and "Traceback" not in err, err
        (folder / "disk").rmdir()
    assert contents(source) | contents(files) == originals
    return f"{whole_ones} whole, the others refused with a line each, nothing half-written"
