"""The loop with fakes in place of Ray, vLLM and FSDP: its order, its seeds, what it does when something is wrong."""

import json
from dataclasses import replace

import pytest
import torch

from rlsync.config.compose import compose_train
from rlsync.config.parity import Fault
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.prompts import PromptStream
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.errors import DivergenceError
from rlsync.loop import Sinks, TrainingLoop, sample_seed
from rlsync.rewards.scorer import Scorer
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.run_folder import RunFolder, hex_bits
from rlsync.telemetry.wandb_sink import WandbSink
from rlsync.types import FinishReason, ParityCounts, Problem, Rollout, StepStats

PROBLEMS = [Problem(id=str(i), prompt=f"{i}+1=", answer=str(i + 1)) for i in range(9)]


class FakeRollouts:
    """Answers every request with the token of `1`, and notes what happened."""

    def __init__(self, log: list, differing: tuple[str, ...] = ()) -> None:
        self.log, self.differing, self.version = log, list(differing), -1

    def generate(self, requests):
        self.log.append(("generate", [r.seed for r in requests], requests[0].greedy))
        return [self._rollout(r) for r in requests]

    def _rollout(self, request) -> Rollout:
        n = len(request.prompt)
        return Rollout(
            tokens=torch.tensor([*request.prompt, 4, 1]), sampled=torch.arange(n + 2) >= n, seed=request.seed,
            logprobs=torch.where(torch.arange(n + 2) >= n, -0.5, 0.0), finish_reason=FinishReason.stop,
            weight_version=torch.where(torch.arange(n + 2) >= n, self.version, -1).to(torch.int32),
        )  # fmt: skip

    def sync(self, version, fault):
        self.log.append(("sync", version, fault))
        self.version = version
        return self.differing

    def peak_memory_gib(self):
        return 1.0


class FakeTrainer:
    def __init__(self, log: list, counts: ParityCounts) -> None:
        self.log, self.counts = log, counts

    def train(self, samples):
        self.log.append(("train", len(samples)))
        return [StepStats(tokens=10, loss_tokens=4, updates=1, parity=replace(self.counts))]

    def save(self, folder):
        self.log.append(("save", folder.rpartition("/")[2]))

    def peak_memory_gib(self):
        return 1.0


GOOD = ParityCounts(tokens_sampled=4, tokens_compared=4)
BAD = ParityCounts(
    tokens_sampled=4, tokens_compared=4, tokens_different=2, max_ulp=3, first_sequence=0, first_position=5
)


@pytest.fixture
def build(tmp_path):
    build_char_tokenizer(tmp_path / "tokenizer", "1234567890+=")

    def make(*overrides, counts=GOOD, differing=()):
        config = compose_train(
            ["algorithm.prompts_per_step=2", "algorithm.group_size=2", "trainer.steps=2", "telemetry=files_only",
             "reward=exact", *overrides]
        )  # fmt: skip
        log: list = []
        folder = RunFolder(tmp_path / "run", "")
        loop = TrainingLoop(
            config,
            trainer=FakeTrainer(log, counts),
            rollouts=FakeRollouts(log, differing),
            scorer=Scorer(config.reward, source=None),
            codec=TextCodec(load_tokenizer(str(tmp_path / "tokenizer")), config.data),
            prompts=PromptStream(PROBLEMS, config.seed),
            held_out=PROBLEMS[:3],
            sinks=Sinks(folder=folder, wandb=WandbSink(config.telemetry, "x", tmp_path, {}), console=ConsoleReporter()),
        )
        return loop, log, folder

    return make


def _rows(folder):
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def test_the_order_of_a_run(build):
    loop, log, folder = build()
    summary = loop.run()
    kinds = [entry[0] for entry in log]
    step = ["sync", "generate", "generate", "train", "sync", "generate", "train", "sync", "generate", "save"]
    assert kinds == step  # step 1 also evaluates; so does the end, with the new weights
    assert [e[1] for e in log if e[0] == "sync"] == [0, 1, 2]
    assert summary.steps == 2
    assert [row["step"] for row in _rows(folder)] == [1, 2]


def test_seeds_are_distinct_and_repeat_with_the_run(build):
    logs = [build()[:2] for _ in range(2)]
    seeds = []
    for loop, log in logs:
        loop.run()
        seeds.append([s for e in log if e[0] == "generate" and not e[2] for s in e[1]])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 8
    assert sample_seed(1, 1, 0) != sample_seed(0, 1, 0)
    assert all(0 <= s < 2**63 for s in seeds[0])


def test_a_divergence_fails_the_run_after_its_row_is_written(build):
    loop, log, folder = build(counts=BAD)
    with pytest.raises(DivergenceError, match="step 1: 2 of 4 tokens differ"):
        loop.run()
    assert _rows(folder)[0]["parity/tokens_different"] == 2
    assert "save" not in [e[0] for e in log]


def test_a_divergence_can_be_a_warning(build):
    loop, _, folder = build("parity=warn", counts=BAD)
    summary = loop.run()
    assert len(summary.warnings) == 2
    assert summary.tokens_different == 4
    assert len(_rows(folder)) == 2


def test_comparing_nothing_fails(build):
    loop, _, _ = build(counts=ParityCounts())
    with pytest.raises(DivergenceError, match="no token was compared"):
        loop.run()


def test_differing_digests_stop_the_run_before_any_rollout(build):
    loop, log, folder = build(differing=("model.norm.weight",))
    with pytest.raises(DivergenceError, match=r"step 1.*model\.norm\.weight"):
        loop.run()
    assert log == [("sync", 0, Fault.none)]
    assert _rows(folder)[0]["parity/weights_digest_equal"] == 0


def test_a_fault_is_planted_at_its_step_alone(build):
    loop, log, _ = build("parity.fault=ulp", "parity.fault_step=2")
    loop.run()
    assert [e[2] for e in log if e[0] == "sync"] == [Fault.none, Fault.ulp, Fault.none]


def test_rollouts_hold_log_probs_as_bits(build):
    loop, _, folder = build()
    loop.run()
    rows = [json.loads(line) for line in (folder.path / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert rows[0]["logprob_bits"] == hex_bits(torch.tensor([-0.5, -0.5])) == ["bf000000", "bf000000"]
    assert {row["weight_version"] for row in rows} == {0, 1}
