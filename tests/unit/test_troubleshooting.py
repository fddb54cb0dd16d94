"""The messages that docs/troubleshooting.md quotes are messages of the code, and its table names all sections."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
SHORTEST = 8
"""A shorter piece between two dots is not looked for: it could be in any text."""


@cache
def _texts():
    """Every text of the package's code, with a NUL for each value that is filled in."""
    texts = []
    for path in ROOT.glob("rlsync/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[.\d]*[a-z]", "\0", node.value))
    return texts


def _is_written(message):
    pieces = [piece.strip(" ().,:") for piece in message.split("...")]
    pieces = [piece for piece in pieces if len(piece) >= SHORTEST]
    return bool(pieces) and all(any(piece in text for text in _texts()) for piece in pieces)


BLOCKS = [line for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
TOKENIZERS = PAGE.partition("### Tokenizers and chat templates")[2].partition("###")[0]
QUOTED = [*BLOCKS, *re.findall(r"^\| `([^`]+)` \|", TOKENIZERS, re.MULTILINE)]
ROWS = [row for row in PAGE.partition("\n## Exit codes")[0].splitlines() if row.startswith("| ") and "](#" in row]


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_one_of_the_code(message):
    assert _is_written(message)


def test_control_a_message_that_nothing_writes_is_found():
    assert len(QUOTED) > 25
    assert not _is_written("step ...: the weights have gone to lunch")
    assert not _is_written("...")


def test_every_section_is_in_the_table():
    sections = set(re.findall(r"^### (.+)$", PAGE, re.MULTILINE))
    named = {name for row in ROWS for name in re.findall(r"\[([^\]]+)\]\(#", row)}
    assert len(sections) > 20
    assert sections == named


def test_every_exit_code_is_explained():
    from rlsync import errors

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert explained == codes | {0, 130}
