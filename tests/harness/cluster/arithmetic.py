"""examples/arithmetic.yaml for real pods: with smaller numbers and its files in a bucket; and the command, for a view
at what came of it."""

from __future__ import annotations

import base64
import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from harness.versitygw import REGION, S3Server
from runs import EXAMPLES, merged
from selfevo_contract.digests import file_digest, model_digest

Object = dict[str, Any]

BASE = EXAMPLES / "arithmetic" / "base"
SECRET = "s3-credentials"
LIMIT_S = 1200.0
"""For one step: an idle machine takes ten seconds, of which the imports are six."""
PODS: Object = {
    "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
    "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
}
SMALL: Object = {
    "iterations": 1,
    "challenger": {
        "grpo": {"maxSteps": 3, "promptsPerStep": 4, "perDeviceTrainBatchSize": 32},
        "reward": {"solverSamples": 4},
        "checkpointEvery": 1,
    },
    "rollout": {"questions": 120, "samples": 6, "band": {"min": 0.1, "max": 0.95}, "shards": 2},
    # Four: SIGTERM comes while the second one is saved, the third is the last that a stopped pod does.
    "solver": {
        "grpo": {"maxSteps": 4, "promptsPerStep": 8, "promptsPerUpdate": 8, "perDeviceTrainBatchSize": 64},
        "checkpointEvery": 1,
    },
    "evaluation": {"samples": 1},
    "pods": PODS,
}


def small_run(s3: S3Server, endpoint: str, namespace: str, folder: Path) -> Object:
    """The run. Pods find the store at ``endpoint``, and the keys to it in `secret`."""
    manifest: Object = yaml.safe_load((EXAMPLES / "arithmetic.yaml").read_text())
    manifest["metadata"]["namespace"] = namespace
    for over in (_uploaded(s3, folder), {"storage": {"endpoint": endpoint}}, copy.deepcopy(SMALL)):
        manifest["spec"] = merged(manifest["spec"], over)
    return manifest


def _uploaded(s3: S3Server, folder: Path) -> Object:
    """The example's files to a bucket; the part of the spec that says where they are."""
    bucket, heldout = s3.make_bucket(), folder / "heldout.jsonl"
    rows = (EXAMPLES / "arithmetic" / "heldout.jsonl").read_text().splitlines()[:25]
    heldout.write_text("\n".join(rows) + "\n")
    for file in BASE.iterdir():
        s3.client.upload_file(str(file), bucket, f"base/{file.name}")
    s3.client.upload_file(str(heldout), bucket, heldout.name)
    data = {"uri": f"s3://{bucket}/{heldout.name}", "digest": file_digest(heldout)}
    return {
        "model": {"uri": f"s3://{bucket}/base", "digest": model_digest(BASE)},
        "storage": {"uri": f"s3://{bucket}/selfevo", "region": REGION, "credentialsSecret": SECRET},
        "evaluation": {"tasks": [{"name": "arithmetic", "data": data}]},
        "exclude": [data],
    }


def secret(s3: S3Server) -> Object:
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    data = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": data}


def selfevo(manifest: Object, s3: S3Server, folder: Path, *arguments: str) -> str:
    """What the command says of the run, which is ``run.yaml``: on this machine, where the store has another address."""
    here = merged(manifest, {"spec": {"storage": {"endpoint": s3.endpoint, "credentialsSecret": None}}})
    (folder / "run.yaml").write_text(yaml.safe_dump(here))
    program = Path(sys.executable).parent / "selfevo"
    environment = {**os.environ, **s3.environment}
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
