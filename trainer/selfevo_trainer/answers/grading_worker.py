r"""The program in which model text meets a symbolic parser. ``grading.Grader`` starts it; nothing imports it.

It imports the standard library and math-verify only, so no torch, no CUDA context and none of the trainer's secrets are
in its memory. Two processes:

- The **supervisor** imports math-verify, compares a few fixed pairs (the ANTLR parser is ten times faster once warm),
  and forks. It never reads model text.
- Its child, the **comparer**, answers jobs from standard input until a limit kills it; then the supervisor says so and
  forks the next one, which takes milliseconds where a new interpreter takes seconds.

Protocol, in JSON. In: ``{"id": 7, "a": "1/2", "b": "0.5"}``, one job at a time, its length in 4 bytes before it, so
that a comparer takes its own job and not a byte of the next. Out, one a line: ``{"ready": true}`` or
``{"failed": "..."}`` once; then for each job ``{"id": 7, "equal": true, "refused": 0}``, or from the supervisor
``{"id": 7, "lost": "timed_out"}``, ``{"id": 7, "lost": "crashed"}``. JSON and not pickle: what comes out of a process
that parsed hostile text must not be able to do more than say yes or no.

Limits, all of them the kernel's. math-verify has a time limit of its own, but it raises from a Python signal handler,
and 10**(10**10) is one call in C during which no handler runs; a signal whose action is the default ends the process
at once.

- CPU time of a comparison: ITIMER_PROF. CPU and not wall-clock time, so that a busy node does not change what is equal.
- Wall-clock time, several times that, for a process that hangs without computing: ITIMER_REAL.
- Memory: RLIMIT_AS over what the supervisor has. No files written (RLIMIT_FSIZE), no processes started (RLIMIT_NPROC).

What can run code, from reading math-verify 0.9.0, latex2sympy2_extended 1.11.0 and sympy 1.14.0:

1. ``math_verify.parse`` with ``ExprExtractionConfig`` (in its default) gives text to sympy's ``parse_expr``, which is
   ``eval``. The regular expression before it lets only digits and operators through. We do not use that config at all.
2. LaTeX numbers go through ``sympy.Number(str)``, hence ``sympify`` and ``eval``. The grammar lets only numbers pass.
3. **Symbols reach lambdify.** The grammar takes nearly any text inside ``\dot{...}``, ``\mathcal{...}`` or a subscript
   into a symbol's name. ``verify`` calls ``evalf``; ``evalf`` of an infinite sum calls ``lambdify`` on the ratio of its
   terms, and lambdify prints symbols' names into Python source as they are, less the braces. So comparing ``\sqrt{2}``
   with ``\sum_{n=0}^{\infty} \frac{1+\dot{+exec(chr(112)+...)} n}{n!}`` executes the argument of ``exec``: the source
   reads ``return dot+exec(...)*(n + 1) + 1``. tests/trainer/test_grading.py holds the working exploit.

So the comparer refuses, by an audit hook, which cannot be removed, to compile source at run time, except of kinds that
model text cannot reach or that hold nothing but numbers (``_Gate``). Whatever the path from text to ``eval``, ``exec``
or ``compile``, it ends there. The same hook refuses processes, sockets, and files opened for writing.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

Compare = Callable[[str, str], bool]

JOBS_PER_COMPARER = 500
"""Then a new one: sympy's and ANTLR's caches grow, and would in the end count against an innocent comparison."""
_RECYCLE, _OUT_OF_MEMORY = 64, 65
_JOB, _IDLE = struct.Struct("q"), -1

# Answers of the common forms; they warm the parser's tables and get sympy's lazy imports done before the fork.
_WARM_UP = [
    (r"\frac{1}{2}", "0.5"),
    ("2x+1", "1+2x"),
    ("(x-1)(x+1)", "x^2-1"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    (r"\{1,2\}", "2,1"),
    ("[1,2)", r"(-\infty,1]\cup(2,\infty)"),
    ("x=3", "3"),
    ("1<x<2", "(1,2)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\frac{\pi}{4}", "45^\\circ"),
    (r"\int_0^1 x^2 dx", r"\frac{1}{3}"),
    (r"\log_2 8", "3!"),
    ("50\\%", r"5\text{ cm}"),
    ("3+4i", r"e^{i\pi}"),
    (r"\binom{5}{2}", r"\sum_{k=1}^{4} k"),
]
_SELF_TEST = (r"\frac{3}{4}+x", "x+0.75")  # not among the above, whose parses are remembered


def main() -> int:
    """Supervise comparers until the input ends."""
    limits = json.loads(sys.argv[1])
    # A private copy of standard output; what libraries print goes nowhere.
    out = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)

    def say(message: dict[str, Any]) -> None:
        os.write(out, json.dumps(message).encode() + b"\n")  # one short write: never half a line

    try:
        compare = load()
        for pair in _WARM_UP:
            compare(*pair)
    except Exception as error:
        say({"failed": f"{type(error).__name__}: {error}"[:500]})
        return 1
    memory = _address_space() + limits["memory_bytes"]
    comparer = 0
    first = True
    doing = mmap.mmap(-1, _JOB.size)  # shared with the comparers: the job in hand
    stopping = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if comparer:
            os.kill(comparer, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    while True:
        doing[:] = _JOB.pack(_IDLE)
        comparer = os.fork()
        if comparer == 0:
            _serve(compare, say, doing, limits["cpu_s"], limits["wall_s"], memory, first)
        first = False
        _, status = os.waitpid(comparer, 0)
        comparer = 0
        if stopping or status == 0:
            return 0
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _RECYCLE:
            continue
        timed_out = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM)
        say({"id": _JOB.unpack(doing[:])[0], "lost": "timed_out" if timed_out else "crashed"})


def _serve(
    compare: Compare,
    say: Callable[[dict[str, Any]], None],
    doing: mmap.mmap,
    cpu_s: float,
    wall_s: float,
    memory: int,
    first: bool,
) -> NoReturn:
    """Be the comparer: answer jobs until the input ends or a limit ends this process."""
    limit_signals = (signal.SIGPROF, signal.SIGALRM)
    for number in (signal.SIGTERM, *limit_signals):
        signal.signal(number, signal.SIG_DFL)  # inherited "ignore" would be no limit at all
    signal.pthread_sigmask(signal.SIG_UNBLOCK, limit_signals)
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    # A module that sympy imports late would be cached on disk when it is first compiled; the gate lets nothing write,
    # and the import would fail with it, on every fresh installation and every read-only image.
    sys.dont_write_bytecode = True
    gate = _Gate()
    sys.addaudithook(gate)
    if first:  # does it work under these limits? Else every comparison would be lost, and none be equal.
        if not compare(*_SELF_TEST):
            say({"failed": f"it cannot compare {_SELF_TEST} under its limits"})
            os._exit(0)
        say({"ready": True})
    for _ in range(JOBS_PER_COMPARER):
        job = json.loads(_read(int.from_bytes(_read(4), "big")))
        doing[:] = _JOB.pack(job["id"])
        refused = gate.refused
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        signal.setitimer(signal.ITIMER_REAL, wall_s)
        try:
            equal = compare(job["a"], job["b"])
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        except BaseException:  # whatever was raised, SystemExit too: these two cannot be compared
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        say({"id": job["id"], "equal": equal, "refused": gate.refused - refused})
        doing[:] = _JOB.pack(_IDLE)
    os._exit(_RECYCLE)


def _read(count: int) -> bytes:
    """Exactly ``count`` bytes of input; ends this process when there is none."""
    data = b""
    while len(data) < count:
        chunk = os.read(0, count - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def load() -> Compare:
    """Import math-verify; the comparison that it makes."""
    # sympy uses these when they are there: seconds of import, and more code in reach of a hostile expression.
    for name in ("numpy", "scipy", "torch", "tensorflow", "jax", "cupy", "matplotlib", "IPython"):
        sys.modules[name] = None  # type: ignore[assignment]
    logging.disable(logging.CRITICAL)  # it logs model text
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, grader, parse, verify

    grader.sympy_numeric_eq = _relative(grader.sympy_numeric_eq)
    grader.sympy_symbolic_eq = _unless_apart(grader.sympy_symbolic_eq)
    _parse_in_two_stages()
    # LaTeX only, and only the box that is put around the whole answer: no search for formulas inside of it.
    # Units stay: values.py compares them, and math-verify would drop what it takes for one ("5 m" and "5 s" are 5).
    normalising = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    config = (
        LatexExtractionConfig(
            boxed_match_priority=0, try_extract_without_anchor=False, normalization_config=normalising
        ),
    )

    @lru_cache(maxsize=256)
    def parsed(text: str) -> list[Any]:
        try:
            found: list[Any] = parse(
                rf"\boxed{{{text}}}", config, extraction_mode="first_match", parsing_timeout=None, raise_on_error=True
            )
        except MemoryError:
            raise
        except Exception:
            return []
        return found

    def compare(a: str, b: str) -> bool:
        left, right = parsed(a), parsed(b)
        if not left or not right:
            return False
        # verify is not symmetric: 1 < x < 2 as the expected answer equals (1,2), the other way round it does not.
        return any(verify(*pair, timeout_seconds=None) for pair in ((left, right), (right, left)))

    return compare


def _relative(numeric_eq: Callable[..., bool]) -> Callable[..., bool]:
    """math-verify's numeric comparison, within a millionth of the larger number as well.

    Its own tolerance is absolute: six decimals for floats, and ``evalf(chop=True)`` takes 1e-16 for none. Where neither
    side has a decimal nothing was rounded, and 50 digits have to agree up to the last ten.
    """
    from sympy import Basic, Float, MatrixBase, Rational

    def compare(a: Any, b: Any, *arguments: Any) -> bool:
        if isinstance(a, MatrixBase) or isinstance(b, MatrixBase):
            return numeric_eq(a, b, *arguments)  # which comes back here for each element
        if not numeric_eq(a, b, *arguments):
            return False
        if not (isinstance(a, Basic) and isinstance(b, Basic)) or a == b:
            return True
        symbols = sorted(a.free_symbols | b.free_symbols, key=str)
        if symbols:  # at one point, of which no formula knows
            point = {symbol: Rational(7919 + 104 * i, 6007 + 37 * i) for i, symbol in enumerate(symbols)}
            a, b = a.subs(point), b.subs(point)
        size = max(abs(a.evalf()), abs(b.evalf()))
        digits, agreeing = (20, 6) if a.has(Float) or b.has(Float) else (50, 40)
        difference = abs((a - b).evalf(digits))
        close = difference <= size / 10**agreeing or difference == 0
        return bool(size < 10**300 and close) or _percent(a) != _percent(b)

    def _percent(value: Any) -> bool:
        return "1/100" in str(value)

    return compare


def _unless_apart(symbolic_eq: Callable[..., bool]) -> Callable[..., bool]:
    """math-verify's ``simplify(a - b) == 0``, not tried where the two differ at one point.

    No rewriting makes equal what has two values there, and the attempt is most of the time of a wrong answer.
    """
    from sympy import Expr, Rational

    def compare(a: Any, b: Any) -> bool:
        if isinstance(a, Expr) and isinstance(b, Expr):
            try:
                symbols = sorted(a.free_symbols | b.free_symbols, key=str)
                point = {symbol: Rational(7919 + 104 * i, 6007 + 37 * i) for i, symbol in enumerate(symbols)}
                left, right = (side.subs(point).evalf(20) for side in (a, b))
                known = left.is_Number and right.is_Number and left.is_finite and right.is_finite
                if known and abs(left - right) > max(abs(left), abs(right)) / 10**6:
                    return False
            except (ArithmeticError, AttributeError, TypeError, ValueError, RecursionError):
                pass  # it has no value there
        return symbolic_eq(a, b)

    return compare


def _parse_in_two_stages() -> None:
    """Have ANTLR predict without the calling context first, and with it where that finds an error.

    The first stage returns the second's tree or an error (antlr4.atn.PredictionMode, "SLL"), in a fifth of the time.
    """
    from antlr4.atn.PredictionMode import PredictionMode
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

    create, parse = _Latex2Sympy.create_parser, _Latex2Sympy.parse

    def create_parser(converter: Any, text: str) -> Any:
        parser = create(converter, text)
        parser._interp.predictionMode = getattr(converter, "prediction", PredictionMode.LL)
        return parser

    def parse_twice(converter: Any, text: str) -> Any:
        try:
            converter.prediction = PredictionMode.SLL
            return parse(converter, text)
        except MemoryError:
            raise
        except Exception:
            converter.prediction = PredictionMode.LL
            return parse(converter, text)

    _Latex2Sympy.create_parser, _Latex2Sympy.parse = create_parser, parse_twice


class _Refused(Exception):
    """Raised into whatever tried it."""


class _Gate:
    """Audit hook: no code is made from text, and nothing outside this process is touched."""

    # Modules whose generated source is made of their own templates and of numbers; read for sympy 1.14.0, mpmath 1.3.0.
    _GENERATORS = frozenset(
        {"collections", "dataclasses", "sympy.polys.monomials", "mpmath.libmp.libhyper", "mpmath.ctx_mp_python"}
    )
    # What sympify makes of numbers and of sympy's own constants: constructors, quoted words, digits, arithmetic. No
    # attribute and no call of anything else.
    _LITERALS = re.compile(r"(?:\b(?:Integer|Float|Rational|Symbol)\b|'[\w.+-]*'|\bE\b|[-+*/(),.0-9\s])*", re.ASCII)
    # What lambdify makes of arithmetic in its one argument, as in the ratio of a series' terms.
    _ARITHMETIC = re.compile(
        r"def _lambdifygenerated\((\w+)\):\n    return (?:\b\1\b|\b[0-9]+(?:\.[0-9]+)?\b|[-+*/() ])*\n", re.ASCII
    )
    _OUTSIDE = ("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pty.", "pickle.", "code.", "tempfile.")
    _LISTING = ("os.listdir", "os.scandir")  # the import system does
    _WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self) -> None:
        self.refused = 0
        from sympy.utilities.lambdify import MODULES

        self._imports = frozenset(command for entry in MODULES.values() for command in entry[3])

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "compile":
            caller = sys._getframe(1).f_globals.get("__name__")
            allowed = self._may_compile(caller, *arguments)
        elif event == "open":
            allowed = not arguments[2] & self._WRITING
        else:
            allowed = not event.startswith(self._OUTSIDE) or event in self._LISTING
        if not allowed:
            self.refused += 1
            raise _Refused(event)

    def _may_compile(self, caller: str | None, source: Any, filename: Any) -> bool:
        if caller in ("importlib._bootstrap", "importlib._bootstrap_external"):
            return isinstance(filename, str) and filename.endswith(".py")  # a module of the installation
        if caller in self._GENERATORS:
            return True
        if isinstance(source, bytes):
            source = source.decode("utf-8", "replace")
        if not isinstance(source, str):
            return False
        if caller == "sympy.parsing.sympy_parser":
            return source == "from sympy import *" or self._LITERALS.fullmatch(source) is not None
        if caller == "sympy.utilities.lambdify":
            return source in self._imports or self._ARITHMETIC.fullmatch(source) is not None
        return False


def _address_space() -> int:
    """Bytes of address space that this process has; 0 where the system does not say (not Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    os._exit(main())  # at once: taking sympy down in order takes half a second
