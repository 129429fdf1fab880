"""Runs such as nobody would write: a hypothesis strategy over what may be set of pods, engines, places and prompts."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from harness.runs import DOCUMENT

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
_HOSTILE = st.sampled_from(
    ["$(HOME)", "$$", "$", "$$(USER)", "\\$(A)", "../..", "/etc/passwd", "a\nb", " ", "{question}"]
)
_NAME = st.sampled_from(["a", "team-a", "x.y", "0", "a" * 63, "default"])
_QUANTITY = st.one_of(
    st.integers(0, 9),
    st.sampled_from(["1", "500m", "64Gi", "0", "1e3", "1.5", "1E", "9999999Ei", "1e99", "1000000000000000"]),
)
_SIZE = st.sampled_from(["1", "64Gi", "1.5Ti", "1e3"]) | st.integers(1, 9)
_RESOURCE = st.sampled_from(
    ["cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "nvidia.com/gpu", "amd.com/gpu"]
) | st.sampled_from(
    ["example.com/nic", "kubernetes.io/x", "requests.a/b", "a/" + "b" * 64, "a" * 250 + "/b", "attach.kubernetes.io/c"]
)
_LABEL = st.sampled_from(["pool", "example.com/pool", "a", "A_b.c", "kubernetes.io/hostname", "a" * 254 + "/b"])
_VARIABLES = st.sampled_from(["A", "_b", "HF_ENDPOINT", "HOME", "PATH", "TMPDIR", "LD_PRELOAD", "USER", "C1"])


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_TOLERATION = st.sampled_from(
    [
        {"operator": "Exists"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
        {"key": "a", "value": "b"},
        {"key": "a", "operator": "Equal", "value": ""},
        {"key": "a/b", "operator": "Exists", "value": "", "effect": "PreferNoSchedule"},
    ]
) | _some(
    key=_LABEL, operator=st.sampled_from(["Exists", "Equal"]), value=_HOSTILE, tolerationSeconds=st.integers(0, 9)
)
_ENV = st.lists(
    st.fixed_dictionaries({"name": _VARIABLES}, optional={"value": st.one_of(_TEXT, _HOSTILE)})
    | st.fixed_dictionaries(
        {
            "name": _VARIABLES,
            "valueFrom": st.fixed_dictionaries(
                {
                    "secretKeyRef": st.fixed_dictionaries(
                        {"name": _NAME, "key": st.sampled_from(["token", ".x_y"])},
                        optional={"optional": st.booleans()},
                    )
                }
            ),
        }
    ),
    max_size=4,
    unique_by=lambda variable: str(variable["name"]),
)
_VOLUME = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "work", "b-c"]), "mountPath": st.sampled_from(["/work/cache", "/mnt/a", "/mnt/b"])}
    | {"ephemeral": st.fixed_dictionaries({"size": _SIZE}, optional={"storageClassName": _NAME})}
)
CLAIM_TEMPLATES, CLAIMS = ("gpus-*", "nic"), ("team-a-fabric",)
"""Which of the claims below a platform lets runs have: most."""
_DEVICES = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b-c"]), "resourceClaimTemplateName": st.sampled_from(["gpus-1", "nic", "gpus"])},
    optional={"gpus": st.integers(0, 2), "request": st.sampled_from(["gpu", "x-1"])},
) | st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b-c"]), "resourceClaimName": st.just("team-a-fabric"), "gpus": st.just(0)}
)
_NODES = st.fixed_dictionaries(
    {"key": _LABEL, "values": st.lists(st.sampled_from(["", "a"]), min_size=1, max_size=2, unique=True)},
    optional={"operator": st.just("NotIn"), "weight": st.integers(1, 100)},
)
PODS = _some(
    image=st.one_of(st.sampled_from(["own", "registry.example:5000/a/b@sha256:" + "0" * 64]), _HOSTILE),
    imagePullPolicy=st.sampled_from(["Always", "IfNotPresent", "Never"]),
    imagePullSecrets=st.lists(_NAME, max_size=2, unique=True),
    runtimeClassName=_NAME,
    resources=_some(
        requests=st.dictionaries(_RESOURCE, _QUANTITY, max_size=3),
        limits=st.dictionaries(_RESOURCE, _QUANTITY, max_size=3),
    ),
    resourceClaims=st.lists(_DEVICES, max_size=2, unique_by=lambda claim: claim["name"]),
    nodeSelector=st.dictionaries(_LABEL, st.sampled_from(["a", "", "A.b_c", "a" * 63]), max_size=2),
    tolerations=st.lists(_TOLERATION, max_size=2),
    priorityClassName=_NAME,
    serviceAccountName=_NAME,
    env=_ENV,
    labels=st.dictionaries(_LABEL, st.sampled_from(["a", ""]), max_size=2),
    annotations=st.dictionaries(_LABEL, _HOSTILE, max_size=2),
    schedulerName=_NAME,
    caBundle=st.fixed_dictionaries({"configMap": _NAME}, optional={"key": st.sampled_from(["a.pem", ".x_y"])}),
    volumes=st.lists(_VOLUME, max_size=2, unique_by=(lambda it: it["name"], lambda it: it["mountPath"])),
    nodeAffinity=st.lists(_NODES, max_size=2),
    podAntiAffinity=st.lists(
        _some(weight=st.integers(1, 100)).map(lambda one: {"topologyKey": "a/b", **one}), max_size=2
    ),
    topologySpreadConstraints=st.lists(st.fixed_dictionaries({"topologyKey": _LABEL}), max_size=1),
    nodes=st.integers(1, 3),
    joinSeconds=st.sampled_from([1, 604800]),
    activeDeadlineSeconds=st.sampled_from([1, 60, 2147483647]),
    terminationGracePeriodSeconds=st.sampled_from([1, 3600]),
    gpuMemory=_QUANTITY,
    sharedMemory=_QUANTITY,
    scratch=_QUANTITY,
)
_ENGINE = st.one_of(
    st.just({"kind": "transformers"}),
    st.just({"kind": "vllm"}),
    st.fixed_dictionaries({"kind": st.just("server"), "gpus": st.integers(0, 64)}, optional={"replicas": st.just(2)}),
    st.just({"kind": "server", "endpoint": {"url": "https://llm", "tokenSecret": {"name": "llm"}}}),
)
_TP = st.integers(1, 64)
_JUDGE_SERVER = _some(gpus=st.integers(0, 64), replicas=st.integers(1, 3), gpuMemoryUtilization=st.just(0.5))
_PROMPT = st.one_of(_TEXT, _HOSTILE).filter(bool)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A SelfEvolutionRun as JSON-ready data; the models may refuse it."""
    document = copy.deepcopy(DOCUMENT)
    document["metadata"] |= {"uid": draw(st.uuids().map(str)), "name": draw(st.sampled_from(["demo", "4b", "a" * 63]))}
    spec = document["spec"]
    spec["storage"] = draw(
        st.fixed_dictionaries(
            {"uri": st.sampled_from(["s3://models/selfevo", "s3://models"])},
            optional={"credentialsSecret": _NAME, "region": st.just("eu")},
        )
    )
    spec["model"]["uri"] = draw(st.sampled_from(["file:///models/base", "hf://a/b@c", "s3://models/base"]))
    for part in ("challenger", "rollout", "solver", "evaluation"):
        if draw(st.booleans()):
            spec[part]["engine"] = draw(_ENGINE)
        if draw(st.booleans()):
            spec[part]["pods"] = draw(PODS)
    for role in ("challenger", "solver"):
        spec[role]["grpo"] |= {"promptsPerStep": 252, "perDeviceTrainBatchSize": draw(st.sampled_from([1, 2, 16]))}
        if draw(st.integers(0, 3)) == 0:
            spec[role]["grpo"] |= {"generation": "vllm", "vllmMode": "server"} | draw(_some(vllmTensorParallelSize=_TP))
        spec[role]["prompt"] = {"system": draw(_PROMPT), "user": f"{draw(_PROMPT)} {{question}}"}
    spec["rollout"]["shards"] = draw(st.integers(1, 16))
    if draw(st.integers(0, 3)) == 0:
        spec["verifier"] = {"anchors": {"data": {"uri": "s3://models/anchors.jsonl"}}} | draw(
            _some(server=_JUDGE_SERVER)
        )
        for role in ("challenger", "solver"):
            spec[role]["reward"] = {"mode": "judged"}
    spec |= draw(
        _some(
            pods=PODS,
            queue=_NAME,
            priorityClass=_NAME,
            backoffLimit=st.integers(0, 100),
            ttlSecondsAfterFinished=st.integers(60, 31536000),
        )
    )
    return document
