"""The mismatch monitor: counts differing bits between rollout and trainer."""
