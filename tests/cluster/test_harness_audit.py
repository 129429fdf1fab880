"""The check of the audit logs at the end of a whole run: what it finds, and when it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.audited_run import NAME
from harness.cluster.audit import RBAC, Access, note_start, read
from harness.cluster.operator_process import USER, rules
from harness.cluster.rights import EXPLAINED, OPERATORS, TESTS, findings, rights

SHIPPED = {"deploy/rbac.yaml": rights(rules())}
HARNESS = Path(__file__).parents[1]


def asked(verb: str, group: str, resource: str, namespace: str = "a", **more: object) -> Access:
    return replace(Access(USER, verb, group, resource, namespace, 200, agent="aiohttp"), **more)


ALL = [asked(*right) for right in rights(rules()) - EXPLAINED]
DENIED = asked("list", "batch", "jobs", code=403, denied=True)
FINDING = f"{USER} was denied to list jobs of batch in a; grant it, or do not ask"


def binding(verb: str, namespace: str = "a", resource: str = "rolebindings") -> Access:
    return Access("test-admin", verb, RBAC, resource, namespace, 200)


def test_what_is_granted_and_used_is_fine_whichever_control_plane_saw_it():
    assert findings(SHIPPED, [ALL[:4], ALL[4:]]) == []


def test_a_right_that_nobody_used_is_named_with_who_grants_it():
    kept = [access for access in ALL if (access.verb, access.resource) != ("delete", "jobs")]
    unused = "deploy/rbac.yaml lets the operator delete jobs of batch, and it never did; take the right away"
    assert findings(SHIPPED, [kept]) == [unused]
    more = {"the chart everywhere": rights(rules()) | {("get", "", "secrets")}}
    assert findings(more, [ALL]) == [
        "the chart everywhere lets the operator get secrets, and it never did; take the right away"
    ]


@pytest.mark.parametrize(
    "by",
    [{"user": "test-admin"}, {"agent": f"{TESTS}/2.7"}, {"denied": True, "namespace": "gone"}],
    ids=["somebody else", "a test with its token", "who was denied"],
)
def test_what_others_did_or_nobody_could_do_is_no_use(by: dict):
    others = [replace(access, **by) if access.resource == "services" else access for access in ALL]
    unused = "deploy/rbac.yaml lets the operator create services, and it never did; take the right away"
    assert findings(SHIPPED, [others])[0] == unused


def test_each_account_of_the_operator_counts():
    assert len(OPERATORS) == 2
    mixed = [replace(access, user=OPERATORS[number % 2]) for number, access in enumerate(ALL)]
    assert findings(SHIPPED, [mixed]) == []


def test_a_denial_is_reported_once():
    assert findings(SHIPPED, [[*ALL, DENIED, DENIED], [DENIED]]) == [FINDING]
    refused = replace(DENIED, denied=False)  # by an admission plugin: RBAC has allowed it
    assert findings(SHIPPED, [[*ALL, refused]]) == []


@pytest.mark.parametrize(
    ("before", "reported"),
    [
        ([binding("delete")], False),
        ([binding("deletecollection")], False),
        ([Access("test-admin", "delete", "", "namespaces", "a", 200, name="a")], False),
        ([binding("delete", "", "clusterrolebindings")], False),
        ([binding("delete", "b")], True),
        ([Access("test-admin", "delete", "", "namespaces", "b", 200, name="b")], True),
        ([binding("delete"), binding("patch")], True),
        ([binding("delete", "", "clusterrolebindings"), binding("create", "", "clusterrolebindings")], True),
    ],
)
def test_a_denial_that_a_test_has_provoked_is_not(before: list[Access], reported: bool):
    assert findings(SHIPPED, [[*ALL, *before, DENIED]]) == ([FINDING] if reported else [])
    assert findings(SHIPPED, [[*ALL, *before], [DENIED]]) == [FINDING], "of another control plane"


def test_what_was_asked_first_came_first_whoever_was_answered_first():
    late = replace(binding("delete"), received="2026-01-01T00:00:00.000001Z")
    denied = replace(DENIED, received="2026-01-01T00:00:00.000002Z")
    assert findings(SHIPPED, [[*ALL, denied, late]]) == []
    assert findings(SHIPPED, [[*ALL, late, replace(denied, received="2026-01-01T00:00:00.000000Z")]]) == [FINDING]


def test_where_the_operator_asked_for_nothing_nothing_is_judged():
    assert findings(SHIPPED, [[binding("delete")], []]) == []


def test_a_log_is_read_in_its_order_whatever_was_killed(tmp_path: Path):
    about = {"user": {"username": "a"}, "requestURI": "/version?x", "responseStatus": {"code": 200}}

    def line(verb: str, stage: str = "ResponseComplete", **more: object) -> str:
        return json.dumps({"stage": stage, "verb": verb, **about, **more}) + "\n"

    jobs = {"apiGroup": "batch", "resource": "jobs", "subresource": "status", "namespace": "n", "name": "j"}
    forbidden = {"authorization.k8s.io/decision": "forbid"}
    (tmp_path / "audit-2026-01-01T00-00-00.000.log").write_text(line("get"))
    (tmp_path / "audit.log").write_text(
        line("watch", "ResponseStarted", objectRef=jobs)
        + line("delete")[:40]
        + "\n"
        + line("list", "Panic")
        + line("patch", objectRef=jobs, annotations=forbidden, userAgent="x")
    )
    assert list(read(tmp_path)) == [
        Access("a", "get", "", "/version", "", 200),
        Access("a", "watch", "batch", "jobs/status", "n", 200, "j"),
        Access("a", "patch", "batch", "jobs/status", "n", 200, "j", "x", denied=True),
    ]


def test_a_server_that_is_not_ready_denies_nobody(tmp_path: Path):
    def line(at: str) -> str:
        entry = {"stage": "ResponseComplete", "verb": "get", "user": {"username": "a"}, "requestURI": "/x"}
        entry["annotations"] = {"authorization.k8s.io/decision": "forbid"}
        return json.dumps(entry | {"requestReceivedTimestamp": at}) + "\n"

    before = datetime.now(UTC) - timedelta(hours=2)
    note_start(tmp_path, before + timedelta(hours=1))
    after = datetime.now(UTC) + timedelta(seconds=1)
    times = [time.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for time in (before, before + timedelta(hours=1.5), after)]
    (tmp_path / "audit.log").write_text("".join(map(line, times)))
    assert [access.denied for access in read(tmp_path)] == [True, False, True]


# --- when it runs -----------------------------------------------------------------------------------------------------

CONFTEST = """
import os, pytest
from pathlib import Path
from harness.audited_run import AuditedRun

def pytest_configure(config):
    judge = lambda logs: sorted(f"{p.name} is wrong" for p in logs.iterdir() if "wrong" in p.name)
    config.pluginmanager.register(AuditedRun(config, Path(__file__).parent / "cluster", "AUDIT_FOLDER", judge))

@pytest.fixture
def plane():
    Path(os.environ["AUDIT_FOLDER"], os.environ["PLANE"]).mkdir(exist_ok=True)
"""
TESTS_OF = {
    "cluster/test_one.py": "def test_a(plane): pass\ndef test_b(): pass\n",
    "cluster/test_two.py": "import pytest\ndef test_c(plane): pass\n@pytest.mark.skip\ndef test_d(): pass\n",
    "test_other.py": "import os\ndef test_e(): assert 'FAIL' not in os.environ\n",
}


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """A folder of tests in which control planes are folders."""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {HARNESS}\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name, text in TESTS_OF.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def ran(tests: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output, and its last line, of pytest over them."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", *arguments]
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(tests), "PLANE": "plane", **environment}
    done = subprocess.run(command, cwd=tests, env=env, capture_output=True, text=True)
    assert not list(tests.glob("selfevo-audit-*")), "the logs are left"
    assert done.stderr == ""
    return done.returncode, done.stdout, done.stdout.splitlines()[-1]


IN_TWO = ("-n", "2", "--dist", "loadfile")


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), IN_TWO], ids=["in one process", "in two"])
class TestWhenItRuns:
    def test_a_whole_run_is_judged_and_counts_as_a_test(self, tests: Path, how: tuple[str, ...]):
        code, output, last = ran(tests, *how)
        assert code == 0 and "5 passed, 1 skipped" in last and "not judged" not in output

    def test_a_finding_fails_it_and_the_summary_stays_last(self, tests: Path, how: tuple[str, ...]):
        code, output, last = ran(tests, *how, PLANE="wrong")
        assert code == 1 and "1 failed, 4 passed, 1 skipped" in last
        assert f"FAILED cluster::{NAME}" in output and "wrong is wrong" in output

    def test_all_files_by_name_are_a_whole_run(self, tests: Path, how: tuple[str, ...]):
        code, _, last = ran(tests, *how, "cluster/test_one.py", "cluster/test_two.py", PLANE="wrong")
        assert code == 1 and "1 failed, 3 passed, 1 skipped" in last

    def test_another_test_that_fails_does_not_keep_it_from_running(self, tests: Path, how: tuple[str, ...]):
        code, _, last = ran(tests, *how, PLANE="wrong", FAIL="1")
        assert code == 1 and "2 failed, 3 passed, 1 skipped" in last

    @pytest.mark.parametrize(
        ("chosen", "why"),
        [
            (["-k", "not test_b"], "tests were left out"),
            (["--deselect", "cluster/test_one.py::test_b"], "tests were left out"),
            (["cluster/test_one.py", "cluster/test_two.py::test_c"], "tests were left out"),
            (["cluster/test_one.py"], "test_two.py was left out"),
            (["--ignore", "cluster/test_two.py"], "test_two.py was left out"),
        ],
    )
    def test_a_part_is_not_judged(self, tests: Path, how: tuple[str, ...], chosen: list[str], why: str):
        code, output, last = ran(tests, *how, *chosen, PLANE="wrong")
        assert code == 0 and "failed" not in last
        assert f"cluster: the audit logs were not judged, {why}" in output

    def test_a_run_that_failed_there_is_not_judged(self, tests: Path, how: tuple[str, ...]):
        with (tests / "cluster" / "test_one.py").open("a") as file:
            file.write("def test_f(): assert False\n")
        code, output, last = ran(tests, *how, PLANE="wrong")
        assert code == 1 and "1 failed, 4 passed" in last and "not judged, a test failed" in output

    def test_where_nothing_was_logged_nothing_is_shown(self, tests: Path, how: tuple[str, ...]):
        code, output, last = ran(tests, *how, "test_other.py")
        assert code == 0 and "1 passed" in last and "judged" not in output
