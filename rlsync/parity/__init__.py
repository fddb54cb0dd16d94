"""The monitor: compares the log-probs of rollout and trainer bit by bit and counts differences."""
