"""The trainer's side of a trace: one forward pass of one sequence, with every op recorded."""

from __future__ import annotations

import torch

from rlsync.models.recording import recording
from rlsync.samples import Rollout, TrainSample
from rlsync.trace.records import Op, OpKey, OpRecord, Recorder
from rlsync.trace.replay import head_record
from rlsync.trainer.packing import pack_samples
from rlsync.trainer.sharded import Sharded


@torch.no_grad()
def trace_forward(policy: Sharded, rollout: Rollout, tp: int, rows: dict[OpKey, int] | None = None) -> list[OpRecord]:
    """Forward a rollout and return the records of all ops (collective).

    Args:
        policy: The sharded policy, at the weights that sampled the rollout.
        rollout: The sequence.
        tp: Tensor-parallel size of the engine with which the records are compared.
        rows: Position of the row that is kept of each op; None for digests only.
    """
    recorder = Recorder(rows=rows)
    pack = pack_samples([TrainSample(rollout=rollout)], [0]).to(policy.device)
    with recording(policy.policy.model, recorder, tp):
        output = policy.policy(pack)
    records = recorder.records()
    if output.digests is not None:
        predicted = pack.item_positions
        records.append(head_record(Op.logits, predicted, output.digests))
        records.append(head_record(Op.logprob, predicted, output.logprobs.view(torch.int32)))
    return records
