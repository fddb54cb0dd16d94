"""The learning rate as a function of the update."""

from __future__ import annotations

import math

from rlsync.config.trainer import Schedule, TrainerConfig


def learning_rate(update: int, total: int, config: TrainerConfig) -> float:
    """Learning rate of update `update` (from 0) of `total`: linear warm-up, then `config.schedule`.

    The linear and the cosine schedule end at `min_lr_ratio * lr`.
    """
    if update < config.warmup_steps:
        return config.lr * (update + 1) / config.warmup_steps
    progress = (update - config.warmup_steps) / max(1, total - config.warmup_steps)
    match config.schedule:
        case Schedule.constant:
            factor = 1.0
        case Schedule.linear:
            factor = 1.0 - (1.0 - config.min_lr_ratio) * progress
        case Schedule.cosine:
            factor = config.min_lr_ratio + (1.0 - config.min_lr_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr * factor
