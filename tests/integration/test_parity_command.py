"""`rlsync parity --quick` proves parity on this machine, for every family, dtype and TP."""

import re
import subprocess
import sys


def test_quick():
    done = subprocess.run(
        [sys.executable, "-m", "rlsync.cli", "parity", "--quick"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^0 of \d{4,} tokens differ in 13 cells", done.stdout, re.M)
