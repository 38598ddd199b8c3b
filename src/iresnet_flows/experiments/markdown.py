"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["markdown_table", "number"]


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The table, a line a row; a bar within a cell is escaped, for it would end it."""
    lines = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for line in (heads, ["---"] * len(heads), *rows)
    ]
    return "\n".join(lines)


def number(value: float | None, form: str) -> str:
    """A number in a format, and nothing for none.

    >>> number(1234.5, ",.0f"), number(None, "g")
    ('1,234', '')
    """
    return "" if value is None else format(value, form)
