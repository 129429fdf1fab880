"""Where a step's pods may be scheduled, and the volumes that a run asks for beside the working folder. Pure.

Affinity and spread are among the pods of the same step alone: a selector of one's own could keep other people's pods
from a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.spec.environment import CaBundle
from selfevo_contract.spec.placement import NodeRequirement, PodRequirement
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.volumes import Volume
from selfevo_operator.manifests.environment import CA_FILE, CA_FOLDER
from selfevo_operator.manifests.labels import RUN, STEP

CERTIFICATES = "ca"
"""The volume with a run's certificates."""
PREFIX = "vol-"
"""Begins the name of every volume that a run asks for, so that none is ours."""


def scheduling(pods: Pods, run: str, step: str) -> dict[str, Any]:
    """The fields ``affinity`` and ``topologySpreadConstraints`` of a pod's spec; none where nothing is asked for."""
    selector = {"matchLabels": {RUN: run, STEP: step}}
    affinity = {
        "nodeAffinity": _nodes(pods.node_affinity),
        "podAffinity": _pods(pods.pod_affinity, selector),
        "podAntiAffinity": _pods(pods.pod_anti_affinity, selector),
    }
    spread = [{**one.wire(), "labelSelector": selector} for one in pods.topology_spread_constraints]
    fields: dict[str, Any] = {
        "affinity": {name: value for name, value in affinity.items() if value},
        "topologySpreadConstraints": spread,
    }
    return {name: value for name, value in fields.items() if value}


def _nodes(asked: Sequence[NodeRequirement]) -> dict[str, Any]:
    def expression(one: NodeRequirement) -> dict[str, Any]:
        values = {"values": list(one.values)} if one.values else {}
        return {"key": one.key, "operator": one.operator, **values}

    required = [expression(one) for one in asked if one.weight is None]
    preferred = [
        {"weight": one.weight, "preference": {"matchExpressions": [expression(one)]}}
        for one in asked
        if one.weight is not None
    ]
    return _by_kind({"nodeSelectorTerms": [{"matchExpressions": required}]} if required else None, preferred)


def _pods(asked: Sequence[PodRequirement], selector: dict[str, Any]) -> dict[str, Any]:
    def term(one: PodRequirement) -> dict[str, Any]:
        return {"topologyKey": one.topology_key, "labelSelector": selector}

    required = [term(one) for one in asked if one.weight is None]
    preferred = [{"weight": one.weight, "podAffinityTerm": term(one)} for one in asked if one.weight is not None]
    return _by_kind(required or None, preferred)


def _by_kind(required: Any, preferred: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {
        "requiredDuringSchedulingIgnoredDuringExecution": required,
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }
    return {name: value for name, value in kinds.items() if value}


def volumes(pods: Pods, field: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes of the pod and mounts of its containers.

    Raises:
        InputError: two are to be seen at one place.
    """
    places = [volume.mount_path for volume in pods.volumes]
    for place in places:
        if places.count(place) > 1:
            raise InputError(f"{field}.volumes has two with mountPath {place!r}; give each a place of its own")
    mounts = [
        {
            "name": f"{PREFIX}{volume.name}",
            "mountPath": volume.mount_path,
            **(
                {"readOnly": True}
                if volume.persistent_volume_claim and volume.persistent_volume_claim.read_only
                else {}
            ),
        }
        for volume in pods.volumes
    ]
    asked = [_volume(volume) for volume in pods.volumes]
    if pods.ca_bundle is None:
        return asked, mounts
    mount = {"name": CERTIFICATES, "mountPath": CA_FOLDER, "readOnly": True}
    return [*asked, _certificates(pods.ca_bundle)], [*mounts, mount]


def _certificates(bundle: CaBundle) -> dict[str, Any]:
    items = [{"key": bundle.key, "path": CA_FILE}]
    return {"name": CERTIFICATES, "configMap": {"name": bundle.config_map, "items": items}}


def _volume(volume: Volume) -> dict[str, Any]:
    name = {"name": f"{PREFIX}{volume.name}"}
    if volume.persistent_volume_claim is not None:
        return {**name, "persistentVolumeClaim": volume.persistent_volume_claim.wire()}
    assert volume.ephemeral is not None  # the contract's rule
    of_class = volume.ephemeral.storage_class_name
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": volume.ephemeral.size}},
        **({"storageClassName": of_class} if of_class else {}),
    }
    return {**name, "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
