"""The report of a search as one file for a browser: its script, its pictures and Plotly's code are all in it."""

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

import pandas as pd

from dse.pages.content import Block, Listing, Picture, Section, Table, Text

#: nothing is fetched from anywhere: what stands in the file itself is all that a browser may use
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(sections: Sequence[Section], front: str, folder: Path) -> str:
    """Return the page; ``front`` is the JSON of the trials, ``folder`` holds the pictures."""
    from plotly.offline import get_plotlyjs

    body = "\n".join(_section(section, folder, number) for number, section in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(sections[0].title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="front-data">{front}</script>
<script>{get_plotlyjs()}</script>
<script>
{_asset("front.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("dse.pages").joinpath(name).read_text(encoding="utf-8")


def _section(section: Section, folder: Path, number: int) -> str:
    level = 2 if number else 1
    blocks = "\n".join(_block(block, folder) for block in section.blocks)
    return f"<section>\n<h{level}>{escape(section.title)}</h{level}>\n{blocks}\n</section>"


def _block(block: Block, folder: Path) -> str:
    if isinstance(block, Text):
        return f'<p class="{"strong" if block.strong else "plain"}">{escape(block.text)}</p>'
    if isinstance(block, Listing):
        return f"<pre>{escape(block.text)}</pre>"
    if isinstance(block, Table):
        return _table(block.frame)
    if isinstance(block, Picture):
        data = base64.b64encode((folder / block.file).read_bytes()).decode()
        return f'<figure><img alt="{escape(block.caption)}" src="data:image/png;base64,{data}"></figure>'
    return _asset("front.html")


def _table(frame: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in frame.columns)
    rows = "\n".join(_row(row, frame) for row in frame.itertuples(index=False))
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _row(row: tuple[object, ...], frame: pd.DataFrame) -> str:
    """Return a row; one of a trial says of which, so that the script can show that trial."""
    trial = row[list(frame.columns).index("trial")] if "trial" in frame.columns else None
    mark = f' data-trial="{escape(json.dumps(int(str(trial))))}"' if trial is not None else ""
    return f"<tr{mark}>{''.join(map(_cell, row))}</tr>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.6g}</td>'
    return f'<td class="number">{value}</td>' if isinstance(value, int) else f"<td>{escape(str(value))}</td>"
