"""What a report is made of, whether it becomes Markdown or a page: plain texts, tables, pictures, commands."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph of plain text; ``strong`` for what the reader came for."""

    text: str
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Lines to be shown as they are: a command, a file."""

    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Rows of texts and numbers."""

    frame: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in the report's folder by its file name, and what it shows in words."""

    file: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Front:
    """The place of the front: a picture in Markdown, in a page one that can be pointed at."""

    picture: Picture


Block = Text | Listing | Table | Picture | Front


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
