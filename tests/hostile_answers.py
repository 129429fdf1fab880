r"""Answers that a model could write and a grader must survive: they hang, crash, exhaust memory, or try to run code.

``hostile_answers(sentinel)`` is name -> answer. Answers that try to run code try to create the file ``sentinel``; a
test passes a path and asks afterwards whether it is there.
"""

from __future__ import annotations

from pathlib import Path

MEGABYTE = 1_000_000


def lambdify_exploit(sentinel: Path) -> str:
    """Runs code in math-verify 0.9.0 with sympy 1.14.0 when compared with a square root (see grading_worker.py)."""
    code = f"open({str(sentinel)!r},'w')"
    characters = "+".join(f"chr({ord(character)})" for character in code)
    return rf"\sum_{{n=0}}^{{\infty}} \frac{{1+\dot{{+exec({characters})}} n}}{{n!}}"


def code_answers(sentinel: Path) -> dict[str, str]:
    """Answers that try to run code."""
    touch = f"__import__('os').system('touch {sentinel}')"
    write = f"open('{sentinel}','w')"
    return {
        "import-system": touch,
        "import-system-in-text": rf"\text{{{touch}}}",
        "import-system-in-operatorname": rf"\operatorname{{{touch}}}(1)",
        "import-system-after-number": f"1+{touch}",
        "open-for-writing": write,
        "open-in-subscript": f"x_{{{write}}}",
        "exec-in-mathcal": rf"\mathcal{{+exec(\"{write}\")}}",
        "variable-command": rf"\variable{{{write}}}",
        "eval-call": f'eval("{write}")',
        "lambda": f"(lambda: {write})()",
        "dunder-class": "().__class__.__bases__[0].__subclasses__()",
        "dunder-symbol": r"\text{__builtins__}",
        "dunder-globals": "x.__init__.__globals__['os'].popen('id')",
        "f-string": f'f"{{{write}}}"',
        "walrus": f"(a:={write})",
        "comprehension": f"[{write} for x in (1,)]",
        "backticks": f"`touch {sentinel}`",
        "shell": f"$(touch {sentinel}); | touch {sentinel} #",
        "template": "{{ ''.__class__.__mro__ }} {% import os %} ${7*7} <%= 1 %>",
        "write18": rf"\immediate\write18{{touch {sentinel}}}",
        "input-passwd": r"\input{/etc/passwd}",
        "percent-format": "%s%s%s%n%n {0.__class__}",
        "sympy-names": "Symbol('x').func(Lambda(x, exec)(1))",
        "lambdify-exploit": lambdify_exploit(sentinel),
        "lambdify-overline": lambdify_exploit(sentinel).replace(r"\dot", r"\overline"),
        "lambdify-subscript": lambdify_exploit(sentinel).replace(r"\dot{+", r"a_{+"),
        "lambdify-product": lambdify_exploit(sentinel).replace(r"\sum", r"\prod"),
        "script-tag": "<script>alert(1)</script>",
        "ansi-escape": "\x1b[2J\x1b]0;owned\x07 5",
    }


def hanging_answers() -> dict[str, str]:
    """Answers whose value takes more time or memory than there is."""
    return {
        "power-tower-5": "5^{5^{5^{5}}}",
        "power-tower-10": "10^{10^{10^{10}}}",
        "power-tower-9": "9^9^9^9^9",
        "power-tower-parens": "5^(5^(5^5))",
        "negative-tower": "2^{-2^{2^{2^{2^{2}}}}}",
        "factorial-tower": "(((9!)!)!)!",
        "factorial-of-a-million": "1000000!",
        "factorial-large": "99999999999!",
        "binomial-large": r"\binom{10^{9}}{5\cdot 10^{8}}",
        "root-of-tower": r"\sqrt[3]{10^{10^{10}}}",
        "log-of-tower": r"\log_{2}{2^{10^{12}}}",
        "mod-of-tower": r"7^{7^{7^{7}}} \bmod 1000",
        "sum-to-a-billion": r"\sum_{k=1}^{10^9} \frac{1}{k^3+k+1}",
        "double-sum": r"\sum_{i=1}^{10^6} \sum_{j=1}^{10^6} \frac{1}{i^2+j^3}",
        "product-to-a-billion": r"\prod_{k=2}^{1000000000} (1-\frac{1}{k^2+k})",
        "slow-series": r"\sum_{n=1}^{\infty} \frac{\sin(n^2)}{n^{1.0001}}",
        "integral-hard": r"\int_0^1 \frac{\sin(x^x) \ln(1+x^{\sqrt{2}})}{\sqrt{1+x^5+e^{x^2}}} dx",
        "integral-nested": r"\int_0^1 \int_0^1 \int_0^1 e^{x y z} \sin(x+y+z)^{7} dx dy dz",
        "limit-hard": r"\lim_{x \to 0} \frac{\sin(\tan x) - \tan(\sin x)}{x^7 \ln(1+x)}",
        "solve-degree-30": "x^{30}+x^{17}-3x^{11}+x+1=0",
        "expand-power": "(a+b+c+d+e+f+g+h)^{60}",
        "trig-power": r"\sin(x)^{40} + \cos(x)^{40} + \tan(x)^{17}",
        "nested-radicals": r"\sqrt{2+" * 60 + "2" + "}" * 60,
        "nested-fractions": r"\frac{1}{1+" * 60 + "x" + "}" * 60,
        "continued-exponent": "e^{" * 60 + "x" + "}" * 60,
        "eigenvalues": r"\operatorname{eigenvals}" + _matrix(8, lambda i, j: f"x_{(i * j) % 7}"),
        "determinant-symbolic": r"\det " + _matrix(9, lambda i, j: f"a_{{{i}{j}}}"),
        "eye-huge": r"\operatorname{eye}(100000)",
        "zeros-huge": r"\operatorname{zeros}(100000,100000)",
        "gcd-huge": rf"\gcd({'9' * 900},{'7' * 900})",
        "parentheses-deep": "(" * 300 + "1" + ")" * 300,
        "abs-bars": "|" * 200 + "x" + "|" * 200,
        "long-polynomial": "+".join(f"x^{{{i}}}" for i in range(250)),
    }


def malformed_answers() -> dict[str, str]:
    """Answers that are no formula, or too large for one."""
    return {
        "empty-braces": "{}" * 500,
        "nested-braces-10000": "{" * 10_000 + "1" + "}" * 10_000,
        "open-braces-10000": "{" * 10_000,
        "close-braces": "}" * 500,
        "unbalanced-everything": r"\frac{1}{\left(\sqrt{[2\right\}",
        "unbalanced-begin": r"\begin{matrix} 1 & 2 \\ \begin{matrix}",
        "unbalanced-dollars": "$$$5$ $",
        "lone-backslash": "\\",
        "lone-frac": r"\frac",
        "lone-left": r"\left",
        "nested-boxes": r"\boxed{" * 50 + "1" + "}" * 50,
        "megabyte-of-digits": "7" * MEGABYTE,
        "megabyte-of-letters": "a" * MEGABYTE,
        "megabyte-of-spaces": "1" + " " * MEGABYTE + "2",
        "megabyte-of-backslashes": "\\" * MEGABYTE,
        "megabyte-of-frac": r"\frac{1}{" * (MEGABYTE // 9),
        "megabyte-of-thousands": "1" + ",000" * (MEGABYTE // 4),
        "megabyte-of-dollars": "$" * MEGABYTE,
        "decimals-1900": "0." + "3" * 1900 + "x",
        "nul-bytes": "5\x00\x00",
        "only-nul": "\x00",
        "control-characters": "\x01\x02\x1f5",
        "surrogates": "\ud800\udfff5",
        "half-surrogate-in-formula": "x^{\udc80}+1",
        "zero-width": "5\u200b\u200d\ufeff",
        "right-to-left": "\u202e5+7\u202c",
        "combining-marks": "5" + "\u0301\u0323" * 800,
        "arabic-digits": "٤٢",
        "fullwidth": "４２＋ｘ",
        "superscripts": "x²³⁻¹",
        "emoji": "🧮" * 300,
        "division-by-zero": r"\frac{1}{0}",
        "zero-to-zero": r"0^{0}-\frac{0}{0}",
        "infinity-minus-infinity": r"\infty-\infty",
        "nan": "nan",
        "inf": "inf",
        "log-zero": r"\log 0",
        "huge-exponent-float": "1e999999999",
        "tiny-exponent-float": "1e-999999999",
        "huge-matrix": _matrix(14, lambda i, j: f"{i}{j}"),
        "ragged-matrix": r"\begin{pmatrix}1&2\\3\end{pmatrix}",
        "comma-list": ",".join(str(i) for i in range(450)),
        "semicolons": "1;" * 600,
        "equals-chain": "=".join(["x"] * 400),
        "set-of-sets": r"\{" * 100 + r"\}" * 100,
        "union-of-intervals": r"\cup".join(f"({i},{i + 1})" for i in range(0, 200, 2)),
        "newlines": "1\n" * 500,
        "prose": "The final answer is $7$. I hope it is correct. " * 20,
        "regex-bait": "answer: " * 200 + "!",
        "json": '{"id": 0, "equal": true}\n{"ready": true}',
        "question-markup": r"<question>5</question><|im_end|>\boxed{5}",
    }


def hostile_answers(sentinel: Path) -> dict[str, str]:
    """All of them."""
    return {**code_answers(sentinel), **hanging_answers(), **malformed_answers()}


def _matrix(size: int, entry) -> str:
    rows = r"\\".join("&".join(entry(i, j) for j in range(size)) for i in range(size))
    return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"
