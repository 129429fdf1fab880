"""The command's verbs, their words and their exit codes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness import unbuilt
from harness.cli import Project, wait_for

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "datasets",
    "boto3",
    "plotly",
    "jinja2",
    "numpy",
    "kopf",
    "kubernetes",
    "selfevo_contract.spec.run",
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run that has ended well. Not to be changed."""
    project = Project(tmp_path_factory.mktemp("done") / "project")
    project.evaluated()
    assert project.drive("run.yaml", "--quiet").returncode == 0
    return project


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from selfevo.main import main\n"
        "for args in ['--help'], ['run', '--help'], ['artifacts', 'path', '--help']:\n"
        "    sys.argv = ['selfevo', *args]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, (args, end.code)\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    assert not heavy, (args, heavy)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    for verb in ("selfevo [", "selfevo run [", "selfevo artifacts path ["):
        assert f"Usage: {verb}" in shown.stdout


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run whose first step found nothing to learn from. Only read."""
    project = Project(tmp_path_factory.mktemp("failed") / "project")
    project.order("challenger-train-1", exit=4)
    assert project.drive("run.yaml", "--quiet").returncode == 4
    return project


@pytest.mark.parametrize("args", [["-h"], ["plan", "-h"], ["artifacts", "-h"], ["artifacts", "ls", "-h"]], ids=" ".join)
def test_h_is_help(project: Project, args: list[str]) -> None:
    short, long = project.invoke(*args), project.invoke(*args[:-1], "--help")
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert short.stdout.startswith("Usage: ")


def test_the_version_is_shown(project: Project) -> None:
    shown = project.invoke("--version")
    assert (shown.returncode, shown.stdout) == (0, f"selfevo {metadata.version('selfevo')}\n")


def test_shells_complete_verbs(project: Project) -> None:
    """As a shell asks: the words so far in the environment, the answers on standard output."""
    asked = {"_SELFEVO_COMPLETE": "complete_bash", "COMP_WORDS": "selfevo re", "COMP_CWORD": "1"}
    shown = subprocess.run(
        [str(Path(sys.executable).with_name("selfevo"))],
        env={**project.environment, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.split() == ["resume", "report"]


@pytest.mark.slow
def test_runs_of_this_machine_are_listed_without_a_name(project: Project, done: Project) -> None:
    empty = project.invoke("status")
    assert (empty.returncode, empty.stderr) == (0, "")
    assert empty.stdout.startswith("no runs in .selfevo; `selfevo run MANIFEST` starts one")
    lines = done.invoke("status").stdout.splitlines()
    assert lines[0].split() == ["run", "phase", "iteration", "best", "score", "driven", "by"]
    assert lines[1].split() == ["demo", "Succeeded", "1", "of", "1", "1", "60.0", "%", "-"]
    assert lines[2] == "1 run in .selfevo"
    (row,) = json.loads(done.invoke("status", "-o", "json").stdout)
    assert (row["name"], row["phase"], row["best"], row["driver"]) == ("demo", "Succeeded", 1, None)
    none = done.invoke("watch")
    assert (none.returncode, none.stdout) == (2, "")
    assert none.stderr.startswith("selfevo: no run in .selfevo is being driven; name a manifest or a cluster's run")


@pytest.mark.slow
def test_the_run_that_is_being_driven_is_followed_without_a_name(project: Project) -> None:
    project.order("solver-train-1", hang=True)
    process = project.start("run", "run.yaml")
    wait_for(lambda: "solver-train-1" in project.worked())
    (row,) = json.loads(project.invoke("status", "-o", "json").stdout)
    assert (row["phase"], row["driver"]) == ("Running", process.pid)
    watching = project.start("watch")
    assert watching.stdout is not None and "run default/demo: Running" in watching.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)
    watching.communicate(timeout=180)
    assert watching.returncode == 130
    (row,) = json.loads(project.invoke("status", "-o", "json").stdout)
    assert (row["phase"], row["driver"]) == ("Suspended", None)


def test_plan_shows_steps_keys_and_what_exists(done: Project, project: Project) -> None:
    shown = done.invoke("plan", "run.yaml")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == f"run default/demo, store file://{done.store}"
    assert lines[1].split() == ["step", "key", "in", "store", "waits", "for"]
    assert lines[-1] == "5 of 5 steps are in the store"
    project.evaluated()
    fresh = json.loads(project.invoke("plan", "run.yaml", "--output", "json").stdout)
    assert [(step["name"], step["exists"]) for step in fresh["steps"]] == [
        ("evaluate-0", False),
        ("challenger-train-1", False),
        ("solver-rollout-1", False),
        ("solver-train-1", False),
        ("evaluate-1", False),
    ]
    there = json.loads(done.invoke("plan", "run.yaml", "-o", "json").stdout)["steps"]
    assert [step["key"] for step in there] == [step["key"] for step in fresh["steps"]]
    assert there[2]["parents"] == ["challenger-train-1"] and there[2]["shards"] == 2
    assert there[2]["uri"] == f"file://{done.store}/default/solver-rollout/{there[2]['key']}"
    assert all(step["exists"] for step in there)
    assert not project.workdir.exists()  # reading leaves nothing behind


def test_status_is_the_record_and_is_rebuilt_from_the_store_when_that_is_lost(done: Project) -> None:
    shown = done.invoke("status", "run.yaml").stdout
    assert shown.startswith("run default/demo: Succeeded, 5 of 5 steps done\n")
    assert "1 (best)  60.0 %" in shown
    recorded = json.loads(done.invoke("status", "run.yaml", "--output", "json").stdout)
    rebuilt = json.loads(done.invoke("status", "run.yaml", "-o", "json", "--workdir", "none").stdout)
    assert recorded["phase"] == rebuilt["phase"] == "Succeeded"
    assert recorded["best"] == rebuilt["best"]
    assert recorded["iterations"] == rebuilt["iterations"]
    assert recorded["attempts"] and "attempts" not in [name for name, value in rebuilt.items() if value]


def test_status_of_a_run_that_was_never_started(project: Project) -> None:
    shown = project.invoke("status", "run.yaml")
    assert shown.returncode == 0
    assert shown.stdout.startswith("run default/demo: Pending, 0 of 3 steps done (not being driven; `selfevo run`")


def test_status_tells_why_a_run_failed(failed: Project) -> None:
    shown = failed.invoke("status", "run.yaml").stdout
    assert "demo: Failed, 0 of 3 steps done\nEmptyCurriculum: challenger-train-1: ordered to end with 4" in shown


VERBS = (["plan"], ["status"], ["report"], ["artifacts", "ls"], ["artifacts", "path"], ["watch"], ["logs"], ["run"])


def test_every_verb_refuses_what_is_not_built_with_the_same_sentence(project: Project) -> None:
    project.write(**unbuilt.ASKED)
    for verb in VERBS:
        shown = project.invoke(*verb, "run.yaml")
        assert (shown.returncode, shown.stdout) == (2, ""), verb
        assert shown.stderr == f"selfevo: {unbuilt.SENTENCE}\n"


def test_every_verb_says_that_a_store_is_not_there(project: Project) -> None:
    expected = f"store file://{project.store}"
    assert f"{expected} (does not exist yet, `selfevo run` makes it)" in project.invoke("plan", "run.yaml").stdout
    for verb in (["status"], ["artifacts", "ls"]):
        assert f"\n{expected} does not exist yet, `selfevo run` makes it\n" in project.invoke(*verb, "run.yaml").stdout
    report = project.invoke("report", "run.yaml")
    assert (
        report.returncode == 2 and f"{expected} does not exist yet, `selfevo run` makes it; there is" in report.stderr
    )
    project.store.mkdir()
    for verb in (["plan"], ["status"], ["artifacts", "ls"], ["report"]):
        shown = project.invoke(*verb, "run.yaml")
        assert shown.returncode == 0 and "does not exist" not in shown.stdout


@pytest.mark.slow
def test_a_manifest_may_come_by_standard_input(project: Project) -> None:
    manifest = (project.root / "run.yaml").read_text()
    shown = project.selfevo("plan", "-", input=manifest)
    assert (shown.returncode, shown.stdout) == (0, project.invoke("plan", "run.yaml").stdout)
    assert project.selfevo("status", "-", input=manifest).stdout == project.invoke("status", "run.yaml").stdout
    empty = project.selfevo("plan", "-", input="")
    assert (empty.returncode, empty.stderr) == (2, "selfevo: - is empty; write a SelfEvolutionRun into it\n")


def test_a_failed_runs_report_says_so_and_has_a_name_of_its_own(failed: Project) -> None:
    shown = failed.invoke("report", "run.yaml")
    assert (shown.returncode, shown.stdout) == (0, "wrote demo-report.html\n")
    page = (failed.root / "demo-report.html").read_text()
    assert "This run failed. EmptyCurriculum: challenger-train-1: ordered to end with 4" in page


def test_artifacts_path_prints_a_uri_and_nothing_else(done: Project) -> None:
    steps = {step["name"]: step for step in json.loads(done.invoke("plan", "run.yaml", "-o", "json").stdout)["steps"]}
    wanted = {
        (): steps["solver-train-1"]["uri"],
        ("--iteration", "1", "--role", "challenger"): steps["challenger-train-1"]["uri"],
        ("--iteration", "0"): f"file://{done.root}/model",
        ("--iteration", "0", "--role", "challenger"): f"file://{done.root}/model",
    }
    for args, uri in wanted.items():
        shown = done.invoke("artifacts", "path", "run.yaml", *args)
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"{uri}\n", "")


def test_an_untrained_challenger_is_the_base(project: Project) -> None:
    project.write(spec__challenger__grpo__maxSteps=0)
    shown = project.invoke("artifacts", "path", "run.yaml", "--iteration", "1", "--role", "challenger")
    assert shown.stdout == f"file://{project.root}/model\n"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--iteration", "best"], "no iteration can be called best yet: none is evaluated; run it first"),
        (["--iteration", "1"], "iteration 1's solver is not there yet: solver-train-1 has not been done; run it first"),
        (["--iteration", "2"], "--iteration is '2'; it must be best, or a whole number from 0 to 1"),
        (["--iteration", "last"], "--iteration is 'last'; it must be best, or a whole number from 0 to 1"),
    ],
    ids=["no best", "not yet", "too high", "not a number"],
)
def test_a_model_that_is_not_there_is_one_sentence(project: Project, args: list[str], expected: str) -> None:
    shown = project.invoke("artifacts", "path", "run.yaml", *args)
    assert (shown.returncode, shown.stdout, shown.stderr) == (2, "", f"selfevo: {expected}\n")


def test_artifacts_ls_lists_what_is_committed(done: Project) -> None:
    rows = json.loads(done.invoke("artifacts", "ls", "run.yaml", "-o", "json").stdout)
    assert [(row["step"], row["files"], row["bytes"]) for row in rows] == [
        (name, 1, 75)
        for name in ("evaluate-0", "challenger-train-1", "solver-rollout-1", "solver-train-1", "evaluate-1")
    ]
    assert "5 of 5 steps are in the store" in done.invoke("artifacts", "ls", "run.yaml").stdout


def test_artifacts_fetch_brings_the_models_files(done: Project) -> None:
    shown = done.invoke("artifacts", "fetch", "run.yaml", "--to", "best")
    assert shown.returncode == 0
    assert "solver-train" not in json.loads((done.root / "best" / "config.json").read_text())
    again = done.invoke("artifacts", "fetch", "run.yaml", "--to", "best")
    assert (again.returncode, again.stderr) == (
        2,
        "selfevo: --to best is there already; name a new or empty folder\n",
    )
    base = done.invoke("artifacts", "fetch", "run.yaml", "--iteration", "0", "--to", "base")
    assert base.returncode == 2 and "is the base model itself; take it from file://" in base.stderr


def test_artifacts_verify_reads_every_byte(done: Project, project: Project) -> None:
    project.evaluated()
    shutil.copytree(done.store, project.store)
    shown = project.invoke("artifacts", "verify", "run.yaml")
    assert (shown.returncode, shown.stdout.splitlines()[-1]) == (
        0,
        "5 of 5 steps are in the store, 0 damaged, 5 files read",
    )
    (stored,) = (project.store / "default" / "solver-train").glob("*/attempts/*/model/config.json")
    stored.write_text("flipped")
    (chunk,) = (project.store / "default" / "solver-rollout").glob(
        "*/chunks/answers/00000001-00000001/attempts/*/model/config.json"
    )
    chunk.unlink()
    shown = project.invoke("artifacts", "verify", "run.yaml")
    assert shown.returncode == 4
    assert shown.stdout.splitlines()[-1].endswith("2 damaged, 5 files read")
    assert "solver-train-1: damaged\n" in shown.stdout and "is damaged: expected 75 bytes" in shown.stdout
    assert "is missing" in shown.stdout


def test_artifacts_digest_is_what_the_spec_takes(done: Project) -> None:
    digest = done.invoke("artifacts", "digest", "model").stdout.strip()
    assert done.recorded().spec.model.digest == digest
    assert len(done.invoke("artifacts", "digest", "heldout.jsonl").stdout.strip()) == 64
    for path, expected in (("nothing", "cannot be read: No such file"), ("orders", "holds no file of a model")):
        shown = done.invoke("artifacts", "digest", path)
        assert shown.returncode == 2 and expected in shown.stderr


def test_logs_are_those_of_the_newest_attempt_or_of_all_its_shards(done: Project) -> None:
    assert '"step":"solver-train-1"' in done.invoke("logs", "run.yaml", "solver-train-1").stdout
    shards = done.invoke("logs", "run.yaml", "solver-rollout-1").stdout
    assert shards.count("==> ") == 2 and '"shard":1' in shards
    unknown = done.invoke("logs", "run.yaml", "solver-train-9")
    assert unknown.returncode == 2 and "'solver-train-9' is no step of the run; choose one of" in unknown.stderr
    none = done.invoke("logs", "run.yaml", "evaluate-0", "--attempt", "7")
    assert none.returncode == 2 and "there is no log of evaluate-0, attempt 7 in" in none.stderr


def test_a_mistake_in_the_manifest_is_sentences_and_exit_code_2(project: Project) -> None:
    project.write(spec__rollout__samples=1, spec__queue="team-a", spec__qeue="team-a")
    shown = project.invoke("plan", "run.yaml")
    assert shown.returncode == 2
    assert [line.split(": ", 2)[::2] for line in shown.stderr.splitlines()] == [
        ["selfevo", "spec.rollout.samples is 1; it must be at least 2"],
        ["selfevo", "spec.qeue is not a field; did you mean 'queue'?"],
    ]


def test_a_defect_is_a_sentence_too_and_debug_shows_the_traceback(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfevo.verbs.show.load", None)
    monkeypatch.delenv("SELFEVO_DEBUG", raising=False)
    shown = project.invoke("plan", "run.yaml")
    assert shown.returncode == 1
    assert shown.stderr.startswith("selfevo: unexpected TypeError: ") and len(shown.stderr.splitlines()) == 1
    monkeypatch.setenv("SELFEVO_DEBUG", "1")
    with pytest.raises(TypeError):  # which Python shows with its traceback
        project.invoke("plan", "run.yaml")
