"""Inputs that are replaced, cut and rewritten while they are read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from tests.faults.common import contents, finish, is_whole, photos


def fault(folder: Path, count: int = 20) -> str:
    source = photos(folder / "photos", 12, (400, 300))
    versions = [p.read_bytes() for p in sorted(source.iterdir())[:2]]
    targets = sorted(source.iterdir())[2:]
    stop = threading.Event()

    def disturb() -> None:
        turn = 0
        while not stop.is_set():
            for target in targets:
                turn += 1
                if turn % 3:  # another photo takes its place at once
                    fresh = target.with_suffix(".new")
                    fresh.write_bytes(versions[turn % 2])
                    os.replace(fresh, target)
                else:  # or slowly
                    with target.open("r+b") as file:
                        file.truncate(turn % 5000)
                        file.write(versions[turn % 2])

    thread = threading.Thread(target=disturb)
    thread.start()
    encoded = refused = 0
    try:
        for number in range(count):
            out = folder / f"out{number}"
            code, err, _ = finish("encode", source, "-o", f"{out}/")
            assert code in (0, 1) and "Traceback" not in err and "unexpected" not in err, err
            found = contents(out)
            assert all(is_whole(data) for data in found.values())
            encoded += len(found)
            refused += len(targets) + 2 - len(found)
    finally:
        stop.set()
        thread.join()
    return f"{count} batches: {encoded} files, all whole, {refused} inputs refused as damaged"
