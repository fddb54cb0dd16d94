"""The tables of docs/benchmarks.md: which rows of which file they show, and in which columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MODELS = {
    "qwen3_0_6b": "Qwen3-0.6B",
    "qwen3_1_7b": "Qwen3-1.7B",
    "qwen3_8b": "Qwen3-8B",
    "qwen2_5_0_5b": "Qwen2.5-0.5B",
    "qwen2_5_1_5b": "Qwen2.5-1.5B",
    "llama_3_2_1b": "Llama-3.2-1B",
}

Row = dict[str, str]
Cell = Callable[[Row, list[Row]], str]
"""The text of a row's cell; the list holds all undisturbed rows of the same case, oldest first."""


@dataclass(frozen=True, kw_only=True)
class Table:
    file: str
    key: tuple[str, ...]
    """Columns that name a case, beside the device."""
    needs: tuple[str, ...]
    """Columns that must be filled."""
    columns: dict[str, Cell]
    where: Callable[[Row], bool] = lambda row: True
    """Asked of the newest row of a case."""


def text(column: str) -> Cell:
    return lambda row, _: row[column]


def number(column: str, form: str = ",.0f") -> Cell:
    return lambda row, _: _formatted(row[column], form)


def ratio(over: str, under: str) -> Cell:
    return lambda row, _: f"{_ratio(row, over, under):.2f}"


def ratios(over: str, under: str) -> Cell:
    """The smallest and largest ratio of all runs of a case."""

    def cell(_: Row, rows: list[Row]) -> str:
        found = sorted(_ratio(row, over, under) for row in rows)
        return " to ".join(dict.fromkeys(f"{figure:.2f}" for figure in (found[0], found[-1])))

    return cell


def spread(column: str, form: str) -> Cell:
    """The smallest and largest figure of all runs of a case."""

    def cell(_: Row, rows: list[Row]) -> str:
        found = sorted(float(row[column]) for row in rows)
        return " to ".join(dict.fromkeys(format(figure, form) for figure in (found[0], found[-1])))

    return cell


def of(part: str, whole: str) -> Cell:
    return lambda row, _: f"{int(row[part]):,} of {int(row[whole]):,}" if row[whole] else ""


def model(row: Row, _: list[Row]) -> str:
    return MODELS.get(row["shape"], row["shape"])


def device(row: Row, _: list[Row]) -> str:
    return next((name for name in ("H100", "H200") if name in row["device"]), row["device"])


def _difference(row: Row) -> float:
    return float(row["with_us"]) - float(row["without_us"])


def _formatted(value: str, form: str) -> str:
    return format(float(value), form) if value else ""


def _ratio(row: Row, over: str, under: str) -> float:
    return float(row[over]) / float(row[under])


SOURCE: dict[str, Cell] = {"device": device, "commit": text("commit")}


def _rollout_load(row: Row, _: list[Row]) -> str:
    seats = f", {row['seats']} at a time" if row["seats"] else ""
    return f"{int(row['requests']):,}{seats}" + (", KV cache too small" if row["cache_fits"] == "no" else "")


def _attention_shape(row: Row, _: list[Row]) -> str:
    return f"{row['heads']} / {row['kv_heads']}, {row['head_dim']}"


def _variant(row: Row, _: list[Row]) -> str:
    return row["variant"].replace("native", "stock")


TABLES = {
    "grpo_step": Table(
        file="grpo_step",
        key=("shape", "ranks", "tp", "tokens"),
        needs=("exact_step_s", "native_step_s"),
        columns={
            "model": model,
            "ranks, TP": lambda row, _: f"{row['ranks']}, {row['tp']}",
            "step, s": number("exact_step_s", ".2f"),
            "stock": number("native_step_s", ".2f"),
            "ratio": ratio("exact_step_s", "native_step_s"),
            "all runs": ratios("exact_step_s", "native_step_s"),
            "rollout": ratio("exact_rollout_s", "native_rollout_s"),
            "train": ratio("exact_train_s", "native_train_s"),
            "sync": ratio("exact_sync_s", "native_sync_s"),
            "tokens differ": of("exact_different", "exact_compared"),
            **SOURCE,
        },
    ),
    "rollouts": Table(
        file="rollouts",
        key=("shape", "tp", "requests", "seats", "cache_fits"),
        needs=("exact_tokens_per_s", "stock_tokens_per_s"),
        columns={
            "model": model,
            "TP": text("tp"),
            "requests": _rollout_load,
            "tokens/s": number("exact_tokens_per_s"),
            "stock": number("stock_tokens_per_s"),
            "exact / stock": ratio("exact_tokens_per_s", "stock_tokens_per_s"),
            "all runs": ratios("exact_tokens_per_s", "stock_tokens_per_s"),
            **SOURCE,
        },
    ),
    "batch_invariant": Table(
        file="rollouts",
        key=("shape", "tp", "requests", "seats"),
        needs=("exact_tokens_per_s", "batch_invariant_tokens_per_s"),
        columns={
            "model": model,
            "requests": _rollout_load,
            "tokens/s": number("exact_tokens_per_s"),
            "vLLM, batch-invariant": number("batch_invariant_tokens_per_s"),
            "exact / batch-invariant": ratio("exact_tokens_per_s", "batch_invariant_tokens_per_s"),
            **SOURCE,
        },
    ),
    "bits": Table(
        file="bits",
        key=("shape", "tp", "ranks", "mode"),
        needs=("compared",),
        columns={
            "model": model,
            "TP": text("tp"),
            "FSDP ranks": text("ranks"),
            "mode": text("mode"),
            "tokens that differ": of("different", "compared"),
            "by up to": number("max_abs_diff", ".2g"),
            "draws": text("draws_different"),
            "requests": lambda row, _: f"{row['order_differs']} of {row['orders']}" if row["orders"] else "",
            **SOURCE,
        },
    ),
    "digests": Table(
        file="bits",
        key=("shape", "tp"),
        needs=("digest",),
        where=lambda row: row["mode"] == "exact",
        columns={"model": model, "TP": text("tp"), "digest of tokens and log-probs": text("digest"), **SOURCE},
    ),
    "trainer": Table(
        file="trainer",
        key=("shape", "tokens", "length", "layers", "checkpointing", "redraw"),
        needs=("exact_step_s", "stock_step_s"),
        where=lambda row: not row["layers"],
        columns={
            "model": model,
            "draws": text("redraw"),
            "step, s": number("exact_step_s", ".3f"),
            "stock": number("stock_step_s", ".3f"),
            "ratio": ratio("exact_step_s", "stock_step_s"),
            "forward": number("exact_forward_s", ".3f"),
            "stock's": number("stock_forward_s", ".3f"),
            "its ratio": ratio("exact_forward_s", "stock_forward_s"),
            "GiB": number("exact_peak_gib", ".1f"),
            "stock GiB": number("stock_peak_gib", ".1f"),
            "memory": ratio("exact_peak_gib", "stock_peak_gib"),
            **SOURCE,
        },
    ),
    "gemm": Table(
        file="gemm",
        key=("m", "k", "n"),
        needs=("leaves_8", "leaves_2", "leaves_1"),
        where=lambda row: "H100" in row["device"],
        columns={
            "M": text("m"),
            "K": text("k"),
            "N": text("n"),
            "cuBLAS, us": number("cublas_us", ",.1f"),
            "8 leaves": number("leaves_8", ".2f"),
            "2 leaves": number("leaves_2", ".2f"),
            "1 leaf": number("leaves_1", ".2f"),
            **SOURCE,
        },
    ),
    "slow_gemm": Table(
        file="tiles",
        key=("m", "k", "n", "leaves"),
        needs=("share_of_cublas",),
        where=lambda row: float(row["share_of_cublas"]) < 0.85,
        columns={
            "M": text("m"),
            "K": text("k"),
            "N": text("n"),
            "leaves": text("leaves"),
            "cuBLAS, us": number("cublas_us", ",.1f"),
            "of cuBLAS": number("share_of_cublas", ".2f"),
            **SOURCE,
        },
    ),
    "prefill": Table(
        file="attention",
        key=("phase", "heads", "kv_heads", "head_dim", "new_tokens", "context", "sequences"),
        needs=("share_of_flash3",),
        where=lambda row: row["phase"] != "decode" and "H100" in row["device"],
        columns={
            "phase": text("phase"),
            "heads, dim": _attention_shape,
            "new tokens": number("new_tokens"),
            "context": number("context"),
            "sequences": text("sequences"),
            "TFLOP/s": number("tflops"),
            "of flash 3": number("share_of_flash3", ".2f"),
            "of flash 2": number("share_of_flash2", ".2f"),
            **SOURCE,
        },
    ),
    "decode": Table(
        file="attention",
        key=("phase", "heads", "kv_heads", "head_dim", "new_tokens", "context", "sequences"),
        needs=("share_of_flash3",),
        where=lambda row: row["phase"] == "decode" and "H100" in row["device"],
        columns={
            "heads, dim": _attention_shape,
            "context": number("context"),
            "sequences": text("sequences"),
            "time, us": number("us"),
            "GB/s": number("gb_per_s"),
            "of flash 3": number("share_of_flash3", ".2f"),
            "all runs": spread("share_of_flash3", ".2f"),
            **SOURCE,
        },
    ),
    "all_reduce": Table(
        file="all_reduce",
        key=("ranks", "bf16_kib"),
        needs=("chosen_us", "nccl_bf16_us"),
        columns={
            "GPUs": text("ranks"),
            "bf16 KiB": number("bf16_kib"),
            "tree, us": number("chosen_us", ",.1f"),
            "NCCL": number("nccl_bf16_us", ",.1f"),
            "NCCL, fp32": number("nccl_fp32_us", ",.1f"),
            "vLLM": number("vllm_bf16_us", ",.1f"),
            "NCCL / tree": ratio("nccl_bf16_us", "chosen_us"),
            "vLLM / tree": lambda row, rows: row["vllm_bf16_us"] and ratio("vllm_bf16_us", "chosen_us")(row, rows),
            **SOURCE,
        },
    ),
    "weight_sync": Table(
        file="weight_sync",
        key=("shape", "ranks"),
        needs=("sync_s",),
        columns={
            "model": model,
            "ranks": text("ranks"),
            "weights, GiB": number("gib", ".1f"),
            "sync, s": number("sync_s", ".3f"),
            "all-gather, s": number("all_gather_s", ".3f"),
            "tensors that differ": text("tensors_different"),
            **SOURCE,
        },
    ),
    "startup": Table(
        file="startup",
        key=("shape", "tp", "mode", "kernels"),
        needs=("start_s",),
        where=lambda row: row["mode"] == "stock" or (row["mode"] == "exact" and row["kernels"] != ""),
        columns={
            "model": model,
            "TP": text("tp"),
            "mode": text("mode"),
            "Triton kernels": text("kernels"),
            "start, s": number("start_s"),
            "all runs": spread("start_s", ".0f"),
            **SOURCE,
        },
    ),
    "recipe_cpu": Table(
        file="recipe_cpu",
        key=("variant",),
        needs=("step_s",),
        columns={
            "kernels": _variant,
            "start, s": number("first_step_s", ".1f"),
            "rollout, s": number("rollout_s", ".2f"),
            "training, s": number("train_s", ".2f"),
            "step, s": number("step_s", ".2f"),
            "GiB": number("memory_gib", ".2f"),
            "tokens that differ": of("tokens_different", "tokens_compared"),
            **SOURCE,
        },
    ),
    "row_digests": Table(
        file="row_digests",
        key=("rows", "vocabulary"),
        needs=("without_us", "with_us"),
        columns={
            "rows": number("rows"),
            "vocabulary": number("vocabulary"),
            "with digests, us": number("with_us", ",.1f"),
            "without": number("without_us", ",.1f"),
            "digests, us a row": lambda row, _: f"{_difference(row) / int(row['rows']):.2f}",
            **SOURCE,
        },
    ),
    "prefix_tree": Table(
        file="prefix_tree",
        key=("rollouts", "prompt", "response", "hidden", "layers"),
        needs=("tree_s", "apart_s"),
        columns={
            "rollouts": lambda row, _: f"{row['rollouts']} of {int(row['prompt']):,} + {row['response']} tokens",
            "time, s": number("tree_s", ".1f"),
            "separate": number("apart_s", ".1f"),
            "ratio": ratio("tree_s", "apart_s"),
            "memory, MiB": number("tree_mib"),
            "separate, MiB": number("apart_mib"),
            "its ratio": ratio("tree_mib", "apart_mib"),
            "equal": text("logprobs_equal"),
            **SOURCE,
        },
    ),
    "topologies": Table(
        file="topologies",
        key=("tp", "ranks", "engines", "seed"),
        needs=("digest",),
        columns={
            "TP": text("tp"),
            "FSDP ranks": text("ranks"),
            "engines": text("engines"),
            "seed": text("seed"),
            "tokens that differ": of("different", "compared"),
            "digest": text("digest"),
            "peak, GiB": number("memory_gib", ".2f"),
            **SOURCE,
        },
    ),
}
