"""The loop with fakes in place of Ray, vLLM and FSDP: its order, its seeds, and its handling of failures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlsync.checkpoint.progress import Progress, newest
from rlsync.config.compose import compose_train
from rlsync.config.parity import Fault
from rlsync.config.telemetry import WandbMode
from rlsync.controller.collect import sample_seed
from rlsync.controller.evaluator import EvalSet, Evaluator
from rlsync.controller.loop import TrainingLoop
from rlsync.controller.step_log import Sinks
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.problem import Problem
from rlsync.data.prompts import PromptStream
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.errors import DataError, DivergenceError
from rlsync.parity.counts import Difference, ParityCounts
from rlsync.rewards.scorer import Scorer
from rlsync.rewards.scoring import Scoring
from rlsync.samples import FinishReason, Rollout, Sample, Score
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.run_folder import RunFolder, hex_bits
from rlsync.telemetry.wandb_mode import WandbChoice
from rlsync.telemetry.wandb_sink import WandbSink
from rlsync.trainer.stats import StepStats
from rlsync.weight_sync.digest import TensorDigest
from rlsync.weight_sync.sync import Transferred, WeightSync

PROBLEMS = [Problem(id=str(i), prompt=f"{i}+1=", answer=str(i + 1)) for i in range(9)]


def _advantage(sample: Sample) -> float | torch.Tensor:
    """The advantage that all tokens share."""
    return sample.advantage if sample.value else float(sample.advantage[sample.rollout.sampled][0])


def _digest(name: str, value: int) -> TensorDigest:
    return TensorDigest(name=name, rows=(0, 1), columns=(0, 1), value=value)


class FakeRollouts:
    """Answers every request with the token of `1`, and notes what happened."""

    def __init__(self, log: list, differing: tuple[str, ...] = ()) -> None:
        self.log, self.differing, self.version = log, list(differing), -1

    def generate(self, requests):
        self.log.append(("generate", [r.seed for r in requests], requests[0].greedy))
        return [(index, self._rollout(r)) for index, r in reversed(list(enumerate(requests)))]

    def _rollout(self, request) -> Rollout:
        n = len(request.prompt)
        return Rollout(
            tokens=torch.tensor([*request.prompt, 4, 1]), sampled=torch.arange(n + 2) >= n, seed=request.seed,
            logprobs=torch.where(torch.arange(n + 2) >= n, -0.5, 0.0), finish_reason=FinishReason.stop,
            weight_version=torch.where(torch.arange(n + 2) >= n, self.version, -1).to(torch.int32),
        )  # fmt: skip

    def sleep(self):
        self.log.append(("sleep",))

    def transfer_weights(self, version, fault):
        self.log.append(("sync", version, fault))
        self.version = version
        sent = [_digest(name, 1) for name in ("lm_head.weight", *self.differing)]
        engine = [_digest(d.name, 2 if d.name in self.differing else 1) for d in sent]
        return Transferred(trainer=sent, engines=[engine])

    def peak_memory_gib(self):
        return 1.0


class FakeTrainer:
    def __init__(self, log: list, counts: ParityCounts, ratio: float = 1.0) -> None:
        self.log, self.counts, self.ratio = log, counts, ratio

    def train(self, samples, version):
        assert version == samples[0].rollout.weight_version.max()
        self.log.append(("train", [_advantage(s) for s in samples]))
        sampled = sum(s.rollout.num_sampled for s in samples)
        compared = sampled if self.counts.tokens_compared else 0
        sums = {"tokens_sampled": sampled, "tokens_compared": compared, "tokens_left_out_stale": sampled - compared}
        counts = replace(self.counts, **sums)
        stats = StepStats(tokens=10, loss_tokens=4, updates=1, parity=counts)
        return [replace(stats, first_ratio_max=self.ratio)]

    def reference_kl(self, rollouts):
        self.log.append(("reference_kl", len(rollouts)))
        return [index * r.sampled.double() / r.num_sampled for index, r in enumerate(rollouts)]

    def values(self, rollouts):
        self.log.append(("values", len(rollouts)))
        return [0.25 * r.sampled.float() for r in rollouts]

    def save(self, folder, *, version, resumable):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.log.append(("save", Path(folder).name, resumable))

    def peak_memory_gib(self):
        return 1.0


class FakeScorer:
    """The responses to problems in `mixed` get 0 and 1 in turns, all others 1."""

    name, weight, threads, batch_size = "fake", 1.0, 2, 1

    def __init__(self, mixed) -> None:
        self.mixed = mixed

    def start(self, problems):
        return Scoring([self], problems, sums=False)

    def score(self, samples):
        return [Score(reward=float(s.index % 2 or s.problem.id not in self.mixed)) for s in samples]


GOOD = ParityCounts(tokens_sampled=4, tokens_compared=4)
FIRST = Difference(sequence=0, position=5, trainer=-0.5, rollout=-0.25)
BAD = ParityCounts(tokens_sampled=4, tokens_compared=4, tokens_different=2, max_ulp=3, first=FIRST)


@pytest.fixture
def build(tmp_path):
    build_char_tokenizer(tmp_path / "tokenizer", "1234567890+=")

    def make(*overrides, counts=GOOD, differing=(), ratio=1.0, mixed=None, progress=None):
        config = compose_train(
            ["algorithm.prompts_per_step=2", "algorithm.group_size=2", "trainer.steps=2", "telemetry=files_only",
             "reward=exact", *overrides]
        )  # fmt: skip
        log: list = []
        folder = RunFolder(tmp_path / "run", "", progress.step if progress else 0)
        rollouts = FakeRollouts(log, differing)
        scorer = Scorer(config.reward, source=None) if mixed is None else FakeScorer(mixed)
        codec = TextCodec(load_tokenizer(str(tmp_path / "tokenizer")), config.data)
        held_out = EvalSet(name="held_out", problems=PROBLEMS[:3], codec=codec, scorer=scorer)
        prompts = PromptStream(PROBLEMS, config.seed)
        if progress:
            prompts.restore(progress.prompts)
        loop = TrainingLoop(
            config,
            trainer=FakeTrainer(log, counts, ratio),
            rollouts=rollouts,
            weights=WeightSync(rollouts),
            scorer=scorer,
            codec=codec,
            prompts=prompts,
            evaluator=Evaluator(config, rollouts, [held_out]),
            sinks=Sinks(
                folder=folder,
                wandb=WandbSink(WandbChoice(mode=WandbMode.disabled), None, print),
                console=ConsoleReporter(),
            ),
            progress=progress or Progress(),
        )
        return loop, log, folder

    return make


def _rows(folder):
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def test_the_order_of_a_run(build):
    loop, log, folder = build()
    summary = loop.run()
    kinds = [entry[0] for entry in log]
    first, second = ["sync", "generate", "generate", "sleep", "train"], ["sync", "generate", "sleep", "train"]
    assert kinds == [*first, *second, "sync", "generate", "save"]  # step 1 evaluates, and the end the new weights
    assert [e[1] for e in log if e[0] == "sync"] == [0, 1, 2]
    assert summary.steps == 2
    assert [row["step"] for row in _rows(folder)] == [1, 2]


def test_evaluations_are_reported_before_training_and_where_asked_for(build):
    loop, log, folder = build("eval.every=1", "eval.samples=2", "eval.k=[1,2]")
    summary = loop.run()
    first, second = _rows(folder)
    assert first["eval/accuracy_initial"] == first["eval/accuracy"] == second["eval/accuracy"] == 1 / 3
    assert summary.accuracy_before == summary.accuracy_after == 1 / 3
    assert {"eval/held_out/pass@2_initial", "eval/held_out/pass@2", "eval/held_out/mean@2"} <= first.keys()
    assert "eval/accuracy_initial" not in second
    evaluations = [entry[1] for entry in log if entry[0] == "generate" and entry[2]]
    assert evaluations[0] == evaluations[1] == evaluations[2]  # the same draws at every step
    assert len(evaluations[0]) == 9


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
    with pytest.raises(DivergenceError, match=r"step 1: 2 of \d+ tokens differ"):
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


def test_differing_digests_can_be_a_warning(build):
    loop, log, folder = build("parity=warn", differing=("model.norm.weight",))
    summary = loop.run()
    assert [row["parity/weights_digest_equal"] for row in _rows(folder)] == [0, 0]
    assert [warning.split(":")[0] for warning in summary.warnings] == ["step 1", "step 2", "step 2"]  # and at the end
    assert all("model.norm.weight" in warning for warning in summary.warnings)
    assert "save" in [e[0] for e in log]
    assert not build("parity=warn")[0].run().warnings  # the control
    assert [row["parity/weights_digest_equal"] for row in _rows(folder)] == [1, 1]


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


def test_an_exact_run_starts_at_a_ratio_of_exactly_one(build):
    off = 1.0 + 2**-23
    loop, _, folder = build(ratio=off)
    with pytest.raises(DivergenceError, match=r"step 1: the importance.*1\.0000001192092896 and must be exactly 1"):
        loop.run()
    assert len(_rows(folder)) == 1
    warned = build("parity=warn", ratio=off)[0].run()
    assert len(warned.warnings) == 2
    assert not build("kernels=native", ratio=off)[0].run().warnings  # native kernels are not exact


DYNAMIC = ("algorithm.dynamic_sampling=true", "eval.problems=0")


def _drawn(log):
    return [seed for entry in log if entry[0] == "generate" and not entry[2] for seed in entry[1]]


def test_dynamic_sampling_refills_what_it_drops(build):
    mixed, runs = {"0", "2", "4", "6", "8"}, []
    for _ in range(2):
        loop, log, folder = build(*DYNAMIC, mixed=mixed)
        loop.run()
        runs.append((_drawn(log), _rows(folder)))
    (seeds, rows), (again, _) = runs
    assert seeds == again
    assert len(set(seeds)) == len(seeds)
    assert len(seeds) == sum(2 * (row["reward/groups"] + row["reward/groups_dropped"]) for row in rows)
    for row in rows:
        assert (row["reward/groups"], row["reward/groups_without_signal"], row["reward/resample_failed"]) == (2, 0, 0)
        assert (row["reward/groups_dropped"] > 0) == (row["reward/resample_rounds"] > 0)
    assert sum(row["reward/groups_dropped"] for row in rows) > 0
    assert all(0 not in entry[1] for entry in log if entry[0] == "train")
    plain, _, folder = build("eval.problems=0", mixed=mixed)
    plain.run()
    assert sum(row["reward/groups_without_signal"] for row in _rows(folder)) > 0  # the control
    assert sum(row["reward/groups_dropped"] for row in _rows(folder)) == 0


def test_dynamic_sampling_trains_on_fewer_groups_when_its_rounds_are_over(build):
    first = PromptStream(PROBLEMS, 0).next(1)[0].id
    loop, log, folder = build(*DYNAMIC, "trainer.steps=1", "algorithm.max_resamples=1", mixed={first})
    loop.run()
    (row,) = _rows(folder)
    assert [len(entry[1]) for entry in log if entry[0] == "train"] == [2]
    assert (row["reward/groups"], row["reward/groups_dropped"], row["reward/resample_rounds"]) == (1, 2, 1)
    assert row["reward/resample_failed"] == 0


def test_dynamic_sampling_without_any_signal_says_so(build):
    loop, log, folder = build(*DYNAMIC, "trainer.steps=1", "algorithm.max_resamples=2", mixed=set())
    loop.run()
    (row,) = _rows(folder)
    assert [entry[1] for entry in log if entry[0] == "train"] == [[0.0] * 4]
    assert (row["reward/groups"], row["reward/groups_without_signal"], row["reward/groups_dropped"]) == (2, 2, 4)
    assert (row["reward/resample_rounds"], row["reward/resample_failed"]) == (2, 1)
    assert row["perf/rollout_tokens_per_s"] * row["time/rollout"] == pytest.approx(3 * row["response/tokens"])


def test_the_kl_to_the_reference_in_the_reward(build):
    """Scores are 0, 1, 0, 1 minus 0.1 times a KL of 0, 1, 2, 3; an advantage is this minus that of the other sample."""
    settings = ["algorithm=rloo", "algorithm.kl_coef=0.1", "trainer.steps=1"]
    loop, log, folder = build(*settings, mixed={p.id for p in PROBLEMS})
    loop.run()
    kinds = [entry[0] for entry in log]
    assert kinds.index("reference_kl") < kinds.index("train")
    (advantages,) = [entry[1] for entry in log if entry[0] == "train"]
    assert advantages == pytest.approx([-0.9, 0.9, -0.9, 0.9])
    (row,) = _rows(folder)
    assert row["train/kl_reference"] == pytest.approx(6 / row["response/tokens"])
    assert row["reward/shaping_mean"] == pytest.approx(-0.15)
    assert row["reward/mean"] == 0.5
    loop, log, _ = build(*settings, "algorithm.kl=k3", "algorithm.kl_in=loss")
    loop.run()
    assert "reference_kl" not in [entry[0] for entry in log]  # the control


PPO = ("algorithm=ppo", "algorithm.prompts_per_step=2", "algorithm.group_size=2", "trainer.steps=1", "eval.problems=0")


def test_ppo_asks_for_values_and_gives_every_token_its_advantage(build):
    """Values are 0.25: without discount, each of the two tokens has the score minus 0.25 as its advantage."""
    everything = {p.id for p in PROBLEMS}
    loop, log, folder = build(*PPO, "algorithm.whiten=false", mixed=everything)
    loop.run()
    kinds = [entry[0] for entry in log]
    assert kinds.index("generate") < kinds.index("values") < kinds.index("train")
    (advantages,) = [entry[1] for entry in log if entry[0] == "train"]
    assert [a[-2:].tolist() for a in advantages] == [[-0.25] * 2, [0.75] * 2] * 2
    assert all(a[:-2].eq(0).all() for a in advantages)
    (row,) = _rows(folder)
    assert (row["critic/value_mean"], row["critic/explained_variance"]) == (0.25, 0.0)
    saved = [json.loads(line)["advantage"] for line in (folder.path / "rollouts.jsonl").read_text().splitlines()]
    assert saved == [[-0.25] * 2, [0.75] * 2] * 2
    plain, log, folder = build("trainer.steps=1", mixed=everything)
    plain.run()
    assert "values" not in [entry[0] for entry in log]  # the control
    assert not any(key.startswith("critic/") for key in _rows(folder)[0])


def test_ppo_pays_the_kl_in_the_reward_at_each_token(build):
    """Sample n has a KL of n / 2 at both tokens: 0.1 n / 2 is paid once by the last token and twice by the first."""
    settings = ["algorithm.whiten=false", "algorithm.kl=k1", "algorithm.kl_coef=0.1", "algorithm.kl_in=reward"]
    loop, log, _ = build(*PPO, *settings, mixed={p.id for p in PROBLEMS})
    loop.run()
    (advantages,) = [entry[1] for entry in log if entry[0] == "train"]
    got = [round(x, 6) for a in advantages for x in a[-2:].tolist()]
    assert got == [-0.25, -0.25, 0.65, 0.7, -0.45, -0.35, 0.45, 0.6]


@pytest.mark.parametrize(("limit", "punishment"), [(2, -0.5), (3, -0.25), (4, 0.0)])
def test_long_responses_are_punished(build, limit, punishment):
    """All responses have two tokens."""
    settings = ("algorithm.overlong_buffer=2", "algorithm.overlong_penalty=0.5", f"rollout.max_tokens={limit}")
    loop, _, folder = build(*settings)
    loop.run()
    assert {row["reward/shaping_mean"] for row in _rows(folder)} == {punishment}


def test_only_the_newest_checkpoints_are_kept(build):
    for keep, left in ((0, {2, 4}), (1, {4}), (2, {2, 4})):
        loop, _, folder = build("trainer.steps=4", "trainer.save_every=2", f"trainer.save_keep={keep}")
        others = {"step_1", "step_3", "step_9", "step_best"}  # folders of another run and of the user
        for other in others:
            (folder.path / "checkpoints" / other).mkdir(parents=True, exist_ok=True)
        loop.run()
        assert {p.name for p in (folder.path / "checkpoints").iterdir()} == {f"step_{step}" for step in left} | others
        progress = newest(folder.path / "checkpoints")[1]
    build("trainer.steps=6", "trainer.save_every=2", "trainer.save_keep=2", progress=progress)[0].run()
    assert {p.name for p in (folder.path / "checkpoints").iterdir()} == {"step_4", "step_6"} | others


def test_a_resumed_run_is_the_uninterrupted_one(build):
    """Steps 3 and 4 are repeated from step 2's checkpoint; the lines of the stopped run's steps 3 and 4 are removed."""
    loop, whole, folder = build("trainer.steps=4", "trainer.save_every=2", "trainer.lr=0.5")
    summary = loop.run()
    rows, lines = _rows(folder), (folder.path / "rollouts.jsonl").read_text()
    assert newest(folder.path / "checkpoints")[1].step == 4
    assert not (folder.path / "checkpoints/step_2/progress.json").exists()
    shutil.rmtree(folder.path / "checkpoints")  # a run must not start in a folder that has checkpoints

    loop, first, folder = build("trainer.steps=4", "trainer.save_every=2", "trainer.lr=0.5")
    trained = loop._trainer.train

    def train(samples, version):
        if sum(kind == "train" for kind, *_ in first) == 3:
            raise KeyboardInterrupt
        return trained(samples, version)

    loop._trainer.train = train
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert len(_rows(folder)) == 3
    assert '"step": 4' in (folder.path / "rollouts.jsonl").read_text()
    path, progress = newest(folder.path / "checkpoints")
    assert (path.name, progress.step, progress.summary.steps) == ("step_2", 2, 2)
    loop, second, folder = build("trainer.steps=4", "trainer.save_every=2", "trainer.lr=0.5", progress=progress)
    resumed = loop.run()
    assert second[0] == ("sync", 2, Fault.none)
    begin = next(i for i, entry in enumerate(whole) if entry[:2] == ("sync", 2))
    assert second == whole[begin:]
    assert [_fixed(row) for row in _rows(folder)] == [_fixed(row) for row in rows]
    assert (folder.path / "rollouts.jsonl").read_text() == lines
    assert replace(resumed, seconds=0) == replace(summary, seconds=0)
    with pytest.raises(DataError, match="the training data has changed"):  # the control
        build("trainer.steps=4", "seed=1", progress=progress)
    shutil.rmtree(folder.path / "checkpoints")
    build("trainer.steps=2", "trainer.save_every=2", "trainer.lr=0.5")[0].run()  # a run that was to have fewer steps
    progress = newest(folder.path / "checkpoints")[1]
    loop, longer, _ = build("trainer.steps=4", "trainer.save_every=2", "trainer.lr=0.5", progress=progress)
    loop.run()
    assert longer == whole[begin:]


def _fixed(row):
    return {key: value for key, value in row.items() if not key.startswith(("time/", "perf/"))}
