"""The critic's part of a training step on one rank: values before the step, and the update."""

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
    """Runs the training steps of the critic on one rank.

    Args:
        settings: the settings of this trainer rank.
        critic: the sharded critic.
    """

    def __init__(self, settings: TrainerSettings, critic: ShardedCritic) -> None:
        self._settings, self._critic = settings, critic
        self.updates = 0
        self._total = settings.trainer.steps * settings.trainer.minibatches * settings.trainer.epochs

    @torch.no_grad()
    def values(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """The critic's values of the text before each token (collective).

        Returns:
            [T] float32 for each sequence, by sequence id; 0 at tokens that were not sampled.
        """
        found: dict[int, torch.Tensor] = {}
        for pack in packs:
            pack = pack.to(self._critic.device)
            found |= unpack_items(pack, self._critic.critic(pack))
        return found

    def run(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize]) -> CriticStats:
        """Train the critic on this rank's packs (collective).

        Args:
            minibatches: the packs as [minibatch][micro-batch].
            sizes: size of each minibatch over all ranks.

        Raises:
            NonFiniteError: a gradient is not finite, and trainer.nonfinite=stop.
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
        # FSDP averages gradients over ranks, but `loss` is already divided by the tokens of all ranks.
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
