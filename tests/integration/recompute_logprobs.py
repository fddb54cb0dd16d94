"""Recompute a run's log-probs from its files: rollouts.jsonl and saved weights. It imports nothing of the monitor.

    python recompute_logprobs.py RUN_FOLDER STEP

The rollouts of STEP were sampled from the weights saved after step STEP - 1. Each sequence is forwarded alone, and the
bits of its response's log-probs are compared with those in the file. Exit code 0 when all agree.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from rlsync.kernels import ops
from rlsync.models.install import install

LEAVES = 8


def recompute(folder: Path, step: int) -> tuple[int, int]:
    """Return the number of tokens, and the number of tokens whose bits differ."""
    path = folder / "checkpoints" / f"step_{step - 1}"
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    install(model, leaves=LEAVES, dtype=torch.bfloat16)
    total = different = 0
    for line in (folder / "rollouts.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["step"] != step:
            continue
        assert row["weight_version"] == step - 1
        prompt, response = row["prompt_tokens"], row["response_tokens"]
        tokens = torch.tensor(prompt + response)
        with torch.no_grad():
            hidden = model.model(input_ids=tokens[None], starts=torch.tensor([0, len(tokens)])).last_hidden_state[0]
            logprobs = ops.logprobs(ops.lm_head(hidden, model.get_output_embeddings().weight), 1.0)
        for i, (token, bits) in enumerate(zip(response, row["logprob_bits"], strict=True)):
            if bits is None:
                continue  # the environment wrote it
            mine = struct.pack(">f", float(logprobs[len(prompt) + i - 1, token])).hex()
            total += 1
            different += mine != bits
    return total, different


if __name__ == "__main__":
    tokens, wrong = recompute(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{wrong} of {tokens} tokens differ")
    sys.exit(wrong != 0 or tokens == 0)
