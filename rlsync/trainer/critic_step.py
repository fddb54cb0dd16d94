"""What one rank does with the critic: values before a step, and the step itself."""

from __future__ import annotations

import torch

from rlsync.algorithms.value_loss import value_loss
from rlsync.pack import MinibatchSize, Pack
from rlsync.trainer.fsdp import take_update
from rlsync.trainer.packing import unpack_items
from rlsync.trainer.schedule import learning_rate
from rlsync.trainer.settings import TrainerSettings
from rlsync.trainer.sharded_critic import ShardedCritic
from rlsync.trainer.stats import CriticStats


class CriticRunner:
    """Runs training steps on a sharded critic."""

    def __init__(self, settings: TrainerSettings, critic: ShardedCritic) -> None:
        self._settings, self._critic = settings, critic
        self.updates = 0
        self._total = settings.trainer.steps * settings.trainer.minibatches * settings.trainer.epochs

    @torch.no_grad()
    def values(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """Each sequence's [T] fp32, by its id: the value of what came before token t (collective)."""
        found: dict[int, torch.Tensor] = {}
        for pack in packs:
            pack = pack.to(self._critic.device)
            found |= unpack_items(pack, self._critic.critic(pack))
        return found

    def run(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize]) -> CriticStats:
        """Train on this rank's packs (collective).

        Args:
            minibatches: [minibatch][micro-batch].
            sizes: of each minibatch over all ranks.
        Raises:
            NonFiniteError: a gradient is not finite and the trainer is to stop.
        """
        stats = CriticStats()
        for _ in range(self._settings.trainer.epochs):
            for packs, size in zip(minibatches, sizes, strict=True):
                for pack in packs:
                    self._forward_backward(pack.to(self._critic.device), size, stats)
                self._update(stats)
        return stats

    def _forward_backward(self, pack: Pack, size: MinibatchSize, stats: CriticStats) -> None:
        terms = value_loss(self._critic.critic(pack), pack, self._settings.critic.clip)
        loss = terms.total / max(1, size.tokens)
        # FSDP averages gradients over ranks; the loss is a mean over the minibatch of all ranks.
        (loss * self._critic.mesh.size()).backward()
        stats.tokens += int(pack.trained.sum())
        stats.loss += float(loss.detach())
        stats.clipped += terms.clipped

    def _update(self, stats: CriticStats) -> None:
        critic = self._critic
        rate = learning_rate(self.updates, self._total, critic.settings)
        stats.grad_norm, taken = take_update(critic.critic, critic.optimizer, rate, critic.settings, field="critic.lr")
        stats.learning_rate = rate
        stats.updates += taken
        stats.updates_skipped += not taken
        self.updates += 1
