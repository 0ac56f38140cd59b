"""SIGINT and SIGTERM at random moments: outputs whole, temporary files gone, right exit codes."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from tests.faults.common import contents, finish, leftovers, moments, photos, start, usual_seconds

CODES = {signal.SIGINT: {0, 130, -signal.SIGINT}, signal.SIGTERM: {0, 143, -signal.SIGTERM}}


def fault(folder: Path, count: int = 10) -> str:
    source, files, out = photos(folder / "photos", 40), folder / "files", folder / "out"
    assert finish("encode", source, "-o", f"{files}/")[0] == 0
    stopped = 0
    for command in (("encode", source), ("decode", files)):
        command = (*command, "-o", f"{out}/", "-j", 2)
        whole = usual_seconds(*command, "-f")
        expected = contents(out)
        for number, moment in enumerate(moments(count, whole)):
            shutil.rmtree(out, ignore_errors=True)
            process, kind = start(*command), list(CODES)[number % 2]
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(kind)
            _, err_bytes = process.communicate()
            assert process.returncode in CODES[kind], (process.returncode, err_bytes)
            stopped += process.returncode != 0
            if out.exists():
                assert contents(out).items() <= expected.items() and not leftovers(out)
        shutil.rmtree(out, ignore_errors=True)
    return f"{2 * count} runs, {stopped} stopped: no torn output, no temporary file"
