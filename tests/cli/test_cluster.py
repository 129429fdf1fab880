"""status, suspend, resume in a cluster, by a stand-in of its API server. The real one: tests/cluster/test_cli.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness.apiserver_standin import ApiServer
from harness.cli import Project, wait_for
from harness.records import FAILED, PLAN, RUNNING, SUCCEEDED, condition
from harness.runs import document

ROOT = Path(__file__).parents[2]


# --- which run ------------------------------------------------------------------------------------------------------


def test_a_name_is_a_run_in_the_cluster_and_a_file_is_the_run_on_this_machine(api: ApiServer, project: Project) -> None:
    api.set_status("demo", RUNNING)
    assert project.invoke("status", "demo").stdout.startswith("run default/demo: Running, 1 of 9 steps done\n")
    assert "Pending, 0 of 3 steps done (not being driven" in project.invoke("status", "run.yaml").stdout
    assert project.invoke("status", "run.yaml", "--cluster").stdout.startswith("run default/demo: Running, 1 of 9")
    api.put(document(metadata__namespace="research"))
    assert "run research/demo: Pending" in project.invoke("status", "demo", "-n", "research").stdout
    assert "run research/demo: Pending" in project.invoke("status", "run.yaml", "--cluster", "-n", "research").stdout
    project.write(metadata__namespace="research")
    assert "run research/demo: Pending" in project.invoke("status", "run.yaml", "--cluster").stdout


def test_namespace_context_and_kubeconfig_are_chosen_as_with_kubectl(
    api: ApiServer, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(document(metadata__namespace="research"))
    other = api.kubeconfig(project.root / "other", namespace="research")
    assert "run research/demo" in project.invoke("status", "demo", "--kubeconfig", "other").stdout
    monkeypatch.setenv("KUBECONFIG", f"{project.root / 'nothing'}{os.pathsep}{other}")
    assert "run research/demo" in project.invoke("status", "demo").stdout
    assert "run default/demo" in project.invoke("status", "demo", "-n", "default").stdout
    assert "http://127.0.0.1:9" in project.invoke("status", "demo", "--context", "nowhere").stderr
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(project.root))
    (project.root / ".kube").mkdir()
    other.rename(project.root / ".kube" / "config")
    assert "run research/demo" in project.invoke("status", "demo").stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["status", "dmo"], "there is no run 'dmo' in namespace default; did you mean 'demo'?"),
        (
            ["status", "else"],
            "there is no run 'else' in namespace default, only demo; choose one of them, or another namespace with -n",
        ),
        (
            ["status", "demo", "-n", "nope"],
            "there is no run 'demo' in namespace nope, nor any other; name another namespace with -n",
        ),
        (["status", "demo", "--context", "x"], "there is no context 'x' in {kubeconfig}; choose one of here, nowhere"),
        (
            ["status", "demo", "--kubeconfig", "none"],
            "there is no kubeconfig: none does not exist; give --kubeconfig or set KUBECONFIG",
        ),
        (
            ["suspend", "demo", "--context", "nowhere"],
            "nothing answers at http://127.0.0.1:9 (connection refused); see to the cluster of context 'nowhere', or "
            "choose another --context",
        ),
        (
            ["watch", "Demo"],
            "'Demo' is neither a file nor a run's name (at most 63 of a-z, 0-9 and '-'); name a manifest or a run",
        ),
        (["logs", "none.yaml"], "none.yaml does not exist; name the manifest of a run"),
        (
            ["status", "run.yaml", "-n", "x"],
            "run.yaml is a file, so the run on this machine is meant, which has no -n x; add --cluster to find it "
            "in the cluster",
        ),
        (
            ["status", "demo", "--storage", "s3://b"],
            "--storage is for runs on this machine, and demo is a run in the cluster; leave it out",
        ),
        (["watch", "-n", "default"], "name the run of the cluster; `selfevo status` lists them"),
        (["status", "demo", "-A"], "-A lists all runs, and demo names one; leave one of them out"),
        (
            ["logs", "demo", "solver-train-7"],
            "'solver-train-7' is no step of the run; choose one of " + ", ".join(PLAN.by_name),
        ),
        (
            ["logs", "demo", "solver-train-2"],
            "solver-train-2 has not begun yet, so there is no log; name another step or wait",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence(api: ApiServer, project: Project, args: list[str], expected: str) -> None:
    shown = project.invoke(*args)
    sentence = expected.format(kubeconfig=os.environ["KUBECONFIG"])
    assert (shown.stdout, shown.stderr) == ("", f"selfevo: {sentence}\n")
    assert shown.returncode == (3 if "nothing answers" in expected else 2)


FORBIDDEN = (
    'selfevolutionruns.selfevo.dev is forbidden: User "ann" cannot get resource "selfevolutionruns" in API group'
)


@pytest.mark.parametrize(
    ("code", "message", "exit_code", "expected"),
    [
        (
            403,
            FORBIDDEN,
            2,
            "user 'ann' may not get selfevolutionruns in namespace default; ask for a Role with the verb 'get' on "
            "'selfevolutionruns' there",
        ),
        (
            403,
            "policy 'quiet hours' denied it",
            2,
            "it is forbidden to get selfevolutionruns demo in namespace default: policy 'quiet hours' denied it",
        ),
        (401, "no", 2, "{url} does not accept the credentials of context 'here' (401 Unauthorized); log in again"),
        (422, "spec.seed: no", 2, "{url} refused to get selfevolutionruns demo: spec.seed: no"),
        (503, "etcd is down", 3, "{url} answered 503 to get selfevolutionruns demo: etcd is down; try again"),
        (429, "slowly", 3, "{url} answered 429 to get selfevolutionruns demo: slowly; try again"),
    ],
)
def test_a_refusal_of_the_server_is_one_sentence(
    api: ApiServer, project: Project, code: int, message: str, exit_code: int, expected: str
) -> None:
    api.fail(code, message=message)
    shown = project.invoke("status", "demo")
    assert (shown.returncode, shown.stdout) == (exit_code, "")
    assert shown.stderr == f"selfevo: {expected.format(url=api.url)}\n"


def test_a_cluster_without_the_resource_is_distinguished_from_one_without_the_run(
    api: ApiServer, project: Project
) -> None:
    api.faults.append(lambda handler: handler.answer(404, "404 page not found\n") is None)
    shown = project.invoke("status", "demo")
    assert shown.returncode == 2
    assert shown.stderr.startswith(
        f"selfevo: the cluster at {api.url} does not know SelfEvolutionRun; install selfevo's"
    )


def test_a_dropped_connection_and_a_server_of_another_kind_are_sentences(api: ApiServer, project: Project) -> None:
    api.drop()
    shown = project.invoke("status", "demo")
    assert shown.returncode == 3
    assert shown.stderr == (
        f"selfevo: the connection to {api.url} broke (it was closed in the middle); see to the cluster of context "
        "'here', or choose another --context\n"
    )
    api.faults.append(lambda handler: handler.answer(200, "<html>welcome</html>") is None)
    shown = project.invoke("status", "demo")
    assert shown.returncode == 2
    assert "answers, but not as an API server does; correct the server of context 'here'" in shown.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is no kubeconfig (Invalid kube-config. {path} file is empty); correct it or give --kubeconfig"),
        ("[1, 2]", "is no kubeconfig ("),
        ("a: [", "is no kubeconfig (while parsing a flow node); correct it or give --kubeconfig"),
        ("{contexts: []}", "has no current-context; give --context, one of none: it has no contexts"),
        (
            "{current-context: a, contexts: [{name: a, context: {cluster: b, user: c}}]}",
            "context 'a' in {path} cannot be used (Invalid kube-config file. Expected object with name b in ",
        ),
    ],
    ids=["empty", "a list", "no YAML", "no context", "no cluster"],
)
def test_a_damaged_kubeconfig_is_one_sentence(project: Project, text: str, expected: str) -> None:
    (project.root / "bad").write_text(text)
    shown = project.invoke("status", "demo", "--kubeconfig", "bad")
    assert (shown.returncode, shown.stdout, len(shown.stderr.splitlines())) == (2, "", 1)
    assert expected.format(path="bad") in shown.stderr


def test_a_login_command_that_fails_is_one_sentence_and_one_that_works_gives_the_token(
    api: ApiServer, project: Project
) -> None:
    config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
    kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    token = json.dumps({**kind, "status": {"token": "fresh"}})
    for script, expected in (
        (f"echo '{token}'", ""),
        ("echo expired >&2; exit 1", "exec: process returned 1. expired"),
    ):
        login = {"apiVersion": kind["apiVersion"], "command": "sh", "args": ["-c", script]}
        config["users"][0]["user"] = {"exec": login}
        (project.root / "config").write_text(json.dumps(config))
        shown = project.invoke("status", "demo", "--kubeconfig", "config")
        if expected:
            assert shown.stderr == f"selfevo: the login of context 'here' in config failed ({expected}); log in again\n"
            assert shown.returncode == 2
        else:
            assert shown.returncode == 0


@pytest.mark.slow
def test_without_the_client_a_sentence_says_what_to_install(project: Project) -> None:
    code = (
        "import sys; sys.modules['kubernetes'] = None\n"
        "from selfevo.main import main\n"
        "for name in 'run.yaml', 'demo':\n"
        "    sys.argv = ['selfevo', 'status', name]\n"
        "    try: main()\n"
        "    except SystemExit as end: print(name, 'ended with', end.code or 0)\n"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    assert "run.yaml ended with 0\n" in shown.stdout
    assert shown.stdout.endswith("demo ended with 2\n")
    assert shown.stderr.endswith("pip install 'selfevo[cluster]'\n") and len(shown.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_command_is_a_plugin_of_kubectl(api: ApiServer, project: Project) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl-selfevo"] == scripts["selfevo"]
    code = "import sys; sys.argv[0] = '/usr/bin/kubectl-selfevo'\nfrom selfevo.main import main; main()"
    command = [sys.executable, "-c", code]
    api.set_status("demo", {"phase": "Suspended"})
    shown = subprocess.run(
        [*command, "status", "run.yaml"], cwd=project.root, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith(
        "run default/demo: Suspended, 0 of 9 steps done (`kubectl selfevo resume demo -n default` goes on)\n"
    )
    listed = subprocess.run([*command, "status"], cwd=project.root, capture_output=True, text=True, check=True)
    assert "1 run in namespace default" in listed.stdout
    helped = subprocess.run([*command, "watch", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: kubectl selfevo watch" in helped.stdout


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_is_the_same_table_as_on_this_machine(api: ApiServer, project: Project) -> None:
    api.set_status("demo", RUNNING)
    assert project.invoke("status", "demo").stdout.splitlines() == [
        "run default/demo: Running, 1 of 9 steps done",
        "",
        "step                state            took  attempts",
        "evaluate-0          Succeeded  1 min 05 s         1  mean 47.8 %, greedy 53.0 %",
        "challenger-train-1  Running             -         1",
        *(f"{name:18}  -                   -         -" for name in list(PLAN.by_name)[2:]),
        "",
        "  iteration   score  greedy  in band  majority share  label accuracy  kept",
        "base (best)  47.8 %       -        -               -               -     -",
        "",
        "best model: file:///models/base",
    ]
    shown = json.loads(project.invoke("status", "demo", "-o", "json").stdout)
    assert shown["phase"] == "Running" and shown["steps"][0]["metrics"] == {"mean": 0.478, "greedy": 0.53}


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (
            {"phase": "Pending", "observedGeneration": 0},
            ["Pending, 0 of 9 steps done (the operator has not reconciled it yet)"],
        ),
        (
            {**RUNNING, "conditions": [condition("Reconciling", "Unschedulable", "no node has 8 GPUs")]},
            ["Running, 1 of 9 steps done", "Unschedulable: no node has 8 GPUs"],
        ),
        (
            {
                **RUNNING,
                "conditions": [
                    condition("Reconciling", "ImagePull", "slow"),
                    condition("Stalled", "InvalidSpec", "spec.seed asks for what makes no sense"),
                ],
            },
            ["Running, 1 of 9 steps done", "InvalidSpec: spec.seed asks for what makes no sense"],
        ),
        (FAILED, ["Failed, 1 of 9 steps done", "BadData: challenger-train-1: all \\x1b[2J alike"]),
        ({"phase": "Suspended"}, ["Suspended, 0 of 9 steps done (`selfevo resume demo` goes on)"]),
    ],
    ids=["not seen", "waiting", "stalled", "failed", "suspended"],
)
def test_status_says_why_in_words(api: ApiServer, project: Project, status: dict[str, Any], lines: list[str]) -> None:
    api.set_status("demo", status)
    shown = project.invoke("status", "demo").stdout.splitlines()
    assert shown[: len(lines) + 1] == [f"run default/demo: {lines[0]}", *lines[1:], ""]


def test_status_tells_that_a_spec_is_newer_than_the_record_and_that_a_run_is_being_deleted(
    api: ApiServer, project: Project
) -> None:
    api.set_status("demo", SUCCEEDED)
    run = api.runs["default", "demo"]
    api.put({**run, "spec": {**run["spec"], "iterations": 3}})
    assert "(the operator has not reconciled its newest spec yet)" in project.invoke("status", "demo").stdout
    api.runs["default", "demo"]["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert "(being deleted)" in project.invoke("status", "demo").stdout


def test_a_spec_from_another_version_does_not_hide_the_status(api: ApiServer, project: Project) -> None:
    api.put(document(spec__novelty={"a": 1}))
    api.set_status("demo", RUNNING)
    shown = project.invoke("status", "demo")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("run default/demo: Running, 1 steps done\n") and "challenger-train-1" in shown.stdout
    api.set_status("demo", {"phase": "Dreaming"})
    shown = project.invoke("status", "demo")
    assert shown.returncode == 2 and "has a status.phase that this version of selfevo does not know" in shown.stderr


def test_one_run_of_a_newer_operator_does_not_keep_the_list_from_being_shown(api: ApiServer, project: Project) -> None:
    api.put(document(metadata__name="math"))
    api.set_status("demo", {**RUNNING, "phase": "Paused", "invented": [1]})
    shown = project.invoke("status", "-n", "default")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[1].split()[:5] == ["demo", "Paused", "1", "of", "2"] and lines[2].split()[:2] == ["math", "Pending"]
    rows = json.loads(project.invoke("status", "-n", "default", "-o", "json").stdout)
    assert [(row["name"], row["phase"]) for row in rows] == [("demo", "Paused"), ("math", "Pending")]


def test_who_kubeconfig_says_is_spoken_for(api: ApiServer, project: Project) -> None:
    seen: list[tuple[str | None, str | None]] = []

    def note(handler: Any) -> bool:
        seen.append((handler.headers["Impersonate-User"], handler.headers["Impersonate-Group"]))
        return False

    api.faults.append(note)
    config = Path(os.environ["KUBECONFIG"])
    made = json.loads(config.read_text())
    made["users"][0]["user"] |= {"as": "team", "as-groups": ["a"]}
    config.write_text(json.dumps(made))
    assert project.invoke("status", "-n", "default").returncode == 0
    assert seen and set(seen) == {("team", "a")}
    made["users"][0]["user"]["as-groups"] = ["a", "b"]
    config.write_text(json.dumps(made))
    assert (
        "has several as-groups, and only one can be sent from here; give one"
        in project.invoke("status", "-n", "default").stderr
    )


def test_without_a_name_the_runs_are_listed(api: ApiServer, project: Project) -> None:
    api.set_status("demo", {**RUNNING, "conditions": FAILED["conditions"]})
    for number in range(501):  # more than a page
        api.put(document(metadata__name=f"r-{number:03d}", metadata__namespace="many"))
    api.put(document(metadata__name="math", metadata__namespace="research", spec__queue="team-a"))
    lines = project.invoke("status", "-n", "research").stdout.splitlines()
    assert lines[0].split() == ["name", "phase", "iteration", "best", "score", "queue", "age"]
    assert lines[1].split()[:8] == ["math", "Pending", "0", "of", "2", "-", "-", "team-a"]
    assert lines[2] == "1 run in namespace research"
    lines = project.invoke("status", "-A").stdout.splitlines()
    assert lines[-1] == "503 runs in the cluster"
    assert lines[1].split()[:8] == ["default", "demo", "Running", "1", "of", "2", "0", "47.8"]
    assert lines[1].endswith("BadData: challenger-train-1: all \\x1b[2J alike")
    assert project.invoke("status", "-n", "none").stdout == "no runs in namespace none\n"
    (row,) = json.loads(project.invoke("status", "-n", "research", "-o", "json").stdout)
    assert (row["name"], row["phase"], row["queue"]) == ("math", "Pending", "team-a")


# --- suspend and resume -----------------------------------------------------------------------------------------------


def test_approve_lets_the_iteration_begin_that_waits_and_none_beyond_the_plan(api: ApiServer, project: Project) -> None:
    spec = api.runs["default", "demo"]["spec"]
    refused = project.invoke("approve", "demo")
    assert (refused.returncode, refused.stderr) == (
        2,
        "selfevo: run default/demo waits for nobody: it has no spec.review; add it to have iterations wait\n",
    )
    spec["review"] = {"before": [2]}
    last = spec["iterations"]
    for number, says in (
        (
            last + 1,
            f"--iteration is {last + 1}, and run default/demo has {last} iterations; name one of them, or raise",
        ),
        (1, "--iteration is 1, and run default/demo waits at iteration 2; name that or a later one"),
    ):
        api.requests.clear()
        refused = project.invoke("approve", "demo", "--iteration", str(number))
        assert refused.returncode == 2 and says in refused.stderr, refused.stderr
        assert not any(request.startswith("PATCH") for request in api.requests)
    shown = project.invoke("approve", "demo")
    assert (shown.returncode, shown.stdout) == (
        0,
        "run default/demo may go on with iteration 2; `selfevo watch demo` follows it\n",
    )
    assert api.runs["default", "demo"]["spec"]["approvedIteration"] == 2
    again = project.invoke("approve", "demo")
    assert again.returncode == 2 and "waits for no approval" in again.stderr


def test_suspend_and_resume_change_one_field_once_and_say_what_follows(api: ApiServer, project: Project) -> None:
    api.set_status("demo", RUNNING)
    before = api.runs["default", "demo"]["spec"]
    for verb, spec, first, again in (
        (
            "suspend",
            {**before, "suspend": True},
            "is suspended: challenger-train-1 stops now and resumes from its last checkpoint; `selfevo resume demo` "
            "goes on",
            "is suspended already, 1 of 9 steps done; `selfevo resume demo` goes on",
        ),
        (
            "resume",
            {**before, "suspend": False},
            "goes on where it was stopped, 1 of 9 steps done; `selfevo watch demo` follows it",
            "is not suspended, 1 of 9 steps done; `selfevo watch demo` follows it",
        ),
    ):
        for expected, writes in ((first, 1), (again, 0)):
            api.requests.clear()
            shown = project.invoke(verb, "demo")
            assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"run default/demo {expected}\n", "")
            assert sum(request.startswith("PATCH") for request in api.requests) == writes
            assert api.runs["default", "demo"]["spec"] == spec
    assert api.runs["default", "demo"]["status"]["steps"] == RUNNING["steps"]


@pytest.mark.parametrize(
    ("status", "verb", "suspended", "expected"),
    [
        (SUCCEEDED, "suspend", False, "run default/demo has ended, 9 of 9 steps done; there is nothing to suspend"),
        (SUCCEEDED, "resume", True, "run default/demo has ended, 9 of 9 steps done; there is nothing to resume"),
        (
            FAILED,
            "suspend",
            False,
            "run default/demo has failed (BadData: challenger-train-1: all \\x1b[2J alike); there is nothing to "
            "suspend",
        ),
        (
            FAILED,
            "resume",
            False,
            "run default/demo has failed (BadData: challenger-train-1: all \\x1b[2J alike); a change of its spec has "
            "what failed tried again",
        ),
    ],
    ids=["suspend succeeded", "resume succeeded", "suspend failed", "resume failed"],
)
def test_a_run_that_has_ended_is_left_alone(
    api: ApiServer, project: Project, status: dict[str, Any], verb: str, suspended: bool, expected: str
) -> None:
    api.put(document(spec__suspend=suspended))
    api.set_status("demo", status)
    assert project.invoke(verb, "demo").stdout == f"{expected}\n"
    assert not any(request.startswith("PATCH") for request in api.requests)


def test_resume_has_a_run_that_failed_in_suspension_tried_again(api: ApiServer, project: Project) -> None:
    api.put(document(spec__suspend=True))
    api.set_status("demo", FAILED)
    shown = project.invoke("resume", "demo", "-n", "default")
    assert shown.stdout == (
        "run default/demo had failed; what failed is tried again, `selfevo watch demo -n default` follows it\n"
    )
    assert api.runs["default", "demo"]["spec"]["suspend"] is False


@pytest.mark.slow
def test_of_a_run_on_this_machine_they_say_how_it_is_done(project: Project) -> None:
    shown = project.invoke("suspend", "run.yaml")
    assert (shown.returncode, shown.stderr) == (
        2,
        "selfevo: run.yaml is the run on this machine, and nothing drives it now; `selfevo run run.yaml` goes on\n",
    )
    shown = project.invoke("resume", "run.yaml")
    assert shown.stderr == "selfevo: run.yaml is the run on this machine: `selfevo run run.yaml` goes on\n"
    project.order("challenger-train-1", hang=True)
    driver = project.start("run", "run.yaml")
    try:
        wait_for(lambda: project.diary("work"))
        shown = project.invoke("suspend", "run.yaml")
        assert f"Ctrl-C in its terminal, or `kill -INT {driver.pid}`, stops it at the next checkpoint" in shown.stderr
        assert f"process {driver.pid} drives it already" in project.invoke("resume", "run.yaml").stderr
    finally:
        driver.send_signal(signal.SIGINT)
        driver.send_signal(signal.SIGINT)
        driver.communicate(timeout=180)
