"""Reads a rollout of a run folder back, with the weights that sampled it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlsync.config.compose import load_saved
from rlsync.config.run import TrainConfig
from rlsync.controller.assemble import model_folder, model_use
from rlsync.data.open_source import open_source
from rlsync.errors import ConfigError
from rlsync.samples import FinishReason, Rollout
from rlsync.telemetry.names import CHECKPOINTS, CONFIG, ROLLOUTS


@dataclass(slots=True, kw_only=True, frozen=True)
class SavedRollout:
    """A rollout of a run."""

    config: TrainConfig
    """Configuration of the run."""
    model_path: str
    """Folder or hub id of the weights that sampled the rollout."""
    rollout: Rollout


def load_rollout(run: Path, step: int, sample: int, say: Callable[[str], None]) -> SavedRollout:
    """Read a rollout.

    Args:
        run: The run folder.
        step: The step of the rollout, from 1.
        sample: Index of the sample in its step.
        say: Reports what is being done.

    Raises:
        ConfigError: There is no such rollout, or its weights were not saved.
    """
    config = load_saved(run / CONFIG)
    line = _find(run / ROLLOUTS, step, sample)
    version = int(line["weight_version"])
    if version == 0:
        model = model_folder(config, open_source(config.data), model_use(config), say)
    else:
        folder = run / CHECKPOINTS / f"step_{version}"
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"--step={step}: its rollouts were sampled by the weights of step {version}, but {folder} does not "
                f"exist. Choose step 1, or a step after one of the checkpoints: {_checkpoints(run)}."
            )
        model = str(folder)
    return SavedRollout(config=config, model_path=model, rollout=_rollout(line))


def _find(path: Path, step: int, sample: int) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist. A trace needs a run with telemetry.save_rollouts=true.")
    start = f'{{"step": {step}, "sample": {sample},'
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(start):
                return json.loads(line)
    raise ConfigError(f"--step={step} --sample={sample}: {path} has no such rollout.")


def _checkpoints(run: Path) -> str:
    steps = sorted(int(path.name.removeprefix("step_")) for path in (run / CHECKPOINTS).glob("step_*"))
    return ", ".join(f"step_{step}" for step in steps) or "none was saved"


def _rollout(line: dict[str, Any]) -> Rollout:
    """Return the rollout of a line of rollouts.jsonl. The line has one digest of all rows, so there is none a token."""
    prompt, bits = line["prompt_tokens"], line["logprob_bits"]
    sampled = torch.tensor([False] * len(prompt) + [bit is not None for bit in bits])
    values = [0] * len(prompt) + [0 if bit is None else int(bit, 16) for bit in bits]
    return Rollout(
        tokens=torch.tensor(prompt + line["response_tokens"]),
        sampled=sampled,
        logprobs=torch.tensor(values, dtype=torch.int64).to(torch.int32).view(torch.float32),
        weight_version=torch.where(sampled, int(line["weight_version"]), -1).to(torch.int32),
        seed=int(line["seed"]),
        finish_reason=FinishReason(line["finish_reason"]),
    )
