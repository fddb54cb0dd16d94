"""GPU kernels with the names and the meaning of those in rlsync.kernels.cpu, and kernels that only GPUs need.

Their bits differ from those of the CPU. Tiles are chosen by shape from a fixed table, and every choice gives the same
bits.
"""

from rlsync.kernels.triton.activation import silu_and_mul
from rlsync.kernels.triton.attention_backward import packed_attention_backward, tree_attention_backward
from rlsync.kernels.triton.attention_launch import decode_attention, packed_attention, paged_attention, tree_attention
from rlsync.kernels.triton.cache import write_cache
from rlsync.kernels.triton.copies import copy_launches
from rlsync.kernels.triton.keyed_sum import keyed_sums
from rlsync.kernels.triton.logprobs import logprobs, row_digests
from rlsync.kernels.triton.matmul import matmul
from rlsync.kernels.triton.norm import add_rms_norm, rms_norm
from rlsync.kernels.triton.rope import rope
from rlsync.kernels.triton.sampling import draw
from rlsync.kernels.triton.scores import draw_scored, logit_grads, row_scores
from rlsync.kernels.triton.symmetric import finish_across

__all__ = [
    "add_rms_norm",
    "copy_launches",
    "decode_attention",
    "draw",
    "draw_scored",
    "finish_across",
    "keyed_sums",
    "logit_grads",
    "logprobs",
    "matmul",
    "packed_attention",
    "packed_attention_backward",
    "paged_attention",
    "rms_norm",
    "rope",
    "row_digests",
    "row_scores",
    "silu_and_mul",
    "tree_attention",
    "tree_attention_backward",
    "write_cache",
]
