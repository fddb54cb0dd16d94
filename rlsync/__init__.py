"""rlsync: RL post-training in which rollout and trainer compute the same bits."""

__version__ = "0.1.0"
