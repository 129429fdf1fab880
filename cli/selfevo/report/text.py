r"""Showing what a model wrote, and numbers. A model's text is hostile: it is escaped, and what acts unseen is shown.

HTML escaping alone leaves characters that no markup can tame: bidirectional overrides turn "5 + 3" into another sum
before the reader's eyes, zero-width characters hide that two questions differ, and a lone surrogate cannot be
encoded at all. They appear as escapes, set apart so that they are not taken for text.
"""

from __future__ import annotations

import unicodedata

from markupsafe import Markup, escape

from selfevo.report.spread import Spread

LIMIT = 1200
"""Characters shown of one text."""
DASH = "–"

# Controls, formats (bidi, zero width), surrogates, unassigned and non-characters, line and paragraph separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
_KEPT = {"\n", "\t"}


def shown(text: object, limit: int = LIMIT) -> Markup:
    r"""``text`` as HTML that reads as the characters that are there.

    >>> shown("2 < 3\u202e!")
    Markup('2 &lt; 3<span class="esc">\\u202e</span>!')
    """
    whole = str(text)
    pieces: list[Markup] = []
    seen = 0
    cut = whole[:limit]
    for place, character in enumerate(cut):
        if character not in _KEPT and unicodedata.category(character) in _UNSEEN:
            pieces += [escape(cut[seen:place]), Markup('<span class="esc">{}</span>').format(_escaped(character))]
            seen = place + 1
    pieces.append(escape(cut[seen:]))
    if len(whole) > limit:
        pieces.append(Markup('<span class="esc">… {} more characters</span>').format(f"{len(whole) - limit:,}"))
    return Markup("").join(pieces)


def plain(text: object) -> str:
    r"""The same as a string without markup, for attributes and SVG: it is still to be escaped."""
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSEEN else c for c in str(text))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage, with a thin space that does not break.

    >>> percent(0.4775)
    '47.8\\u202f%'
    """
    return DASH if share is None else f"{100 * share:.{digits}f}\u202f%"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign.

    >>> points(0.301), points(-0.02)
    ('+30.1', '\u22122.0')
    """
    return DASH if difference is None else f"{100 * difference:+.{digits}f}".replace("-", "\u2212")


def count(number: float | None) -> str:
    """A whole number, thousands set apart."""
    return DASH if number is None else f"{round(number):,}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(4.31), duration(75), duration(7384)
    ('4.3\\u202fs', '1\\u202fmin 15\\u202fs', '2\\u202fh 3\\u202fmin')
    """
    if seconds is None:
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f}\u202fs"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest}\u202fs" if rest else f"{minutes}\u202fmin"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u202fh {minutes}\u202fmin" if minutes else f"{hours}\u202fh"


def gigabytes(size: float) -> str:
    """Bytes in GB; what is less than a thousandth of one is called that.

    >>> gigabytes(48.27e9), gigabytes(1234567890123), gigabytes(120e3), gigabytes(0)
    ('48.3', '1\u202f235', '< 0.001', '\u2013')
    """
    if not size:
        return DASH
    if size < 1e6:
        return "< 0.001"
    return count(size / 1e9) if size >= 1e11 else f"{size / 1e9:.3g}"


def listed(words: list[str], most: int = 8) -> str:
    """``a, b and c``; from ``most`` on, how many more there are.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], most=2)
    ('a, b and c', 'a, b and 1 more')
    """
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def spread(of: Spread | None, signed: bool = False) -> str:
    """Mean and standard deviation of seeds, in points.

    >>> spread(Spread(0.81, 0.005, 3)), spread(Spread(-0.02, None, 1), signed=True)
    ('81.0 ± 0.5', '\u22122.0')
    """
    return DASH if of is None else _with(of, of.deviation, signed)


def spread_error(of: Spread | None) -> str:
    """Mean difference of seeds and its standard error, in points."""
    return DASH if of is None else _with(of, of.stderr, signed=True)


def _with(of: Spread, error: float | None, signed: bool) -> str:
    mean = points(of.mean) if signed else f"{100 * of.mean:.1f}"
    return mean if error is None else f"{mean} ± {100 * error:.1f}"
