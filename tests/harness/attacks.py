"""What somebody who may write runs, and nothing else, could try. One line each, with the sentence that they see.

`VALUES` are the chart's, `base` a run that goes through; each line changes something of it.
"""

from __future__ import annotations

import copy
from typing import Any

from harness.cluster.cluster_runs import cluster_run

Object = dict[Any, Any]

TRAINER = "selfevo/trainer:0.1.0"
OWN, OTHERS = "own", "admin"
"""ServiceAccounts and Secrets, of these names each, that the attacker may and may not use."""
VALUES: Object = {
    "allowed": {
        "nodeSelectors": ["pool=*"],
        "tolerations": ["nvidia.com/gpu"],
        "queues": ["team-a", "team-a-rollout"],
        "workloadPriorities": ["low"],
        "priorityClasses": ["training"],
        "runtimeClasses": ["nvidia"],
        "schedulers": ["volcano"],
        "claims": ["model-cache"],
        "storageClasses": ["local"],
        "caBundles": ["company-ca"],
        "resourceClaimTemplates": ["gpus-*"],
        "resourceClaims": ["team-a-fabric"],
        "labels": ["cost-center=*"],
        "storage": ["s3://models/team-a/*"],
        "publish": ["hf://team-a/*"],
        "sources": ["hf://Qwen/*", "s3://models/*"],
    }
}
OWN_VARIABLES = (
    "https_proxy", "HTTPS_PROXY", "Https_Proxy", "http_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY", "grpc_proxy",
    "LD_LIBRARY_PATH", "LD_AUDIT", "ld_preload", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONPLATLIBDIR", "BASH_ENV", "ENV",
    "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS",
    "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "PIP_INDEX_URL", "CC", "CUDA_HOME", "CUDA_INJECTION64_PATH",
    "NVTX_INJECTION64_PATH", "NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_CONF_FILE", "FI_PROVIDER_PATH",
    "UCX_MODULE_DIR", "OMPI_MCA_mca_base_component_path", "HSA_TOOLS_LIB", "RDMAV_DRIVERS", "VLLM_PLUGINS",
    "TRITON_PTXAS_PATH", "TRITON_CACHE_MANAGER", "TORCH_EXTENSIONS_DIR", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
    "TORCHINDUCTOR_REDIS_HOST", "HF_MODULES_CACHE", "HF_DATASETS_TRUST_REMOTE_CODE", "OPENSSL_CONF", "OPENSSL_MODULES",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_CONFIG_FILE", "AWS_PROFILE", "HF_INFERENCE_ENDPOINT", "HUGGINGFACE_CO_STAGING", "VLLM_USE_MODELSCOPE",
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "WANDB_BASE_URL", "MLFLOW_TRACKING_URI", "GOOGLE_APPLICATION_CREDENTIALS",
    "GCE_METADATA_HOST", "AZURE_AUTHORITY_HOST", "HOSTALIASES", "RES_OPTIONS", "LOCALDOMAIN", "GLIBC_TUNABLES",
    "LOCPATH", "NETRC", "KRB5_CONFIG", "XDG_CONFIG_DIRS",
)  # fmt: skip
"""Variables that a list of `*` does not let through."""
PARTS = ("challenger", "rollout", "solver", "evaluation")
HOST = {"name": "host", "hostPath": {"path": "/"}}
CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": OTHERS}}


def base(name: str, changes: Object | None = None) -> Object:
    """A run that goes through, with ``changes`` by dotted path."""
    run = cluster_run(name, spec__storage={"uri": "s3://models/team-a/runs", "credentialsSecret": OWN})
    run["spec"] |= {"queue": "team-a", "pods": {"serviceAccountName": OWN}}
    run["spec"]["model"]["uri"] = "s3://models/base"
    run["spec"]["evaluation"]["tasks"][0]["data"]["uri"] = "s3://models/heldout.jsonl"
    return changed(run, changes or {})


def changed(run: Object, changes: Object) -> Object:
    """A copy with ``changes``; None removes."""
    run = copy.deepcopy(run)
    for path, value in changes.items():
        *parents, last = path.split(".") if isinstance(path, str) else path
        place = run
        for name in parents:
            place = place.setdefault(name, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return run


def triad(data: str = "s3://models/anchors.jsonl", model: str = "s3://models/judge") -> Object:
    """Changes that give a run a Verifier."""
    return {
        "spec.verifier": {"anchors": {"data": {"uri": data}}, "model": {"uri": model}},
        "spec.challenger.reward": {"mode": "judged"},
        "spec.solver.reward": {"mode": "judged"},
    }


def rubric(url: str = "https://llm", data: str = "s3://models/criteria.yaml", secret: str = OWN) -> Object:
    """Changes that give a run a judge with criteria."""
    endpoint = {"url": url, "tokenSecret": {"name": secret}}
    judge = {"criteria": [{"uri": data}], "model": "strong", "endpoint": endpoint}
    return {**triad(), "spec.verifier": {"kind": "rubric", "rubric": judge}}


def env(**variables: str) -> Object:
    return {"spec.pods.env": [{"name": name, "value": value} for name, value in variables.items()]}


def token(secret: str, of: str = "spec.pods", *, name: str = "HF_TOKEN", key: str = "token", **more: Any) -> Object:
    """A variable from a Secret."""
    return {f"{of}.env": [{"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, **more}}}]}


def volume(kind: Object, of: str = "spec.pods", *, place: str = "/mnt/data") -> Object:
    """A volume of some kind."""
    return {f"{of}.volumes": [{"name": "data", "mountPath": place, **kind}]}


def devices(claim: Object, of: str = "spec.pods") -> Object:
    """Devices by a claim."""
    return {f"{of}.resourceClaims": [{"name": "devices", **claim}]}


def account(of: str = "spec.pods") -> str:
    return (
        f"{of}.serviceAccountName is admin, a ServiceAccount that mallory may not use in NS; name another, or ask for "
        "the verb use on it"
    )


def secret(field: str, name: str = OTHERS) -> str:
    return f"{field} is {name}, a Secret that mallory may not get in NS; name another, or ask for the verb get on it"


def server(url: str, part: str = "challenger", **more: Any) -> Object:
    """The engine of ``part`` is a server that runs already."""
    return {f"spec.{part}.engine": {"kind": "server", "endpoint": {"url": url, **more}}}


def endpoint(url: str) -> tuple[str, Object, str]:
    message = (
        f"spec.storage.endpoint is {url}, which is no address of a store; write http(s)://<host>:<port> with a host"
    )
    return f"endpoint {url}", {"spec.storage.endpoint": url}, message


_OTHER_VOLUMES: tuple[Object, ...] = (
    {"hostPath": {"path": "/"}},
    {"secret": {"secretName": OTHERS}},
    {"configMap": {"name": OTHERS}},
    {"projected": {"sources": [{"serviceAccountToken": {}}]}},
    {"emptyDir": {"medium": "Memory"}},
    {"csi": {"driver": "secrets-store.csi.k8s.io"}},
    {"nfs": {"server": "10.0.0.1", "path": "/"}},
    {"image": {"reference": "evil"}},
)
_NAME = "write it as lower-case letters, digits, '-' and '.', with a letter or digit at both ends"
_IMAGE = f"which is an image that runs may not use; allowed are {TRAINER}"
_URI = "write it as s3://<bucket>/<prefix> or file:///<absolute path>"
_MODEL = "write it as hf://<owner>/<model>@<revision> or s3://<bucket>/<prefix> or file:///<absolute path>"
_MOUNT = "write it as /work/cache, /work/phase or /mnt/<name>"
_TAKEN = "keys of Kubernetes, container runtimes and selfevo are not set by hand; choose another"
_OURS = "selfevo sets this variable itself; remove it"
_VARIABLE = "which is a variable that runs may not set; remove it, or ask for an entry of its own in policy.allowed.env"
_ENDPOINT = "write it as http(s)://<host>:<port>, without a path"
_PLACE = "which is a place that runs may not write to; allowed are s3://models/team-a/*"
_RELEASE = "which is a place that runs may not publish to; allowed are hf://team-a/*"
_SOURCE = "which is a source that runs may not read; allowed are hf://Qwen/*, s3://models/*"

REFUSED: list[tuple[str, Object, str]] = [
    # -- somebody else's identity
    ("ServiceAccount of an admin", {"spec.pods.serviceAccountName": OTHERS}, account()),
    *(
        (f"ServiceAccount in {part}", {f"spec.{part}.pods.serviceAccountName": OTHERS}, account(f"spec.{part}.pods"))
        for part in PARTS
    ),
    ("ServiceAccount in verifier",
     {**triad(), "spec.verifier.pods": {"serviceAccountName": OTHERS}}, account("spec.verifier.pods")),
    ("ServiceAccount in finetune",
     {"spec.finetune": {"data": {"uri": "s3://models/f"}, "pods": {"serviceAccountName": OTHERS}}},
     account("spec.finetune.pods")),
    ("ServiceAccount in publish",
     {"spec.publish": {"to": "hf://team-a/x", "pods": {"serviceAccountName": OTHERS}}},
     account("spec.publish.pods")),
    ("the default ServiceAccount by name", {"spec.pods.serviceAccountName": "default"},
     "spec.pods.serviceAccountName is default, a ServiceAccount that mallory may not use"),
    ("a ServiceAccount that is not there", {"spec.pods.serviceAccountName": "later"},
     "spec.pods.serviceAccountName is later, a ServiceAccount that mallory may not use"),
    ("ServiceAccount of another namespace", {"spec.pods.serviceAccountName": "kube-system/admin"}, _NAME),
    ("ServiceAccount as the API server calls it", {"spec.pods.serviceAccountName": "system:serviceaccount:x:admin"},
     _NAME),
    ("ServiceAccount with a look-alike letter", {"spec.pods.serviceAccountName": "own\N{CYRILLIC SMALL LETTER A}"},
     _NAME),
    ("ServiceAccount with a line break", {"spec.pods.serviceAccountName": "own\nadmin"}, _NAME),
    ("ServiceAccount as a list", {"spec.pods.serviceAccountName": [OWN, OTHERS]}, "must be of type string"),
    # -- somebody else's Secrets
    ("credentials of others", {"spec.storage.credentialsSecret": OTHERS}, secret("spec.storage.credentialsSecret")),
    *((f"an oracle at {url}", {("spec", "rollout", "oracle"): {"kind": "endpoint", "url": url, "model": "m"}},
       f"spec.rollout.oracle.url is {url}, which is no address of an oracle; write http(s)://<host>:<port>")
      for url in ("http://169.254.169.254", "http://localhost:8000", "http://[::1]:80", "https://kubernetes.default")),
    *((f"a tracker at {url}", {("spec", "tracking"): [{"kind": kind, "endpoint": url}]},
       f"spec.tracking.endpoint is {url}, which is no address of a tracker; write http(s)://<host>:<port>")
      for kind, url in (("wandb", "http://169.254.169.254"), ("mlflow", "http://localhost:5000"),
                        ("trackio", "https://kubernetes.default"))),
    ("an oracle's token of others",
     {("spec", "rollout", "oracle"): {"kind": "endpoint", "url": "https://llm", "model": "m",
                                      "tokenSecret": {"name": OTHERS}}},
     secret("spec.rollout.oracle.tokenSecret")),
    *((f"a judge at {url}", rubric(url=url),
       f"spec.verifier.rubric.endpoint.url is {url}, which is no address of a judge; write http(s)://<host>:<port>")
      for url in ("http://169.254.169.254", "http://localhost:8000")),
    ("a judge's token of others", rubric(secret=OTHERS), secret("spec.verifier.rubric.endpoint.tokenSecret")),
    ("pull secret of others", {"spec.pods.imagePullSecrets": [OWN, OTHERS]}, secret("spec.pods.imagePullSecrets")),
    *(
        (f"pull secret in {part}", {f"spec.{part}.pods.imagePullSecrets": [OTHERS]},
         secret(f"spec.{part}.pods.imagePullSecrets"))
        for part in PARTS
    ),
    ("a hub's token of others",
     {"spec.publish": {"to": "hf://team-a/x", "tokenSecret": {"name": OTHERS}}}, secret("spec.publish.tokenSecret")),
    ("a hub's token by a variable of publish",
     {"spec.publish": {"to": "hf://team-a/x"}, **token(OTHERS, "spec.publish.pods")}, secret("spec.publish.pods.env")),
    ("a Secret of another namespace", {"spec.storage.credentialsSecret": "kube-system/admin"}, _NAME),
    ("a Secret by a path", {"spec.storage.credentialsSecret": "../admin"}, _NAME),
    ("a Secret that is not there yet", {"spec.storage.credentialsSecret": "later"},
     secret("spec.storage.credentialsSecret", "later")),
    ("more Secrets than are checked, the last of others",
     {"spec.pods.imagePullSecrets": [f"own-{n}" for n in range(12)],
      "spec.solver.pods.imagePullSecrets": [f"own-{n}" for n in range(12, 20)] + [OTHERS]},
     "spec names more than 20 Secrets in storage.credentialsSecret, imagePullSecrets, env and engine.endpoint; name"),
    ("a variable from a Secret of others", token(OTHERS), secret("spec.pods.env")),
    *(
        (f"a variable from a Secret of others in {part}", token(OTHERS, f"spec.{part}.pods"),
         secret(f"spec.{part}.pods.env"))
        for part in PARTS
    ),
    ("a variable from a Secret that is not there yet", token("later"), secret("spec.pods.env", "later")),
    ("an optional one", token(OTHERS, optional=True), secret("spec.pods.env")),
    ("a variable from a Secret of another namespace", token("kube-system/admin"), _NAME),
    ("a variable from a ServiceAccount's token", token("admin-token-x"), secret("spec.pods.env", "admin-token-x")),
    ("a variable from a Secret's key by a path", token(OWN, key="../admin"), "write it as letters, digits, '-', '_'"),
    ("our variable from a Secret", token(OWN, name="SELFEVO_PHASE_CONFIG"), _OURS),
    ("a loader's variable from a Secret", token(OWN, name="LD_PRELOAD"), f"spec.pods.env is LD_PRELOAD, {_VARIABLE}"),
    ("a variable from a field of the pod", {"spec.pods.env": [
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}, "secretKeyRef: Required value"),
    ("a variable with a value from two places", {"spec.pods.env": [
        {"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": OWN, "key": "token"}}}]},
     "value and valueFrom are both given; remove one"),
    ("a Secret in an object", {"spec.storage.credentialsSecret": {"name": OTHERS}}, "must be of type string"),
    # -- code of one's own
    ("another image", {"spec.pods.image": "evil/miner:1"}, f"spec.pods.image is evil/miner:1, {_IMAGE}"),
    *(
        (f"another image in {part}", {f"spec.{part}.pods.image": "evil"}, f"spec.{part}.pods.image is evil, {_IMAGE}")
        for part in PARTS
    ),
    ("the trainer's image at another registry", {"spec.pods.image": f"registry.evil/{TRAINER}"}, _IMAGE),
    ("the trainer's image with another tag", {"spec.pods.image": f"{TRAINER}-evil"}, _IMAGE),
    ("the trainer's image with another digest", {"spec.pods.image": f"{TRAINER}@sha256:{'e' * 64}"}, _IMAGE),
    ("the model's own code", {"spec.model.trustRemoteCode": True},
     "spec.model.trustRemoteCode is true, and runs may not execute code of a model's repository; remove it"),
    ("a library before all others", env(LD_PRELOAD="/work/x.so"), f"spec.pods.env is LD_PRELOAD, {_VARIABLE}"),
    ("Python's search path", env(PYTHONPATH="/work/cache"), f"spec.pods.env is PYTHONPATH, {_VARIABLE}"),
    ("another python", env(PATH="/work/cache"), f"spec.pods.env is PATH, {_VARIABLE}"),
    ("glibc's modules", env(GCONV_PATH="/work/cache"), f"spec.pods.env is GCONV_PATH, {_VARIABLE}"),
    ("Python's search path for the rollout", {"spec.rollout.pods.env": [{"name": "PYTHONHOME", "value": "/work"}]},
     f"spec.rollout.pods.env is PYTHONHOME, {_VARIABLE}"),
    # -- environment that overrides ours
    *(
        (f"our variable {name}", env(**{name: "x"}), _OURS)
        for name in ("SELFEVO_PHASE_CONFIG", "SELFEVO_WORKDIR", "JOB_COMPLETION_INDEX", "RANK", "MASTER_ADDR", "PET_X",
                     "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    ),
    ("another identity by AWS's variables", env(AWS_WEB_IDENTITY_TOKEN_FILE="/x"),
     f"spec.pods.env is AWS_WEB_IDENTITY_TOKEN_FILE, {_VARIABLE}"),
    ("credentials from the metadata address", env(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://169.254.170.2/"),
     f"spec.pods.env is AWS_CONTAINER_CREDENTIALS_FULL_URI, {_VARIABLE}"),
    ("another hub", env(HF_ENDPOINT="http://169.254.169.254"), f"spec.pods.env is HF_ENDPOINT, {_VARIABLE}"),
    # What loads code, redirects or decides whom is believed, a few of each kind: all are refused by one pattern.
    *(
        (f"the variable {name}", env(**{name: "/work/x"}), f"spec.pods.env is {name}, {_VARIABLE}")
        for name in OWN_VARIABLES
    ),
    ("a variable with a line break", env(**{"A\nSELFEVO_PHASE_CONFIG": "x"}), "write it as letters, digits and '_'"),
    ("a variable twice", {"spec.pods.env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
     'Duplicate value: {"name":"A"}'),
    # -- nodes and devices
    ("the control plane's nodes", {("spec", "pods", "nodeSelector"): {"node-role.kubernetes.io/control-plane": ""}},
     "spec.pods.nodeSelector is node-role.kubernetes.io/control-plane=, which selects nodes that runs may not use"),
    ("nodes of another team", {("spec", "solver", "pods", "nodeSelector"): {"team": "b"}},
     "spec.solver.pods.nodeSelector is team=b, which selects nodes that runs may not use; allowed are pool=*"),
    ("the control plane's taint", {"spec.pods.tolerations": [{"key": "node-role.kubernetes.io/control-plane",
                                                              "operator": "Exists"}]},
     "spec.pods.tolerations is node-role.kubernetes.io/control-plane, which is a taint that runs may not put up with"),
    ("every taint", {"spec.rollout.pods.tolerations": [{"operator": "Exists"}]},
     "spec.rollout.pods.tolerations is (every), which is a taint that runs may not put up with; allowed are nvidia"),
    ("the cluster's priority", {"spec.pods.priorityClassName": "system-node-critical"},
     "spec.pods.priorityClassName is system-node-critical, which is a priority class that runs may not use"),
    ("another runtime", {"spec.pods.runtimeClassName": "host"},
     "spec.pods.runtimeClassName is host, which is a runtime class that runs may not use; allowed are nvidia"),
    ("a device that is no processor", {("spec", "pods", "resources", "limits"): {"devices.kubevirt.io/kvm": 1}},
     "spec.pods.resources.limits is devices.kubevirt.io/kvm, which is a resource that runs may not use"),
    ("such a device in evaluation", {("spec", "evaluation", "pods", "resources", "requests"): {"evil.io/fuse": 1}},
     "spec.evaluation.pods.resources.requests is evil.io/fuse, which is a resource that runs may not use"),
    ("huge pages", {("spec", "pods", "resources", "limits"): {"hugepages-1Gi": "4Gi"}},
     "spec.pods.resources.limits is hugepages-1Gi, which is a resource that runs may not use"),
    ("huge pages in solver", {("spec", "solver", "pods", "resources", "limits"): {"hugepages-2Mi": "4Mi"}},
     "spec.solver.pods.resources.limits is hugepages-2Mi, which is a resource that runs may not use"),
    ("pages of another size", {("spec", "pods", "resources", "limits"): {"hugepages-64Ki": "4Mi"}},
     "write it as cpu, memory, ephemeral-storage, hugepages-2Mi, hugepages-1Gi or a device plugin's name"),
    ("a negative quantity", {"spec.pods.resources.limits": {"memory": "-1"}}, "write a quantity such as 8, 500m or"),
    ("another scheduler", {"spec.pods.schedulerName": "mine"},
     "spec.pods.schedulerName is mine, which is a scheduler that runs may not use; allowed are volcano"),
    # -- volumes
    ("somebody's claim", volume({"persistentVolumeClaim": {"claimName": OTHERS}}),
     "spec.pods.volumes is admin, which is a PersistentVolumeClaim that runs may not mount; allowed are model-cache"),
    *(
        (f"somebody's claim in {part}", volume({"persistentVolumeClaim": {"claimName": OTHERS}}, f"spec.{part}.pods"),
         f"spec.{part}.pods.volumes is admin, which is a PersistentVolumeClaim that runs may not mount")
        for part in PARTS
    ),
    ("a claim of another namespace", volume({"persistentVolumeClaim": {"claimName": "kube-system/admin"}}), _NAME),
    ("a volume of another storage class", volume({"ephemeral": {"size": "1Gi", "storageClassName": "gold"}}),
     "spec.pods.volumes is gold, which is a storage class that runs may not make volumes of; allowed are local"),
    ("a volume of the cluster's class", volume({"ephemeral": {"size": "1Gi"}}), "spec.pods.volumes is (default)"),
    *(
        (f"a volume from {next(iter(kind))}", volume(kind), "a volume is a persistentVolumeClaim or ephemeral;")
        for kind in _OTHER_VOLUMES
    ),
    ("a claim and a volume", volume({"persistentVolumeClaim": {"claimName": OWN}, "ephemeral": {"size": 1}}),
     "a volume is a persistentVolumeClaim or ephemeral; write one of them"),
    *(
        (f"a volume at {place!r}", volume({"persistentVolumeClaim": {"claimName": "model-cache"}}, place=place), _MOUNT)
        for place in ("/", "/etc", "/tmp", "/work", "/dev/shm", "/mnt", "/mnt/..", "/mnt/a/../../etc",
                      "/work/cache/../x", "/usr/lib/python3", "/var/run/secrets/kubernetes.io", "/mnt/a\n", "/proc")
    ),
    # -- devices by claims
    ("devices by another template", devices({"resourceClaimTemplateName": "every-device"}),
     "spec.pods.resourceClaims is every-device, which is a ResourceClaimTemplate that runs may not take devices by; "
     "allowed are gpus-*"),
    ("devices by somebody's claim", devices({"resourceClaimName": OTHERS}),
     "spec.pods.resourceClaims is admin, which is a ResourceClaim that runs may not take devices by; allowed are team"),
    *(
        (f"devices by somebody's claim in {part}", devices({"resourceClaimName": OTHERS}, f"spec.{part}.pods"),
         f"spec.{part}.pods.resourceClaims is admin, which is a ResourceClaim that runs may not take devices by")
        for part in PARTS
    ),
    ("a listed template's name as a claim", devices({"resourceClaimName": "gpus-8"}),
     "spec.pods.resourceClaims is gpus-8, which is a ResourceClaim that runs may not take devices by"),
    ("a listed claim's name as a template", devices({"resourceClaimTemplateName": "team-a-fabric"}),
     "spec.pods.resourceClaims is team-a-fabric, which is a ResourceClaimTemplate that runs may not take devices by"),
    ("devices behind a claim that is listed",
     {"spec.pods.resourceClaims": [{"name": "a", "resourceClaimName": "team-a-fabric"},
                                   {"name": "b", "resourceClaimName": OTHERS}]},
     "spec.pods.resourceClaims is admin, which is a ResourceClaim that runs may not take devices by"),
    ("a claim and a template", devices({"resourceClaimName": "team-a-fabric", "resourceClaimTemplateName": "gpus-8"}),
     "a claim is made by resourceClaimTemplateName or named by resourceClaimName; write one of them"),
    ("devices by no claim", devices({}), "a claim is made by resourceClaimTemplateName or named by resourceClaimName;"),
    ("devices by a claim of another namespace", devices({"resourceClaimName": "kube-system/team-a-fabric"}), _NAME),
    ("a request that is a path", devices({"resourceClaimName": "team-a-fabric", "request": "../x"}),
     "write it as lower-case letters, digits and '-'"),
    ("processes without end", devices({"resourceClaimTemplateName": "gpus-8", "gpus": 10**6}), "less than or equal"),
    # -- certificates
    ("authorities of one's own", {"spec.pods.caBundle": {"configMap": "mine"}},
     "spec.pods.caBundle.configMap is mine, which is a ConfigMap that runs may not take authorities from; allowed are "
     "company-ca"),
    *(
        (f"authorities of one's own in {part}", {f"spec.{part}.pods.caBundle": {"configMap": "mine", "key": "x"}},
         f"spec.{part}.pods.caBundle.configMap is mine, which is a ConfigMap that runs may not take authorities from")
        for part in PARTS
    ),
    ("authorities of another namespace", {"spec.pods.caBundle": {"configMap": "kube-system/company-ca"}}, _NAME),
    ("authorities by a path", {"spec.pods.caBundle": {"configMap": "company-ca", "key": "../token"}},
     "write it as letters, digits, '-', '_'"),
    ("authorities from a Secret", {"spec.pods.caBundle": {"secretName": OTHERS}}, "configMap: Required value"),
    # -- the node's network
    ("the node's network", {"spec.pods.hostNetwork": True},
     "spec.pods.hostNetwork is true, and pods of runs may not be on their node's network; remove it, or ask for"),
    *(
        (f"the node's network in {part}", {f"spec.{part}.pods.hostNetwork": True},
         f"spec.{part}.pods.hostNetwork is true, and pods of runs may not be on their node's network")
        for part in PARTS
    ),
    ("the node's network as text", {"spec.pods.hostNetwork": "true"}, "must be of type boolean"),
    # -- places
    ("the control plane's nodes by affinity", {"spec.pods.nodeAffinity": [
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]},
     "spec.pods.nodeAffinity is node-role.kubernetes.io/control-plane, which selects nodes that runs may not use"),
    ("a node by its name", {"spec.rollout.pods.nodeAffinity": [{"key": "kubernetes.io/hostname", "values": ["n-1"]}]},
     "spec.rollout.pods.nodeAffinity is kubernetes.io/hostname, which selects nodes that runs may not use"),
    ("a preference of such", {"spec.pods.nodeAffinity": [{"key": "team", "values": ["b"], "weight": 100}]},
     "spec.pods.nodeAffinity is team, which selects nodes that runs may not use; allowed are pool=*"),
    ("all nodes but one", {"spec.pods.nodeAffinity": [
        {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["a", "b"]}]}, "which selects nodes that"),
    ("all pools but one that is allowed", {"spec.pods.nodeAffinity": [
        {"key": "pool", "operator": "NotIn", "values": ["a"]}]}, "which selects nodes that"),
    # -- labels and annotations
    ("a label that a Service chooses by", {("spec", "pods", "labels"): {"app": "store"}},
     "spec.pods.labels is app=store, which is a pod's label that runs may not set; allowed are cost-center=*"),
    *(
        (f"label {key}", {("spec", "solver", "pods", "labels"): {key: "x"}}, _TAKEN)
        for key in ("app.kubernetes.io/managed-by", "selfevo.dev/run", "kueue.x-k8s.io/queue-name", "job-name",
                    "batch.kubernetes.io/job-name", "controller-uid", "x.selfevo.dev/run", "pod.k8s.io/x")
    ),
    ("a label that is none", {("spec", "pods", "labels"): {"a b": "x"}}, "write it as the key of a label"),
    ("an annotation that a webhook acts on", {("spec", "pods", "annotations"): {"iam.amazonaws.com/role": "admin"}},
     "spec.pods.annotations is iam.amazonaws.com/role=admin, which is a pod's annotation that runs may"),
    *(
        (f"annotation {key}", {("spec", "rollout", "pods", "annotations"): {key: "x"}}, "pod's annotation that runs")
        for key in ("sidecar.istio.io/userVolume", "vault.hashicorp.com/agent-inject", "k8s.v1.cni.cncf.io/networks")
    ),
    *(
        (f"annotation {key}", {("spec", "pods", "annotations"): {key: "x"}}, _TAKEN)
        for key in ("container.apparmor.security.beta.kubernetes.io/trainer",
                    "seccomp.security.alpha.kubernetes.io/pod", "cdi.k8s.io/x", "io.kubernetes.cri-o.Devices",
                    "devices.crio.io", "userns-mode.crio.io", "io.katacontainers.config.hypervisor.path",
                    "dev.gvisor.spec.mount", "devices.nri.io/container.trainer", "kubectl.kubernetes.io/x",
                    "selfevo.dev/key", "kueue.x-k8s.io/job-min-parallelism")
    ),
    # -- queues
    ("another team's queue", {"spec.queue": "team-b"},
     "spec.queue is team-b, which is a queue that runs may not use; allowed are team-a, team-a-rollout"),
    ("another team's queue for the rollout", {"spec.rollout.queue": "team-b"},
     "spec.rollout.queue is team-b, which is a queue that runs may not use; allowed are team-a, team-a-rollout"),
    ("no queue", {"spec.queue": None},
     "spec.queue is not given, and every run waits in a queue; allowed are team-a, team-a-rollout"),
    ("a higher workload priority", {"spec.priorityClass": "high"},
     "spec.priorityClass is high, which is a WorkloadPriorityClass that runs may not use; allowed are low"),
    ("a queue with a selector in it", {"spec.queue": "team-a,team-b"}, _NAME),
    # -- the store
    ("another team's outputs", {"spec.storage.uri": "s3://models/team-b"}, f"s3://models/team-b, {_PLACE}"),
    ("a neighbour by its beginning", {"spec.storage.uri": "s3://models/team-ab"}, f"s3://models/team-ab, {_PLACE}"),
    ("another team's outputs by a path", {"spec.storage.uri": "s3://models/team-a/../team-b"},
     "write the path without '..'"),
    ("another team's repository", {"spec.publish": {"to": "hf://team-b/x"}},
     f"spec.publish.to is hf://team-b/x, {_RELEASE}"),
    ("a neighbour's repository", {"spec.publish": {"to": "hf://team-ab/x"}},
     f"spec.publish.to is hf://team-ab/x, {_RELEASE}"),
    ("a bucket to publish to", {"spec.publish": {"to": "s3://models/team-a/x"}}, f"s3://models/team-a/x, {_RELEASE}"),
    ("the pod's disk to publish to", {"spec.publish": {"to": "file:///mnt/x"}}, f"file:///mnt/x, {_RELEASE}"),
    ("a repository by a path", {"spec.publish": {"to": "hf://team-a/../team-b"}}, "write it as hf://<owner>/<name>"),
    ("the same at the end", {"spec.storage.uri": "s3://models/team-a/x/.."}, "write the path without '..'"),
    ("the pod's disk", {"spec.storage.uri": "file:///var/lib"}, f"file:///var/lib, {_PLACE}"),
    ("another scheme", {"spec.storage.uri": "http://models/team-a/x"}, _URI),
    ("a scheme in capitals", {"spec.storage.uri": "S3://models/team-a/x"}, _URI),
    ("a line break in the place", {"spec.storage.uri": "s3://models/team-a/x\ny"}, _URI),
    ("a NUL in the place", {"spec.storage.uri": "s3://models/team-a/\u0000"}, _URI),
    *map(endpoint, (
        "http://169.254.169.254", "http://169.254.169.254:80/", "http://2852039166", "http://0xa9fea9fe",
        "http://0xa9.254.169.254", "http://169.254.43518", "http://0251.0376.0251.0376", "http://169.254.169.254.:80",
        "http://[::ffff:169.254.169.254]", "http://[64:ff9b::a9fe:a9fe]", "http://[fe80::1]", "http://[fd00:ec2::254]",
        "http://[0064:ff9b:0::a9fe:a9fe]", "http://[64:FF9B::169.254.169.254]", "http://[64:ff9b:1::a9fe:a9fe]",
        "http://[2002:a9fe:a9fe::1]", "http://[2001:0:a9fe:a9fe::1]", "http://[::ffff:0:169.254.169.254]",
        "http://[::a9fe:a9fe]", "http://[0:0:0:0:0:ffff:a9fe:a9fe]", "http://[::ffff:7f00:1]", "http://[fe80::1%25eth0]",
        "http://[fd00:0ec2:0:0:0:0:0:254]", "http://[fd00:ec2::23]", "http://[fd20:ce:0::254]", "http://[ff02::1]",
        "http://[::]:9000", "http://[0::0:1]", "http://169.254.170.23", "http://168.63.129.16", "http://224.0.0.1",
        "http://255.255.255.255", "http://0.0.0.1", "http://017700000001", "http://0x7f.1", "http://0x7f000001:9000",
        "http://0X7F000001", "http://0177.0.0.1", "http://127.0.0.1.", "http://0", "http://127.0.1:80", "http://1.0x",
        "http://[::1]:9000", "http://127.0.0.1:9000", "http://127.1", "http://0.0.0.0:9000", "http://LOCALHOST:9000",
        "http://x.localhost", "http://localhost.localdomain:9000", "http://x.localdomain", "http://ip6-localhost:9000",
        "http://ip6-loopback", "http://localhost6.localdomain6", "http://localhost.", "http://host.docker.internal",
        "http://metadata.google.internal", "http://100.100.100.200", "http://instance-data.ec2.internal",
        "https://kubernetes.default.svc", "http://good.example@169.254.169.254", "http://good.example#@169.254.169.254",
        "http://good.example\\@169.254.169.254", "http://169%2e254%2e169%2e254",
    )),
    *(
        (f"the server {url}", server(url),
         f"spec.challenger.engine.endpoint.url is {url}, which is no address of a server; write http(s)://<host>:<port>")
        for url in ("http://169.254.169.254", "http://0xa9fea9fe", "http://127.0.0.1:8000", "http://[::1]:8000",
                    "https://kubernetes.default.svc", "http://metadata.google.internal", "http://llm@169.254.169.254")
    ),
    *(
        (f"a server's token from a Secret of others in {part}",
         server("http://llm.serving:8000", part, tokenSecret={"name": OTHERS}),
         secret(f"spec.{part}.engine.endpoint.tokenSecret.name"))
        for part in PARTS
    ),
    ("a server with a path", server("http://llm.serving:8000/v1"), _ENDPOINT),
    ("a server's token from a path", server("http://llm.serving:8000", tokenSecret={"name": OWN, "key": "../x"}),
     "write it as letters, digits, '-', '_'"),
    ("an endpoint with a path", {"spec.storage.endpoint": "http://store.example/latest/meta-data"}, _ENDPOINT),
    ("an endpoint that is a file", {"spec.storage.endpoint": "file:///etc"}, _ENDPOINT),
    ("an endpoint with a line break", {"spec.storage.endpoint": "http://store\r\nHost: x"}, _ENDPOINT),
    # -- what is read
    ("a file as the model", {"spec.model.uri": "file:///etc/shadow"}, f"uri is file:///etc/shadow, {_SOURCE}"),
    ("the process's own environment", {"spec.model.uri": "file:///proc/self/environ"}, _SOURCE),
    ("a file beside the manifest", {"spec.model.uri": "file:../../etc/shadow"}, _SOURCE),
    ("a model that climbs", {"spec.model.uri": "hf://Qwen/.."}, "write the path without '..'"),
    ("a revision that climbs", {"spec.model.uri": "hf://Qwen/x@a/../../y"}, "write the path without '..'"),
    ("a model from anywhere", {"spec.model.uri": "hf://evil/model"}, _SOURCE),
    ("anybody's pull request to a listed model", {"spec.model.uri": "hf://Qwen/x@refs/pr/7"},
     f"uri is hf://Qwen/x@refs/pr/7, {_SOURCE}"),
    ("the same in capitals", {"spec.model.uri": "hf://Qwen/x@Refs/PR/7"}, _SOURCE),
    ("the same behind a dot", {"spec.model.uri": "hf://Qwen/x@./refs/pr/7"}, _SOURCE),
    ("the same for short", {"spec.model.uri": "hf://Qwen/x@pr/7"}, _SOURCE),
    ("what a bot converted", {"spec.model.uri": "hf://Qwen/x@refs/convert/safetensors"}, _SOURCE),
    ("a model by http", {"spec.model.uri": "http://169.254.169.254/latest"}, _MODEL),
    ("a file as held-out data", {"spec.evaluation.tasks": [{"name": "x", "data": {"uri": "file:///etc/passwd"}}]},
     f"spec.evaluation.tasks is file:///etc/passwd, {_SOURCE}"),
    ("a file as excluded data", {"spec.exclude": [{"uri": "file:///etc/passwd"}]}, "spec.exclude is file:///etc/"),
    ("a file as labelled data", {"spec.finetune": {"data": {"uri": "file:///etc/passwd"}}}, "spec.finetune.data.uri is file:///etc"),
    ("a file as anchors", triad(data="file:///etc/passwd"), "spec.verifier.anchors.data.uri is file:///etc"),
    ("a file as criteria", rubric(data="file:///etc/passwd"), "spec.verifier.rubric.criteria is file:///etc"),
    ("a judge from anywhere", triad(model="hf://evil/judge"), "spec.verifier.model.uri is hf://evil/judge"),
    # -- shape
    ("another version", {"apiVersion": "selfevo.dev/v1"}, "does not match the expected API version"),
    ("another kind", {"kind": "Pod", "apiVersion": "v1"}, "does not match the expected"),
    ("a spec that is text", {"spec": "hostNetwork: true"}, "must be of type object"),
    ("no spec", {"spec": None}, "spec: Required value"),
    ("a name for a path", {"metadata.name": "../../pods/x"}, "Invalid value"),
    ("a name in capitals", {"metadata.name": "Demo"}, "Invalid value"),
    ("a name too long for a label", {"metadata.name": "a" * 64}, "write at most 63 lower-case letters, digits and '-'"),
    ("a namespace that is another's", {"metadata.namespace": "kube-system"}, "does not match the namespace"),
    ("a malformed label", {("metadata", "labels"): {"selfevo.dev/run": "a b"}}, "Invalid value"),
    ("a malformed annotation", {("metadata", "annotations"): {"a/b/c": "x"}}, "Invalid value"),
    ("annotations without end", {("metadata", "annotations"): {"a": "x" * 300_000}}, "Too long"),
    ("an owner without a kind", {"metadata.ownerReferences": [{"name": "x", "uid": "y"}]}, "must not be empty"),
    ("shards without end", {"spec.rollout.shards": 100_000, "spec.rollout.questions": 100_000}, "less than or equal"),
    ("a number that is none", {"spec.iterations": "1e3"}, "must be of type integer"),
]  # fmt: skip

PRUNED: list[tuple[str, Any]] = [
    ("spec.pods.hostPID", True),
    ("spec.pods.hostIPC", True),
    ("spec.pods.hostUsers", True),
    ("spec.pods.hostname", "kubernetes"),
    ("spec.pods.hostAliases", [{"ip": "10.0.0.1", "hostnames": ["s3.amazonaws.com"]}]),
    ("spec.pods.nodeName", "control-plane"),
    ("spec.pods.affinity", {"nodeAffinity": {}}),
    ("spec.pods.dnsConfig", {"nameservers": ["10.6.6.6"]}),
    ("spec.pods.shareProcessNamespace", True),
    ("spec.pods.automountServiceAccountToken", True),
    ("spec.pods.restartPolicy", "Always"),
    ("spec.pods.securityContext", {"runAsUser": 0, "runAsNonRoot": False}),
    ("spec.pods.securityContext.seccompProfile", {"type": "Unconfined"}),
    ("spec.pods.containers", [{"name": "root", "image": "evil", "securityContext": {"privileged": True}}]),
    ("spec.pods.initContainers", [{"name": "root", "image": "evil", "restartPolicy": "Always"}]),
    ("spec.pods.ephemeralContainers", [{"name": "debug", "image": "evil"}]),
    ("spec.pods.command", ["sh", "-c", "cat /proc/1/environ"]),
    ("spec.pods.args", ["--help"]),
    ("spec.pods.lifecycle", {"postStart": {"exec": {"command": ["sh"]}}}),
    ("spec.pods.envFrom", [{"secretRef": {"name": OTHERS}}]),
    ("spec.pods.volumeMounts", [{"name": "host", "mountPath": "/host"}]),
    ("spec.volumes", [CLAIM]),
    ("spec.pods.persistentVolumeClaim", {"claimName": OTHERS}),
    ("spec.storage.persistentVolumeClaim", {"claimName": OTHERS}),
    ("spec.pods.volumeClaimTemplates", [{"metadata": {"name": "data"}, "spec": {}}]),
    ("spec.pods.ports", [{"containerPort": 22, "hostPort": 22}]),
    ("spec.pods.resources.claims", [{"name": "gpu"}]),
    ("spec.pods.resourceClaimTemplates", [{"spec": {"devices": {"requests": [{"adminAccess": True}]}}}]),
    ("spec.podTemplate", {"spec": {"hostNetwork": True}}),
    ("spec.template.spec.volumes", [HOST]),
    ("spec.jobTemplate", {"spec": {"hostPID": True}}),
    ("spec.storage.credentialsSecretNamespace", "kube-system"),
    ("spec.namespace", "kube-system"),
    ("spec.serviceAccountName", OTHERS),
]
"""Fields that a pod has and a run has not. A client that asks for strictness sees them refused; one that does not gets
a run without them."""

HARMLESS: list[tuple[str, Object, str]] = [
    ("a good run", {}, "it is what they may do"),
    ("no ServiceAccount", {"spec.pods.serviceAccountName": None},
     "its pods are the namespace's default account, like all that name none, and no token is mounted"),
    ("our own label, set by hand", {("metadata", "labels"): {"app.kubernetes.io/managed-by": "selfevo-operator"}},
     "labels of a run are not handed on"),
    ("another run's label", {("metadata", "labels"): {"selfevo.dev/run": "victim", "selfevo.dev/attempt": "x"}},
     "labels of a run are not handed on"),
    ("another queue by its label", {("metadata", "labels"): {"kueue.x-k8s.io/queue-name": "team-b"}},
     "labels of a run are not handed on"),
    ("an AppArmor annotation", {("metadata", "annotations"): {
        "container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}}, "annotations are not handed on"),
    ("annotations that are no JSON", {("metadata", "annotations"): {
        "kubectl.kubernetes.io/last-applied-configuration": "{", "kopf.zalando.org/last-handled-configuration": "\\"}},
     "the operator reads no annotation of a run"),
    ("a finalizer", {"metadata.finalizers": ["mallory.example/stay"]}, "it holds this run alone"),
    ("a name made by the server", {"metadata.name": None, "metadata.generateName": "own-"}, "a name like others"),
    ("a status of one's own", {("status",): {"phase": "Succeeded", "modelUri": "s3://evil"}}, "it is dropped"),
    ("a UID of one's own", {"metadata.uid": "00000000-0000-0000-0000-000000000000"}, "the server gives its own"),
    ("another home", env(HOME="/root", TMPDIR="/proc"), "ours stand last"),
    ("expansion of a credential", env(X="$(AWS_SECRET_ACCESS_KEY)", Y="$$(SELFEVO_PHASE_CONFIG)"), "it stays text"),
    ("shell in a prompt", {"spec.challenger.prompt.user": "$(cat /etc/passwd) `id`; {{7*7}} $$(A)"}, "it stays text"),
    ("a value with a line break", env(X="a\nSELFEVO_PHASE_CONFIG={}"), "it is one variable"),
    ("escapes in the place", {"spec.storage.uri": "s3://models/team-a/%2e%2e/team-b"}, "keys have no escapes"),
    ("escapes in a file's place", {"spec.model.uri": "s3://models/%2e%2e/base"}, "keys have no escapes"),
    ("a region that is a host", {"spec.storage.region": "x.evil.example/"}, "boto3 refuses regions that are no label"),
    ("resources that nobody has", {"spec.pods.resources.requests": {"cpu": 10**6}}, "the pod finds no node"),
    ("a token from their own Secret", token(OWN), "it is theirs"),
    ("a label and annotations that are allowed", {
        ("spec", "pods", "labels"): {"cost-center": "nlp"},
        ("spec", "pods", "annotations"): {"kueue.x-k8s.io/podset-required-topology": "example.com/rack",
                                          "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
     "they are on the platform's list"),
    ("devices by a claim that is allowed", {"spec.rollout.pods.resourceClaims": [
        {"name": "gpus", "resourceClaimTemplateName": "gpus-8"}, {"name": "a", "resourceClaimName": "team-a-fabric"}]},
     "they are on the platform's list"),
    ("more shared memory than memory", {"spec.pods.sharedMemory": "999Ti"}, "it is a limit of the pod's own"),
    ("the longest time to end", {"spec.pods.terminationGracePeriodSeconds": 3600}, "its own pod waits"),
    ("the pod's own network, in so many words", {"spec.pods.hostNetwork": False}, "it is what they have"),
    ("two nodes", {"spec.challenger.pods": {"nodes": 2}, "spec.challenger.grpo.perDeviceTrainBatchSize": 8},
     "they find each other by a Service of the run"),
]  # fmt: skip
