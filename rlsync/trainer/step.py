"""One training step of one rank: forward, compare, backward, update."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from rlsync.algorithms.aggregation import denominator
from rlsync.algorithms.kl import token_kl
from rlsync.algorithms.objective import objective
from rlsync.config.algorithm import KlPlace
from rlsync.config.parity import Coverage
from rlsync.pack import MinibatchSize, Pack, PolicyOutput
from rlsync.parity.counts import ParityCounts, merge
from rlsync.parity.monitor import compare
from rlsync.trainer.fsdp import take_update
from rlsync.trainer.packing import unpack_items
from rlsync.trainer.schedule import learning_rate
from rlsync.trainer.settings import TrainerSettings
from rlsync.trainer.sharded import Sharded
from rlsync.trainer.stats import StepStats

_NO_VERSION = -2
"""That of weights which sampled nothing: those after the step's first update."""


class StepRunner:
    """Runs training steps on a sharded policy (and a frozen reference, if the KL needs one)."""

    def __init__(self, settings: TrainerSettings, policy: Sharded, reference: Sharded | None) -> None:
        self._settings, self._policy, self._reference = settings, policy, reference
        self.updates = 0
        self._updates_per_step = settings.trainer.minibatches * settings.trainer.epochs
        self._total = (settings.trainer.steps - settings.critic.warmup_steps) * self._updates_per_step

    def run(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize], version: int) -> StepStats:
        """Train on this rank's packs; in the critic's warm-up only look at them.

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
        learns = version >= self._settings.critic.warmup_steps
        for epoch in range(self._settings.trainer.epochs if learns else 1):
            for index, (packs, size) in enumerate(zip(minibatches, sizes, strict=True)):
                first = epoch == 0 and index == 0
                # After the first update the policy is no longer the one that sampled.
                is_sampler = first or not learns
                for pack in packs:
                    redraw = self._settings.parity.redraw and is_sampler and not look_first
                    output = self._pass(pack, size, stats, redraw=redraw, learns=learns)
                    if epoch == 0 and not look_first:
                        compares.append(compare(pack, output, version if is_sampler else _NO_VERSION))
                if first:
                    stats.first_ratio_min, stats.first_ratio_max = stats.ratio_min, stats.ratio_max
                stats.minibatches += 1
                if learns:
                    self._update(stats)
        stats.parity = merge(compares)
        stats.seconds = time.perf_counter() - started
        if self._policy.device.type == "cuda":
            stats.peak_gpu_gib = torch.cuda.max_memory_allocated() / 2**30
        return stats

    def reference_kl(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """KL estimates, each sequence's [T] float64 by its id; 0 where not sampled."""
        found: dict[int, torch.Tensor] = {}
        for pack in packs:
            pack = pack.to(self._policy.device)
            kl = token_kl(pack.rollout_logprobs, self._reference_logprobs(pack), pack.mask, self._settings.algorithm.kl)
            found |= unpack_items(pack, kl.double())
        return found

    @property
    def _looks_first(self) -> bool:
        """Whether an extra pass sees every pack before the first update."""
        several = self._settings.trainer.minibatches > 1
        tis = self._settings.algorithm.tis_cap > 0 and self._updates_per_step > 1
        return tis or (several and self._settings.parity.coverage is Coverage.all)

    def _look_first(self, minibatches: list[list[Pack]], version: int) -> tuple[list[list[Pack]], list[ParityCounts]]:
        """Compare every pack; packs come back with the trainer's own log-probs where the objective needs them."""
        tis, redraw = self._settings.algorithm.tis_cap > 0, self._settings.parity.redraw
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

    def _pass(self, pack: Pack, size: MinibatchSize, stats: StepStats, *, redraw: bool, learns: bool) -> PolicyOutput:
        """Forward, and backward where the policy learns."""
        algorithm, max_tokens = self._settings.algorithm, self._settings.max_tokens
        with torch.set_grad_enabled(learns):
            output = self._policy.policy(pack, redraw=redraw, entropy_grad=algorithm.entropy_coef > 0)
        if algorithm.tis_cap and pack.old_logprobs is None:
            pack = replace(pack, old_logprobs=output.logprobs.detach())
        in_loss = self._reference is not None and algorithm.kl_in is KlPlace.loss
        terms = objective(output, pack, algorithm, reference=self._reference_logprobs(pack) if in_loss else None)
        loss = terms.total / denominator(size, algorithm.aggregation, max_tokens)
        if learns:
            # FSDP averages gradients over ranks; the loss is a mean over the minibatch of all ranks.
            (loss * self._policy.mesh.size()).backward()
        stats.tokens += pack.tokens.numel()
        stats.tokens_saved += pack.rows_saved
        stats.micro_batches += 1
        stats.loss_tokens += int(pack.trained.sum())
        stats.loss += float(loss.detach())
        stats.entropy_sum += float(output.entropy.detach()[pack.trained].sum())
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
        optimizer, trainer = self._policy.optimizer, self._settings.trainer
        assert optimizer is not None
        rate = learning_rate(self.updates, self._total, trainer)
        stats.grad_norm, taken = take_update(self._policy.policy, optimizer, rate, trainer, field="trainer.lr")
        stats.learning_rate = rate
        stats.updates += taken
        stats.updates_skipped += not taken
        if taken:
            self._policy.merge_adapters()
        self.updates += 1
