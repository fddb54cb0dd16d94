"""What a report reads of a run folder: whole, half-written, corrupt, missing, or written anew."""

import json
import os

import pytest
from report_runs import append, bits, make_run, rollout

from rlsync.errors import ConfigError
from rlsync.report.core import names, run_view
from rlsync.report.lines import LineReader
from rlsync.report.metric_table import MetricTable, number
from rlsync.report.packing import Packed
from rlsync.report.rollout_index import Entry, by_priority
from rlsync.report.rollout_line import rollout_line, short_line
from rlsync.report.run_reader import RunReader
from rlsync.telemetry.run_lock import held, is_held


def _read(folder):
    reader = RunReader(folder)
    reader.update()
    return reader


def _view(folder):
    return run_view(_read(folder), "a", Packed(), tokenizer=False, most_steps=1000)


def test_a_whole_run(tmp_path):
    view = _view(make_run(tmp_path, steps=5))
    assert (view.state, view.steps, view.steps_done, view.steps_planned) == ("complete", [1, 2, 3, 4, 5], 5, 5)
    assert view.metrics["reward/groups"] == [32] * 5
    assert view.metrics["eval/accuracy"][:4] == [None] * 4
    assert view.config["trainer.lr"] == "1e-6"
    assert (view.compared, view.different, view.seconds) == (62500, 0, 53.0)
    assert view.notes == []
    assert len(_read(tmp_path).rollouts.entries) == 40


def test_a_run_before_its_first_step(tmp_path):
    make_run(tmp_path, steps=0, planned=9, complete=False)
    view = _view(tmp_path)
    assert (view.steps, view.state, view.steps_planned) == ([], "stopped", 9)


def test_half_written_and_corrupt_lines_are_left_out_and_named(tmp_path):
    make_run(tmp_path, steps=3, samples=2)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'not json\n[1]\n{"step": null}\n\xff\xfe\n{"step": 4, "reward/me')
    with (tmp_path / "rollouts.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "prompt_tokens": [1, "logprob_bits": [\n{"step": 4')
    view = _view(tmp_path)
    assert view.steps == [1, 2, 3]
    assert view.notes == [
        "4 lines of metrics.jsonl cannot be read, and the report leaves them out.",
        "The last line of metrics.jsonl is unfinished, and the report leaves it out.",
        "1 line of rollouts.jsonl cannot be read, and the report leaves it out.",
        "The last line of rollouts.jsonl is unfinished, and the report leaves it out.",
    ]


def test_missing_files_are_named(tmp_path):
    make_run(tmp_path)
    (tmp_path / "rollouts.jsonl").unlink()
    (tmp_path / "config.yaml").unlink()
    notes = _view(tmp_path).notes
    assert "telemetry.save_rollouts=false" in notes[1]
    assert "config.yaml" in notes[0]
    assert names([_read(tmp_path)]) == [tmp_path.name]
    (tmp_path / "config.yaml").write_text("a: [1")
    assert "cannot be read as YAML" in _view(tmp_path).notes[0]


def test_values_that_are_no_numbers_become_none():
    values = [1, True, 0.1 + 0.2, 3.0, None, "1", [1], float("nan"), float("inf"), 10**400, 2**60]
    assert [number(value) for value in values] == [1, 1, 0.3, 3, None, None, None, None, None, None, float(2**60)]


def test_folders_that_are_no_runs_are_refused(tmp_path):
    for path, what in [
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is not the folder of a training run"),
    ]:
        with pytest.raises(ConfigError, match=what) as error:
            RunReader(path)
        assert str(path) in error.value.message
    (tmp_path / "eval.json").write_text("{}")
    with pytest.raises(ConfigError, match="folder of an evaluation"):
        RunReader(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        RunReader(tmp_path / "eval.json")


def test_lines_that_are_added_are_read_once(tmp_path):
    path, reader = tmp_path / "a", LineReader(tmp_path / "a")
    assert list(reader.read()) == []
    path.write_bytes(b"one\ntw")
    assert [line.data for line in reader.read()] == [b"one\n"]
    assert reader.unfinished
    path.write_bytes(b"one\ntwo\nthree\n")
    assert [(line.begin, line.data) for line in reader.read()] == [(4, b"two\n"), (8, b"three\n")]
    assert not reader.unfinished
    assert list(reader.read()) == []
    assert reader.restarts == 0
    path.write_bytes(b"one\n2\nlonger than before\n")
    assert [line.data for line in reader.read()] == [b"one\n", b"2\n", b"longer than before\n"]
    assert reader.restarts == 1


def test_a_resumed_run_forgets_the_steps_that_were_cut_off(tmp_path):
    reader = _read(make_run(tmp_path, steps=4, samples=2))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:2]))
    (tmp_path / "rollouts.jsonl").write_text(json.dumps(rollout(1, 0, _Draws())) + "\n")
    assert reader.update()
    assert reader.metrics.table().steps == [1, 2]
    assert (len(reader.rollouts.entries), reader.restarts) == (1, 2)
    append(tmp_path / "metrics.jsonl", json.loads(lines[2]))
    assert reader.update()
    assert reader.metrics.table().steps == [1, 2, 3]
    assert not reader.update()


class _Draws:
    def choices(self, values, k):
        return values[:1] * k

    def randrange(self, *_):
        return 0

    def random(self):
        return 0.5

    def getrandbits(self, _):
        return 1


def test_a_short_line_is_the_line_without_its_tokens():
    text = 'a "quoted, "prompt_tokens": [1]" text ]} \\" \N{SNOWMAN}\n'
    row = rollout(3, 1, _Draws(), tokens=7, prompt=text, response=text, advantage=[1.0, 0.0, 0.5])
    row["logprob_bits"][2] = None
    row["later"] = ["a", "b"]
    data = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    short, whole = short_line(data), rollout_line(data)
    assert short is not None
    assert whole is not None
    assert (short.prompt, short.response, short.length, short.advantage) == (text, text, 6, 0.5)
    assert (whole.prompt, whole.length, whole.bits[2], whole.advantages) == (text, 6, None, [1, 0, 0.5])
    assert (short.tokens, short.bits) == ([], [])


def test_a_line_of_other_types_is_read_as_far_as_it_goes():
    line = rollout_line(json.dumps({"step": 1, "sample": "x", "prompt": 3, "turns": 5, "reward": "high",
                                    "response_tokens": [1, "2", None], "logprob_bits": ["zz", bits(-1.0), 4],
                                    "reward_parts": {"form": 0.5}}).encode())  # fmt: skip
    assert line is not None
    assert (line.sample, line.prompt, line.turns, line.reward, line.tokens) == (0, "3", [], None, [1, 0, 0])
    assert (line.bits, line.parts, line.length) == ([None, "bf800000", None], {"form": 0.5}, 1)
    assert rollout_line(b'{"step": "1"}') is None


def test_the_most_telling_rollouts_come_first():
    rewards = {1: [0, 1, 0.5, None], 2: [0.2, 0.2, 0.2, 0.2], 3: [None, None, 0, 1]}
    entries = [
        Entry(0, 0, step, reward, length)
        for step, each in rewards.items()
        for reward, length in zip(each, [5, 5, 9, 5], strict=True)
    ]
    order = by_priority(entries)
    assert sorted(order) == list(range(12))
    assert {entries[number].step for number in order[:3]} == {1, 2, 3}
    assert [number for number in order if entries[number].step == 1] == [1, 0, 2, 3]  # best, worst, longest
    assert [number for number in order if entries[number].step == 3] == [11, 10, 8, 9]
    assert by_priority([]) == []


def test_a_thinned_table_keeps_the_ends_and_what_diverged():
    different = [0] * 1000
    different[333] = 2
    table = MetricTable(steps=list(range(1, 1001)), columns={"parity/tokens_different": list(different)})
    thin = table.thinned(100)
    assert len(thin.steps) <= 103
    assert {1, 334, 1000} <= set(thin.steps)
    assert table.thinned(1000) is table


def test_names_are_distinct(tmp_path):
    one, two = make_run(tmp_path / "x/a"), make_run(tmp_path / "x/b")
    three, four = make_run(tmp_path / "y/b"), make_run(tmp_path / "z", name="other")
    readers = [_read(folder) for folder in (one, two, three, four)]
    assert names(readers) == ["sums (a)", "sums (b) #1", "sums (b) #2", "other"]


def test_a_running_run_is_known_by_its_lock(tmp_path):
    make_run(tmp_path, complete=False)
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        assert _view(tmp_path).state == "running"
    assert not is_held(tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_named(tmp_path):
    make_run(tmp_path)
    (tmp_path / "metrics.jsonl").chmod(0)
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: cannot be read"):
        _read(tmp_path)
