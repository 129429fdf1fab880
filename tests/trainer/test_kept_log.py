"""Logs of pods are kept in the store, however the process ended: without secrets, in bounds, at no risk to it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli import wait_for
from harness.inprocess import Ended, run_main
from harness.runs import make_run
from selfevo_contract.artifacts import logs_prefix
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.process import (
    CONFIG_ENV,
    GRACE_SECONDS_ENV,
    SERVER_MODELS_ENV,
    TERMINATION_LOG_ENV,
    PhaseResult,
    phase_config,
)
from selfevo_store import open_store
from selfevo_trainer import main
from selfevo_trainer.distributed.layout import LAUNCHED_ENV
from selfevo_trainer.process import kept_log
from selfevo_trainer.process.kept_log import HEAD, LINE, TAIL, KeptLog, LogFile, patience, redacted, secrets_of
from selfevo_trainer.process.signals import Interrupted

SECRET = "wJalrXUtnFEMI/K7MDENG"


class Pod:
    """A process with a phase that does what the test sets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make_run(spec__storage__uri=(folder / "store").as_uri())
        step = plan(run.spec).by_name["evaluate-0"]
        self.config = phase_config(run.spec, "demo", "default", step, "demo-evaluate-0-aa-1")
        self.store = open_store(run.spec.storage.uri)
        self.patch = monkeypatch
        self.environment = {
            CONFIG_ENV: self.config.model_dump_json(by_alias=True, exclude_none=True),
            TERMINATION_LOG_ENV: str(folder / "result"),
            GRACE_SECONDS_ENV: "120",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def __call__(self, phase: Callable[[], None], **environment: str) -> Ended:
        def run_phase(*_: Any) -> PhaseResult:
            logging.getLogger("selfevo").info("signed with %s", SECRET)
            print("https://me:password@hub.example/x", file=sys.stderr)
            phase()
            return PhaseResult(phase="evaluate", key=self.config.key, outcome="committed")

        self.patch.setattr(main, "run_phase", run_phase)
        return run_main({**self.environment, **environment})

    def kept(self) -> list[str]:
        infos = self.store.list(logs_prefix(self.config.prefix, self.config.attempt))
        return [self.store.read_bytes(info.key).decode() for info in infos]


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    return Pod(tmp_path, monkeypatch)


def fails_by(error: BaseException) -> Callable[[], None]:
    def phase() -> None:
        raise error

    return phase


@pytest.mark.parametrize(
    ("phase", "code", "expected"),
    [
        (lambda: None, 0, "signed with [AWS_SECRET_ACCESS_KEY]"),
        (fails_by(InputError("spec.x is wrong")), 2, "evaluate: spec.x is wrong"),
        (fails_by(ZeroDivisionError("by nought")), 3, "Traceback (most recent call last)"),
        (fails_by(Interrupted("stopped on request")), 143, "evaluate: stopped on request"),
    ],
    ids=["ends well", "wrong input", "crashes", "SIGTERM"],
)
def test_a_log_is_kept_however_the_process_ends(pod: Pod, phase: Callable[[], None], code: int, expected: str) -> None:
    ended = pod(phase)
    assert ended.code == ended.result.exit_code == code
    (log,) = pod.kept()
    assert expected in log and "https://[redacted]@hub.example/x" in log
    assert SECRET not in log and SECRET in ended.log  # the pod's own log is as it was
    assert "password" not in log


def test_an_attempt_that_has_several_pods_keeps_each_log(pod: Pod) -> None:
    for index in ("0", "1"):
        pod(lambda: None, JOB_COMPLETION_INDEX=index)
    assert len(pod.kept()) == 2


@pytest.mark.parametrize("ranks", [{}, {LAUNCHED_ENV: "1", "RANK": "1", "WORLD_SIZE": "2"}], ids=["alone", "rank 1"])
def test_the_log_of_the_server_beside_it_is_kept_by_the_trainer_of_the_pod(
    pod: Pod, tmp_path: Path, ranks: dict[str, str]
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    log = KeptLog({SECRET: "KEY"})
    file = LogFile(log, served, started=1_780_000_000.0)

    def phase() -> None:
        log.add("err", f"Engine core failed with {SECRET}\n")
        file.write()

    assert pod(phase, **{SERVER_MODELS_ENV: str(served), **ranks}).code == 0
    place = logs_prefix(pod.config.prefix, pod.config.attempt)
    server = f"{place}/0.20260528T202640Z.server.log"
    assert pod.store.exists(server) is not bool(ranks)
    assert len(pod.kept()) == (1 if ranks else 2)
    if not ranks:
        assert pod.store.read_bytes(server) == b"Engine core failed with [KEY]\n"


def test_on_a_persons_machine_logs_are_files_and_nothing_is_uploaded(pod: Pod) -> None:
    del pod.environment[GRACE_SECONDS_ENV]
    before = sys.stdout, sys.stderr
    assert pod(lambda: None).code == 0
    assert pod.kept() == [] and (sys.stdout, sys.stderr) == before


def test_of_a_process_that_is_killed_the_store_has_its_log(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_log, "EVERY_S", 0.01)

    def phase() -> None:  # SIGKILL would leave the store as it is seen from here
        wait_for(lambda: any("signed with" in log for log in pod.kept()))
        print("more", file=sys.stderr)
        wait_for(lambda: pod.kept()[0].endswith("more\n"))

    assert pod(phase).code == 0
    assert len(pod.kept()) == 1


def test_a_fork_may_print_while_the_log_is_being_read() -> None:
    log = KeptLog({})
    with log._lock:  # as a thread would that no fork has
        child = os.fork()
        if not child:
            log.add("out", "x\n")
            os._exit(0)
    wait_for(lambda: os.waitpid(child, os.WNOHANG) == (child, 0))


@pytest.mark.parametrize("code", [0, 143])
def test_a_store_that_hangs_or_fails_costs_seconds_and_changes_nothing(
    pod: Pod, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = fails_by(Interrupted("stopped")) if code else lambda: None
    monkeypatch.setattr(kept_log, "UPLOAD_S", 0.2)
    monkeypatch.setattr(kept_log, "open_storage", lambda *_, **__: time.sleep(30))
    begun = time.monotonic()
    ended = pod(phase)
    assert time.monotonic() - begun < 15
    assert ended.code == ended.result.exit_code == code
    assert "this log is not kept in the store: the store did not take it within 0 s" in ended.log

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(kept_log, "open_storage", refuse)
    ended = pod(phase)
    assert ended.code == code and "not kept in the store: OSError: no route" in ended.log


@pytest.mark.parametrize(
    ("grace", "asked_s_ago", "seconds"),
    [("120", None, 10), ("120", 1, 10), ("120", 110, 4), ("120", 200, 0), ("1", 0, 0.95), ("", 5, 10)],
)
def test_a_process_that_was_asked_to_stop_waits_no_longer_than_it_may(
    grace: str, asked_s_ago: float | None, seconds: float
) -> None:
    asked = None if asked_s_ago is None else time.monotonic() - asked_s_ago
    assert patience({GRACE_SECONDS_ENV: grace}, asked) == pytest.approx(seconds, abs=0.3)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer abcdefgh12345 x", "Authorization: Bearer [redacted] x"),
        ("https://u:p@h/x and u:p@h", "https://[redacted]@h/x and u:p@h"),
        ("?X-Amz-Signature=0f0f&X-Amz-Date=1", "?X-Amz-Signature=[redacted]&X-Amz-Date=1"),
        ("token hf_abcdefghijklmnopqrst!", "token [redacted]!"),
        ("id AKIAABCDEFGHIJKLMNOP", "id [redacted]"),
        ("s3://models/x at http://10.0.0.1:9000", "s3://models/x at http://10.0.0.1:9000"),
        ("reward 0.41 kl 0.01", "reward 0.41 kl 0.01"),
    ],
)
def test_what_has_the_shape_of_a_secret_is_not_kept(text: str, kept: str) -> None:
    assert redacted(text, {}) == kept


def test_values_of_variables_that_name_a_secret_are_not_kept() -> None:
    secrets = secrets_of(
        {
            "HF_TOKEN": "token-of-the-hub",
            "TOKENIZERS_PARALLELISM": "false-false",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
            "SELFEVO_SERVER_TOKEN": "token-of-the-hub-and-more",
            "SHORT_TOKEN": "true",
            "PATH": "/usr/bin:/bin",
        }
    )
    assert redacted("a token-of-the-hub-and-more, token-of-the-hub, /var/run/token, true", secrets) == (
        "a [SELFEVO_SERVER_TOKEN], [HF_TOKEN], /var/run/token, true"
    )


def test_a_secret_that_comes_in_pieces_is_not_kept() -> None:
    log = KeptLog({SECRET: "KEY"})
    for piece in ("a " + SECRET[:5], SECRET[5:], "\nb ", SECRET):
        log.add("out", piece)
        log.add("err", ".")
        assert SECRET[:5].encode() not in log.content()
    log.end()
    assert log.content() == b"a [KEY]\nb [KEY]\n....\n"


def test_of_a_long_log_beginning_and_end_are_kept() -> None:
    log = KeptLog({})
    lines = [f"line {number} \ud800" + "x" * 200 for number in range(8_000)]
    for line in lines:
        log.add("out", line + "\n")
    content = log.content()
    assert len(content) < HEAD + TAIL + 100
    assert content.startswith(b"line 0 ?xxx") and content.endswith(b"x\n")
    (gap,) = [line for line in content.splitlines() if b"left out" in line]
    assert int(gap.split()[1]) + len(content) - len(gap) - 1 == sum(len(line) + 1 for line in lines)


def test_a_line_without_an_end_is_cut() -> None:
    log = KeptLog({})
    for _ in range(50):
        log.add("err", "x" * LINE)
    log.end()
    assert 0 < len(log.content()) < 2 * LINE
