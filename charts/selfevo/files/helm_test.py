"""What `helm test` runs, in the operator's image, with nothing but the standard library.

1. The operator's Deployment has a ready pod.
2. The API server takes a run (a dry run): the CRD is there, and the policy lets it through.
3. When a store is given (`tests.storage`): a tiny run trains to its end.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
NAMESPACE = os.environ["RUN_NAMESPACE"]
RUNS = f"/apis/selfevo.dev/v1alpha1/namespaces/{NAMESPACE}/selfevolutionruns"
DEADLINE = time.monotonic() + float(os.environ["TIMEOUT_SECONDS"])
POLL_S = 2.0


def ask(method: str, path: str, body: object = None) -> tuple[int, dict]:
    """Status code and answer of the API server; code 0 when there was none."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    address = f"https://{f'[{host}]' if ':' in host else host}:{os.environ['KUBERNETES_SERVICE_PORT']}{path}"
    token = (ACCOUNT / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, headers, method=method)
    tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT  # clusters' own authorities often lack extensions that it asks for
    try:
        with urllib.request.urlopen(request, timeout=30, context=tls) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.load(error)
        except ValueError:
            return error.code, {"message": str(error)}
    except OSError as error:
        return 0, {"message": f"the API server at {address} does not answer: {error}"}


def say(text: str) -> None:
    print(text, flush=True)


def give_up(text: str) -> None:
    say(f"FAILED: {text}")
    sys.exit(1)


def wait(why_not: str) -> None:
    if time.monotonic() > DEADLINE:
        give_up(f"{why_not} (after {os.environ['TIMEOUT_SECONDS']} s)")
    time.sleep(POLL_S)


def operator_is_ready() -> None:
    path = f"/apis/apps/v1/namespaces/{os.environ['OPERATOR_NAMESPACE']}/deployments/{os.environ['OPERATOR']}"
    while True:
        code, found = ask("GET", path)
        if code == 200 and found.get("status", {}).get("readyReplicas", 0) >= 1:
            return say("the operator is ready")
        wait(found.get("message") or "the operator is not ready; see its log")


def run_is_taken(run: dict) -> None:
    code, answer = ask("POST", f"{RUNS}?dryRun=All&fieldValidation=Strict", run)
    if code != 201:
        give_up(f"the API server does not take a run in {NAMESPACE}: {answer.get('message')}")
    say(f"the API server takes a run in {NAMESPACE}")


def run_trains(run: dict) -> None:
    name = run["metadata"]["name"]
    while (answer := ask("DELETE", f"{RUNS}/{name}"))[0] != 404:  # of an earlier test
        wait(f"the earlier run {name} does not go away: {answer[1].get('message', '')}")
    code, answer = ask("POST", RUNS, run)
    if code != 201:
        give_up(f"run {name} is refused: {answer.get('message')}")
    last = ""
    while True:
        code, found = ask("GET", f"{RUNS}/{name}")
        status = found.get("status") or {}
        ready = {c["type"]: c for c in status.get("conditions") or []}.get("Ready") or {}
        now = f"run {name}: {status.get('phase', 'not seen yet')}: {ready.get('message', '')}"
        if now != last:
            say(now)
            last = now
        if status.get("phase") == "Succeeded":
            ask("DELETE", f"{RUNS}/{name}")  # its model stays in the store, and the next test finds it there
            return
        if status.get("phase") == "Failed":
            give_up(f"run {name} is left in {NAMESPACE} for inspection: {ready.get('message', '')}")
        wait(f"run {name} has not ended; it is left in {NAMESPACE} for inspection")


def main() -> None:
    run = json.loads(os.environ["RUN"])
    operator_is_ready()
    run_is_taken(run)
    if os.environ.get("TRAIN") == "true":
        run_trains(run)
    else:
        say("no run is trained: tests.storage is not given")
    say("PASSED")


if __name__ == "__main__":
    main()
