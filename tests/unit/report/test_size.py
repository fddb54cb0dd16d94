"""A report's size is bounded whatever the run, and the page says what it leaves out."""

import json
import random

import pytest
from report_runs import Chunks, append, bits, make_run, metrics, rollout

from rlsync.report import build
from rlsync.report.build import write_report
from rlsync.report.run_reader import RunReader

MB = 1_000_000


def _written(folder, **options):
    size = write_report([RunReader(folder)], folder / "report.html", **options)
    assert size == (folder / "report.html").stat().st_size
    return size, Chunks((folder / "report.html").read_text())


def _rollouts(parts):
    return parts["core"]["runs"][0]["rollouts"]


def test_a_thousand_steps_and_fifty_thousand_rollouts(tmp_path):
    size, parts = _written(make_run(tmp_path, steps=1000, samples=50, tokens=24))
    assert size < 20 * MB
    rollouts = _rollouts(parts)
    assert (rollouts["total"], rollouts["listed"], rollouts["row_chunks"]) == (50_000, 50_000, 25)
    assert rollouts["detailed"] > 10_000
    assert len(parts["core"]["runs"][0]["steps"]) == 1000
    first = (tmp_path / "report.html").read_text()[:1_500_000]
    assert first.index('id="core"') < first.index("<script>") < first.index('id="rows-0-0"')


def test_long_responses_of_noise_stay_within_the_budget(tmp_path):
    """Random texts and log-probs, which no compression makes small."""
    rng = random.Random(0)
    make_run(tmp_path, steps=12, samples=0)
    for step in range(1, 13):
        append(tmp_path / "rollouts.jsonl", *(_noise(step, sample, rng) for sample in range(4)))
    largest = 6 * MB
    size, parts = _written(tmp_path, largest=largest)
    assert largest * 0.2 < size <= largest
    rollouts = _rollouts(parts)
    assert (rollouts["total"], rollouts["listed"], rollouts["text_limit"]) == (48, 48, 2000)
    assert 4 <= rollouts["detailed"] < 48
    detailed = {step for rows in parts["places-0"] for step in (row // 4 for row in rows)}
    assert len(detailed) >= 4  # steps from all over the run, not only the first
    assert max(detailed) - min(detailed) >= 8


def _noise(step, sample, rng):
    text = "".join(map(chr, (rng.randrange(33, 0x3000) for _ in range(12_000))))
    values = [bits(rng.gauss(0, 9)) for _ in range(12_000)]
    ids = [rng.randrange(150_000) for _ in values]
    return rollout(step, sample, rng, response=text, turns=[text], response_tokens=ids, logprob_bits=values)


def test_rows_are_left_out_when_even_short_texts_do_not_fit(tmp_path):
    size, parts = _written(make_run(tmp_path, steps=60, samples=50, tokens=30), largest=500_000)
    rollouts = _rollouts(parts)
    assert size < 500_000
    assert rollouts["text_limit"] == 60
    assert 0 < rollouts["listed"] < rollouts["total"] == 3000
    assert {step for part in range(rollouts["row_chunks"]) for step in parts[f"rows-0-{part}"]["step"]} == {
        *range(1, 61)
    }


def test_a_single_response_that_is_too_long_is_cut_and_marked(tmp_path):
    rng = random.Random(0)
    make_run(tmp_path, steps=1, samples=0)
    append(tmp_path / "rollouts.jsonl", rollout(1, 0, rng, tokens=30_000), rollout(1, 1, rng, tokens=50))
    _, parts = _written(tmp_path)
    records = {
        record["row"]: record for part in parts if part.startswith("detail") for record in parts[part]["records"]
    }
    assert (records[0]["cut"], len(records[0]["tokens"])) == (True, 20_000)
    assert (records[1]["cut"], len(records[1]["tokens"])) == (False, 50)


@pytest.mark.parametrize("diverged", [0, 3])
def test_very_many_steps_are_thinned_and_totals_are_not(tmp_path, monkeypatch, diverged):
    monkeypatch.setattr(build, "_METRICS_SIZE", 100_000)
    rng = random.Random(0)
    make_run(tmp_path, steps=0, planned=1, samples=0)
    row = metrics(1, 10, rng)
    noise = [f"user/{key}" for key in range(20)]
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 2_001):
            different = diverged if step == 432 else 0
            own = {"step": step, "parity/tokens_different": different}
            file.write(json.dumps(row | own | {key: rng.random() for key in noise}) + "\n")
    _, parts = _written(tmp_path)
    run = parts["core"]["runs"][0]
    assert len(parts.encoded["core"]) < 100_000
    assert len(run["steps"]) < 1000
    assert (run["steps_done"], run["different"], run["compared"]) == (2000, diverged, 2000 * 12_500)
    assert (432 in run["steps"]) >= bool(diverged)
    assert "of 2,000 steps" in run["notes"][-1]
