"""The process of one tracker: a Job, then messages, a line of JSON each, on standard input.

Standard output has an empty line for each of them that was taken, the Job when the tracker's library is loaded: whoever
waits for this process so knows whether it is behind.

It is a process of its own so that nothing a tracker's library does, waits for or prints reaches the training: whoever
started it ends it when its time is over. What goes wrong here is one sentence on standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import IO, Any

from selfevo_trainer.tracking.base import Job, Sink

ORPHANED_S = 30.0
"""For what is left to send when the phase's process is gone without a word."""


def main(lines: IO[str], taken: Callable[[], None]) -> int:
    """Send what is read until its end, and call ``taken`` for each line that is; 1 where the tracker failed."""
    job = Job.model_validate_json(next(lines))
    kind = job.tracker.kind
    try:
        module = import_module(f"selfevo_trainer.tracking.{kind}")
        taken()
        sink: Sink = module.open_sink(job.tracker, job)
        ended = False
        for line in lines:
            taken()
            ended = handle(sink, json.loads(line)) or ended
        limit = threading.Timer(ORPHANED_S, os._exit, (1,))
        if not ended:
            limit.start()
        sink.close(ended=ended)
        limit.cancel()
    except ModuleNotFoundError as error:
        print(
            f"tracking: {kind} needs the package {error.name}, which is not here; install selfevo[tracking]",
            file=sys.stderr,
        )
        return 1
    except BaseException as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        where = f" at {job.tracker.place}" if job.tracker.place else ""
        print(f"tracking: {kind}{where} takes nothing, and the step goes on without it: {text:.300}", file=sys.stderr)
        return 1
    return 0


def handle(sink: Sink, message: dict[str, Any]) -> bool:
    """Send one message; whether it is the step's last."""
    match message:
        case {"event": "update", "number": number, "figures": figures}:
            sink.update(number, figures)
        case {"event": "table", "name": name, "columns": columns, "rows": rows}:
            sink.table(name, columns, rows)
        case {"event": "result", "iteration": iteration, "figures": figures}:
            sink.result(iteration, figures)
            return True
    return False


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print there

    def taken() -> None:
        with contextlib.suppress(OSError):  # nobody waits for it any more, and what is left is sent all the same
            os.write(answers, b"\n")

    code = main(sys.stdin, taken)
    # What a library still writes as Python ends is waited for, as long as whoever started us waits, or is gone.
    at_last = threading.Timer(ORPHANED_S, os._exit, (code,))
    at_last.daemon = True
    at_last.start()
    sys.exit(code)
