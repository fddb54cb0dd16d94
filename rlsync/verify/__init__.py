"""The command `rlsync parity`: compares vLLM engines with the trainer on tiny models of each family, bit by bit."""
