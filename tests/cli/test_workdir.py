"""The run's folder: its record, its lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runs import make_run
from selfevo.local.workdir import RunFolder
from selfevo_contract.errors import InputError
from selfevo_contract.status import RunStatus, StepStatus


def made(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "work", make_run().metadata)
    folder.make()
    return folder


def test_the_record_is_whole_or_as_before(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert folder.read() is None
    step = StepStatus(name="evaluate-0", phase="evaluate", iteration=0, key="a" * 64, metrics={"mean": 0.1})
    run = make_run().model_copy(update={"status": RunStatus(phase="Running", steps=[step])})
    folder.write(run)
    assert folder.read() == run
    (folder.root / ".status.json.0a1b2c3d.tmp").write_text("{half")  # a writer died here
    assert folder.read() == run
    (folder.root / "status.json").write_text("{half")
    assert folder.read() is None


@pytest.mark.slow
def test_the_lock_is_held_by_one_process_and_goes_with_it(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert folder.driver() is None
    code = (
        "import sys; from pathlib import Path; from selfevo.local.workdir import RunFolder; "
        "from selfevo_contract.run import Metadata; f = RunFolder(Path(sys.argv[1]), Metadata(name='demo'))\n"
        "with f.locked(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "work")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert folder.driver() == holder.pid
        with pytest.raises(InputError, match=f"is already being driven by process {holder.pid} in") as error:  # noqa: SIM117
            with folder.locked():
                pass
        assert error.value.reason == "AlreadyRunning"
        holder.kill()
    (folder.scratch / "left-behind").mkdir()
    with folder.locked():
        assert folder.driver() == os.getpid()
        assert list(folder.scratch.iterdir()) == []
    assert folder.driver() is None


def test_runs_of_other_names_and_namespaces_have_folders_of_their_own(tmp_path: Path) -> None:
    roots = {
        RunFolder(tmp_path, make_run(metadata={"name": name, "namespace": namespace}).metadata).root
        for name in ("a", "b")
        for namespace in ("x", "y")
    }
    assert len(roots) == 4
