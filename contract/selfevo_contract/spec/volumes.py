"""Volumes of pods, beside the working folder."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfevo_contract.base import Closed
from selfevo_contract.rules import Rule, form
from selfevo_contract.spec.names import DnsLabel, Name, Size


class Claim(Closed):
    """A PersistentVolumeClaim in the run's namespace."""

    claim_name: Name
    """Its name."""
    read_only: bool = False
    """Mount it so that nothing can be written; false when not given."""


class EphemeralClaim(Closed):
    """A volume that is made for each pod, and removed with it."""

    size: Size
    """How large, e.g. 2Ti."""
    storage_class_name: Name | None = None
    """Its storage class; the cluster's default when not given."""


class Volume(Closed):
    """A volume of the pods, beside the working folder: a model cache that lasts, or a disk larger than the node's."""

    name: Annotated[DnsLabel, Field(max_length=40)]
    """Its name."""
    mount_path: Annotated[
        str,
        Field(max_length=128),
        form("/work/(cache|phase)|/mnt/[A-Za-z0-9_][-A-Za-z0-9_.]*", "/work/cache, /work/phase or /mnt/<name>"),
    ]
    """Where it is seen: /work/cache is what models and data are kept in, /work/phase is a step's own disk, /mnt/<name>
    is for model.uri file:///mnt/<name>/... and the like."""
    persistent_volume_claim: Claim | None = None
    """A claim that is there. Pods of several runs and nodes share it: ReadWriteMany, or ReadOnlyMany and readOnly."""
    ephemeral: EphemeralClaim | None = None
    """One of the pod's own."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.persistentVolumeClaim) != has(self.ephemeral)",
            lambda volume: (volume.persistent_volume_claim is None) != (volume.ephemeral is None),
            "a volume is a persistentVolumeClaim or ephemeral; write one of them",
        ),
    )
