"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["markdown_table"]


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The table, a line a row; a bar within a cell is escaped, for it would end it."""
    lines = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for line in (heads, ["---"] * len(heads), *rows)
    ]
    return "\n".join(lines)
