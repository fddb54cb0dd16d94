"""Reward functions, and where each of them runs."""
