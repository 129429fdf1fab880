"""What mkdocs does to our pages beside rendering them; they read well in the repository too, where none of it is done.

- A link to a file outside of docs/ (an example, the chart) has no target in the site: the path stands in its place.
- A link whose words are a page's file name bears that page's title.
- A diagram in Mermaid's language would be drawn by a script from somebody else's server, and the site asks nobody: a
  state diagram becomes a table.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")
_PAGE = re.compile(r"\[([\w./-]+\.md)\]\((\1)\)")
_DIAGRAM = re.compile(r"```mermaid\nstateDiagram-v2\n(.*?)```\n", re.DOTALL)
_ARROW = re.compile(r"\s*(\S+) --> (\w+): (.*)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs with each page's text."""
    return with_titles(without_diagrams(without_links_out(markdown, page.file.src_uri)), page.file.src_uri)


def without_links_out(markdown: str, where: str) -> str:
    """Links out of docs/ as the path that they name.

    Raises:
        ValueError: there is no such file.
    """

    def shown(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(where), link[2]))
        if path.startswith("docs/"):
            return link[0]
        if not (ROOT / path).exists():
            raise ValueError(f"docs/{where} links to {path}, which does not exist")
        words = link[1].strip("`")
        return f"`{path}`" if words in path else f"{words} (`{path}`)"

    return _LINK.sub(shown, markdown)


def with_titles(markdown: str, where: str) -> str:
    """Links between pages by their titles."""

    def titled(link: re.Match[str]) -> str:
        first = (ROOT / "docs" / where).parent.joinpath(link[2]).read_text().splitlines()[0]
        return f"[{first.removeprefix('# ')}]({link[2]})"

    return _PAGE.sub(titled, markdown)


def without_diagrams(markdown: str) -> str:
    """State diagrams as tables.

    Raises:
        ValueError: a line of one is no transition.
    """

    def table(diagram: re.Match[str]) -> str:
        rows = ["| from | to | when |", "|---|---|---|"]
        for line in diagram[1].splitlines():
            arrow = _ARROW.fullmatch(line)
            if arrow is None:
                raise ValueError(f"a state diagram has the line {line!r}; write it as `A --> B: when`")
            start = "(begin)" if arrow[1] == "[*]" else arrow[1]
            rows.append(f"| {start} | {arrow[2]} | {arrow[3]} |")
        return "\n".join(rows) + "\n"

    return _DIAGRAM.sub(table, markdown)
