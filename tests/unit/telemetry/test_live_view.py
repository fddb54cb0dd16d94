"""What a terminal shows of a run, and the other styles of the console."""

import io
import json

import pytest
from rich.console import Console

from rlsync.config.telemetry import ConsoleStyle
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.live_view import LiveView, sparkline
from rlsync.telemetry.parity_text import parity_text


def _row(step, reward=0.5, different=0, rows=0, compared=100):
    return {
        "step": step, "reward/mean": reward, "train/entropy": 0.3, "train/grad_norm": 1.5, "response/length_mean": 4.2,
        "parity/tokens_sampled": 100, "parity/tokens_compared": compared, "parity/tokens_different": different,
        "parity/rows_different": rows, "time/step": 2.0, "perf/rollout_tokens_per_s": 1234.0,
    }  # fmt: skip


def _drawn(view):
    console = Console(width=150, file=io.StringIO(), color_system=None)
    console.print(view.draw())
    return console.file.getvalue()


def test_the_view_shows_step_stage_reward_parity_and_alarms():
    view = LiveView(Console(file=io.StringIO()), 0, 60)
    assert "step 0/60" in _drawn(view)
    view.stage("rollout")
    view.progress(34, 128, 5000)
    for step in range(1, 13):
        view.step(_row(step, reward=step / 12))
    view.alarm("step 12: the reward has collapsed")
    text = _drawn(view)
    for part in ("step 12/60", "ETA", "rollout", "34 of 128 responses", "tokens/s", "reward 1.000", "▁", "█",
                 "0 of 100 tokens differ", "! step 12: the reward has collapsed"):  # fmt: skip
        assert part in text
    view.stage("train")
    assert "34 of 128" not in _drawn(view)


def test_a_resumed_run_estimates_from_its_own_steps():
    view = LiveView(Console(file=io.StringIO()), 50, 60)
    assert "ETA -" in _drawn(view)
    view.step(_row(51))
    assert "ETA 0 min" in _drawn(view)


def test_an_evaluation_has_no_steps():
    view = LiveView(Console(file=io.StringIO()), 0, 0)
    view.stage("evaluation")
    assert "step" not in _drawn(view)


def test_sparklines():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▄█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([1.0, float("nan"), 3.0]) == "▁ █"
    assert sparkline([float("nan")]) == " "


def test_the_text_says_what_was_not_compared_and_which_rows_differ():
    def text(**changed):
        return parity_text(**({"sampled": 100, "compared": 100, "different": 0, "rows_different": 0} | changed))

    assert text() == "0 of 100 tokens differ"
    assert text(different=3, rows_different=3) == "3 of 100 tokens differ"
    assert text(different=3, rows_different=9) == "3 of 100 tokens differ, and other logits of 6 more"
    assert text(compared=25) == "0 of 25 tokens differ (25% of all tokens compared)"


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        (ConsoleStyle.auto, ["begin", "step 1/2  reward 0.500", "the end"]),
        (ConsoleStyle.plain, ["begin", "step 1/2  reward 0.500", "the end"]),
        (ConsoleStyle.quiet, ["the end"]),
    ],
)
def test_styles(style, lines):
    out = io.StringIO()
    _report(ConsoleReporter(Console(file=out, width=40)), style)
    written = out.getvalue().splitlines()
    assert [a.startswith(b) for a, b in zip(written, lines, strict=True)] == [True] * len(lines)


def test_json_lines_are_json():
    out = io.StringIO()
    reporter = ConsoleReporter(Console(file=out, width=40))
    _report(reporter, ConsoleStyle.json)
    reporter.table("t", ["a"], [["b"]])
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["message", "step", "message", "table"]
    assert events[1]["reward/mean"] == 0.5


def _report(reporter, style):
    reporter.use(style)
    reporter.say("begin")
    reporter.start(0, 2)
    reporter.stage("rollout")
    reporter.progress(1, 2, 3)
    reporter.step(_row(1), 2)
    reporter.stop()
    reporter.say("the end", result=True)


def test_a_terminal_gets_the_view():
    out = io.StringIO()
    reporter = ConsoleReporter(Console(file=out, width=120, force_terminal=True))
    _report(reporter, ConsoleStyle.auto)
    assert "step 1/2" in out.getvalue()
    assert "●" in out.getvalue()
