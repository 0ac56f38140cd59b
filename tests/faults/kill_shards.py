"""SIGKILL at random moments of a batch of tar shards, which then goes on with --skip-existing."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.faults.common import contents, finish, kill_at, leftovers, moments, start
from tests.faults.shards import shard

N_SHARDS, MEMBERS, BAD = 5, 60, 3


def fault(folder: Path, count: int = 20) -> str:
    source, out = folder / "shards", folder / "out"
    source.mkdir()
    for number in range(N_SHARDS):
        shard(source / f"{number}.tar", MEMBERS, BAD if number % 2 else 0, seed=number)
    originals = contents(source)
    command = ("encode", source, "-o", f"{out}/", "-j", 2, "--skip-existing")
    code, err, whole = finish(*command)
    assert code == 1, err
    expected = contents(out)
    assert len(expected) == N_SHARDS + N_SHARDS // 2
    killed = kept = temporary = 0
    for moment in moments(count, whole):
        shutil.rmtree(out)
        killed += kill_at(start(*command), moment)
        found = contents(out) if out.exists() else {}
        assert all(data == expected[name] for name, data in found.items())
        kept += sum(name.endswith(".tar") for name in found)
        code, err, _ = finish(*command)
        assert code in (0, 1) and "Traceback" not in err, err
        assert contents(out) == expected and contents(source) == originals
        temporary += len(leftovers(out))
    return (
        f"{count} runs, {killed} killed while running: {kept} of {count * N_SHARDS} shards were "
        "finished then, whole; with the others made anew, all shards and lists of failures are the "
        f"same to the byte; {temporary} temporary files left, all named as such"
    )
