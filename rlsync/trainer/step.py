"""One training step of one rank: forward, compare, backward, update."""

from __future__ import annotations

import time

import torch
from torch.distributed.tensor import DTensor

from rlsync.algorithms.losses import clipped_loss, k3_kl
from rlsync.config.parity import Coverage
from rlsync.config.run import TrainConfig
from rlsync.config.trainer import NonFinitePolicy
from rlsync.errors import NonFiniteError
from rlsync.parity.monitor import compare, merge
from rlsync.trainer.schedule import learning_rate
from rlsync.trainer.sharded import Sharded
from rlsync.types import Pack, ParityCounts, PolicyOutput, StepStats


class StepRunner:
    """Runs training steps on a sharded policy (and a frozen reference, if the KL needs one)."""

    def __init__(self, config: TrainConfig, policy: Sharded, reference: Sharded | None) -> None:
        self._config, self._policy, self._reference = config, policy, reference
        self._updates = 0
        self._total_updates = config.trainer.steps * config.trainer.minibatches

    def run(self, minibatches: list[list[Pack]], global_tokens: list[int], version: int) -> StepStats:
        """Train on this rank's packs.

        Args:
            minibatches: [minibatch][micro-batch].
            global_tokens: loss tokens of each minibatch over all ranks.
            version: of the weights that the policy holds now.
        Raises:
            NonFiniteError: a gradient is not finite and the policy is to stop.
        """
        started = time.perf_counter()
        minibatches = [[pack.to(self._policy.device) for pack in packs] for packs in minibatches]
        stats = StepStats()
        compares: list[ParityCounts] = []
        everything = self._config.parity.coverage is Coverage.all and len(minibatches) > 1
        if everything:
            compares = [self._compare_only(pack, version) for packs in minibatches for pack in packs]
        for index, (packs, tokens) in enumerate(zip(minibatches, global_tokens, strict=True)):
            for pack in packs:
                # After the first update the policy is no longer the one that sampled.
                redraw = self._config.parity.redraw and index == 0 and not everything
                output = self._forward_backward(pack, tokens, stats, redraw)
                if not everything:
                    compares.append(compare(pack, output, version if index == 0 else -2))
                stats.micro_batches += 1
            self._update(stats)
        stats.parity = merge(compares)
        stats.seconds = time.perf_counter() - started
        if self._policy.device.type == "cuda":
            stats.peak_gpu_gib = torch.cuda.max_memory_allocated() / 2**30
        return stats

    def _compare_only(self, pack: Pack, version: int) -> ParityCounts:
        with torch.no_grad():
            return compare(pack, self._policy.policy(pack, redraw=self._config.parity.redraw), version)

    def _forward_backward(self, pack: Pack, global_tokens: int, stats: StepStats, redraw: bool) -> PolicyOutput:
        config = self._config.algorithm
        output = self._policy.policy(pack, redraw=redraw)
        loss = clipped_loss(
            output.logprobs, pack.rollout_logprobs, pack.advantages, pack.mask, config.clip_low, config.clip_high
        )
        total = loss.total
        if self._reference is not None:
            with torch.no_grad():
                reference = self._reference.policy(pack).logprobs
            kl = k3_kl(output.logprobs, reference, pack.mask)
            total = total + config.kl_coef * kl
            stats.kl_sum += float(kl.detach())
        # FSDP averages gradients over ranks; the loss is a mean over the tokens of all ranks.
        (total * (self._policy.mesh.size() / max(1, global_tokens))).backward()
        stats.tokens += pack.tokens.numel()
        stats.loss_tokens += int(pack.mask.sum())
        stats.loss_sum += float(total.detach())
        stats.entropy_sum += float(output.entropy[pack.mask].sum())
        stats.clipped += loss.clipped
        stats.ratio_min = min(stats.ratio_min, loss.ratio_min)
        stats.ratio_max = max(stats.ratio_max, loss.ratio_max)
        return output

    def _update(self, stats: StepStats) -> None:
        optimizer = self._policy.optimizer
        assert optimizer is not None
        settings = self._config.trainer
        rate = learning_rate(self._updates, self._total_updates, settings)
        norm = torch.nn.utils.clip_grad_norm_(self._policy.policy.parameters(), settings.max_grad_norm)
        stats.grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        stats.learning_rate = rate
        if torch.isfinite(torch.tensor(stats.grad_norm)):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            stats.updates += 1
        elif settings.nonfinite is NonFinitePolicy.stop:
            raise NonFiniteError(
                f"the gradient norm is {stats.grad_norm}: stopped, as trainer.nonfinite=stop asks. The weights are "
                "those before this update; lower trainer.lr, or use trainer.nonfinite=skip to leave such updates out."
            )
        else:
            stats.updates_skipped += 1
        optimizer.zero_grad(set_to_none=True)
        self._updates += 1
