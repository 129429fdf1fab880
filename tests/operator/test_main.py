"""What the wiring does with an object that kopf brings."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from kopf._cogs.structs.bodies import Body

from selfevo_operator.main import forward_and_strip


class Bulk(dict[str, Any]):
    """A dictionary that tells when it is gone."""


def test_an_object_is_passed_on_whole_and_its_bulk_is_free_without_the_garbage_collector() -> None:
    seen: list[tuple[str | None, set[str], set[str]]] = []
    metadata: dict[str, Any] = {"name": "demo", "namespace": "lab", "uid": "u", "managedFields": Bulk()}
    job: dict[str, Any] = {"kind": "Job", "metadata": metadata, "spec": Bulk(), "status": Bulk()}
    bulk = [weakref.ref(part) for part in (metadata["managedFields"], job["spec"], job["status"])]
    body = Body(job)  # as kopf has it, and keeps it for a while
    gc.disable()
    try:
        forward_and_strip(
            {"type": "MODIFIED", "object": job}, lambda kind, job: seen.append((kind, set(job), set(job["metadata"])))
        )
        assert seen == [
            ("MODIFIED", {"kind", "metadata", "spec", "status"}, {"name", "namespace", "uid", "managedFields"})
        ]
        assert [part() for part in bulk] == [None, None, None]
    finally:
        gc.enable()
    assert body.metadata.name == "demo" and body.metadata.namespace == "lab" and body.metadata.uid == "u"


def test_an_object_without_spec_and_status_is_heard_as_well() -> None:
    seen: list[str | None] = []
    forward_and_strip({"type": "DELETED", "object": {"metadata": {"name": "demo"}}}, lambda kind, _: seen.append(kind))
    assert seen == ["DELETED"]
