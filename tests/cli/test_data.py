"""`selfevo data prepare`: every registered data set from a hub on loopback, in the hub's own file formats."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import Project
from harness.hub import Hub, hub
from harness.hub_data_sets import LONG, ROWS, write_data_set
from harness.inprocess import Phases
from harness.ports import free_port
from harness.tiny import settings
from harness.versitygw import REGION, S3Server
from runs import arithmetic
from selfevo.data import DATA_SETS
from selfevo.data.hub import UNSTATED, Fetched
from selfevo.data.prepared import Prepared, prepare, put, source_of, task_of
from selfevo_contract.errors import InputError
from selfevo_contract.spec.evaluation import Task
from selfevo_store import open_store

READ = {
    "math500": [(r"Simplify $\frac{2}{4}$.", r"\frac{1}{2}"), ("What is the interval?", "(1, 2]")],
    "gsm8k": [("Tom has 7 apples.\nHe eats 3. How many are left?", "4"), ("How much is it?", "1,018")],
    "amc23": [("How far?", "27.0")],
    "aime24": [("Find $m+n$.", "025")],
    "aime25": [("Find the angle.", r"336^\circ")],
    "minerva": [("How bright is the star?", r"4.83 \times 10^{26}")],
    "olympiad": [("Solve $x^2=4$.", "2, -2"), ("Find $n$.", "$n=3$")],
    "mmlu-pro": [
        ("Which?\n" + "\n".join(f"{'ABCDEFGHIJ'[i]}. {text}" for i, text in enumerate(LONG)), "J"),
        ("Even?\nA. 3\nB. 4", "B"),
    ],
    "supergpqa": [("Who?\nA. I\nB. You", "B")],
    "bbeh": [("Who owns the zebra?", "the Norwegian")],
}
"""What becomes of ROWS."""

RUNNER = """
import contextlib, io, json, sys
from selfevo.main import main
done = []
for args in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["selfevo", *args]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""


@dataclass
class Ended:
    code: int
    out: str
    err: str


def selfevo(folder: Path, endpoint: str, commands: Sequence[Sequence[str]], **environment: str) -> list[Ended]:
    """Commands, one after the other in one process: the hub's client reads its address when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([list(command) for command in commands]),
        env={**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return [Ended(*ended) for ended in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    root = tmp_path_factory.mktemp("hub")
    made = {}
    for name, entry in DATA_SETS.items():
        licence = None if name == "math500" else "cc-by-4.0"
        folder = write_data_set(root / name, entry, ROWS[name], licence=licence, lines=name == "aime25")
        made[f"datasets/{entry.repository}"] = {"main": folder}
    gsm8k = DATA_SETS["gsm8k"]
    renamed = [{"query": row["question"], "answer": row["answer"]} for row in ROWS["gsm8k"]]
    spoilt = [{"question": "How?", "answer": "I do not know"}] + ROWS["gsm8k"]
    made[f"datasets/{gsm8k.repository}"] |= {
        "renamed": write_data_set(root / "renamed", gsm8k, renamed),
        "spoilt": write_data_set(root / "spoilt", gsm8k, spoilt),
        "damaged": write_data_set(root / "damaged", gsm8k, ROWS["gsm8k"]),
        "unconfigured": write_data_set(root / "unconfigured", DATA_SETS["math500"], ROWS["gsm8k"]),
    }
    (root / "damaged" / "main" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 this is none PAR1")
    return made


@pytest.fixture
def running(repositories: dict[str, dict[str, Path]]) -> Iterator[Hub]:
    with hub(repositories) as made:
        yield made


def gsm8k(folder: Path, *more: str, to: str = "gsm8k.jsonl") -> list[str]:
    return ["data", "prepare", "gsm8k", "--to", str(folder / to), *more]


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_data_set_is_written_with_its_source_and_a_task_to_paste(tmp_path: Path, running: Hub) -> None:
    names = list(DATA_SETS)
    for name, ended in zip(
        names,
        selfevo(tmp_path, running.endpoint, [["data", "prepare", name, "--to", f"out/{name}.jsonl"] for name in names]),
        strict=True,
    ):
        entry = DATA_SETS[name]
        assert (ended.code, ended.err) == (0, ""), (name, ended.err)
        file = tmp_path / "out" / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [(row["question"], row["answer"]) for row in rows] == READ[name]
        sha, _ = running.commit(f"datasets/{entry.repository}", "main")  # type: ignore[misc]
        licence = UNSTATED if name == "math500" else "cc-by-4.0"
        assert {(row["answers"], row["source"], row["revision"], row["licence"]) for row in rows} == {
            (entry.answers, entry.repository, sha, licence)
        }
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        source = json.loads((tmp_path / "out" / f"{name}.source.json").read_text())
        assert (source["digest"], source["revision"], source["rows"]) == (digest, sha, len(rows))
        assert f"licence {licence}" in ended.out
        assert f"# note: scores are published on {entry.questions} questions\n" in ended.out  # these are a few
        [task] = [Task.model_validate(item) for item in yaml.safe_load(ended.out)]
        assert (task.name, task.answers, task.group, task.data.digest) == (name, entry.answers, entry.group, digest)
        assert task.data.uri == f"file://{file}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{name}{suffix}" for name in names for suffix in (".jsonl", ".source.json")
    )


@pytest.mark.slow
def test_the_same_commit_gives_the_same_bytes_and_another_file_is_not_replaced(tmp_path: Path, running: Hub) -> None:
    sha, _ = running.commit("datasets/openai/gsm8k", "main")  # type: ignore[misc]
    first, again, fewer, elsewhere = selfevo(
        tmp_path,
        running.endpoint,
        [
            gsm8k(tmp_path),
            gsm8k(tmp_path, "--revision", sha),
            gsm8k(tmp_path, "--limit", "1"),
            gsm8k(tmp_path, "--limit", "1", to="one.jsonl"),
        ],
    )
    assert "# wrote 2 questions" in first.out and "# found 2 questions" in again.out
    assert first.out.splitlines()[1:] == again.out.splitlines()[1:]
    assert fewer.code == 2 and "another file is there; name a new one, or remove it" in " ".join(fewer.err.split())
    assert "note" not in elsewhere.out  # fewer were asked for
    assert elsewhere.code == 0 and len((tmp_path / "one.jsonl").read_text().splitlines()) == 1


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_wrong_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, repositories: dict[str, dict[str, Path]]
) -> None:
    """All in one process, against one hub."""
    (tmp_path / "a-file").write_text("x")
    less = {name: held for name, held in repositories.items() if name != "datasets/math-ai/amc23"}
    cases: list[tuple[list[str], int, list[str]]] = [
        (
            ["data", "prepare", "math-500", "--to", "x.jsonl"],
            2,
            ["no data set 'math-500'", "one of math500, gsm8k, amc23, aime24, aime25, minerva, olympiad, mmlu-pro, "],
        ),
        (["data", "prepare", "gsm8k", "--to", "x.json"], 2, ["--to is 'x.json'", "ends with .jsonl"]),
        (["data", "prepare", "gsm8k", "--to", "ftp://a/x.jsonl"], 2, ["--to is 'ftp://a/x.jsonl'", "s3://"]),
        (["data", "prepare", "gsm8k", "--to", "s3://x.jsonl"], 2, ["--to is 's3://x.jsonl'"]),
        (["data", "prepare", "gsm8k", "--to", "a-file/x.jsonl"], 2, ["a part of the path is a file"]),
        (gsm8k(tmp_path, "--revision", "v9"), 2, ["--revision is 'v9'", "openai/gsm8k does not have"]),
        (gsm8k(tmp_path, "--split", "dev"), 2, ["--split is 'dev'", "no such split", "test"]),
        (gsm8k(tmp_path, "--revision", "renamed"), 2, ["no column 'question'", "query, answer", "has changed"]),
        (gsm8k(tmp_path, "--revision", "spoilt"), 2, ["1 of 3 rows", "row 0", "I do not know", "--revision"]),
        (gsm8k(tmp_path, "--revision", "damaged"), 2, ["cannot be read", "files are damaged"]),
        (gsm8k(tmp_path, "--revision", "unconfigured"), 2, ["cannot be read", "main"]),
        (["data", "prepare", "amc23", "--to", "x.jsonl"], 2, ["no data set math-ai/amc23 for this token", "HF_TOKEN"]),
        (
            ["data", "prepare", "bbeh", "--to", "x.jsonl"],
            2,
            ["data set BBEH/bbeh is given out on conditions; accept them", "HF_TOKEN"],
        ),
    ]
    with hub(less) as running:
        running.gated = ("datasets/BBEH/bbeh",)
        endings = selfevo(tmp_path, running.endpoint, [args for args, _, _ in cases])
    for (args, code, parts), ended in zip(cases, endings, strict=True):
        text = " ".join(ended.err.split())
        assert ended.code == code and ended.out == "", (args, ended)
        assert all(part in text for part in parts), (args, text)
        assert "Traceback" not in text and "defect" not in text
    assert {path.name for path in tmp_path.iterdir()} == {"a-file", "hf"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code", "parts"),
    [
        ({"endpoint": "closed"}, 3, ["did not deliver data set openai/gsm8k", "HF_ENDPOINT"]),
        ({"broken": ("/",)}, 3, ["did not deliver data set openai/gsm8k", "HF_ENDPOINT"]),
        ({"hang_up": ("/datasets",)}, 3, ["did not deliver data set openai/gsm8k"]),
        ({"refuse_all": 401}, 2, ["refuses this token", "HF_TOKEN"]),
        ({"offline": "1"}, 3, ["did not deliver data set openai/gsm8k", "OfflineModeIsEnabled"]),
    ],
    ids=["closed", "broken", "hangs up", "token expired", "offline"],
)
def test_a_hub_that_does_not_deliver(
    tmp_path: Path, running: Hub, how: dict[str, Any], code: int, parts: list[str]
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}" if "endpoint" in how else running.endpoint
    for name, value in how.items():
        if name not in ("endpoint", "offline"):
            setattr(running, name, value)
    environment = {"HF_HUB_OFFLINE": "1"} if "offline" in how else {}
    [ended] = selfevo(tmp_path, endpoint, [gsm8k(tmp_path)], HF_TOKEN="hf_expired", **environment)
    text = " ".join(ended.err.split())
    assert ended.code == code and all(part in text for part in parts), ended
    assert not (tmp_path / "gsm8k.jsonl").exists()


# --- rows, files, places ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA_SETS)
def test_rows_become_questions_with_answers(name: str) -> None:
    entry = DATA_SETS[name]
    assert [entry.pair(row) for row in ROWS[name]] == READ[name]
    for column in entry.columns:
        for nothing in ("", " ", None, *([[]] if column in ("options", "final_answer") else [])):
            assert entry.pair({**ROWS[name][0], column: nothing}) is None, (column, nothing)


@pytest.mark.parametrize("letter", ["C", "a", "AB", "", "1"])
def test_a_letter_that_no_option_has_is_no_answer(letter: str) -> None:
    assert DATA_SETS["mmlu-pro"].pair({"question": "?", "options": ["x", "y"], "answer": letter}) is None


def fetched(rows: Sequence[dict[str, Any]]) -> Fetched:
    return Fetched("f" * 40, "mit", list(rows))


def test_few_rows_without_an_answer_are_left_out_and_counted_and_more_are_refused() -> None:
    entry = DATA_SETS["gsm8k"]
    good, bad = ROWS["gsm8k"][0], {"question": "How many?", "answer": "#### a few"}  # not a number
    made = prepare(entry, fetched([good] * 100 + [bad]))
    assert (made.rows, made.skipped) == (100, 1)
    assert source_of(entry, fetched([]), "test", made)["skipped"] == 1
    with pytest.raises(InputError, match=r"2 of 100 rows of openai/gsm8k at ffffffffffff .* row 98: .*a few"):
        prepare(entry, fetched([good] * 98 + [bad] * 2))
    with pytest.raises(InputError, match="has no rows"):
        prepare(entry, fetched([]))


def test_what_a_row_may_hold_is_one_line_of_ascii() -> None:
    row = {"problem": "a\u2028b\nc\r <|im_end|> é", "answer": "1"}
    made = prepare(DATA_SETS["aime24"], fetched([row]))
    assert made.data.isascii() and made.data.count(b"\n") == 1 and len(made.data.splitlines()) == 1
    assert json.loads(made.data)["question"] == row["problem"]


@pytest.mark.slow
def test_a_file_goes_to_a_bucket_too(s3_server: S3Server) -> None:
    entry = DATA_SETS["gsm8k"]
    made = prepare(entry, fetched(ROWS["gsm8k"]))
    uri = f"s3://{s3_server.make_bucket()}/data/gsm8k.jsonl"
    source = source_of(entry, fetched(ROWS["gsm8k"]), "test", made)
    place = {"endpoint": s3_server.endpoint, "region": REGION}
    assert put(uri, made, source, **place) and not put(uri, made, source, **place)
    store = open_store(uri.rpartition("/")[0], **place)
    assert store.read_bytes("gsm8k.jsonl") == made.data
    assert json.loads(store.read_bytes("gsm8k.source.json"))["digest"] == made.digest
    with pytest.raises(InputError, match="another file is there"):
        put(uri, Prepared(b"{}\n", 1, 0), source, **place)


def test_a_place_may_have_a_percent_sign(tmp_path: Path) -> None:
    """As a run reads it: by its path."""
    made = prepare(DATA_SETS["gsm8k"], fetched(ROWS["gsm8k"]))
    put(f"file://{tmp_path}/50%41/x.jsonl", made, {}, endpoint=None, region=None)
    assert (tmp_path / "50%41" / "x.jsonl").read_bytes() == made.data


def test_the_list_names_them_all(project: Project) -> None:
    shown = project.invoke("data", "ls")
    assert shown.returncode == 0 and all(f"\n{name} " in shown.stdout for name in DATA_SETS)


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_reads_the_file_and_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = DATA_SETS["gsm8k"]
    made = prepare(entry, fetched(ROWS["gsm8k"]))
    uri = f"file://{tmp_path}/gsm8k.jsonl"
    put(uri, made, {}, endpoint=None, region=None)
    tasks = yaml.safe_load(task_of(entry, uri, made))
    spec = settings({"evaluation": {"tasks": tasks}, "exclude": []})
    phases = Phases(arithmetic(spec, store=tmp_path / "store"), tmp_path)

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"a run asked {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    ended = phases("evaluate-0")
    assert (ended.code, ended.result.outcome) == (0, "committed"), ended.log
    assert "gsm8k/mean" in phases.committed("evaluate-0").metrics
