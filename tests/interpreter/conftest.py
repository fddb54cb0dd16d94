"""Only for a process that started with TRITON_INTERPRET=1, as tests/unit/kernels/test_interpreter.py starts one."""

import os

import numpy as np
import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]


def _dot_in_order(builder, a, b, d, input_precision, max_num_imprecise_acc):
    """d + a b in fp32, one k after another: a product is rounded, then added."""
    from triton.runtime.interpreter import TensorHandle

    assert a.data.dtype == b.data.dtype == d.data.dtype == np.float32
    total = d.data
    for k in range(a.data.shape[-1]):
        total = total + a.data[..., :, k : k + 1] * b.data[..., k : k + 1, :]
    return TensorHandle(total, d.dtype.scalar)


@pytest.fixture(autouse=True)
def ordered_dot(monkeypatch):
    """Give tl.dot a fixed order.

    The interpreter calls numpy's BLAS, which picks its kernel by the processor and may round a row differently when
    there are other rows beside it. A GPU's tensor cores do not, and tests compare products with other row counts.
    """
    from triton.runtime.interpreter import InterpreterBuilder

    monkeypatch.setattr(InterpreterBuilder, "create_dot", _dot_in_order)
