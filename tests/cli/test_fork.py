"""`selfevo fork`, and runs on this machine that go on from another one's iteration, with the fake trainer."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import selfevo
from harness.apiserver_standin import ApiServer
from harness.cli import Project
from harness.full_run import FULL, SMALL
from harness.records import RUNNING
from harness.runs import document, make_run
from selfevo.report.data import Report
from selfevo.report.lineage import FORK, lineage
from selfevo.stored import stored_run
from selfevo.stores import committed_steps
from selfevo.verbs.fork import forked
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import Fork, RunStatus

NOT_DONE = "iteration 2 of run demo is not done yet; this run begins when it is, or name an earlier one in a new run"
GOES_ON = "goes on from iteration 1 of run demo"


def fork_of(project: Project, *more: str) -> dict[str, Any]:
    made = project.invoke("fork", "run.yaml", "--at", "1", "-o", "new.yaml", *more)
    assert made.returncode == 0, made.stderr
    found: dict[str, Any] = yaml.safe_load((project.root / "new.yaml").read_text())
    return found


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
def test_a_run_here_is_forked_and_goes_on_when_the_other_one_is_gone(project: Project) -> None:
    project.write(spec__rollout__replay={"share": 0.5})
    assert project.drive("run.yaml").returncode == 0
    source = project.recorded().status
    assert source is not None
    keys = {step.name: step.key for step in source.steps}
    made = fork_of(project)
    assert made["metadata"] == {"name": "demo-fork-1", "namespace": "default"}
    assert made["spec"]["forkFrom"] == {"run": "demo", "iteration": 1} and made["spec"]["iterations"] == 2
    made["spec"]["seed"] = 7
    (project.root / "new.yaml").write_text(yaml.safe_dump(made))

    shown = project.invoke("plan", "new.yaml")
    assert GOES_ON in shown.stdout and "challenger-train-2" in shown.stdout, shown.stderr
    assert "challenger-train-1" not in shown.stdout
    plan = json.loads(project.invoke("plan", "new.yaml", "-o", "json").stdout)
    assert plan["fork"] == {
        "run": "demo", "iteration": 1, "solver": keys["solver-train-1"], "challenger": keys["challenger-train-1"],
        "curriculum": keys["solver-rollout-1"], "at": "",
    }  # fmt: skip

    project.order("solver-train-2", exit=2)
    failed = project.drive("new.yaml")
    assert failed.returncode == 2
    project.order("solver-train-2")
    shutil.rmtree(project.workdir / "runs" / "default" / "demo")
    done = project.drive("new.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert project.worked()[-3:].count("challenger-train-2") == 0, "it went on"
    for verb in (["status"], ["watch"]):
        assert GOES_ON in words(project.invoke(*verb, "new.yaml").stdout), verb
    assert "solver-train-2" in project.invoke("artifacts", "ls", "new.yaml").stdout
    path = project.invoke("artifacts", "path", "new.yaml", "--iteration", "1").stdout
    assert keys["solver-train-1"] in path
    page = project.root / "page.html"
    assert project.invoke("report", "new.yaml", "-o", str(page)).returncode == 0
    assert f"It {GOES_ON}." in (text := page.read_text()) and "Iteration 1 of run" in text


@pytest.mark.slow
def test_extending_a_run_that_has_ended_computes_nothing_again_and_keeps_its_last_score(project: Project) -> None:
    project.evaluated(spec__evaluation__every=2)
    assert project.drive("run.yaml").returncode == 0
    project.evaluated(spec__evaluation__every=2, spec__iterations=2)
    done = project.drive("run.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    phases = ("challenger-train", "solver-rollout", "solver-train", "evaluate")
    made = {f"{phase}-{n}" for phase in phases for n in (1, 2)} | {"evaluate-0"}
    assert set(project.worked()) == made
    assert [project.worked().count(f"{phase}-1") for phase in phases] == [1, 2, 1, 1], "the rollout has two shards"

    shown = project.invoke("status", "run.yaml").stdout
    for text in (done.stdout, shown):
        assert re.search(r"^ *1 +60\.0 %", text, re.MULTILINE), text
    assert "9 of 9 steps done" in shown and "best model:" in shown
    assert "9 of 9 steps are in the store" in project.invoke("plan", "run.yaml").stdout
    listed = project.invoke("artifacts", "ls", "run.yaml").stdout
    assert "evaluate-1 " in listed and "9 of 9 steps" in listed
    page = project.root / "page.html"
    assert project.invoke("report", "run.yaml", "-o", str(page)).returncode == 0 and "evaluate-1" in page.read_text()
    of_store = stored_run(str(project.store), "demo")  # without a record
    assert set(of_store.committed) == {step.name for step in of_store.plan.steps} == made
    run, status = of_store.run, project.recorded().status or RunStatus()
    status = status.model_copy(update={"steps": [step for step in status.steps if step.name != "evaluate-1"]})
    known = committed_steps(run, plan_of(run.spec, status), of_store.store, status)
    assert made - set(known) == {"evaluate-1"}, "another run has it evaluated in between"


@pytest.mark.slow
def test_every_verb_says_what_a_fork_waits_for(project: Project) -> None:
    project.write("new.yaml", metadata__name="new", spec__iterations=3, spec__forkFrom={"run": "demo", "iteration": 1})
    project.store.mkdir()
    for verb in (["plan"], ["status"], ["report"], ["artifacts", "ls"], ["logs"], ["run"]):
        shown = project.invoke(*verb, "new.yaml")
        assert (shown.returncode, shown.stdout) == (2, ""), verb
        assert shown.stderr.startswith("selfevo: spec.forkFrom.run is 'demo', and ") and "has no record" in shown.stderr
    project.drive("run.yaml")
    project.write("new.yaml", metadata__name="new", spec__iterations=3, spec__forkFrom={"run": "demo", "iteration": 2})
    refused = project.invoke("plan", "new.yaml")
    assert refused.returncode == 2
    assert refused.stderr.startswith("selfevo: spec.forkFrom.iteration is 2, and run demo has 1 iterations; name one")
    project.write(spec__iterations=2)
    project.order("solver-rollout-2", exit=2)
    project.drive("run.yaml")
    ahead = project.invoke("fork", "run.yaml", "--at", "2", "-o", "ahead.yaml")
    assert ahead.returncode == 0 and yaml.safe_load((project.root / "ahead.yaml").read_text())["spec"]["forkFrom"]
    assert ahead.stderr.startswith(
        "selfevo: demo-fork-2: iteration 2 of run demo is not done, and that run has Failed;"
    )
    assert project.invoke("fork", "run.yaml", "--at", "1", "-o", "-").stderr == ""
    waits = project.invoke("run", "new.yaml")
    assert (waits.returncode, waits.stderr.splitlines()[0]) == (
        2,
        "selfevo: iteration 2 of run demo is not done, and that run has Failed; this run begins when it is, or name an "
        "earlier one in a new run",
    )


@pytest.mark.slow
def test_a_manifest_is_never_overwritten_without_being_asked(project: Project) -> None:
    early = project.invoke("fork", "run.yaml", "--at", "1", "-o", "new.yaml")
    assert early.returncode == 2 and "has no record of run default/demo; `selfevo run` it first" in early.stderr
    project.drive("run.yaml")
    fork_of(project)
    (project.root / "new.yaml").write_text("mine")
    refused = project.invoke("fork", "run.yaml", "--at", "1", "-o", "new.yaml")
    assert refused.returncode == 2
    assert refused.stderr == "selfevo: -o new.yaml is there already; name another file, or add --force to replace it\n"
    assert (project.root / "new.yaml").read_text() == "mine"
    assert fork_of(project, "--force", "--name", "hotter")["metadata"]["name"] == "hotter"
    printed = project.invoke("fork", "run.yaml", "--at", "0", "-o", "-").stdout
    assert yaml.safe_load(printed)["spec"]["forkFrom"]["iteration"] == 0
    nowhere = project.invoke("fork", "run.yaml", "--at", "1", "-o", "no/new.yaml")
    assert nowhere.stderr == (
        "selfevo: -o no/new.yaml cannot be written (No such file or directory); name another file\n"
    )


@pytest.mark.parametrize(
    ("at", "name", "changes", "sentence"),
    [
        (3, None, {}, "--at is 3, and run demo has 2 iterations; name one of them, or raise"),
        (
            1,
            None,
            {"spec__iterations": 4, "spec__forkFrom": {"run": "first", "iteration": 2}},
            "--at is 1, and run demo goes on from iteration 2 of run first; fork that one",
        ),
        (1000, None, {"spec__iterations": 1000}, "--at is 1000, and a run has at most 1000 iterations, those before a"),
        (1, "No_Name", {}, "--name is 'No_Name'; write at most 63"),
        (1, "demo", {}, "--name is 'demo', the run that is forked"),
    ],
)
def test_what_cannot_be_forked_is_one_sentence(
    at: int, name: str | None, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError) as error:
        forked(make_run(**changes), at, name)
    assert str(error.value).startswith(sentence)


def test_a_manifest_says_the_same_but_for_where_the_run_stands() -> None:
    run = make_run(spec__approvedIteration=1, spec__review={"every": True}, metadata__name="a" * 63, spec__suspend=True)
    made = SelfEvolutionRun.model_validate(forked(run, 2))
    assert made.metadata.name == "a" * 56 + "-fork-2" and made.spec.iterations == 3
    back = {"fork_from": None, "iterations": 2, "approved_iteration": 1, "suspend": True}
    assert made.spec.model_copy(update=back) == run.spec


@pytest.mark.parametrize("output", ["-", "new.yaml"])
def test_where_the_other_run_publishes_a_fork_does_not(api: ApiServer, project: Project, output: str) -> None:
    published = make_run(metadata__name="shown", spec__publish={"to": "s3://there/sums", "what": "each"})
    api.put(published.model_dump(mode="json", by_alias=True, exclude_none=True))
    made = project.invoke("fork", "shown", "--at", "0", "-o", output)
    assert made.returncode == 0 and made.stderr == (
        "selfevo: shown-fork-0: spec.publish is not taken over; to publish this run's Solvers, too, add it again, with "
        "another place than s3://there/sums where run shown publishes the same iterations\n"
    )
    text = made.stdout if output == "-" else (project.root / output).read_text()
    assert "publish" not in yaml.safe_load(text)["spec"]
    assert project.invoke("fork", "demo", "--at", "0", "-o", "-").stderr == ""


def test_whatever_a_run_says_its_forks_manifest_says_too() -> None:
    for made in (
        FULL,
        SMALL,
        document(spec__challenger__engine={"kind": "server"}, spec__rollout__engine={"kind": "vllm"}),
    ):
        run = SelfEvolutionRun.model_validate(made)
        at = run.spec.iterations - 1
        fork = SelfEvolutionRun.model_validate(yaml.safe_load(yaml.safe_dump(forked(run, at, "new"))))
        same = {"fork_from": None, "approved_iteration": None, "suspend": False, "publish": None}
        assert fork.spec.model_copy(update=same) == run.spec.model_copy(update=same)
    brief = forked(make_run(spec__rollout__engine={"kind": "transformers", "batchSize": 8}), 1)["spec"]["rollout"]
    assert brief["engine"] == {"kind": "transformers", "batchSize": 8}, "and no word more"


def test_a_run_in_a_cluster_is_forked_by_its_name(api: ApiServer, project: Project) -> None:
    api.set_status("demo", {**RUNNING, "schemaVersion": SCHEMA_VERSION})
    made = project.invoke("fork", "demo", "--at", "2", "-o", "new.yaml")
    assert made.stdout == (
        "new.yaml goes on from iteration 2 of run demo; edit it, then `kubectl apply -f new.yaml`\n"
    ), made.stderr
    assert (made.returncode, made.stderr) == (0, f"selfevo: demo-fork-2: {NOT_DONE}\n"), "and the fork waits for it"
    written = yaml.safe_load((project.root / "new.yaml").read_text())
    assert written["spec"]["forkFrom"] == {"run": "demo", "iteration": 2}


def test_in_a_cluster_a_forks_record_gives_the_plan(api: ApiServer, project: Project) -> None:
    asked = {"spec__forkFrom": {"run": "demo", "iteration": 1}, "spec__iterations": 2}
    run = make_run(metadata__name="new", **asked)
    api.put(run.model_dump(mode="json", by_alias=True, exclude_none=True))
    fork = {"run": "demo", "iteration": 1, "solver": "a" * 64, "challenger": "b" * 64}
    api.set_status("new", {"phase": "Running", "observedGeneration": 1, "fork": fork})
    shown = project.invoke("status", "new").stdout
    assert "0 of 6 steps done" in shown and f"\n{GOES_ON}\n" in shown and "challenger-train-1" not in shown
    assert (
        "'x' is no step of the run; choose one of evaluate-0, evaluate-1" in project.invoke("logs", "new", "x").stderr
    )


def test_the_lineage_has_the_forked_iteration_as_a_root() -> None:
    run = make_run(spec__forkFrom={"run": "other", "iteration": 1}, spec__rollout__replay={"share": 0.5})
    fork = Fork(run="other", iteration=1, solver="a" * 64, challenger="b" * 64, curriculum="c" * 64)
    graph = lineage(report_of(run, fork))
    (node,) = [node for node in graph.nodes if node.name == FORK]
    assert (node.title, node.short, node.row, node.key) == ("Iteration 1 of run", "other", 1, "a" * 64)
    assert {edge.child for edge in graph.edges if edge.parent == FORK} == {
        *("evaluate-1", "challenger-train-2", "solver-rollout-2", "solver-train-2"),
    }
    assert [name for _, name in graph.rows] == ["base", "1", "2"]


def report_of(run: SelfEvolutionRun, fork: Fork) -> Report:
    from selfevo.report.data import Iteration, StepRecord

    planned = plan(run.spec, (), fork)
    empty: tuple[Any, ...] = ()
    return Report(
        run=run,
        plan=planned,
        iterations=tuple(
            Iteration(number=number, evaluation=None, evaluated=True, rollout=None) for number in (0, 1, 2)
        ),
        best=None,
        challenger=empty,
        solver=empty,
        samples=empty,
        times=empty,
        steps=tuple(StepRecord(step, "", None, {}, "") for step in planned.steps),
        versions={},
    )


def test_every_verb_plans_with_the_runs_record() -> None:
    """`plan` knows nothing of a fork or a rollback: who shows a run asks `plan_of`, a run's folder or its resource."""
    found = []
    for path in Path(selfevo.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "selfevo_contract.plan":
                found += [path.name for name in node.names if name.name == "plan"]
    assert found == []
