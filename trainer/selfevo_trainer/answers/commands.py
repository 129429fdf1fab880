r"""LaTeX commands around parts of an answer: formatting that is taken off, text, and functions without a backslash.

Part of the rules of ``forms``; pure, and a bounded number of passes over at most its ``MAX_CHARS`` characters.
"""

from __future__ import annotations

import re

FUNCTIONS = (  # noqa: SIM905
    "arcsin arccos arctan sinh cosh tanh coth sin cos tan cot sec csc ln log lg exp det gcd max min lcm"
).split()

_TEXT_NAMES = r"text(?:bf|it|rm|normal|sf|tt|sc|up|md|sl)?|mbox|hbox|emph|mathrm|operatorname\*?"
TEXTS = re.compile(rf"\\(?:{_TEXT_NAMES})\s*\{{([^{{}}]*)\}}")
"""Plain text in a formula."""

_FORMATS = (
    r"mathbf|boldsymbol|bm|pmb|mathit|mathsf|mathtt|mathnormal|mathbfit|bold|underline|uline|boxed|fbox|framebox|ensuremath"
    r"|displaystyle|smash|mathclose|mathopen|mathord|tiny|small|large|Large|LARGE|huge|Huge"
)
_COMMAND = re.compile(
    rf"\\(?:(?P<format>{_FORMATS})|(?P<text>{_TEXT_NAMES})|(?:textcolor|colorbox)\s*\{{[^{{}}]*\}})\s*\{{"
)
_NO_PLAIN_TEXT = re.compile(r"\\[A-Za-z(]|[{}]|(?<!\\)\$")
_ARGUMENT_OF = re.compile(r"(?:[\^_]|\\(?:frac|sqrt|binom)\s*(?:\{[^{}]*\})?)\s*$")
_PASSES = 8


def unwrapped(text: str) -> str:
    r"""Commands that only format what is in their braces, taken off from outside to inside; text keeps its plain words.

    >>> unwrapped(r"\mathbf{\frac{1}{2}}"), unwrapped(r"\underline{\text{B}}"), unwrapped(r"\text{$x^2$ cm}")
    ('\\frac{1}{2}', '\\text{B}', 'x^2\\text{ cm}')
    """
    for _ in range(_PASSES):
        before = text
        text = _outermost(text)
        if text == before:
            break
    return text


def _outermost(text: str) -> str:
    closing = _closing_braces(text)
    parts: list[str] = []
    position = 0
    for match in _COMMAND.finditer(text):
        end = closing.get(match.end() - 1)
        if match.start() < position or end is None:
            continue
        content = text[match.end() : end]
        if match["text"]:
            if not _NO_PLAIN_TEXT.search(content):
                continue
            content = _spread(match["text"], content)
        elif "box" in match[0]:
            content = f" {content} "  # two boxes side by side are two answers
        if _ARGUMENT_OF.search(text[max(0, match.start() - 40) : match.start()]):
            content = f"{{{content}}}"
        parts += [text[position : match.start()], content]
        position = end + 1
    return "".join(parts) + text[position:]


def _closing_braces(text: str) -> dict[int, int]:
    """Where the braces close that open at each key; printed braces (``\\{``) are none."""
    opened: list[int] = []
    closing: dict[int, int] = {}
    for match in re.finditer(r"\\[\s\S]|[{}]", text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


_MATH = re.compile(r"(?<!\\)\$([^$]*)\$|\\\(((?:(?!\\\)).)*)\\\)|\\[A-Za-z]+\*?|[\^_]\s*(?=[{0-9+-])|[{}]|\\.")


def _spread(name: str, content: str) -> str:
    """Text that holds formulas, as formulas between texts."""
    closing = _closing_braces(content)
    parts: list[str] = []
    position = 0

    def plain(words: str) -> str:
        return rf"\{name}{{{words}}}" if re.search(r"[^\W\d_]", words) else words

    for match in _MATH.finditer(content):
        if match.start() < position:
            continue
        inner = match[1] if match[1] is not None else match[2]
        end = match.end()
        while inner is None and end in closing and match[0] not in "{}":  # the command's arguments
            end = closing[end] + 1
        parts += [plain(content[position : match.start()]), content[match.start() : end] if inner is None else inner]
        position = end
    return "".join(parts) + plain(content[position:])


_ROW = "|".join(FUNCTIONS[:-5])
_JOINED = re.compile(rf"(?<![\\A-Za-z])[abekmnrtxy]?(?:(?:{_ROW})[xyzuvwnt])+(?![A-Za-z])")
_BESIDE_A_LETTER = re.compile(r"(?<![\\A-Za-z])([abknrtxy])(sin|cos|tan|ln|log|exp)(?=\s*\()")


def joined_functions(text: str) -> str:
    r"""Functions written in one with their variable; ``cost`` is a word.

    >>> joined_functions("cosx"), joined_functions("xlnx"), joined_functions("sinxcosx"), joined_functions("cost")
    ('\\cos x', 'x\\ln x', '\\sin x\\cos x', 'cost')
    """
    text = _BESIDE_A_LETTER.sub(r"\1\\\2", text)
    return _JOINED.sub(
        lambda m: m[0] if m[0] in ("cost", "tant") else re.sub(rf"({_ROW})([xyzuvwnt])", r"\\\1 \2", m[0]), text
    )
