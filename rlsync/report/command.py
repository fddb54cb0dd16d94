"""Runs `rlsync report`."""

from __future__ import annotations

import time
from pathlib import Path

from rlsync.errors import ConfigError
from rlsync.report.build import MOST_RUNS, REPORT, write_report
from rlsync.report.live import LiveReport
from rlsync.report.run_reader import RunReader
from rlsync.report.server import serving
from rlsync.telemetry.console import ConsoleReporter

_EVERY_S, _LAST_LOOK_S = 0.5, 10.0
"""Seconds between two looks at the run folders, and the longest wait for an open page to show the end of the runs."""
_PORTS = range(65536)


def report(runs: list[Path], out: Path | None, console: ConsoleReporter, *, live: bool = False, port: int = 0) -> int:
    """Write a report of runs, or with `live` show it while they go on and write it at their end; return the exit code.

    Args:
        runs: The run folders.
        out: The file; None = report.html in the first run folder.
        console: Where the address and the file are said.
        live: Serve the page until all runs are complete, or until Ctrl-C.
        port: Port of the server; 0 = any free one.

    Raises:
        ConfigError: A folder, the file or the port cannot be used.
    """
    readers = _readers(runs)
    target = out or runs[0] / REPORT
    if not target.parent.is_dir():
        raise ConfigError(f"--out={target}: there is no folder {target.parent}. Make it, or give another file")
    if target.is_dir():
        raise ConfigError(f"--out={target} is a folder. Give a file in it, such as {target / REPORT}")
    if port not in _PORTS:
        raise ConfigError(f"--port={port}: a port is at least 0 and at most {_PORTS[-1]}")
    if port and not live:
        raise ConfigError(f"--port={port}: only --live serves the page. Add --live, or leave --port out")
    if live and not _show(LiveReport(readers), port, console):
        return 0
    size = write_report(readers, target)
    console.say(f"{target}: {size / 1e6:.1f} MB")
    return 0


def _readers(runs: list[Path]) -> list[RunReader]:
    distinct = list({run.resolve(): run for run in runs}.values())
    if len(distinct) > MOST_RUNS:
        raise ConfigError(f"{len(distinct)} runs are more than the {MOST_RUNS} that a report can show. Give fewer")
    return [RunReader(run) for run in distinct]


def _show(live: LiveReport, port: int, console: ConsoleReporter) -> bool:
    """Serve the page until all runs are complete; return False if Ctrl-C came first."""
    with serving(live, port) as address:
        console.say(f"{address} shows the run while it goes on; it ends with the run, or with Ctrl-C")
        try:
            while not live.complete:
                time.sleep(_EVERY_S)
            waited = time.monotonic() + _LAST_LOOK_S
            while live.watched and not live.end_seen and time.monotonic() < waited:
                time.sleep(_EVERY_S)
        except KeyboardInterrupt:
            console.say("the live view has ended; `rlsync report` without --live writes the page")
            return False
    return True
