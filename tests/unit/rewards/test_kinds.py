"""Regex, judge and weighted rewards."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from rlsync.config.data import DataConfig
from rlsync.config.reward import RewardConfig, RewardKind, WeightedReward
from rlsync.controller.metrics import reward_metrics
from rlsync.data.open_source import open_source
from rlsync.data.problem import Problem
from rlsync.errors import ConfigError, RewardError
from rlsync.rewards import judge
from rlsync.rewards.scorer import Scorer
from rlsync.samples import Episode, FinishReason, Rollout, Sample, Score


def _problems(*answers):
    return [Problem(id=str(i), prompt=f"p{i}", answer=answer) for i, answer in enumerate(answers)]


def _scorer(**config):
    return Scorer(RewardConfig(**config), open_source(DataConfig()))


def test_regex_takes_the_last_match():
    scorer = _scorer(kind=RewardKind.regex, pattern=r"####\s*(-?\d+)")
    texts = ["#### 3 no, #### 4", "#### 5", "4"]
    assert [s.reward for s in scorer.score(_problems("4", "4", "4"), texts)] == [1.0, 0.0, 0.0]
    form = _scorer(kind=RewardKind.regex, pattern="</think>")
    assert [s.reward for s in form.score(_problems("4", "4"), ["a</think>b", "ab"])] == [1.0, 0.0]


def test_a_weighted_sum_keeps_its_parts():
    parts = {
        "right": WeightedReward(kind=RewardKind.exact, weight=1.0),
        "form": WeightedReward(kind=RewardKind.regex, pattern=r"^\d+$", weight=0.25),
    }
    scores = _scorer(parts=parts).score(_problems("4", "4", "4"), ["4", "5", "x"])
    assert [s.reward for s in scores] == [1.25, 0.25, 0.0]
    assert scores[1].parts == {"right": 0.0, "form": 1.0}


class _Service(BaseHTTPRequestHandler):
    failures = 0
    seen: list[dict] = []  # noqa: RUF012

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).seen.append(body)
        if type(self).failures > 0:
            type(self).failures -= 1
            return self.send_error(503)
        reply = json.dumps({"reward": float(len(body["completion"])) if body["completion"] else "NaN"}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr(judge, "_FIRST_PAUSE_S", 0.01)
    server = HTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    _Service.failures, _Service.seen = 0, []
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_judge_is_asked_again_after_a_failure(service):
    _Service.failures = 2
    scores = _scorer(kind=RewardKind.judge, judge_url=service).score(_problems("a", "b"), ["xy", "xyz"])
    assert [s.reward for s in scores] == [2.0, 3.0]
    assert {"prompt": "p0", "completion": "xy", "answer": "a"} in _Service.seen


def test_a_bad_reply_costs_one_sample_and_a_judge_that_is_down_ends_the_run(service):
    scores = _scorer(kind=RewardKind.judge, judge_url=service).score(_problems("a", "b"), ["", "xyz"])
    assert [s.reward for s in scores] == [None, 3.0]
    assert "NaN" in scores[0].error
    _Service.failures = 100
    with pytest.raises(RewardError, match=r"failed for all 1 samples.*503"):
        _scorer(kind=RewardKind.judge, judge_url=service, judge_retries=1).score(_problems("a"), ["x"])


def test_a_judge_that_nobody_serves_ends_the_run(monkeypatch):
    monkeypatch.setattr(judge, "_FIRST_PAUSE_S", 0.01)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(RewardError, match=r"failed for all 2 samples.*refused"):
            _scorer(kind=RewardKind.judge, judge_url=url, judge_retries=1).score(_problems("a", "b"), ["x", "y"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": RewardKind.regex}, "reward.pattern is empty"),
        ({"kind": RewardKind.regex, "pattern": "("}, "is not a regular expression"),
        ({"kind": RewardKind.judge}, "reward.judge_url is empty"),
        ({"judge_retries": -1}, "judge_retries=-1"),
        ({"code_memory_mib": 1}, "code_memory_mib=1"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        RewardConfig(**values)


def test_parts_are_reported():
    scores = [Score(reward=1.25, parts={"right": 1.0, "form": 1.0}), Score(reward=None, error="x")]
    episode = Episode(
        rollout=Rollout(
            tokens=torch.tensor([1]), sampled=torch.tensor([True]), logprobs=torch.zeros(1), seed=0,
            weight_version=torch.zeros(1), finish_reason=FinishReason.stop,
        ),
        turns=["x"], scored="x",
    )  # fmt: skip
    problem = Problem(id="0", prompt="p", answer="a")
    samples = [Sample(problem=problem, episode=episode, score=score) for score in scores]
    rows = reward_metrics(samples, torch.tensor([[1.25, torch.nan]]), 0)
    assert (rows["reward/part/right"], rows["reward/part/form"], rows["reward/errors"]) == (1.0, 1.0, 1)


def test_a_part_that_fails_costs_the_sum_and_parts_that_fail_in_turn_end_the_run():
    """Neither part fails for all samples, but together they leave no sample with a reward."""
    whole = WeightedReward(kind=RewardKind.exact)
    odd = WeightedReward(kind=RewardKind.function, function="operator:getitem")  # completion[problem]: a TypeError
    with pytest.raises(RewardError, match=r"the reward function whole or odd failed for all 1 samples.*TypeError"):
        _scorer(parts={"whole": whole, "odd": odd}).score(_problems("4"), ["4"])
    assert _scorer(parts={"whole": whole}).score(_problems("4"), ["4"])[0].reward == 1.0  # the control
