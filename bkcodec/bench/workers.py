"""Worker processes: an encoder and a decoder that share nothing but files."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from dataclasses import dataclass, field
from typing import Any

from bkcodec.bench.codecs import Candidate
from bkcodec.machine import python_command

TIME_LIMIT = 1800.0  # seconds for one task; then its process is ended


class Worker:
    """A running ``bkcodec.bench.serve``; started on the first task, started again if it dies."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.load_seconds: float | None = None
        self.peaks: dict[str, int] = {}
        self._process: subprocess.Popen[str] | None = None
        self._refusal: dict[str, Any] | None = None  # why it can do nothing

    def ask(self, **task: Any) -> dict[str, Any]:
        """Give a task; its answer has "error" if the task or the process failed."""
        if self._refusal is not None:
            return self._refusal
        if self._process is None:
            answer = self._start()
            if "error" in answer:
                self._refusal = answer
                self.close()
                return answer
            self.load_seconds = answer["seconds"]
        return self._talk(task)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.stdin and process.stdout:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
            process.stdout.close()

    def kill(self) -> None:
        """End the process at once; nothing is started any more."""
        self._refusal = {"error": "interrupted"}
        if self._process is not None:
            self._process.kill()

    def _start(self) -> dict[str, Any]:
        self._process = subprocess.Popen(
            python_command("bkcodec.bench.serve"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            bufsize=1,
        )
        return self._talk(self.candidate.as_dict())

    def _talk(self, message: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        deadline = threading.Timer(TIME_LIMIT, process.kill)
        deadline.start()
        try:
            process.stdin.write(json.dumps(message) + "\n")
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            deadline.cancel()
        if not line:
            self.close()
            return {"error": f"the process died (exit {process.returncode})"}
        answer: dict[str, Any] = json.loads(line)
        for name in ("peak_rss", "peak_cuda"):
            if name in answer:
                self.peaks[name] = max(self.peaks.get(name, 0), answer[name])
        return answer


@dataclass(slots=True)
class Lane:
    """The two workers that one cell at a time goes through."""

    candidate: Candidate
    encoder: Worker = field(init=False)
    decoder: Worker = field(init=False)

    def __post_init__(self) -> None:
        self.encoder, self.decoder = Worker(self.candidate), Worker(self.candidate)

    def close(self) -> None:
        """End both processes."""
        self.encoder.close()
        self.decoder.close()

    def kill(self) -> None:
        """End both at once."""
        self.encoder.kill()
        self.decoder.kill()


def statistics_of(lanes: list[Lane], before: dict[str, float]) -> dict[str, float]:
    """Load times and peaks in bytes of a codec's processes, the largest of each and ``before``."""
    largest = dict(before)
    for lane in lanes:
        for side, worker in (("encode", lane.encoder), ("decode", lane.decoder)):
            values: dict[str, float] = {f"{side}_{k}": v for k, v in worker.peaks.items()}
            if worker.load_seconds is not None:
                values[f"{side}_load_seconds"] = worker.load_seconds
            for name, value in values.items():
                largest[name] = max(largest.get(name, 0), value)
    return largest
