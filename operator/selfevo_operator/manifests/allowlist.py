"""The list of what a Job of ours may hold, down to every field of its pods. Defence in depth: `job.render` asks last.

Rendering starts from a few typed fields, so nothing else should ever get here. But a spec is written by people who may
not create pods themselves, and the operator may: a field that slips through (a host path, a host's network, another
user) would lend them its rights. So what is not on the list is refused, whatever put it there; where PodSecurity
`restricted` asks for a value, the list has that value and no other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.spec.labels import is_free_annotation, is_free_label
from selfevo_operator.manifests.claims import is_listed
from selfevo_operator.manifests.environment import CA_FILE, CA_FOLDER
from selfevo_operator.manifests.labels import RUN, STEP
from selfevo_operator.manifests.placement import CERTIFICATES, PREFIX


@dataclass(frozen=True)
class Choice:
    """The rule depends on the value."""

    of: Callable[[Any], Rule]


Rule = Callable[[Any], bool] | dict[str, Any] | Sequence[Any] | Choice
"""A test of a value; the fields of a mapping, each with its rule; or, in a list of one, the rule of every item.

A field whose name ends with ``!`` must be there: missing is not neutral where Kubernetes' default is a right."""


class NotAllowed(InputError):
    """What was rendered holds something that is not on the list. A defect of ours, not of the person's spec."""

    reason = reasons.NOT_ALLOWED


def check(pod_spec: Mapping[str, Any]) -> None:
    """Every field of a pod's spec is on the list, with a value that it may have.

    Raises:
        NotAllowed: the first that is not.
    """
    _check("pod.spec", pod_spec, _POD)


def check_job(
    job: Mapping[str, Any],
    *,
    host_network: bool = False,
    claim_templates: Sequence[str] = (),
    claims: Sequence[str] = (),
) -> None:
    """The same of a whole Job.

    Args:
        host_network: The platform lets pods be on their node's network.
        claim_templates: ResourceClaimTemplates that it lets them name, with `*` at the end for names that begin so.
        claims: The same of ResourceClaims.

    Raises:
        NotAllowed: the first field that is not on the list.
    """
    pod = {**_POD, "resourceClaims": [Choice(lambda claim: _claim(claim, claim_templates, claims))]}
    if host_network:
        pod |= {"hostNetwork": _only(True), "dnsPolicy": _only("ClusterFirstWithHostNet")}
    _check("job", job, _job(pod))


def _check(path: str, value: Any, rule: Rule) -> None:
    if (wrong := _unlisted(value, rule)) is not None:
        place, what = wrong
        whose = "this is a defect of selfevo, so please report it"
        raise NotAllowed(f"{path}{place} {what}, which is not what selfevo may create; {whose}")


def _unlisted(value: Any, rule: Rule) -> tuple[str, str] | None:
    """Where below ``value`` the first thing is that its rule does not allow, and what it is; None for nothing."""
    if isinstance(rule, dict):
        return _unlisted_field(value, rule)
    if isinstance(rule, Choice):
        return _unlisted(value, rule.of(value))
    if callable(rule):
        return None if rule(value) else ("", f"is {value!r:.80}")
    if not isinstance(value, list):
        return "", f"is {value!r:.80} in place of a list"
    for index, item in enumerate(value):
        if (wrong := _unlisted(item, rule[0])) is not None:
            return f"[{index}]{wrong[0]}", wrong[1]
    return None


def _unlisted_field(value: Any, rule: dict[str, Any]) -> tuple[str, str] | None:
    if not isinstance(value, Mapping):
        return "", f"is {value!r:.80} in place of a mapping"
    for name in rule:
        if name.endswith("!") and name[:-1] not in value:
            return f".{name[:-1]}", "is missing"
    for name, item in value.items():
        of_item = rule.get(name) or rule.get(f"{name}!")
        if of_item is None:
            return f".{name}", "is there"
        if (wrong := _unlisted(item, of_item)) is not None:
            return f".{name}{wrong[0]}", wrong[1]
    return None


# --- tests of a value -------------------------------------------------------------------------------------------------


def _text(value: object) -> bool:
    return isinstance(value, str)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _quantity(value: object) -> bool:
    return _text(value) or _whole(value)


def _only(*values: object) -> Callable[[Any], bool]:
    # 1 == True in Python, and not in Kubernetes
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def _map(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(_text(k) and of(v) for k, v in value.items())


def _id_of_no_root(value: object) -> bool:
    return _whole(value) and value != 0


def _our_label(prefix: str, free: Callable[[str], bool] = lambda name: False) -> Callable[[Any], bool]:
    """Names that begin like one of ours, and those that a person may choose (the contract decides which)."""
    names = re.compile(prefix)
    return lambda value: _map(_text)(value) and all(names.match(name) or free(name) for name in value)


def _is_asked(item: object) -> bool:
    """Whether a volume or mount is one that a run asks for."""
    return isinstance(item, Mapping) and str(item.get("name", "")).startswith(PREFIX)


def _is_of_certificates(item: object) -> bool:
    return isinstance(item, Mapping) and item.get("name") == CERTIFICATES


def _place_of_volume(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"/work/(cache|phase)|/mnt/\w[-\w.]*", value, re.ASCII) is not None


def _key(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[-._A-Za-z0-9]+", value) is not None


# --- the list ---------------------------------------------------------------------------------------------------------

_PROBE: Rule = {
    "httpGet": {"path": _text, "port": _whole},
    "periodSeconds": _whole,
    "failureThreshold": _whole,
    "timeoutSeconds": _whole,
}

_ASKED_MOUNT: Rule = {"name": _text, "mountPath": _place_of_volume, "readOnly": _only(True)}
_OUR_MOUNT: Rule = {"name": _only("work", "tmp", "shm"), "mountPath": _only("/work", "/tmp", "/dev/shm")}
_OUR_VOLUME: Rule = {
    "name": _only("work", "tmp", "shm"),
    "emptyDir!": {"medium": _only("Memory"), "sizeLimit": _quantity},
}
_CERTIFICATES_MOUNT: Rule = {"name": _text, "mountPath": _only(CA_FOLDER), "readOnly!": _only(True)}
_CERTIFICATES_VOLUME: Rule = {
    "name": _text,
    "configMap!": {"name!": _text, "items!": [{"key!": _key, "path!": _only(CA_FILE)}]},
}
_EPHEMERAL: Rule = {
    "volumeClaimTemplate": {
        "spec": {
            "accessModes": _only(["ReadWriteOnce"]),
            "resources": {"requests": {"storage": _quantity}},
            "storageClassName": _text,
        }
    }
}


def _asked_volume(volume: Mapping[str, Any]) -> Rule:
    if "ephemeral" in volume:
        return {"name": _text, "ephemeral": _EPHEMERAL}
    return {"name": _text, "persistentVolumeClaim!": {"claimName": _text, "readOnly": _only(True, False)}}


def _volume(volume: Mapping[str, Any]) -> Rule:
    if _is_asked(volume):
        return _asked_volume(volume)
    return _CERTIFICATES_VOLUME if _is_of_certificates(volume) else _OUR_VOLUME


def _mount(mount: Mapping[str, Any]) -> Rule:
    if _is_asked(mount):
        return _ASKED_MOUNT
    return _CERTIFICATES_MOUNT if _is_of_certificates(mount) else _OUR_MOUNT


_CONTAINER: dict[str, Any] = {
    "name!": _only("trainer"),
    "image": _text,
    "imagePullPolicy": _only("Always", "IfNotPresent", "Never"),
    "command!": _only(["python", "-m", "selfevo_trainer"]),
    "env": [
        {
            "name": _text,
            "value": _text,
            "valueFrom": {
                "secretKeyRef": {
                    "name": _text,
                    "key": _key,
                    "optional": _only(True, False),
                }
            },
        }
    ],
    "ports": [{"name": _text, "containerPort": _whole, "protocol": _only("TCP")}],
    "resources": {
        "requests": _map(_quantity),
        "limits": _map(_quantity),
        "claims": [{"name!": _text, "request": _text}],
    },
    "volumeMounts": [Choice(_mount)],
    "terminationMessagePath": _only("/dev/termination-log"),
    "terminationMessagePolicy": _only("FallbackToLogsOnError"),
    "securityContext!": {
        "allowPrivilegeEscalation!": _only(False),
        "capabilities!": {"drop!": _only(["ALL"])},
        "readOnlyRootFilesystem!": _only(True),
        "runAsNonRoot!": _only(True),
        "seccompProfile!": {"type!": _only("RuntimeDefault")},
    },
}


def _claim(claim: object, templates: Sequence[str], claims: Sequence[str]) -> Rule:
    def listed(entries: Sequence[str]) -> Callable[[Any], bool]:
        return lambda value: isinstance(value, str) and is_listed(value, entries)

    if isinstance(claim, Mapping) and "resourceClaimName" in claim:
        return {"name!": _text, "resourceClaimName!": listed(claims)}
    return {"name!": _text, "resourceClaimTemplateName!": listed(templates)}


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_NODE_EXPRESSION: Rule = {
    "key": _text,
    "operator": _only("In", "NotIn", "Exists", "DoesNotExist"),
    "values": lambda value: isinstance(value, list) and all(map(_text, value)),
}
# A selector of other people's pods could keep those from a node.
_OWN_PODS: Rule = {"matchLabels!": {f"{RUN}!": _text, f"{STEP}!": _text}}
_POD_TERM: Rule = {"topologyKey": _text, "labelSelector!": _OWN_PODS}
_POD_AFFINITY: Rule = {_REQUIRED: [_POD_TERM], _PREFERRED: [{"weight": _whole, "podAffinityTerm": _POD_TERM}]}

_INIT_CONTAINER: Rule = {
    **_CONTAINER,
    "name!": _only("fetch-model", "server"),
    "command!": _only(["python", "-m", "selfevo_trainer.serve"], ["python", "-m", "selfevo_trainer.serve", "--fetch"]),
    "restartPolicy": _only("Always"),
    "startupProbe": _PROBE,
    "readinessProbe": _PROBE,
}

_POD: dict[str, Any] = {
    "affinity": {
        "nodeAffinity": {
            _REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [_NODE_EXPRESSION]}]},
            _PREFERRED: [{"weight": _whole, "preference": {"matchExpressions": [_NODE_EXPRESSION]}}],
        },
        "podAffinity": _POD_AFFINITY,
        "podAntiAffinity": _POD_AFFINITY,
    },
    "automountServiceAccountToken!": _only(False),
    "containers!": [_CONTAINER],
    "enableServiceLinks!": _only(False),
    "imagePullSecrets": [{"name": _text}],
    "initContainers": [_INIT_CONTAINER],
    "nodeSelector": _map(_text),
    "priorityClassName": _text,
    "restartPolicy!": _only("Never"),
    "runtimeClassName": _text,
    "schedulerName": _text,
    "securityContext!": {
        "fsGroup": _id_of_no_root,
        "fsGroupChangePolicy": _only("OnRootMismatch"),
        "runAsGroup": _id_of_no_root,
        "runAsNonRoot!": _only(True),
        "runAsUser": _id_of_no_root,
        "seccompProfile!": {"type!": _only("RuntimeDefault")},
    },
    "serviceAccountName": _text,
    "subdomain": _text,
    "terminationGracePeriodSeconds": _whole,
    "tolerations": [
        {
            "key": _text,
            "operator": _only("Exists", "Equal"),
            "value": _text,
            "effect": _only("NoSchedule", "PreferNoSchedule", "NoExecute"),
            "tolerationSeconds": lambda value: isinstance(value, int),
        }
    ],
    "topologySpreadConstraints": [
        {
            "topologyKey": _text,
            "maxSkew": _whole,
            "whenUnsatisfiable": _only("DoNotSchedule", "ScheduleAnyway"),
            "labelSelector!": _OWN_PODS,
        }
    ],
    "volumes": [Choice(_volume)],
}

_LABELS = _our_label(
    r"^(app\.kubernetes\.io/|selfevo\.dev/|kueue\.x-k8s\.io/(queue-name|priority-class)$)", is_free_label
)
_ANNOTATIONS = _our_label(r"^selfevo\.dev/", is_free_annotation)
_JOB_ANNOTATIONS = _our_label(r"^(selfevo\.dev/|kueue\.x-k8s\.io/job-min-parallelism$)")


def _job(pod: Rule) -> Rule:
    return {**_JOB, "spec": {**_JOB_SPEC, "template": {**_TEMPLATE, "spec": pod}}}


_TEMPLATE: dict[str, Any] = {"metadata": {"labels": _LABELS, "annotations": _ANNOTATIONS}}
_JOB: dict[str, Any] = {
    "apiVersion": _only("batch/v1"),
    "kind": _only("Job"),
    "metadata": {
        "name": _text,
        "namespace": _text,
        "labels": _LABELS,
        "annotations": _JOB_ANNOTATIONS,
        "ownerReferences": [
            {
                "apiVersion": _only("selfevo.dev/v1alpha1"),
                "kind": _only("SelfEvolutionRun"),
                "name": _text,
                "uid": _text,
                "controller": _only(True),
                "blockOwnerDeletion": _only(True),
            }
        ],
    },
}
_JOB_SPEC: dict[str, Any] = {
    "activeDeadlineSeconds": _whole,
    "backoffLimit": _whole,
    "backoffLimitPerIndex": _whole,
    "completionMode": _only("Indexed", "NonIndexed"),
    "completions": _whole,
    "parallelism": _whole,
    "podFailurePolicy": {
        "rules": [
            {
                "action": _only("FailJob", "Ignore", "Count"),
                "onExitCodes": {
                    "containerName": _only("trainer", "fetch-model"),
                    "operator": _only("In", "NotIn"),
                    "values": [_whole],
                },
                "onPodConditions": [{"type": _only("DisruptionTarget"), "status": _only("True")}],
            }
        ]
    },
    "podReplacementPolicy!": _only("Failed"),
    "ttlSecondsAfterFinished": _whole,
}
