"""The ops of the forward pass. Each is defined once and called by both the trainer and the rollout engine."""
