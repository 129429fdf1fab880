"""How fast our store moves a model to an S3 server and back, beside other clients.

    python benchmarks/store.py

One file of random bytes goes up to a versitygw on this machine and comes down again, by each client in turn, three
rounds, each time in a process of its own. All end with the file's sha256 known and compared: ours takes it while it
transfers; for the others the file is hashed afterwards, as whoever wants to know would. Without it their times stand
beside that («alone»).

    ours      selfevo_store, as a commit and a fetch use it
    boto3     upload_file and download_file with boto3's own settings
    crt       the same through awscrt, boto3's C client; the first two do without it, as in the images
    obstore   obstore: Rust's object_store, parts in parallel up, one stream down

Other work on the machine moves the clock: CPU seconds are of the client's process, and ratios are by round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from machine import provenance

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

MIB = 1 << 20
REGION = "us-east-1"
CLIENTS = ("ours", "boto3", "crt", "obstore")
DIRECTIONS = ("upload", "download")


def ours(bucket: str, endpoint: str, key: str, path: Path) -> dict[str, Callable[[], str | None]]:
    """Both directions; each says the digest that it knows by then."""
    from selfevo_store import open_store
    from selfevo_store.cache import NoCache
    from selfevo_store.digests import Digest

    store = open_store(f"s3://{bucket}", endpoint=endpoint, region=REGION)

    def download() -> str:
        want = Digest(*json.loads(os.environ["STORE_BENCHMARK_DIGEST"]))
        return store.cache.place(want, path, lambda draft: store.download_file(key, draft)).sha256

    assert isinstance(store.cache, NoCache)
    return {"upload": lambda: store.upload_file(path, key).sha256, "download": download}


def boto3(bucket: str, endpoint: str, key: str, path: Path) -> dict[str, Callable[[], str | None]]:
    """boto3's own transfer with its own settings."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint, region_name=REGION, config=config)
    transfer = TransferConfig(preferred_transfer_client="classic")  # without awscrt it is the only one
    return {
        "upload": lambda: client.upload_file(str(path), bucket, key, Config=transfer),
        "download": lambda: client.download_file(bucket, key, str(path), Config=transfer),
    }


def crt(bucket: str, endpoint: str, key: str, path: Path) -> dict[str, Callable[[], str | None]]:
    """awscrt by s3transfer, which boto3 calls: boto3 itself (1.44) hands it no endpoint, and knows AWS alone."""
    import botocore.session
    from botocore.config import Config
    from s3transfer import crt

    session = botocore.session.get_session()
    wrapped = crt.BotocoreCRTCredentialsWrapper(session.get_credentials())
    client = crt.create_s3_crt_client(REGION, wrapped.to_crt_credentials_provider(), use_ssl=False)
    config = Config(s3={"addressing_style": "path"})
    settings = {"region_name": REGION, "endpoint_url": endpoint, "config": config}
    manager = crt.CRTTransferManager(client, crt.BotocoreCRTRequestSerializer(session, settings))

    def move(begin: Callable[..., Any], *args: str) -> None:
        with manager:  # its end waits until a download has its name
            begin(*args).result()

    return {
        "upload": lambda: move(manager.upload, str(path), bucket, key),
        "download": lambda: move(manager.download, bucket, key, str(path)),
    }


def obstore(bucket: str, endpoint: str, key: str, path: Path) -> dict[str, Callable[[], str | None]]:
    """obstore's put and get."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=endpoint,
        region=REGION,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "600s"},
    )

    def download() -> None:
        with path.open("wb") as file:
            for chunk in obstore.get(store, key).stream(min_chunk_size=8 * MIB):
                file.write(chunk)

    def upload() -> None:
        obstore.put(store, key, path, chunk_size=8 * MIB)

    return {"upload": upload, "download": download}


OPEN: dict[str, Callable[[str, str, str, Path], dict[str, Callable[[], str | None]]]] = {
    "ours": ours,
    "boto3": boto3,
    "crt": crt,
    "obstore": obstore,
}


def one(client: str, direction: str, bucket: str, endpoint: str, key: str, path: Path) -> dict[str, Any]:
    """One transfer, in this process, by the clock and in CPU seconds of the process."""
    from selfevo_store.digests import digest_of_file

    move = OPEN[client](bucket, endpoint, key, path)[direction]
    begun, cpu = time.perf_counter(), _cpu()
    digest = move()
    alone, alone_cpu = time.perf_counter() - begun, _cpu() - cpu
    digest = digest or digest_of_file(path).sha256
    checked, checked_cpu = time.perf_counter() - begun, _cpu() - cpu
    return {
        "wall_s": round(checked, 3),
        "cpu_s": round(checked_cpu, 3),
        "alone_wall_s": round(alone, 3),
        "alone_cpu_s": round(alone_cpu, 3),
        "sha256": digest,
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(rounds: int, mebibytes: int, folder: Path, clients: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The rounds, one by one: client -> direction -> figures."""
    from harness.versitygw import running
    from selfevo_store.digests import digest_of_file

    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
    digest = digest_of_file(source)
    with running(folder) as server:
        bucket = server.make_bucket()
        environment = {**os.environ, **server.environment, "STORE_BENCHMARK_DIGEST": json.dumps(digest)}
        for number in range(rounds):
            figures: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1)}
            for client in clients[number % len(clients) :] + clients[: number % len(clients)]:
                figures[client] = {}
                for direction in DIRECTIONS:
                    path = source if direction == "upload" else folder / "copy"
                    args = [client, direction, bucket, server.endpoint, client, str(path)]
                    command = [sys.executable, __file__, "--one", *args]
                    signing = {} if client == "crt" else {"BOTO_DISABLE_CRT": "true"}
                    process = subprocess.run(
                        command, env=environment | signing, stdout=subprocess.PIPE, text=True, check=True
                    )
                    done = json.loads(process.stdout)
                    assert done.pop("sha256") == digest.sha256 == digest_of_file(path).sha256, (client, direction)
                    figures[client][direction] = done
                    print(number, client, direction, done, flush=True)
                (folder / "copy").unlink()
                server.client.delete_object(Bucket=bucket, Key=client)
            yield figures


def summary(rounds: list[dict[str, Any]], clients: tuple[str, ...]) -> dict[str, Any]:
    """Medians of the rounds, and of the ratios within a round: above 1, ours is faster, or takes less CPU."""
    made: dict[str, Any] = {}
    for direction in DIRECTIONS:
        of = {client: [each[client][direction] for each in rounds] for client in clients}
        made[direction] = {
            client: {name: statistics.median(each[name] for each in found) for name in found[0]}
            for client, found in of.items()
        }
        for name in ("wall_s", "cpu_s"):
            made[direction][f"times_ours_{name.removesuffix('_s')}"] = {
                client: [round(theirs[name] / mine[name], 2) for theirs, mine in zip(found, of["ours"], strict=True)]
                for client, found in of.items()
                if client != "ours"
            }
    return made


def main() -> int:
    """Measure, print, write the result; or one transfer, for a process of the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=CLIENTS)
    parser.add_argument("--folder", type=Path, help="where files and server are; a RAM disk keeps the disk out of it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "store.json")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        client, direction, bucket, endpoint, key, path = options.one
        print(json.dumps(one(client, direction, bucket, endpoint, key, Path(path))))
        return 0
    clients = tuple(options.clients)
    result: dict[str, Any] = {
        **provenance(),
        "versions": {name: metadata.version(name) for name in ("boto3", "awscrt", "obstore")} | {"versitygw": "1.8.0"},
        "mebibytes": options.mebibytes,
        "on": "a RAM disk" if str(options.folder).startswith("/dev/shm") else "a disk",
    }
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="selfevo-store-", dir=options.folder) as folder:
        for figures in measure(options.rounds, options.mebibytes, Path(folder), clients):
            rounds.append(figures)
            # After each round, so that a run that is ended early leaves what it has.
            options.out.write_text(json.dumps(result | summary(rounds, clients) | {"rounds": rounds}, indent=1) + "\n")
    print(json.dumps(summary(rounds, clients), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
