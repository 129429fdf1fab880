"""examples/gitops: the repository that a team would have. It builds, every run in it makes sense and fits its queue."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.gotools import ToolUnavailable
from harness.kustomize import build, documents
from selfevo_contract.plan import Plan, plan
from selfevo_contract.run import SelfEvolutionRun, refuse_what_is_not_built
from selfevo_operator.manifests.job import render
from selfevo_operator.manifests.settings import PodSettings

ROOT = Path(__file__).parents[2]
GITOPS = ROOT / "examples" / "gitops"
EXPERIMENTS = GITOPS / "experiments"
FOLDERS = sorted(path.parent for path in GITOPS.rglob("kustomization.yaml"))
KUEUE = "kueue.x-k8s.io/v1beta2"
Object = dict[str, Any]
slow = pytest.mark.slow  # kubectl may have to be built


@pytest.fixture(scope="module")
def built() -> dict[str, list[Object]]:
    """By folder."""
    try:
        return {str(folder.relative_to(GITOPS)): build(folder) for folder in FOLDERS}
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def runs(built: dict[str, list[Object]]) -> dict[str, SelfEvolutionRun]:
    """What the experiments come to, by name."""
    made = [SelfEvolutionRun.model_validate(document) for document in built["experiments"]]
    return {run.metadata.name: run for run in made}


@slow
def test_every_folder_builds(built: dict[str, list[Object]]) -> None:
    assert {"platform", "base", "experiments", "experiments/seeds", "experiments/models", "experiments/rewards"} <= {
        *built
    }
    assert all(built.values())


@slow
def test_the_experiments_are_runs_each_under_its_own_name_and_nothing_is_left_out(
    built: dict[str, list[Object]], runs: dict[str, SelfEvolutionRun]
) -> None:
    made = built["experiments"]
    assert {(document["kind"], document["metadata"]["namespace"]) for document in made} == {
        ("SelfEvolutionRun", "research")
    }
    assert len(runs) == len(made) == 8
    everywhere = {d["metadata"]["name"] for name, found in built.items() if name != "platform" for d in found}
    assert everywhere == set(runs), "a folder that no list names"


@slow
def test_every_step_of_every_run_can_be_made(runs: dict[str, SelfEvolutionRun]) -> None:
    for run in runs.values():
        refuse_what_is_not_built(run.spec)
        for step in plan(run.spec).steps:
            assert render(_with_uid(run), step, 1, step.name, PodSettings(image="registry.example/trainer:1"))


@slow
def test_the_base_has_the_steps_of_the_example(runs: dict[str, SelfEvolutionRun]) -> None:
    example = yaml.safe_load((ROOT / "examples" / "qwen3-4b-base.yaml").read_text())
    assert _keys(plan(runs["qwen3-4b"].spec)) == _keys(plan(SelfEvolutionRun.model_validate(example).spec))


@slow
def test_experiments_share_what_their_change_does_not_reach(runs: dict[str, SelfEvolutionRun]) -> None:
    plans = {name: plan(run.spec) for name, run in runs.items()}
    base = {step.key for step in plans.pop("qwen3-4b").steps}
    shared = {name: [step.name for step in made.steps if step.key in base] for name, made in plans.items()}
    assert shared == {
        "qwen3-4b-seed-1": [],
        "qwen3-4b-seed-2": [],
        "qwen3-8b": [],
        "octothinker-3b": [],
        "qwen3-4b-code": ["evaluate-0"],
        "qwen3-4b-no-repetition": ["evaluate-0"],
        "qwen3-4b-no-filter": ["evaluate-0", "challenger-train-1"],
    }


# --- the queue --------------------------------------------------------------------------------------------------------


def test_the_documentation_has_the_queues_that_are_tested() -> None:
    text = (GITOPS / "platform" / "queues.yaml").read_text()
    assert f"```yaml\n{text}```" in (ROOT / "docs" / "queues.md").read_text()


@slow
def test_every_job_can_be_admitted_by_the_queue_that_it_names(
    built: dict[str, list[Object]], runs: dict[str, SelfEvolutionRun]
) -> None:
    kinds: dict[str, dict[str, Object]] = {}
    for document in built["platform"]:
        kinds.setdefault(document["kind"], {})[document["metadata"]["name"]] = document
    assert {d["apiVersion"] for d in built["platform"] if d["kind"] != "Namespace"} == {KUEUE}
    namespace = kinds["Namespace"]["research"]["metadata"]
    for run in runs.values():
        for step in plan(run.spec).steps:
            job = render(_with_uid(run), step, 1, step.name, PodSettings(image="trainer"))[0]
            labels = job["metadata"]["labels"]
            assert labels["kueue.x-k8s.io/priority-class"] in kinds["WorkloadPriorityClass"]
            local = kinds["LocalQueue"][labels["kueue.x-k8s.io/queue-name"]]
            assert local["metadata"]["namespace"] == job["metadata"]["namespace"] == namespace["name"]
            queue = kinds["ClusterQueue"][local["spec"]["clusterQueue"]]["spec"]
            assert queue["namespaceSelector"]["matchLabels"].items() <= namespace["labels"].items()
            (group,) = queue["resourceGroups"]
            (flavor,) = group["flavors"]
            assert flavor["name"] in kinds["ResourceFlavor"]
            quota = {one["name"]: _amount(one["nominalQuota"]) for one in flavor["resources"]}
            assert set(group["coveredResources"]) == set(quota)
            asked = _asked(job)
            assert set(asked) <= set(quota), f"{run.metadata.name}/{step.name} asks for what the queue does not cover"
            assert all(amount <= quota[name] for name, amount in asked.items()), (run.metadata.name, step.name, asked)
            assert asked["nvidia.com/gpu"] in (1, 8)


# --- Argo CD and Flux -------------------------------------------------------------------------------------------------


def test_the_application_set_names_folders_that_are_there_and_may_make_runs_only() -> None:
    manifests = {d["kind"]: d for d in documents((GITOPS / "argocd" / "applicationset.yaml").read_text())}
    spec = manifests["ApplicationSet"]["spec"]
    (generator,) = spec["generators"]
    (directories,) = generator["git"]["directories"]
    found = {path.name for path in ROOT.glob(directories["path"]) if (path / "kustomization.yaml").exists()}
    assert found == {"seeds", "models", "rewards"}
    application = spec["template"]["spec"]
    assert "ServerSideApply=true" in application["syncPolicy"]["syncOptions"]
    project = manifests["AppProject"]
    assert project["metadata"]["name"] == application["project"]
    assert project["spec"]["namespaceResourceWhitelist"] == [{"group": "selfevo.dev", "kind": "SelfEvolutionRun"}]
    assert "clusterResourceWhitelist" not in project["spec"]
    repository = generator["git"]["repoURL"]
    assert application["source"]["repoURL"] == repository and repository in project["spec"]["sourceRepos"]


def test_the_flux_kustomization_uses_the_expressions_that_are_tested() -> None:
    manifests = {d["kind"]: d for d in documents((GITOPS / "flux" / "experiments.yaml").read_text())}
    spec = manifests["Kustomization"]["spec"]
    taken = yaml.safe_load((ROOT / "deploy" / "gitops" / "flux-taken.yaml").read_text())["spec"]
    assert {name: spec[name] for name in taken} == taken
    assert (ROOT / spec["path"] / "kustomization.yaml").exists()
    assert spec["sourceRef"]["name"] == manifests["GitRepository"]["metadata"]["name"]
    (rule,) = manifests["Role"]["rules"]
    assert (rule["apiGroups"], rule["resources"]) == (["selfevo.dev"], ["selfevolutionruns"])
    assert manifests["RoleBinding"]["subjects"][0]["name"] == spec["serviceAccountName"]


# --- helpers ----------------------------------------------------------------------------------------------------------


def _with_uid(run: SelfEvolutionRun) -> SelfEvolutionRun:
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"uid": "uid-1"})})


def _keys(made: Plan) -> dict[str, str]:
    return {step.name: step.key for step in made.steps}


def _asked(job: Object) -> dict[str, int]:
    """By all pods of the Job at once, sidecars too. Kueue takes limits for requests where there are none."""
    total: dict[str, int] = {}
    pod = job["spec"]["template"]["spec"]
    sidecars = [one for one in pod.get("initContainers", []) if one.get("restartPolicy") == "Always"]
    for container in [*pod["containers"], *sidecars]:
        resources = container.get("resources") or {}
        for name, amount in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            total[name] = total.get(name, 0) + _amount(amount) * job["spec"]["parallelism"]
    return total


def _amount(quantity: object) -> int:
    text = str(quantity)
    for unit, size in {"Ti": 2**40, "Gi": 2**30, "Mi": 2**20, "m": 1e-3}.items():
        if text.endswith(unit):
            return math.ceil(float(text.removesuffix(unit)) * size)
    return math.ceil(float(text))
