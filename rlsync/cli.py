"""The command line: `rlsync train`, `eval`, `parity`, `report`, `trace` and `wandb-workspace`."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from typing import Any

from rlsync import __version__
from rlsync.cluster.env import wait_passively
from rlsync.cluster.placement import placement
from rlsync.config.compose import compose_eval, compose_train, to_yaml
from rlsync.config.paths import group_options, recipe_names
from rlsync.errors import ConfigError, RlsyncError, in_one_line
from rlsync.paths import expanded
from rlsync.telemetry.console import ConsoleReporter

_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 for success, 1 for an error without a code of its own, 2 for a wrong configuration, 3 for a
        divergence, 4 if a worker died, 5 if a gradient or a log-prob was not finite, 6 if an alarm has stopped the
        run, 130 after Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = _arguments(argv)
    console = ConsoleReporter()
    try:
        return _COMMANDS[arguments.command](arguments, console)
    except ConfigError as error:
        sys.stderr.write(f"rlsync: {in_one_line(error.message)}\n")
        return error.exit_code
    except RlsyncError as error:
        sys.stderr.write(f"rlsync: {error.message}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("rlsync: interrupted; every process of the run has ended\n")
        return _INTERRUPTED


def _train(arguments: argparse.Namespace, console: ConsoleReporter) -> int:
    config = compose_train(arguments.overrides)
    if arguments.dry_run:
        console.say(to_yaml(config))
        console.say(placement(config, ranks=config.trainer.ranks))
        return 0
    wait_passively()
    console.use(config.telemetry.console)
    from rlsync.telemetry.destinations import choose_destinations

    choice = choose_destinations(config.telemetry, console.say)
    from rlsync.controller.train import train  # imports Ray and torch, which --dry-run does not need

    train(config, console, choice, shlex.join(["rlsync", "train", *arguments.overrides]))
    return 0


def _eval(arguments: argparse.Namespace, console: ConsoleReporter) -> int:
    config = compose_eval(arguments.overrides)
    if arguments.dry_run:
        console.say(to_yaml(config))
        console.say(placement(config, ranks=0))
        return 0
    wait_passively()
    console.use(config.telemetry.console)
    from rlsync.controller.evaluate import evaluate

    evaluate(config, console)
    return 0


def _parity(arguments: argparse.Namespace, console: ConsoleReporter) -> int:
    from rlsync.config.cluster import Device
    from rlsync.verify.probe import run_parity

    return run_parity(full=arguments.full, device=Device(arguments.device), console=console)


def _report(arguments: argparse.Namespace, console: ConsoleReporter) -> int:
    from rlsync.report.command import report

    out = expanded(arguments.out) if arguments.out else None
    return report([expanded(run) for run in arguments.runs], out, console, live=arguments.live, port=arguments.port)


def _trace(arguments: argparse.Namespace, console: ConsoleReporter) -> int:
    wait_passively()
    from rlsync.cluster.run_plan import plan_run
    from rlsync.controller.saved_rollout import load_rollout
    from rlsync.models.paths import ModelPaths
    from rlsync.telemetry.run_folder import write_trace
    from rlsync.verify.trace import show, trace_saved

    run, step, sample = expanded(arguments.run), arguments.step, arguments.sample
    saved = load_rollout(run, step, sample, console.say)
    plan = plan_run(saved.config, ModelPaths(policy=saved.model_path), trains=False)
    console.say(f"replaying sample {sample} of step {step} in vLLM and in the trainer")
    report = trace_saved(plan.engine, plan.trainer, saved.rollout, sample)
    show(report, console)
    console.say(f"every op's difference is in {write_trace(run, f'step_{step}_sample_{sample}', report)}")
    return 0 if report.place is None else 3


def _wandb_workspace(arguments: argparse.Namespace, console: ConsoleReporter) -> int:
    from rlsync.telemetry.wandb_workspace import save_workspace

    console.say(f"saved: {save_workspace(arguments.project, arguments.entity)}")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse options and overrides, in any order: every argument that is not an option is an override."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    arguments.overrides = [each for each in rest if each != "--"]
    if arguments.command == "report":  # further runs after an option
        arguments.runs += [each for each in arguments.overrides if not each.startswith("-")]
        arguments.overrides = [each for each in arguments.overrides if each.startswith("-")]
    for each in arguments.overrides:
        if each.startswith("-") or arguments.command not in ("train", "eval"):
            parser.error(f"{each!r}: no such option; `rlsync {arguments.command} --help` lists all options")
    return arguments


_COMMANDS = {
    "train": _train,
    "eval": _eval,
    "parity": _parity,
    "report": _report,
    "trace": _trace,
    "wandb-workspace": _wandb_workspace,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlsync", description="RL post-training with bitwise equal rollouts and training."
    )
    parser.add_argument("--version", action="version", version=f"rlsync {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(
        commands,
        "train",
        "run a recipe, or a configuration of your own",
        "recipe=NAME [group=option ...] [key=value ...]",
    )
    _add_run(
        commands,
        "eval",
        "evaluate a model on held-out problems",
        "recipe=NAME [model.path=FOLDER] [group=option ...] [key=value ...]",
    )
    parity = commands.add_parser("parity", help="check that vLLM and the trainer compute the same bits on this machine")
    size = parity.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="cases that cover all pairs of settings, in minutes (default)"
    )
    size.add_argument("--full", action="store_true", help="every case, in less than an hour on two cores")
    parity.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda runs every case that one GPU can run"
    )
    _add_report(commands)
    _add_trace(commands)
    _add_workspace(commands)
    return parser


def _add_workspace(commands: Any) -> None:
    workspace = commands.add_parser(
        "wandb-workspace", help="save a workspace with rlsync's sections in a wandb project"
    )
    workspace.add_argument("project", help="name of the project")
    workspace.add_argument("--entity", help="user or team; by default that of the account")


def _add_trace(commands: Any) -> None:
    trace = commands.add_parser(
        "trace", help="replay a saved rollout in vLLM and in the trainer, and name the first op that differs"
    )
    trace.add_argument("run", metavar="RUN", help="run folder, with its rollouts")
    trace.add_argument("--step", type=int, default=1, help="step of the rollout (default: 1)")
    trace.add_argument("--sample", type=int, default=0, help="index of the sample in its step (default: 0)")


def _add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="write an HTML page about runs: charts, rollouts and settings")
    report.add_argument("runs", metavar="RUN", nargs="+", help="run folder; several are shown in the same charts")
    report.add_argument("--out", metavar="FILE", help="the page (default: report.html in the first run folder)")
    report.add_argument(
        "--live", action="store_true", help="serve the page on 127.0.0.1 while the runs go on, then write it"
    )
    report.add_argument("--port", type=int, default=0, help="port of --live (default: any free one)")


def _add_run(commands: Any, name: str, summary: str, overrides: str) -> None:
    """Add a command that composes a configuration."""
    parser = commands.add_parser(
        name,
        help=summary,
        usage=f"rlsync {name} [--dry-run] {overrides}",
        description=f"{summary.capitalize()}. Values are hydra overrides: rollout.tp=2, eval.samples=8.",
        epilog=_choices(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the configuration and the placement, and start nothing"
    )


def _choices() -> str:
    lines = ["recipes:", *(f"  {name}" for name in recipe_names()), "", "groups:"]
    lines += [f"  {group}: {', '.join(options)}" for group, options in group_options().items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
