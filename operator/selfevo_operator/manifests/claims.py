"""Devices by claims (Dynamic Resource Allocation): which of them runs may have, and the GPUs among them. Pure.

A claim does not say how many devices it brings: that is in the cluster, in a ResourceClaimTemplate, and may be «all of
a node». So the person says it (``gpus``), as the limit of a device plugin's resource would.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfevo_contract.errors import InputError
from selfevo_contract.spec.pods import Pods
from selfevo_operator.manifests.settings import PodSettings


def is_listed(name: str, entries: Sequence[str]) -> bool:
    """Whether one of ``entries`` is ``name`` or, with a `*` at its end, the beginning of it."""
    return any(name == entry or (entry.endswith("*") and name.startswith(entry[:-1])) for entry in entries)


def claims_of_pod(pods: Pods, field: str, settings: PodSettings) -> list[dict[str, str]]:
    """The field ``resourceClaims`` of a pod's spec.

    Raises:
        InputError: a claim or template that the platform does not let runs name.
    """
    made = []
    for claim in pods.resource_claims:
        template = claim.resource_claim_template_name
        named, name, entries = (
            ("resourceClaimName", claim.resource_claim_name or "", settings.resource_claims)
            if template is None
            else ("resourceClaimTemplateName", template, settings.resource_claim_templates)
        )
        if not is_listed(name, entries):
            flag, value = _LISTS[named]
            raise InputError(
                f"{field}.resourceClaims has {claim.name} with {named} {name!r}, which this operator gives no pod; "
                f"remove it, or ask for an entry in policy.allowed.{value} (the operator's {flag})"
            )
        made.append({"name": claim.name, named: name})
    return made


_LISTS = {
    "resourceClaimTemplateName": ("--allow-resource-claim-templates", "resourceClaimTemplates"),
    "resourceClaimName": ("--allow-resource-claims", "resourceClaims"),
}


def claims_of_trainer(pods: Pods) -> dict[str, list[dict[str, str]]]:
    """The field ``claims`` of the trainer's resources; nothing where there are none."""
    taken = [{"name": c.name, **({"request": c.request} if c.request else {})} for c in pods.resource_claims]
    return {"claims": taken} if taken else {}


def gpus_by_claims(pods: Pods, field: str, by_limits: int, *, trains: bool) -> int:
    """GPUs that the claims bring to a pod.

    Args:
        by_limits: GPUs of ``resources.limits``.
        trains: The phase has a process for each GPU.

    Raises:
        InputError: there are GPUs by limits and by claims, or a training cannot know how many there are.
    """
    gpus = [claim.gpus for claim in pods.resource_claims if claim.gpus is not None]
    if by_limits and sum(gpus):
        raise InputError(
            f"{field} has {by_limits} GPUs by resources.limits and {sum(gpus)} by resourceClaims; set one of them to 0 "
            "(what a part of the spec does not set, it inherits from spec.pods)"
        )
    if trains and pods.resource_claims and not gpus and not by_limits:
        raise InputError(
            f"{field}.resourceClaims does not say how many GPUs a pod has by them, and a training has a process for "
            "each; add gpus to one of them (0 where they bring none)"
        )
    return sum(gpus)
