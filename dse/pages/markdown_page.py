"""The report of a search in Markdown."""

from collections.abc import Sequence
from urllib.parse import quote

from dse.markdown import escaped, escaped_table
from dse.pages.content import Block, Front, Listing, Picture, Section, Table, Text


def page(sections: Sequence[Section], files: frozenset[str]) -> str:
    """Return the report's text; the front is shown by its picture where that is among the folder's ``files``."""
    parts = []
    for number, section in enumerate(sections):
        parts.append(f"{'##' if number else '#'} {escaped(section.title)}")
        parts += [text for block in section.blocks if (text := _block(block, files))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, files: frozenset[str]) -> str:
    if isinstance(block, Text):
        return f"**{escaped(block.text)}**" if block.strong else escaped(block.text)
    if isinstance(block, Listing):
        fence = "````" if "```" in block.text else "```"
        return f"{fence}\n{block.text}\n{fence}"
    if isinstance(block, Table):
        return escaped_table(block.frame)
    if isinstance(block, Front):
        return _picture(block.picture) if block.picture.file in files else ""
    return _picture(block)


def _picture(picture: Picture) -> str:
    return f"![{escaped(picture.caption)}]({quote(picture.file)})"
