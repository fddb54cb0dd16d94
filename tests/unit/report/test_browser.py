"""The page in a browser: charts are drawn, search finds a rollout, hostile text does nothing, nothing goes wrong."""

import html
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_runs import append, make_run, rollout

from rlsync.report import page
from rlsync.report.build import write_report
from rlsync.report.run_reader import RunReader

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr "
    "--virtual-time-budget=20000 --window-size=1280,4000"
)
HOSTILE = "needle </script><img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
DRIVER = Path(__file__).parent / "driver.js"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def _driven(path, profile):
    """What driver.js found in the page, and what the browser logged to its console."""
    words = [BROWSER, *OPTIONS.split(), f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    found = re.search('data-found="([^"]*)"', done.stdout)
    assert found, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), console


@pytest.fixture
def driver(monkeypatch):
    """The driver as one more script of the page, so that the page's policy allows it."""
    monkeypatch.setattr(page, "SCRIPTS", (*page.SCRIPTS, str(DRIVER)))


@pytest.mark.usefixtures("driver")
def test_one_run(tmp_path):
    folder = make_run(tmp_path / "a", steps=12, samples=8)
    trainer = rollout(12, 8, random.Random(0), response=HOSTILE, prompt=HOSTILE, turns=[HOSTILE], problem=HOSTILE)
    append(folder / "rollouts.jsonl", trainer | {"trainer_logprob_bits": ["3f800000", *trainer["logprob_bits"][1:]]})
    write_report([RunReader(folder)], folder / "report.html")
    found, console = _driven(folder / "report.html", tmp_path / "profile")
    assert console == []
    assert found["errors"] == []
    assert found["blank"] == 0
    assert found["charts"] >= 15
    assert found["light"] == "0 of 150,000 tokens differ"
    assert found["rollouts"] == "97 of 97 rollouts"
    assert found["search"] == "1 of 97 rollouts"
    assert found["response"].startswith("needle </script><img")
    assert found["colours"] > 3
    assert found["different"] == 1
    assert (found["images"], found["title"]) == (0, "sums \N{MIDDLE DOT} rlsync")
    assert found["metrics"].startswith("7 of ")
    assert found["settings"] == "1 of 17 settings"
    assert found["themes"][0] != found["themes"][1]


@pytest.mark.usefixtures("driver")
def test_two_runs_of_which_one_has_no_step(tmp_path):
    runs = [make_run(tmp_path / "a", steps=12), make_run(tmp_path / "b", steps=0, samples=0, lr="2e-6", complete=False)]
    write_report([RunReader(run) for run in runs], tmp_path / "report.html")
    found, console = _driven(tmp_path / "report.html", tmp_path / "profile")
    assert console == []
    assert found["errors"] == []
    assert found["charts"] >= 15
    assert found["legend"] == ["sums (a)", "sums (b)"]
    assert found["search"] == "0 of 96 rollouts"
