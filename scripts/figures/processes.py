"""What a process takes. Nothing large is imported: a child's peak begins with its parent's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import NamedTuple


class Usage(NamedTuple):
    """Of a process: seconds by the clock and of the processor, and its peak memory in MB."""

    clock: float
    cpu: float
    peak: float


def measured(*arguments: object, **environment: str) -> Usage:
    """Python with these arguments, and these variables beside those that there are.

    What it says on standard error is shown, and ends the program, where it fails.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    clock = time.monotonic() - started
    assert process.stderr is not None
    if process.returncode:
        raise SystemExit(process.stderr.read().decode())
    process.stderr.close()
    return Usage(clock, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)
