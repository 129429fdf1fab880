"""A run that sets every field there is, and one that sets few and opens every optional part. Neither is to be run."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

DIGEST = "0123456789abcdef" * 4

_PODS = {
    "image": "registry.example/trainer:1",
    "imagePullPolicy": "Always",
    "imagePullSecrets": ["pull-a", "pull-b"],
    "resources": {"requests": {"cpu": 8, "memory": "64Gi"}, "limits": {"nvidia.com/gpu": "1"}},
    "resourceClaims": [
        {"name": "nic", "resourceClaimTemplateName": "nic", "request": "nic"},
        {"name": "fabric", "resourceClaimName": "team-a-fabric", "gpus": 0},
    ],
    "nodes": 2,
    "joinSeconds": 600,
    "sharedMemory": "16Gi",
    "scratch": 1000,
    "nodeSelector": {"example.com/pool": "gpu"},
    "tolerations": [
        {"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 30},
        {"operator": "Exists"},
    ],
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "serviceAccountName": "trainer",
    "env": [
        {"name": "HF_ENDPOINT", "value": "http://hub"},
        {"name": "EMPTY"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token", "optional": True}}},
    ],
    "labels": {"cost-center": "nlp"},
    "annotations": {"kueue.x-k8s.io/podset-required-topology": "example.com/rack"},
    "schedulerName": "volcano",
    "hostNetwork": True,
    "caBundle": {"configMap": "company-ca", "key": "bundle.pem"},
    "volumes": [
        {"name": "models", "mountPath": "/work/cache", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
        {"name": "disk", "mountPath": "/work/phase", "ephemeral": {"size": "2Ti", "storageClassName": "local"}},
    ],
    "nodeAffinity": [
        {"key": "gpu.product", "operator": "In", "values": ["H100", "H200"]},
        {"key": "spot", "operator": "DoesNotExist", "weight": 50},
    ],
    "podAffinity": [{"topologyKey": "topology.kubernetes.io/zone", "weight": 100}],
    "podAntiAffinity": [{"topologyKey": "kubernetes.io/hostname", "weight": 1}],
    "topologySpreadConstraints": [
        {"topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "activeDeadlineSeconds": 3600,
    "terminationGracePeriodSeconds": 60,
}
_GRPO = {
    "maxSteps": 2,
    "promptsPerStep": 8,
    "promptsPerUpdate": 4,
    "numGenerations": 4,
    "perDeviceTrainBatchSize": 16,
    "lora": {"rank": 8, "alpha": 16.0, "dropout": 0.1, "targetModules": ["q_proj"]},
    "learningRate": 1e-6,
    "lrSchedulerType": "linear",
    "warmupSteps": 1,
    "weightDecay": 0.1,
    "adamEpsilon": 1e-8,
    "maxGradNorm": 1.0,
    "beta": 0.0,
    "epsilon": 0.2,
    "epsilonHigh": 0.3,
    "delta": 2.0,
    "lossType": "dapo",
    "scaleRewards": "batch",
    "numIterations": 2,
    "maskTruncatedCompletions": True,
    "gradientCheckpointing": True,
    "temperature": 0.7,
    "topP": 0.9,
    "topK": 20,
    "maxCompletionLength": 64,
}
_SAMPLING = {"temperature": 0.0, "topP": 1.0, "topK": 0, "maxCompletionLength": 64}

FULL: Document = {
    "apiVersion": "selfevo.dev/v1alpha1",
    "kind": "SelfEvolutionRun",
    "metadata": {"name": "fuzz"},
    "spec": {
        "iterations": 3,
        "seed": 1,
        "suspend": True,
        "model": {
            "uri": "hf://Qwen/Qwen3-4B-Base@main",
            "digest": DIGEST,
            "dtype": "float32",
            "trustRemoteCode": True,
            "stopTokens": ["<|im_end|>"],
        },
        "storage": {
            "uri": "s3://bucket/prefix/x",
            "endpoint": "https://s3.example.com:9000",
            "region": "eu-1",
            "credentialsSecret": "s3-credentials",
            "requireConditionalPut": False,
            "checksum": "whenRequired",
        },
        "challenger": {
            "prompt": {"system": "You ask.", "user": "Ask.", "examples": [{"user": "Ask.", "assistant": "1 + 1"}]},
            "grpo": _GRPO,
            "reward": {
                "mode": "code",
                "solverSamples": 4,
                "repetition": {"distance": 0.4, "weight": 0.5},
                "unboxed": "drops",
            },
            "questionSampling": _SAMPLING,
            "engine": {"kind": "transformers", "batchSize": 8},
            "checkpointEvery": 2,
            "pods": {"nodes": 2, "scratch": "1Ti"},
        },
        "rollout": {
            "questions": 16,
            "samples": 4,
            "band": {"min": 0.3, "max": 0.8},
            "minCurriculum": 2,
            "shards": 2,
            "minShards": 1,
            "answerSampling": _SAMPLING,
            "labels": "truth",
            "truth": {"kind": "arithmetic"},
            "contamination": {"words": 8},
            "engine": {"kind": "vllm", "gpuMemoryUtilization": 0.5},
            "queue": "small",
            "pods": {"env": [{"name": "A"}]},
        },
        "solver": {
            "prompt": {
                "system": "Think.",
                "user": "Solve: {question}",
                "examples": [{"user": "1 + 1", "assistant": "2"}],
            },
            "maxPromptLength": 1024,
            "grpo": _GRPO,
            "reward": {"mode": "code"},
            "engine": {
                "kind": "server",
                "gpus": 2,
                "replicas": 2,
                "gpuMemoryUtilization": 0.5,
                "maxConcurrency": 8,
                "requestTimeout": 60,
                "startupSeconds": 600,
                "fingerprint": "off",
            },
            "checkpointEvery": 1,
            "pods": {"resources": {"limits": {"nvidia.com/gpu": 8}}},
        },
        "verifier": {"maxSteps": 1, "learningRate": 1e-6, "batchSize": 2, "pods": {"image": "other"}},
        "evaluation": {
            "tasks": [
                {"name": "math", "answers": "number", "data": {"uri": "file:///data/math.jsonl", "digest": DIGEST}},
                {"name": "other", "data": {"uri": "file:data/other.jsonl"}},
            ],
            "samples": 2,
            "sampling": _SAMPLING,
            "metric": "greedy",
            "every": 2,
            "engine": {
                "kind": "server",
                "endpoint": {
                    "url": "https://llm.example.com:8000",
                    "model": "solver",
                    "tokenSecret": {"name": "llm", "key": "key"},
                },
            },
            "pods": {"nodeSelector": {"pool": "small"}},
        },
        "exclude": [{"uri": "s3://bucket/seen.jsonl", "digest": DIGEST}],
        "finetune": {"data": "s3://bucket/labelled.jsonl", "maxSteps": 1, "learningRate": 1e-6, "pods": {}},
        "grading": {"method": "exact", "timeoutSeconds": 1.5, "memoryMebibytes": 512, "batchTimeoutSeconds": 60.5},
        "guards": {"maxScoreDrop": 0.1, "minInBand": 0.1},
        "budget": {"wallTime": "1h30m", "gpuHours": 12.5},
        "parallelSteps": 2,
        "backoffLimit": 1,
        "pods": _PODS,
        "queue": "team-a",
        "priorityClass": "high",
        "ttlSecondsAfterFinished": 600,
        "forkFrom": {"run": "other", "iteration": 1},
    },
}
SMALL: Document = {
    **{name: FULL[name] for name in ("apiVersion", "kind", "metadata")},
    "spec": {
        "model": {"uri": "s3://bucket/model"},
        "storage": {"uri": "file:///store"},
        "challenger": {"grpo": {}, "engine": {"kind": "server"}},
        "rollout": {"band": {}, "contamination": {}, "truth": {"kind": "arithmetic"}},
        "solver": {"engine": {"kind": "vllm"}},
        "evaluation": {"tasks": [{"name": "a", "data": {"uri": "s3://bucket/a"}}], "sampling": {}},
        "verifier": {},
        "guards": {},
        "budget": {},
        "pods": {"resources": {"limits": {}}, "env": []},
    },
}
