"""Set the line numbers in docs/how_it_works.md to where the linked names are defined: python docs/link_lines.py."""

import ast
import re
from pathlib import Path

PAGE = Path(__file__).with_name("how_it_works.md")
LINK = re.compile(r"\[`([\w.]+)`\]\((\.\./code/[\w/]+\.py)(?:#L\d+)?\)")


def line_of(name, source):
    """Return the line where a dotted name is defined in Python source; KeyError if it is not there."""
    body, line = ast.parse(source).body, 0
    for part in name.split("."):
        found = [node for node in body if getattr(node, "name", None) == part]
        if not found:
            raise KeyError(name)
        body, line = getattr(found[0], "body", []), found[0].lineno
    return line


def linked(text):
    """Return the text of a page with each link at the line of its name."""

    def place(match):
        name, path = match.groups()
        return f"[`{name}`]({path}#L{line_of(name, (PAGE.parent / path).read_text(encoding='utf-8'))})"

    return LINK.sub(place, text)


if __name__ == "__main__":
    PAGE.write_text(linked(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
