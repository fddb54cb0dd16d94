"""A report of runs in one HTML file: metrics, rollouts and settings."""
