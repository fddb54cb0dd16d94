"""`rlsync parity`: one tiny model of each family, in a real vLLM engine and in the trainer, compared bit for bit."""
