"""What pods were and logged, also when they are gone: an evicted pod is deleted as soon as it has ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.cluster.client import Api, ApiError
from harness.lines import whole_lines

Object = dict[str, Any]


class PodRecord:
    """The newest version of every pod that a namespace has had since the record began, and what it wrote.

    Logs are followed from the moment that a container runs: a node removes them with the pod.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._pods: dict[str, Object] = {}
        self._logs: dict[str, list[bytes]] = {}
        self._readers: list[threading.Thread] = []
        self._watch = api.watch("pods", namespace)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._watch.close()
        for thread in (self._thread, *self._readers):
            thread.join(5)  # of pods that still run there is more to read, and nobody who wants it

    # -- what was seen

    def of(self, step: str) -> list[Object]:
        """The pods of a step, the oldest first."""
        found = [pod for pod in list(self._pods.values()) if pod["metadata"]["labels"]["selfevo.dev/step"] == step]
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    @property
    def all(self) -> list[Object]:
        return list(self._pods.values())

    def log(self, pod: Object) -> str:
        return b"".join(self._logs.get(pod["metadata"]["uid"], [])).decode(errors="replace")

    def progress(self, pod: Object) -> list[Object]:
        """Its lines of progress."""
        lines = (line for line in whole_lines(self.log(pod)) if line.startswith('{"event":"progress"'))
        return [json.loads(line) for line in lines]

    def tell(self, tail: int = 1500) -> str:
        """All of it, for error messages."""
        parts = []
        for pod in sorted(self.all, key=lambda pod: pod["metadata"]["creationTimestamp"]):
            status = pod["status"]
            states = [container.get("state") for container in status.get("containerStatuses", [])]
            why = [c for c in status.get("conditions", []) if c["status"] == "False" or c["type"] == "DisruptionTarget"]
            parts.append(
                f"-- pod {pod['metadata']['name']}: {status.get('phase')} {json.dumps(states)} {json.dumps(why)}"
            )
            parts.append(self.log(pod)[-tail:])
        return "\n".join(parts)

    # -- how it is seen

    def _follow(self) -> None:
        for _, pod in self._watch:
            uid = pod["metadata"]["uid"]
            self._pods[uid] = pod
            if uid not in self._logs and any(_has_run(c) for c in pod["status"].get("containerStatuses", [])):
                self._logs[uid] = []
                reader = threading.Thread(target=self._read, args=(pod,), daemon=True)
                self._readers.append(reader)
                reader.start()

    def _read(self, pod: Object) -> None:
        try:
            for piece in self._api.follow_log(pod["metadata"]["name"], self._namespace):
                self._logs[pod["metadata"]["uid"]].append(piece)
        except ApiError as error:  # it ended, and was removed, before it was asked
            self._logs[pod["metadata"]["uid"]].append(f"\n(no log: {error})\n".encode())


def _has_run(container: Object) -> bool:
    return bool({"running", "terminated"} & set(container.get("state") or {}))


@contextmanager
def recording(api: Api, namespace: str) -> Iterator[PodRecord]:
    """A record of the pods of ``namespace``, until the block ends."""
    record = PodRecord(api, namespace)
    try:
        yield record
    finally:
        record.close()
