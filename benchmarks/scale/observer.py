"""A process of its own that holds one watch on all Jobs and writes down when it hears what.

    python -m scale.observer SERVER TOKEN JOBS OUTPUT

Both ends of a gap are arrivals on this one watch: neither the operator's clock nor its own view is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

SELECTOR = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dselfevo-operator"


class Observer:
    """What was heard of each Job: its run, when it was seen first, and when Complete."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.complete, self.reconnects = jobs, 0, 0
        self.seen: dict[str, dict[str, Any]] = {}
        self.version = ""

    def hear(self, line: bytes) -> bool:
        """Take one event in; returns whether all Jobs are Complete."""
        now = time.monotonic()
        event = json.loads(line)
        job = event["object"]
        self.version = job["metadata"].get("resourceVersion", self.version)
        if event["type"] not in ("ADDED", "MODIFIED"):
            return False
        run = f"{job['metadata']['namespace']}/{job['metadata']['labels']['selfevo.dev/run']}"
        entry = self.seen.setdefault(job["metadata"]["uid"], {"run": run, "first": now, "complete": None})
        conditions = (job.get("status") or {}).get("conditions") or []
        if entry["complete"] is None and any(c["type"] == "Complete" and c["status"] == "True" for c in conditions):
            entry["complete"] = now
            self.complete += 1
        return self.complete >= self.jobs

    async def watch(self, session: aiohttp.ClientSession, server: str) -> None:
        """Until all Jobs are Complete. A server under load ends watches: it goes on from where it was."""
        while True:
            since = f"&resourceVersion={self.version}" if self.version else ""
            url = f"{server}/apis/batch/v1/jobs?watch=true&{SELECTOR}&timeoutSeconds=3600{since}"
            async with session.get(url, ssl=False) as response:
                response.raise_for_status()
                if not self.reconnects:
                    print("watching", flush=True)
                with contextlib.suppress(aiohttp.ClientPayloadError):
                    async for line in response.content:
                        if self.hear(line):
                            return
            self.reconnects += 1


async def main(server: str, token: str, jobs: int, output: Path) -> None:
    observer = Observer(jobs)
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, read_bufsize=2**24) as session:
        await observer.watch(session, server)
    output.write_text(json.dumps({"jobs": list(observer.seen.values()), "reconnects": observer.reconnects}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
