"""Many writers commit the same directory at the same moment, over a network that loses replies."""

from __future__ import annotations

import copy
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff

from harness.artifacts import KEY, draft, write_files
from harness.s3proxy import Faults, Request, proxied
from harness.versitygw import S3Server
from selfevo_contract.artifacts import MANIFEST_NAME
from selfevo_store import CommitResult, ObjectStore, commit, open_store, read_manifest, verify

WRITERS = 16


def race(stores: list[ObjectStore], prefix: str, files: dict[str, Path]) -> list[CommitResult]:
    """One commit by each store; the puts of their manifests start together."""
    start = threading.Barrier(len(stores))

    def write(i: int) -> CommitResult:
        store = copy.copy(stores[i])
        put = store.put_if_absent

        def put_together(key: str, data: bytes) -> bool:
            if key.endswith(MANIFEST_NAME):  # not the probe's
                start.wait(timeout=60)
            return put(key, data)

        store.put_if_absent = put_together  # type: ignore[method-assign]
        return commit(store, prefix, files, draft(attempt=f"writer-{i}"))

    with ThreadPoolExecutor(len(stores)) as pool:
        return list(pool.map(write, range(len(stores))))


def check(store: ObjectStore, prefix: str, results: list[CommitResult]) -> None:
    """One writer won and knows it; all hold its manifest; what the losers uploaded is gone."""
    committed = read_manifest(store, prefix)
    assert committed is not None
    winner = int(committed.attempt.removeprefix("writer-"))
    assert [i for i, result in enumerate(results) if result.won] == [winner]
    assert all(result.manifest == committed for result in results)
    left = {info.key.removeprefix(f"{prefix}/").split("/")[1] for info in store.list(f"{prefix}/attempts")}
    assert left <= {committed.write_id}


@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("files", [{}, {"a": b"1", "b/c": b"2"}], ids=["manifest-only", "with-files"])
def test_one_of_many_writers_wins_in_a_folder(tmp_path: Path, files: dict[str, bytes], times: int) -> None:
    paths = write_files(tmp_path / "out", files)
    stores = [open_store(f"file://{tmp_path}/store") for _ in range(WRITERS)]
    for i in range(times):
        results = race(stores, f"race/solver/{i}", paths)
        check(stores[0], f"race/solver/{i}", results)
        assert verify(stores[0], f"race/solver/{i}") == []


@pytest.mark.slow
def test_one_of_sixteen_writers_wins_two_hundred_races_with_lost_replies(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # botocore waits up to a second before it asks again: 200 races are to end within a minute.
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: random.uniform(0.0, 0.02))
    rng, lock = random.Random(0), threading.Lock()
    lost_successes: set[str] = set()
    lost = {"requests": 0, "refusals": 0}

    def chance(probability: float) -> bool:
        with lock:
            return rng.random() < probability

    def lose_request(request: Request) -> bool:
        if request.method != "PUT" or "MANIFEST" not in request.path or not chance(0.03):
            return False
        lost["requests"] += 1
        return True

    def lose_reply(request: Request, status: int) -> bool:
        if request.method != "PUT" or "MANIFEST" not in request.path:
            return False
        if status == 200 and chance(0.75):  # the winner's own success, which it will meet again as 412
            lost_successes.add(request.path)
            return True
        if status == 412 and chance(0.05):
            lost["refusals"] += 1
            return True
        return False

    uri = f"s3://{s3_server.make_bucket()}/races"
    paths = write_files(tmp_path, {"a": b"1"})
    with proxied(s3_server, Faults(lose_request=lose_request, lose_reply=lose_reply)) as proxy:
        stores = [open_store(uri, endpoint=proxy.endpoint) for _ in range(WRITERS)]
        direct = open_store(uri, endpoint=s3_server.endpoint)

        def one(i: int) -> None:
            prefix = f"race/solver/{KEY[:8]}{i}"
            check(direct, prefix, race(stores, prefix, paths if i % 10 == 0 else {}))

        with ThreadPoolExecutor(3) as lanes:
            list(lanes.map(one, range(200)))
        retried_to_412 = proxy.count("PUT", "MANIFEST") - 200 * WRITERS
    assert len(lost_successes) > 100, "the faults did not happen: the test proves nothing"
    assert retried_to_412 >= len(lost_successes)
    assert min(lost.values()) > 10
