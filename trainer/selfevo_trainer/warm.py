"""A process that has imported what the phases import, and forks a process a phase: ``python -m selfevo_trainer.warm``.

`selfevo run` starts one and asks it for each process that it would otherwise start as ``python -m selfevo_trainer``.
Standard input is a Unix socket. One JSON line comes back when everything is imported: ``{"ready": true}``, or
``{"ready": false, "why": ...}`` where forking would not be safe. Then, for each process:

    asked     8 bytes, the length of a JSON object {"name": value or null}: what differs in the environment, null to
              unset; with them three file descriptors: standard output, standard error, gate
    answered  one JSON line, {"pid": ...}

The process is orphaned before its number is answered. Whoever asks must be its subreaper (prctl(2)), and is its parent
from then on: exit status, signals and the death of the parent are as for a process that it started itself.
It begins when a byte comes through the gate, and ends without having done anything when the gate is closed instead.

What it inherits is what ``python -m selfevo_trainer`` has after its imports: the environment as imports changed it, the
signal handlers of a new interpreter, /dev/null as standard input; it leads a session of its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import runpy
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from selfevo_trainer.process.signals import die_with_parent

DESCRIPTORS = 3
_JEMALLOC = "JE_ARROW_MALLOC_CONF"
"""Settings of the jemalloc in pyarrow, which would start a thread when it is loaded."""


def load() -> None:
    """Import what the phases import. No thread is left, and no CUDA context made."""
    from selfevo_contract.phases import PHASES
    from selfevo_trainer import phases
    from selfevo_trainer.process.quiet import hide_trackers, quieten

    quieten()
    hide_trackers()
    mine = _JEMALLOC not in os.environ
    if mine:
        os.environ[_JEMALLOC] = "background_thread:false"
    importlib.import_module("selfevo_trainer.main")
    # Not all of engines.MODULES: an engine's library may be missing, or start threads.
    importlib.import_module("selfevo_trainer.engines.transformers_engine")
    for module in map(phases.module_of, filter(phases.is_built, PHASES)):
        importlib.import_module(module)
    if mine:
        del os.environ[_JEMALLOC]


def run_trainer() -> None:
    """What ``python -m selfevo_trainer`` does."""
    runpy.run_module("selfevo_trainer", run_name="__main__", alter_sys=True)


def unsafe() -> str:
    """Why this process must not be forked; nothing when it may be.

    A first fork is made to find out. It also ends the threads of OpenBLAS, which starts them anew in who needs them
    (its own pthread_atfork handler).
    """
    child = os.fork()
    if child == 0:
        # vLLM asks for devices when it is imported; where none is, nothing of CUDA is in use for that.
        torch = sys.modules.get("torch")
        os._exit(int(torch is not None and torch.cuda._is_in_bad_fork() and torch.cuda.device_count() > 0))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        return "CUDA is in use after the imports"
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(names) != 1:
        return f"imports left {len(names) - 1} threads ({', '.join(sorted(names))})"
    return ""


def serve(connection: socket.socket, load: Callable[[], None]) -> bool:
    """Load, then fork as long as somebody asks. Returns whether this is a fork, which has its phase to do."""
    load()
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, every page that it shares
    why = unsafe()
    connection.sendall(json.dumps({"ready": not why, "why": why}).encode() + b"\n")
    if why:
        return False
    while True:
        header, descriptors, _, _ = socket.recv_fds(connection, 8, DESCRIPTORS)
        if not header:
            return False
        environment = json.loads(_exactly(connection, int.from_bytes(header, "big")))
        # Twice: the process in between ends at once, which makes the one that it leaves an orphan.
        numbers, number = os.pipe()
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid != 0:
                os.write(number, str(pid).encode())
                os._exit(0)
            os.setsid()
            os.close(numbers)
            os.close(number)  # the number is answered when all ends are closed: a signal to its group then reaches it
            connection.close()
            _become(descriptors, environment)
            return True
        os.close(number)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(between, 0)
        with os.fdopen(numbers, "rb") as stream:
            text = stream.read()
        connection.sendall(json.dumps({"pid": int(text)}).encode() + b"\n")


def _become(descriptors: list[int], environment: Mapping[str, str | None]) -> None:
    """Make this fork what a new process would be. Ends it when the gate is closed."""
    out, err, gate = descriptors
    if os.read(gate, 1) == b"":
        os._exit(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for descriptor in descriptors:
        os.close(descriptor)
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError("whoever asked is gone")
        data += piece
    return data


def main(load: Callable[[], None] = load, run: Callable[[], None] = run_trainer) -> None:
    """Serve standard input. In a fork, ``run`` and whatever it raises are the process's whole life from here."""
    die_with_parent()
    connection = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    forked = False
    with contextlib.suppress(EOFError, ConnectionError):
        forked = serve(connection, load)
    if forked:
        run()


if __name__ == "__main__":
    main()
