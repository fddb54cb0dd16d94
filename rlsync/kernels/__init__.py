"""The ops of the forward pass, each defined once and called by trainer and rollout alike."""
