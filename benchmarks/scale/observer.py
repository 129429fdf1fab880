"""A process of its own that holds one watch on all Jobs and writes down when it hears what.

    python -m scale.observer SERVER TOKEN SECONDS_OR_JOBS OUTPUT

Both ends of a gap are arrivals on this one watch: neither the operator's clock nor its own view is believed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp

SELECTOR = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dselfevo-operator"


async def observe(server: str, token: str, jobs: int, output: Path) -> None:
    """Until ``jobs`` Jobs are Complete: for every Job its run, and when it was seen first and Complete."""
    seen: dict[str, dict[str, object]] = {}
    complete = 0
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{server}/apis/batch/v1/jobs?watch=true&{SELECTOR}&timeoutSeconds=3600"
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout, read_bufsize=2**24) as session,
        session.get(url, ssl=False) as response,
    ):
        response.raise_for_status()
        print("watching", flush=True)
        async for line in response.content:
            now = time.monotonic()
            event = json.loads(line)
            if event["type"] not in ("ADDED", "MODIFIED"):
                continue
            job = event["object"]
            uid = job["metadata"]["uid"]
            run = f"{job['metadata']['namespace']}/{job['metadata']['labels']['selfevo.dev/run']}"
            entry = seen.setdefault(uid, {"run": run, "first": now, "complete": None})
            conditions = (job.get("status") or {}).get("conditions") or []
            if entry["complete"] is None and any(c["type"] == "Complete" and c["status"] == "True" for c in conditions):
                entry["complete"] = now
                complete += 1
                if complete >= jobs:
                    break
    output.write_text(json.dumps(list(seen.values())))


if __name__ == "__main__":
    asyncio.run(observe(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
