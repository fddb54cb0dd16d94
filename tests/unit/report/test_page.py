"""The page: what a run wrote does nothing there, it loads nothing, and its scripts are those of the package."""

import base64
import hashlib
import json
import random
import re
from pathlib import Path

import pytest
from report_runs import Chunks, append, bits, make_run, rollout

from rlsync.report import page
from rlsync.report.build import write_report
from rlsync.report.page import SCRIPTS, STYLES, Page, render
from rlsync.report.records import Records
from rlsync.report.rollout_line import rollout_line
from rlsync.report.run_reader import RunReader

HOSTILE = "</script></title><img src=x onerror=alert(1)><!--<script>alert(2)</script>"
STATIC = Path(page.__file__).parent / "static"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("run") / "a", name=f"'{HOSTILE}'")
    hostile = {"response": HOSTILE, "prompt": HOSTILE, "answer": HOSTILE, "turns": [HOSTILE], "problem": HOSTILE}
    append(folder / "rollouts.jsonl", rollout(6, 8, random.Random(0), finish_reason=HOSTILE, **hostile))
    append(folder / "metrics.jsonl", {"step": 7, HOSTILE: 1.0})
    write_report([RunReader(folder)], folder / "report.html")
    return (folder / "report.html").read_text()


def test_text_of_a_run_is_in_no_markup(written):
    assert "<img" not in written
    assert "&lt;/script&gt;" in re.search("<title>(.*)</title>", written)[1]
    parts = Chunks(written)
    assert HOSTILE in parts["rows-0-0"]["response"]
    assert HOSTILE in parts["core"]["runs"][0]["metrics"]


def test_the_policy_allows_the_page_s_own_scripts_and_styles_only(written):
    policy = re.search('Content-Security-Policy" content="([^"]*)"', written)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy
    for tag, name in [("script", "script-src"), ("style", "style-src")]:
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", written, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert rules[name].split() == [f"'sha256-{each}'" for each in hashes]
        assert len(texts) == len(SCRIPTS if tag == "script" else STYLES)


def test_the_page_names_no_other_file(written):
    outside = re.sub(r"https://github.com/leeoniya/uPlot", "", written)
    assert not re.search(r"""(src|href)=["'](?!data:,)|url\(|@import|https?://""", outside)


def test_only_a_live_page_may_ask_its_server():
    parts = "".join(render(Page(title="a", core="", live=True)))
    assert "connect-src 'self'" in parts


def test_every_static_file_is_used_and_short():
    unused = {path.name for path in STATIC.iterdir()} - {*SCRIPTS, *STYLES}
    assert unused == {"uPlot.LICENSE"}
    long = [path.name for path in STATIC.iterdir() if len(path.read_text().splitlines()) > 300]
    assert long == []
    own = [path for path in STATIC.glob("*.js") if not path.name.startswith("uPlot")]
    assert [
        path.name
        for path in own
        if re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", path.read_text())
    ] == []


def test_a_record_has_the_bits_the_differences_and_each_token_s_advantage():
    row = rollout(1, 0, random.Random(0), tokens=4, advantage=[0.5, -0.5, 1.0], prompt="p")
    own = [bits(-1.0), bits(-2.0), None, bits(-0.5)]
    row |= {"logprob_bits": own, "trainer_logprob_bits": [own[0], bits(-2.5), None, own[3]]}
    records, line = Records(), rollout_line(json.dumps(row).encode())
    assert line is not None
    records.add(7, line, None, {})
    (record,) = records.records
    assert (record.row, record.bits) == (7, "bf800000c0000000--------bf000000")
    assert record.trainer == {1: bits(-2.5)}
    assert record.advantages == [0.5, -0.5, 1]
    assert [records.pieces[piece] for piece in record.tokens] == [(each, None) for each in row["response_tokens"]]
    assert record.seed == str(row["seed"])


def test_a_run_without_rollouts_or_steps_has_a_page(tmp_path):
    make_run(tmp_path, steps=0, complete=False)
    (tmp_path / "rollouts.jsonl").unlink()
    write_report([RunReader(tmp_path)], tmp_path / "report.html")
    parts = Chunks((tmp_path / "report.html").read_text())
    assert parts["core"]["runs"][0]["rollouts"]["total"] == 0
    assert parts["core"]["runs"][0]["steps"] == []
