"""Find the program in a completion."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPENING = re.compile(r"^(?P<before>.*?)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`~]*)$")
_PYTHON = re.compile(r"\{?\.?(?:python|py)[\d.]*\b", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class _Block:
    fence: str
    indent: int
    """Number of columns before the fence; as many are removed from the lines of the block."""
    info: str
    lines: list[str]

    @property
    def is_python(self) -> bool:
        return _PYTHON.match(self.info) is not None

    def closes(self, line: str) -> bool:
        """Whether a line is the closing fence (CommonMark 0.31, section 4.5). A tag such as </think> may follow it."""
        bare = line.strip()
        rest = bare.lstrip(self.fence[0])
        return bare.startswith(self.fence) and (not rest or rest.startswith("</"))

    def add(self, line: str) -> None:
        blank = len(line) - len(line.lstrip(" \t"))
        self.lines.append(line[min(blank, self.indent) :])


def extract_program(completion: str) -> str:
    """Return the last fenced block marked as Python, or the last one without a language, or the whole completion.

    A block that is not closed ends with the completion. A fence that opens a Python block or closes a
    block may also follow other text on its line.
    """
    blocks = _blocks(completion)
    python = [block for block in blocks if block.is_python]
    plain = [block for block in blocks if not block.info]
    chosen = (python or plain)[-1:]
    return "\n".join(chosen[0].lines) if chosen else completion


def _blocks(text: str) -> list[_Block]:
    blocks: list[_Block] = []
    current: _Block | None = None
    for line in re.split(r"\r\n|\r|\n", text):
        if current is None:
            current = _opened(line)
            if current is not None:
                blocks.append(current)
        elif current.closes(line):
            current = None
        elif line.rstrip().endswith(current.fence):
            current.add(line.rstrip().removesuffix(current.fence))
            current = None
        else:
            current.add(line)
    return blocks


def _opened(line: str) -> _Block | None:
    """Return the block that a line opens, or None. After other text on the line, only a Python block can be opened."""
    found = _OPENING.match(line)
    if found is None:
        return None
    block = _Block(fence=found["fence"], indent=len(found["before"]), info=found["info"].strip(), lines=[])
    return block if not found["before"].strip() or block.is_python else None
