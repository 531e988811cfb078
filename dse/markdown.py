"""Tables and plain text in Markdown."""

import re

import pandas as pd


def markdown(frame: pd.DataFrame) -> str:
    """Return a table in Markdown, floats to six digits; its texts must be free of what Markdown takes for marks."""

    def cell(value: object) -> str:
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    body = [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    rows = [list(frame.columns), ["---"] * len(frame.columns), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def escaped(text: str) -> str:
    """Return one line of plain text such that Markdown shows it as it is: marks are escaped, underscores where they would mark."""
    marked = re.sub(r"([\\`*<>|~$&]|\](?=[(\[:]))", r"\\\1", " ".join(text.split()))
    marked = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", marked)
    return re.sub(r"^([#+-]|\d+(?=[.)]))", lambda mark: f"\\{mark[0]}" if mark[0] in "#+-" else f"{mark[0]}\\", marked)


def escaped_table(frame: pd.DataFrame) -> str:
    """Return a table of plain texts and numbers in Markdown."""
    safe = frame.map(lambda value: escaped(value) if isinstance(value, str) else value)
    return markdown(safe.rename(columns=escaped))
