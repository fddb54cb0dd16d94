"""One training step of one rank: forward, compare, backward, update."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from rlsync.algorithms.aggregation import denominator
from rlsync.algorithms.kl import token_kl
from rlsync.algorithms.objective import objective
from rlsync.config.algorithm import KlPlace
from rlsync.config.parity import Coverage
from rlsync.pack import MinibatchSize, Pack, PolicyOutput
from rlsync.parity.counts import ParityCounts, merge
from rlsync.parity.monitor import compare, left_out
from rlsync.trainer.fsdp import take_update
from rlsync.trainer.packing import unpack_items
from rlsync.trainer.schedule import learning_rate
from rlsync.trainer.settings import TrainerSettings
from rlsync.trainer.sharded import Sharded
from rlsync.trainer.stats import StepStats


@dataclass(slots=True, kw_only=True, frozen=True)
class _PlannedPass:
    """One pass over a minibatch."""

    minibatch: int
    """Index of the minibatch."""
    first: bool
    """The step's first pass, whose importance ratios must be exactly 1."""
    at_sampler: bool
    """The policy holds the weights that sampled the rollouts."""
    compare: bool
    """The monitor counts the tokens of the pass, and compares them if the policy holds the weights that sampled."""
    redraw: bool
    """The trainer draws every token again."""
    updates: bool
    """The pass ends with an update of the policy."""


class StepRunner:
    """Runs the training steps of one rank.

    Args:
        settings: the settings of this trainer rank.
        policy: the sharded policy.
        reference: the frozen reference; None if the run has none.
    """

    def __init__(self, settings: TrainerSettings, policy: Sharded, reference: Sharded | None) -> None:
        self._settings, self._policy, self._reference = settings, policy, reference
        self.updates = 0
        self._updates_per_step = settings.trainer.minibatches * settings.trainer.epochs
        self._total = (settings.trainer.steps - settings.critic.warmup_steps) * self._updates_per_step

    def run(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize], version: int) -> StepStats:
        """Train on this rank's packs (collective). During the critic's warm-up only forward passes run.

        If bits differ and parity.on_divergence ends the run, the step ends before its first update.

        Args:
            minibatches: the packs as [minibatch][micro-batch].
            sizes: size of each minibatch over all ranks.
            version: version of the weights that the policy holds before the step.

        Raises:
            NonFiniteError: a gradient is not finite, and trainer.nonfinite=stop.
        """
        started = time.perf_counter()
        minibatches = [[pack.to(self._policy.device) for pack in packs] for packs in minibatches]
        stats = StepStats()
        compares: list[ParityCounts] = []
        if self._looks_first:
            minibatches, compares = self._look_first(minibatches, version)
            if self._diverged(compares):
                return self._finished(stats, compares, started)
        for planned in self._plan(len(minibatches), learns=version >= self._settings.critic.warmup_steps):
            size = sizes[planned.minibatch]
            for pack in minibatches[planned.minibatch]:
                output = self._pass(pack, size, stats, redraw=planned.redraw, learns=planned.updates)
                if planned.compare:
                    compares.append(compare(pack, output, version) if planned.at_sampler else left_out(pack))
            if planned.first:
                stats.first_ratio_min, stats.first_ratio_max = stats.ratio_min, stats.ratio_max
            stats.minibatches += 1
            if planned.compare and self._diverged(compares):
                break
            if planned.updates:
                self._update(stats)
        return self._finished(stats, compares, started)

    def _finished(self, stats: StepStats, compares: list[ParityCounts], started: float) -> StepStats:
        stats.parity = merge(compares)
        stats.seconds = time.perf_counter() - started
        if self._policy.device.type == "cuda":
            stats.peak_gpu_gib = torch.cuda.max_memory_allocated() / 2**30
        return stats

    def _plan(self, minibatches: int, *, learns: bool) -> list[_PlannedPass]:
        """The passes over the step's minibatches, in order.

        Args:
            minibatches: number of minibatches.
            learns: the policy is updated. If not, as during the critic's warm-up, each minibatch is forwarded once.
        """
        compared, planned = self._looks_first, []
        for epoch in range(self._settings.trainer.epochs if learns else 1):
            for index in range(minibatches):
                first = epoch == 0 and index == 0
                at_sampler = first or not learns  # the first update changes the weights
                planned.append(
                    _PlannedPass(
                        minibatch=index,
                        first=first,
                        at_sampler=at_sampler,
                        compare=epoch == 0 and not compared,
                        redraw=self._settings.parity.redraw and at_sampler and not compared,
                        updates=learns,
                    )
                )
        return planned

    def reference_kl(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """Estimates of the KL to the reference (collective).

        Returns:
            [T] float64 for each sequence, by sequence id; 0 at tokens that were not sampled.
        """
        found: dict[int, torch.Tensor] = {}
        for pack in packs:
            pack = pack.to(self._policy.device)
            kl = token_kl(pack.rollout_logprobs, self._reference_logprobs(pack), pack.mask, self._settings.algorithm.kl)
            found |= unpack_items(pack, kl.double())
        return found

    def _diverged(self, compares: list[ParityCounts]) -> bool:
        """Whether some rank has found a difference that ends the run, so that no update may follow (collective)."""
        if self._settings.native or not self._settings.parity.on_divergence.stops:
            return False
        counts = merge(compares)
        found = counts.tokens_different + counts.rows_different + counts.draws_different + counts.nonfinite
        if self._policy.mesh.size() > 1:
            total = torch.tensor(float(found), device=self._policy.device)
            dist.all_reduce(total, group=self._policy.mesh.get_group())
            found = int(total)
        return found > 0

    @property
    def _looks_first(self) -> bool:
        """Whether an extra forward pass over all packs precedes the first update."""
        several = self._settings.trainer.minibatches > 1
        tis = self._settings.algorithm.tis_cap > 0 and self._updates_per_step > 1
        return tis or (several and self._settings.parity.coverage is Coverage.all)

    def _look_first(self, minibatches: list[list[Pack]], version: int) -> tuple[list[list[Pack]], list[ParityCounts]]:
        """Forward and compare every pack before the first update.

        Returns:
            The packs, with the trainer's own log-probs if truncated importance sampling needs them, and the counts.
        """
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
        """Run the forward pass of a pack, and the backward pass if the policy learns; add up the statistics."""
        algorithm, max_tokens = self._settings.algorithm, self._settings.max_tokens
        with torch.set_grad_enabled(learns):
            output = self._policy.policy(pack, redraw=redraw, entropy_grad=algorithm.entropy_coef > 0)
        if algorithm.tis_cap and pack.old_logprobs is None:
            pack = replace(pack, old_logprobs=output.logprobs.detach())
        in_loss = self._reference is not None and algorithm.kl_in is KlPlace.loss
        terms = objective(output, pack, algorithm, reference=self._reference_logprobs(pack) if in_loss else None)
        loss = terms.total / denominator(size, algorithm.aggregation, max_tokens)
        if learns:
            # FSDP averages gradients over ranks, but `loss` is already normalised over the minibatch of all ranks.
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
