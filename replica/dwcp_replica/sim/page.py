"""Results written into a page between marks, by the command that made them: never by hand."""

from __future__ import annotations


def marks(name: str) -> tuple[str, str]:
    """The lines between which the results called `name` stand."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def between(page: str, name: str) -> str:
    """What stands there now. Raises ValueError when the page has no such marks."""
    begin, end = marks(name)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page has no {begin} and {end}: add these two lines where it belongs")
    return page.split(begin, 1)[1].split(end, 1)[0]


def rewritten(page: str, name: str, text: str) -> str:
    """The page with other results there. Raises ValueError when it has no such marks."""
    old = between(page, name)
    begin, end = marks(name)
    return page.replace(f"{begin}{old}{end}", f"{begin}\n{text.strip()}\n{end}")
