"""A command that ends with the process that started it, with all that it started itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.processes import alive
from harness.sidecar import eventually
from selfevo_contract.process import PARENT_ENV

pytestmark = pytest.mark.slow

TIED = [sys.executable, "-m", "selfevo_trainer.process.tied"]
# A command whose own child ignores SIGTERM and has nobody to end it.
COMMAND = """
import os, pathlib, subprocess, sys, time
sleeps = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", sleeps], stdout=subprocess.PIPE)
child.stdout.readline()
part = pathlib.Path(sys.argv[1] + ".part")
part.write_text(f"{os.getpid()} {child.pid}")
part.rename(sys.argv[1])
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys, time
os.environ["SELFEVO_PARENT_PID"] = str(os.getpid())
subprocess.Popen(sys.argv[1:], start_new_session=True)
time.sleep(600)
"""


def test_it_ends_with_a_parent_that_is_killed_and_so_does_what_it_started(tmp_path: Path) -> None:
    left = tmp_path / "processes"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *TIED, sys.executable, "-c", COMMAND, str(left)])
    command, child = map(int, eventually(lambda: left.exists() and left.read_text().split(), "it never began"))
    assert alive(command) and alive(child)
    parent.kill()
    parent.wait()
    eventually(lambda: not alive(command), "the command is there")
    eventually(lambda: not alive(child), "what it started is there")


@pytest.mark.parametrize(("ends", "code"), [("sys.exit(5)", 5), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)])
def test_it_ends_as_the_command_does(ends: str, code: int) -> None:
    environment = {**os.environ, PARENT_ENV: str(os.getpid())}
    command = [*TIED, sys.executable, "-c", f"import os, sys; {ends}"]
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == code


def test_a_request_to_its_group_reaches_the_command_once(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = f"""
import pathlib, signal, sys, time
asked = []
def handle(*_):
    asked.append(1)
signal.signal(signal.SIGTERM, handle)
print("ready", flush=True)
while not asked:
    time.sleep(.01)
time.sleep(.5)
pathlib.Path({str(told)!r}).write_text(str(len(asked)))
"""
    environment = {**os.environ, PARENT_ENV: str(os.getpid())}
    process = subprocess.Popen(
        [*TIED, sys.executable, "-c", command], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 0 and told.read_text() == "1"
