"""`selfevo grade` and `selfevo vote`."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from selfevo.main import main


@pytest.fixture
def selfevo(monkeypatch, capsys):
    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["selfevo", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["1101_2", "13"], "equal: numbers, exactly\n"),
        (["-3", "–3"], "equal: same form\n"),
        (["5 km", "5 m"], "different: units of one kind, converted\n"),
        (["x+1", "1+x", "--method", "exact"], "different: forms differ\n"),
        pytest.param(["x+1", "1+x"], "equal: math-verify\n", marks=pytest.mark.slow),
    ],
)
def test_two_answers(selfevo, arguments, out):
    assert selfevo("grade", *arguments) == (0, out, "")


@pytest.mark.slow
@pytest.mark.parametrize("by_stdin", [False, True])
def test_pairs_in_order(selfevo, tmp_path, by_stdin):
    # math-verify takes seconds to start: one process of it, in one of the two, is enough.
    rows = [{"a": "5 km", "b": "5 m"}, {"a": "1+x", "b": "x+1", "method": "exact"}]
    rows = rows if by_stdin else [{"a": "1+x", "b": "x+1"}, *rows]
    text = json.dumps(rows)[:-1] + ', {"a": 2.5e19, "b": "25000000000000000000"}, {"a": 0.10, "b": "0.1"}]'
    (tmp_path / "pairs.json").write_text(text)
    file, stdin = ("-", text) if by_stdin else (str(tmp_path / "pairs.json"), "")
    code, out, _ = selfevo("grade", "--pairs", file, stdin=stdin)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, [line["equal"] for line in lines]) == (0, [True, False, False, True, True][by_stdin:])
    assert all(set(line) == {"equal", "by"} for line in lines)


def test_votes(selfevo):
    code, out, _ = selfevo("vote", "-", stdin='["1101_3", "1101_2", "1101_2", null]\n\n[null]\n[7, "7.0", 8]\n')
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "answer": "1101_2",
            "share": 0.5,
            "classes": [{"answer": "1101_3", "count": 1}, {"answer": "1101_2", "count": 2}],
        },
        {"answer": None, "share": 0.0, "classes": []},
        {"answer": "7", "share": 2 / 3, "classes": [{"answer": "7", "count": 2}, {"answer": "8", "count": 1}]},
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (["grade", "7"], "", "1 answers were given"),
        (["grade", "--pars", "f"], "", "no option --pars"),
        (["grade", "--pairs", "-", "7"], "[]", "leave one of them out"),
        (["grade", "--pairs", "-"], "{", "standard input is no JSON"),
        (["grade", "--pairs", "-"], "{}", "write a list of objects"),
        (["grade", "--pairs", "-"], '[{"a": "1"}]', "item 0 is"),
        (["grade", "--pairs", "-"], '[{"a": "1", "b": true}]', "item 0 field b is true"),
        (["grade", "--pairs", "-"], '[{"a": NaN, "b": 1}]', "holds NaN"),
        (["grade", "--pairs", "-"], '[{"a": 1, "b": 1, "method": "x"}]', 'item 0 has method "x"'),
        (["grade", "--pairs", "/nonexistent"], "", "/nonexistent cannot be read"),
        (["vote", "-"], '["1"]\n{}\n', "line 2 is"),
        (["vote", "-"], "[]", "at least one answer"),
        (["vote", "-"], "[[1]]", "line 1 item 0 is"),
    ],
)
def test_bad_input_is_one_sentence(selfevo, arguments, stdin, sentence):
    code, out, err = selfevo(*arguments, stdin=stdin)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_it_imports_no_torch():
    code = "import sys; sys.argv = ['selfevo', 'grade', '1/2', '0.5']\nfrom selfevo.main import main\n"
    code += "try: main()\nfinally: print('torch' in sys.modules, 'sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False False"
