"""A store that cannot keep two attempts apart is found before it matters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.artifacts import KEY, draft, write_files
from harness.s3proxy import Faults, Request, proxied
from harness.versitygw import S3Server
from selfevo_contract.errors import ExitCode, InputError
from selfevo_store import ObjectStore, commit, open_store, probe_conditional_put, verify
from selfevo_store.digests import Digest

PREFIX = f"team/solver/{KEY}"


def conditional(request: Request) -> bool:
    return request.method == "PUT" and "if-none-match" in request.headers


class Inverted:
    """A store that refuses a conditional put exactly when nothing is there: one Ceph back end once did."""

    def __init__(self) -> None:
        self.stored: set[str] = set()

    def __call__(self, request: Request) -> int | None:
        if conditional(request):
            return None if request.path in self.stored else 412
        return None


FLAWS: dict[str, Callable[[], Faults]] = {
    "ignores": lambda: Faults(strip=frozenset({"if-none-match"})),
    "inverted": lambda: Faults(answer=Inverted()),
    "unimplemented": lambda: Faults(answer=lambda request: 501 if conditional(request) else None),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_store_that_breaks_the_promise_is_refused(s3_server: S3Server, flaw: str) -> None:
    with proxied(s3_server, FLAWS[flaw]()) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        for act in (lambda: probe_conditional_put(store), lambda: commit(store, PREFIX, {}, draft())):
            with pytest.raises(InputError, match=r"storage\.requireConditionalPut: false") as caught:
                act()
            assert store.uri in str(caught.value)
            assert caught.value.exit_code is ExitCode.INPUT
            assert caught.value.reason == "ConditionalPutUnsupported"
        assert store.list("") == []


def test_google_cloud_storage_is_refused_with_the_reason(s3_server: S3Server) -> None:
    with proxied(s3_server, FLAWS["ignores"]()) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        store.endpoint = "https://storage.googleapis.com"
        with pytest.raises(InputError, match=r"not in its S3 interface: use another store .* or accept the risk"):
            probe_conditional_put(store)


@pytest.mark.parametrize("flaw", FLAWS)
def test_its_owner_may_accept_the_risk(
    s3_server: S3Server, flaw: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with proxied(s3_server, FLAWS[flaw]()) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint, require_conditional_put=False)
        with caplog.at_level(logging.WARNING):
            first = commit(store, PREFIX, write_files(tmp_path / "1", {"a": b"1"}), draft())
            second = commit(store, PREFIX, write_files(tmp_path / "2", {"a": b"2"}), draft())
        assert (first.won, second.won) == (True, False)
        assert second.manifest == first.manifest
        assert verify(store, PREFIX) == []
        (warning,) = caplog.messages
        assert store.uri in warning
        assert "requireConditionalPut" in warning


def test_with_the_risk_accepted_no_attempt_removes_files(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delayed put of the loser might still replace the manifest: then it must find its files."""
    with proxied(s3_server, FLAWS["ignores"]()) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint, require_conditional_put=False)
        upload = store.upload_file

        def overtaken(path: Path, key: str) -> Digest:
            monkeypatch.setattr(store, "upload_file", upload)
            commit(store, PREFIX, write_files(tmp_path / "1", {"a": b"1"}), draft())
            return upload(path, key)

        monkeypatch.setattr(store, "upload_file", overtaken)
        assert not commit(store, PREFIX, write_files(tmp_path / "2", {"a": b"2"}), draft()).won
        assert len(store.list(f"{PREFIX}/attempts")) == 2


def test_a_sound_store_is_asked_once_and_left_clean(s3_server: S3Server) -> None:
    with proxied(s3_server) as proxy:
        uri = f"s3://{s3_server.make_bucket()}/x"
        for _ in range(3):
            store = open_store(uri, endpoint=proxy.endpoint)
            probe_conditional_put(store)
        assert proxy.count("PUT") == 2
        assert store.list("") == []


def test_a_store_is_sound_for_one_who_only_trusts_what_is_stored(s3_server: S3Server) -> None:
    lost: list[Request] = []

    def lose_first(request: Request, status: int) -> bool:
        lost.append(request)
        return len(lost) == 1

    with proxied(s3_server, Faults(lose_reply=lose_first)) as proxy:
        probe_conditional_put(open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint))
        assert lost[0].method == "PUT"


def test_every_store_here_passes(store: ObjectStore) -> None:
    probe_conditional_put(store)
    assert store.list("") == []
