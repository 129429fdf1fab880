"""A verb of the command that goes on until something happens; its output so far can be waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from harness.cli import Project, wait_for


class Follower:
    """The command in a process of its own, which waits a twentieth of a second where it would wait for seconds.

    ``client__WATCH_S=0.3`` sets another of its constants.
    """

    def __init__(self, project: Project, *args: str, **settings: float) -> None:
        self._out, out = os.pipe()
        self.output = ""
        self.result: subprocess.CompletedProcess[str] | None = None
        threading.Thread(target=self._read, daemon=True).start()
        code = (
            "import sys; from selfevo import main; from selfevo.cluster import client, follow\n"
            "from selfevo.verbs import watch\n"
            "watch.PAUSES_S, watch.RELIST_S, watch.REWATCH_S, watch.POLL_S = (0.05,), 0.05, 0.05, 0.05\n"
            "follow.RELIST_S = 0.05\n"
            + "".join(f"{name.replace('__', '.')} = {value}\n" for name, value in settings.items())
            + "sys.argv[0] = 'selfevo'; main.main()\n"
        )
        command = [sys.executable, "-c", code, *args]
        self.process = subprocess.Popen(
            command, cwd=project.root, stdout=out, stderr=out, env={**project.environment, **os.environ}
        )
        os.close(out)

    def _read(self) -> None:
        while piece := os.read(self._out, 4096):
            self.output += piece.decode()
        os.close(self._out)

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output

    def end(self) -> tuple[int, list[str]]:
        """The exit code, and the lines without their times."""
        code = self.process.wait(120)
        lines = [line[9:] if line[2:3] == line[5:6] == ":" else line for line in self.output.splitlines()]
        return code, lines
