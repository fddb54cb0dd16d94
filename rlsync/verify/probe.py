"""Runs the cases of `rlsync parity` with vLLM engines and the FSDP trainer's forward pass, and compares the bits."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.table import Table
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from rlsync.config.cluster import Device
from rlsync.errors import ConfigError
from rlsync.parity.counts import ParityCounts, merge
from rlsync.parity.monitor import compare
from rlsync.rollout.settings import EngineSettings
from rlsync.samples import Rollout, TrainSample
from rlsync.telemetry.console import ConsoleReporter
from rlsync.trace.report import TraceReport
from rlsync.trainer.packing import pack_samples
from rlsync.trainer.sharded import Sharded
from rlsync.trainer.worker import settings_fingerprint
from rlsync.verify.cases import (
    FULL_RESPONSE,
    QUICK_RESPONSE,
    Cell,
    batches,
    build_model,
    cells_for,
    engine_settings,
    kv_blocks,
    trainer_settings,
)
from rlsync.verify.engine_host import Answer, EngineJob, ask, engine_host
from rlsync.verify.single_rank import single_rank
from rlsync.verify.trace import show, trace_with_job


@dataclass(slots=True)
class Outcome:
    """The result of one case."""

    cell: Cell
    counts: ParityCounts
    """The counts of the monitor."""
    answer: Answer
    """The results of the engine."""
    failures: list[str] = field(default_factory=list)
    """Messages that say what is wrong; empty if nothing is."""
    trace: TraceReport | None = None
    """The trace of the first token that differs; None if none does, or another case has been traced."""


def run_parity(*, full: bool, device: Device, console: ConsoleReporter) -> int:
    """Check parity on this machine, and print the results.

    Args:
        full: run all cases, and not only a selection.
        device: the device of engines and trainer.
        console: where results are printed.

    Returns:
        The exit code: 0 if no case differs and every situation was brought about, 3 otherwise.

    Raises:
        ConfigError: this machine does not have the device.
    """
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no GPU on this machine; use --device cpu")
    started = time.perf_counter()
    disable_progress_bar()
    cells, response = cells_for(device, full=full), FULL_RESPONSE if full else QUICK_RESPONSE
    with tempfile.TemporaryDirectory(prefix="rlsync-parity-") as scratch, single_rank(scratch, device):
        outcomes = _run_cells(cells, device, response, Path(scratch), console)
    _compare_across_tp(outcomes)
    console.console.print(_table(outcomes))
    failed = [o for o in outcomes if o.failures]
    tokens = sum(o.counts.tokens_compared for o in outcomes)
    different = sum(o.counts.tokens_different for o in outcomes)
    console.say(
        f"{different} of {tokens} tokens differ in {len(outcomes)} cells, {time.perf_counter() - started:.0f} s"
    )
    for outcome in failed:
        console.say(f"FAILED {_name(outcome.cell)}: {'; '.join(outcome.failures)}")
        if outcome.trace is not None:
            show(outcome.trace, console)
    return 3 if failed else 0


def _run_cells(
    cells: list[Cell], device: Device, response: int, scratch: Path, console: ConsoleReporter
) -> list[Outcome]:
    """Run all cells. The engine of a cell runs while the trainer computes the cell before."""
    models = {cell: build_model(cell, scratch) for cell in cells}
    settings = {cell: engine_settings(cell, models[cell], device) for cell in cells}
    widest = max(settings.values(), key=lambda c: c.rollout.tp)
    outcomes: list[Outcome] = []
    with engine_host(widest, str(scratch / "engines.log")) as host:
        for index, cell in enumerate(cells):
            if index == 0:
                _submit(host, cell, settings[cell], response)
            answer = ask(host)
            if index + 1 < len(cells):
                following = cells[index + 1]
                _submit(host, following, settings[following], response)
            outcome = _judge(cell, settings[cell], answer)
            outcomes.append(outcome)
            verdict = "; ".join(outcome.failures) or "ok"
            console.say(f"{index + 1}/{len(cells)} {_name(cell)}: {outcome.counts.tokens_compared} tokens, {verdict}")
        _trace_first(outcomes, settings, host, response)
    return outcomes


def _trace_first(
    outcomes: list[Outcome], settings: dict[Cell, EngineSettings], host: Connection, response: int
) -> None:
    """Trace the first token of the first case with a difference: its engine answers the same batches once more."""
    for outcome in outcomes:
        if (first := outcome.counts.first) is not None:
            engine = settings[outcome.cell]
            job, rollout = _job(outcome.cell, engine, response), _flat(outcome)[first.sequence]
            trainer = trainer_settings(engine)
            outcome.trace = trace_with_job(host, job, trainer, rollout, first.position, first.sequence)
            return


def _submit(host: Connection, cell: Cell, settings: EngineSettings, response: int) -> None:
    host.send(_job(cell, settings, response))


def _job(cell: Cell, settings: EngineSettings, response: int) -> EngineJob:
    vocab = AutoConfig.from_pretrained(settings.model_path).vocab_size
    return EngineJob(settings=settings, kv_blocks=kv_blocks(cell.family), batches=batches(vocab, response))


def _judge(cell: Cell, settings: EngineSettings, answer: Answer) -> Outcome:
    """Forward all rollouts through the trainer's policy and compare; the first pack is plain, the others are trees."""
    trainer = trainer_settings(settings)
    mesh = init_device_mesh(settings.device.value, (1,))
    policy = Sharded(trainer, settings.model_path, mesh, trainable=False)
    rollouts = [rollout for batch in answer.rollouts for rollout in batch]
    parts = []
    with torch.no_grad():
        for index, ids in enumerate(_mixed_order(len(rollouts))):
            samples = [TrainSample(rollout=rollouts[i]) for i in ids]
            pack = pack_samples(samples, ids, share_prefixes=index > 0).to(policy.device)
            parts.append(compare(pack, policy.policy(pack, redraw=True), version=0))
    outcome = Outcome(cell, merge(parts), answer)
    counts = outcome.counts
    checks = {
        f"{counts.tokens_different} tokens differ, by up to {counts.max_ulp} ulp": counts.tokens_different > 0,
        f"the logits of {counts.rows_different} rows differ": counts.rows_different > 0,
        f"{counts.draws_different} draws differ": counts.draws_different > 0,
        "no token was compared": counts.tokens_compared == 0,
        f"{counts.nonfinite} log-probs are not finite": counts.nonfinite > 0,
        "no request was preempted": answer.preemptions == 0,
        "no prefix was found in the cache": answer.cache_hit_tokens == 0,
        "no prompt was prefilled in chunks": answer.chunked_prompts == 0,
        "a worker reports other kernels": set(answer.fingerprints) != {settings_fingerprint(trainer)},
        "the first request gave another response when it was repeated at the end": not _same_first_and_last(answer),
    }
    outcome.failures = [text for text, failed in checks.items() if failed]
    return outcome


def _mixed_order(count: int) -> list[list[int]]:
    """Deal the indices of all rollouts out to three packs, so that they are batched differently than in the engine."""
    return [list(range(i, count, 3)) for i in range(3)]


def _same_first_and_last(answer: Answer) -> bool:
    first, last = answer.rollouts[0][0], answer.rollouts[-1][0]
    return torch.equal(first.tokens, last.tokens) and torch.equal(first.logprobs, last.logprobs)


def _compare_across_tp(outcomes: list[Outcome]) -> None:
    """Add a failure to each outcome whose tokens or log-probs differ from those of the model at another TP."""
    first: dict[tuple[object, ...], Outcome] = {}
    for outcome in outcomes:
        cell = outcome.cell
        base = first.setdefault((cell.family, cell.dtype, cell.row_parallel), outcome)
        if not all(_equal(a, b) for a, b in zip(_flat(base), _flat(outcome), strict=True)):
            outcome.failures.append(f"tokens or log-probs differ from TP={base.cell.tp}")


def _flat(outcome: Outcome) -> list[Rollout]:
    return [rollout for batch in outcome.answer.rollouts for rollout in batch]


def _equal(a: Rollout, b: Rollout) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.logprobs, b.logprobs)


def _name(cell: Cell) -> str:
    return f"{cell.family} {cell.dtype} TP={cell.tp} {cell.row_parallel}"


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="vLLM against the FSDP trainer, bit for bit")
    columns = (
        "model",
        "dtype",
        "TP",
        "form",
        "tokens",
        "different",
        "rows diff.",
        "max ulp",
        "draws diff.",
        "preempted",
        "cached",
        "chunked",
        "",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "dtype", "form", "") else "right", no_wrap=True)
    for o in outcomes:
        numbers = (
            o.counts.tokens_compared, o.counts.tokens_different, o.counts.rows_different, o.counts.max_ulp,
            o.counts.draws_different, o.answer.preemptions, o.answer.cache_hit_tokens, o.answer.chunked_prompts,
        )  # fmt: skip
        row = (o.cell.family, o.cell.dtype, str(o.cell.tp), o.cell.row_parallel)
        table.add_row(*row, *map(str, numbers), "FAILED" if o.failures else "ok")
    return table
