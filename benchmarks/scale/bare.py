"""The limit: a process that hears of a Complete Job and POSTs the next one, and does nothing else.

    python -m scale.bare SERVER TOKEN NAMESPACE RUNS STEPS

No plan, no status, no Events, no ownership, no retries: what is left is the API server's and the Job controller's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

SELECTOR = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dselfevo-operator"


def job_of(template: dict[str, Any], run: int, step: int) -> bytes:
    job = copy.deepcopy(template)
    job["metadata"]["name"] = f"bare-{run}-{step}"
    job["metadata"]["labels"] |= {"selfevo.dev/run": f"bare-{run}", "selfevo.dev/step": str(step)}
    return json.dumps(job).encode()


async def drive(server: str, token: str, namespace: str, runs: int, steps: int, template: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    jobs = f"{server}/apis/batch/v1/namespaces/{namespace}/jobs"
    connector = aiohttp.TCPConnector(limit=64)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        headers=headers, connector=connector, timeout=timeout, read_bufsize=2**24
    ) as session:

        async def post(run: int, step: int) -> None:
            async with session.post(jobs, data=job_of(template, run, step), ssl=False) as response:
                assert response.status in (201, 409), await response.text()

        pending = {asyncio.create_task(post(run, 1)) for run in range(runs)}
        done: set[tuple[int, int]] = set()
        version = ""
        while len(done) < runs * steps:
            since = f"&resourceVersion={version}" if version else ""
            url = f"{jobs}?watch=true&{SELECTOR}&timeoutSeconds=3600{since}"
            async with session.get(url, ssl=False) as watch:
                with contextlib.suppress(aiohttp.ClientPayloadError):  # a server under load ends watches
                    async for line in watch.content:
                        job = json.loads(line)["object"]
                        version = job["metadata"]["resourceVersion"]
                        conditions = (job.get("status") or {}).get("conditions") or []
                        _, run, step = job["metadata"]["name"].split("-")
                        place = (int(run), int(step))
                        complete = any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)
                        if place in done or not complete:
                            continue
                        done.add(place)
                        if place[1] < steps:
                            pending.add(asyncio.create_task(post(place[0], place[1] + 1)))
                        if len(done) == runs * steps:
                            break
        await asyncio.gather(*pending)


if __name__ == "__main__":
    template = json.loads(Path(sys.argv[6]).read_text())
    asyncio.run(drive(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), template))
