"""One training step of one rank: forward, compare, backward, update."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch.distributed.tensor import DTensor

from rlsync.algorithms.aggregation import denominator
from rlsync.algorithms.kl import token_kl
from rlsync.algorithms.objective import objective
from rlsync.algorithms.sequences import sequence_sums
from rlsync.config.algorithm import KlPlace
from rlsync.config.parity import Coverage
from rlsync.config.run import TrainConfig
from rlsync.config.trainer import NonFinitePolicy
from rlsync.errors import NonFiniteError
from rlsync.parity.monitor import compare, merge
from rlsync.trainer.schedule import learning_rate
from rlsync.trainer.sharded import Sharded
from rlsync.types import MinibatchSize, Pack, ParityCounts, PolicyOutput, StepStats

_NO_VERSION = -2
"""That of weights which sampled nothing: those after the step's first update."""


class StepRunner:
    """Runs training steps on a sharded policy (and a frozen reference, if the KL needs one)."""

    def __init__(self, config: TrainConfig, policy: Sharded, reference: Sharded | None) -> None:
        self._config, self._policy, self._reference = config, policy, reference
        self._updates = 0
        self._updates_per_step = config.trainer.minibatches * config.trainer.epochs

    def run(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize], version: int) -> StepStats:
        """Train on this rank's packs.

        Args:
            minibatches: [minibatch][micro-batch].
            sizes: of each minibatch over all ranks.
            version: of the weights that the policy holds now.
        Raises:
            NonFiniteError: a gradient is not finite and the policy is to stop.
        """
        started = time.perf_counter()
        minibatches = [[pack.to(self._policy.device) for pack in packs] for packs in minibatches]
        stats = StepStats()
        compares: list[ParityCounts] = []
        look_first = self._looks_first
        if look_first:
            minibatches, compares = self._look_first(minibatches, version)
        for epoch in range(self._config.trainer.epochs):
            for index, (packs, size) in enumerate(zip(minibatches, sizes, strict=True)):
                first = epoch == 0 and index == 0
                for pack in packs:
                    # After the first update the policy is no longer the one that sampled.
                    redraw = self._config.parity.redraw and first and not look_first
                    output = self._forward_backward(pack, size, stats, redraw=redraw)
                    if epoch == 0 and not look_first:
                        compares.append(compare(pack, output, version if first else _NO_VERSION))
                if first:
                    stats.first_ratio_min, stats.first_ratio_max = stats.ratio_min, stats.ratio_max
                self._update(stats)
        stats.parity = merge(compares)
        stats.seconds = time.perf_counter() - started
        if self._policy.device.type == "cuda":
            stats.peak_gpu_gib = torch.cuda.max_memory_allocated() / 2**30
        return stats

    def reference_kl(self, packs: list[Pack]) -> dict[int, float]:
        """KL estimates at the sampled tokens, summed over each sequence, by sequence id."""
        assert self._reference is not None
        sums: dict[int, float] = {}
        for pack in packs:
            pack = pack.to(self._policy.device)
            kl = token_kl(pack.rollout_logprobs, self._reference_logprobs(pack), pack.mask, self._config.algorithm.kl)
            ids = pack.sequence_ids.tolist()
            sums |= dict(zip(ids, sequence_sums(kl.double(), pack.starts).tolist(), strict=True))
        sums.pop(-1, None)  # filler
        return sums

    @property
    def _looks_first(self) -> bool:
        """Whether an extra pass sees every pack before the first update."""
        several = self._config.trainer.minibatches > 1
        tis = self._config.algorithm.tis_cap > 0 and self._updates_per_step > 1
        return tis or (several and self._config.parity.coverage is Coverage.all)

    def _look_first(self, minibatches: list[list[Pack]], version: int) -> tuple[list[list[Pack]], list[ParityCounts]]:
        """Compare every pack; packs come back with the trainer's own log-probs where the objective needs them."""
        tis, redraw = self._config.algorithm.tis_cap > 0, self._config.parity.redraw
        seen: list[list[Pack]] = []
        counts = []
        for packs in minibatches:
            seen.append([])
            for pack in packs:
                with torch.no_grad():
                    output = self._policy.policy(pack, redraw=redraw)
                counts.append(compare(pack, output, version))
                seen[-1].append(replace(pack, old_logprobs=output.logprobs) if tis else pack)
        return seen, counts

    def _forward_backward(self, pack: Pack, size: MinibatchSize, stats: StepStats, *, redraw: bool) -> PolicyOutput:
        algorithm, max_tokens = self._config.algorithm, self._config.rollout.max_tokens
        output = self._policy.policy(pack, redraw=redraw, entropy_grad=algorithm.entropy_coef > 0)
        if algorithm.tis_cap and pack.old_logprobs is None:
            pack = replace(pack, old_logprobs=output.logprobs.detach())
        in_loss = self._reference is not None and algorithm.kl_in is KlPlace.loss
        terms = objective(output, pack, algorithm, reference=self._reference_logprobs(pack) if in_loss else None)
        loss = terms.total / denominator(size, algorithm.aggregation, max_tokens)
        # FSDP averages gradients over ranks; the loss is a mean over the minibatch of all ranks.
        (loss * self._policy.mesh.size()).backward()
        stats.tokens += pack.tokens.numel()
        stats.micro_batches += 1
        stats.loss_tokens += int(pack.mask.sum())
        stats.loss += float(loss.detach())
        stats.entropy_sum += float(output.entropy.detach()[pack.mask].sum())
        stats.kl_sum += terms.kl_sum
        stats.truncated += terms.truncated
        stats.clipped += terms.policy.clipped
        stats.ratio_min = min(stats.ratio_min, terms.policy.ratio_min)
        stats.ratio_max = max(stats.ratio_max, terms.policy.ratio_max)
        return output

    @torch.no_grad()
    def _reference_logprobs(self, pack: Pack) -> torch.Tensor:
        assert self._reference is not None
        return self._reference.policy(pack).logprobs

    def _update(self, stats: StepStats) -> None:
        optimizer = self._policy.optimizer
        assert optimizer is not None
        settings = self._config.trainer
        rate = learning_rate(self._updates, settings.steps * self._updates_per_step, settings)
        norm = torch.nn.utils.clip_grad_norm_(self._policy.policy.parameters(), settings.max_grad_norm)
        stats.grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        stats.learning_rate = rate
        if torch.isfinite(torch.tensor(stats.grad_norm)):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            self._policy.merge_adapters()
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
