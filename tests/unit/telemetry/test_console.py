import io

import pytest
from rich.console import Console

from rlsync.telemetry.console import ConsoleReporter

TEXT = "caf\xe9 \ud83d"


def _console(out: io.BytesIO, encoding: str) -> Console:
    return Console(file=io.TextIOWrapper(out, encoding=encoding, write_through=True), highlight=False, soft_wrap=True)


@pytest.mark.parametrize(("encoding", "written"), [("utf-8", "caf\xe9 \\ud83d"), ("ascii", "caf\\xe9 \\ud83d")])
def test_a_text_that_the_terminal_cannot_show_is_said_all_the_same(encoding: str, written: str) -> None:
    with pytest.raises(UnicodeEncodeError):  # the control
        _console(io.BytesIO(), encoding).print(TEXT)
    out = io.BytesIO()
    console = _console(out, encoding)
    ConsoleReporter(console).say(TEXT)
    assert out.getvalue().decode(encoding) == written + "\n"
