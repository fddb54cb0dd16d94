"""Evaluate a model: prepare, start rollout engines without a trainer, answer, score, report, clean up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlsync.cluster.actor_set import Cluster
from rlsync.cluster.groups import RolloutGroup
from rlsync.cluster.placement import placement
from rlsync.cluster.run_plan import plan_run
from rlsync.cluster.session import ray_session, terminate_as_interrupt
from rlsync.config.compose import to_yaml
from rlsync.config.run import TrainConfig
from rlsync.controller.assemble import prepare
from rlsync.controller.evaluator import Evaluator, Response, SetResult, Stats
from rlsync.errors import ConfigError
from rlsync.paths import check_home
from rlsync.redact import without_secrets
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.json_text import to_json
from rlsync.telemetry.run_lock import held

_REPORT = "eval.json"


def evaluate(config: TrainConfig, console: ConsoleReporter) -> list[SetResult]:
    """Run an evaluation, from the configuration to eval.json and samples.jsonl.

    Raises:
        RlsyncError: The evaluation failed. The error has the message for the user, and every process has ended.
    """
    check_home()
    folder = config.run.folder
    with held(folder):
        _check_new(folder)
        prepared = prepare(config, console.say, trains=False)
        plan = plan_run(config, prepared.models, trains=False)
        console.say(placement(config, ranks=plan.ranks))
        console.say(f"model: {plan.models.policy}")
        with ray_session(config, plan), terminate_as_interrupt():
            console.say("starting the engines, which load vLLM and the model")
            cluster = Cluster(config, plan, reward_models=prepared.reward_models)
            try:
                console.start(0, 0)
                console.stage("evaluation")
                results = Evaluator(config, RolloutGroup(cluster, config, console.progress), prepared.sets).run()
            finally:
                console.stop()
                cluster.close()
        write(folder, config, plan.models.policy, results)
    console.table("held-out problems", _columns(config), [row for result in results for row in _rows(result)])
    console.say(f"all results are in {folder}", result=True)
    return results


def _check_new(folder: Path) -> None:
    if (folder / _REPORT).exists():
        raise ConfigError(
            f"run.dir={folder} already has the results of an evaluation ({_REPORT}). Give another run.dir, or remove "
            "them."
        )


def write(folder: Path, config: TrainConfig, model_path: str, results: list[SetResult]) -> None:
    """Write eval.json, samples.jsonl and eval.yaml to the folder; other files there stay.

    Args:
        folder: The run folder, made if it does not exist.
        config: The run's configuration.
        model_path: Folder or hub id of the evaluated model.
        results: Results of all sets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "eval.yaml").write_text(to_yaml(config), encoding="utf-8")
    report = {
        "model": model_path,
        "seed": config.seed,
        "temperature": config.rollout.temperature,
        "sets": {result.name: _summary(result) for result in results},
    }
    (folder / _REPORT).write_text(to_json(report, indent=2) + "\n", encoding="utf-8")
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for result in results:
            for response in result.responses:
                file.write(to_json(_sample(result.name, response)) + "\n")


def _summary(result: SetResult) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "problems": result.problems,
        "samples": result.samples,
        "accuracy": result.greedy.right,
        "greedy": _stats(result.greedy),
    }
    if result.drawn is not None:
        summary[f"mean@{result.samples}"] = result.drawn.right
        summary |= {f"pass@{k}": value for k, value in result.pass_at.items()}
        summary["drawn"] = _stats(result.drawn)
    return summary


def _stats(stats: Stats) -> dict[str, float]:
    return {key: value for key, value in asdict(stats).items() if key != "right"}


def _sample(name: str, response: Response) -> dict[str, Any]:
    problem, episode = response.problem, response.episode
    rollout = episode.rollout
    return {
        "set": name,
        "part": problem.part,
        "problem": problem.id,
        "sample": response.sample,
        "seed": rollout.seed,
        "prompt": problem.prompt,
        "response": episode.scored,
        "turns": episode.turns,
        "answer": problem.answer,
        "reward": response.score.reward,
        "reward_error": without_secrets(response.score.error),
        "finish_reason": rollout.finish_reason.value,
        "response_tokens": rollout.tokens[rollout.prompt_length :].tolist(),
    }


def _columns(config: TrainConfig) -> list[str]:
    ks = config.eval.k if config.eval.samples else []
    return [
        "set",
        "responses",
        "problems",
        "right",
        *(f"pass@{k}" for k in ks),
        "reward",
        "length",
        "truncated",
        "errors",
    ]


def _rows(result: SetResult) -> list[list[str]]:
    rows = [_row(result, "greedy", result.greedy, ["" for _ in result.pass_at])]
    if result.drawn is not None:
        shares = [f"{value:.3f}" for value in result.pass_at.values()]
        rows.append(_row(result, f"mean@{result.samples}", result.drawn, shares))
    return rows


def _row(result: SetResult, responses: str, stats: Stats, shares: list[str]) -> list[str]:
    counts = [result.name, responses, str(result.problems), f"{stats.right:.3f}"]
    rest = [f"{stats.reward_mean:.3f}", f"{stats.length_mean:.1f}", f"{stats.truncated_share:.3f}", str(stats.errors)]
    return [*counts, *shares, *rest]
