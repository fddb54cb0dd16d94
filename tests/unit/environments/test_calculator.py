"""The calculator computes expressions, and refuses hostile ones at once."""

from __future__ import annotations

import time

import pytest

from rlsync.data.problem import Problem
from rlsync.environments.calculator import CalculationError, Calculator, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*34", "408"),
        (" 12 * 34 ", "408"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("2**100", str(2**100)),
        ("2**-1", "0.5"),
        ("(1+2)*(3-4)/2", "-1.5"),
        ("0.1+0.2", "0.3"),  # exactly: in doubles it is 0.30000000000000004
        ("1/3", "0.333333333333"),
        ("6/3", "2"),
        ("+-+5", "-5"),
        ("1_000*2", "2000"),
        ("999999999999*999999999999", "999999999998000000000001"),
    ],
)
def test_values(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("9**9**9**9", "exponent not understood"),
        ("9**9**9", "exponent not understood"),
        ("2**512*2", "too large"),
        ("(2**500)**500", "too large"),
        ("10**-400/10**200", "too large"),
        ("2**0.5", "exponent not understood"),
        ("*".join(["99999999"] * 22), "too large"),
        ("9" * 200, "too large"),
        ("9" * 201, "too long"),
        ("1e300", "too large"),
        ("1e999", "not understood"),
        ("(" * 100 + ")" * 100, "not understood"),
        ("(" * 150, "not understood"),
        ("-" * 200, "not understood"),
        ("1/0", "division by zero"),
        ("1%0", "division by zero"),
        ("0**-1", "division by zero"),
        ("", "not understood"),
        ("x", "not understood"),
        ("abs(1)", "not understood"),
        ("__import__('os').system('true')", "not understood"),
        ("().__class__.__bases__", "not understood"),
        ("(1).real", "not understood"),
        ("[1][0]", "not understood"),
        ("'a'*9", "not understood"),
        ("True+1", "not understood"),
        ("1j*1j", "not understood"),
        ("1<<9999", "not understood"),
        ("1 if 1 else 2", "not understood"),
        ("(x:=5)", "not understood"),
        ("lambda: 1", "not understood"),
        ("f'{1}'", "not understood"),
        ("1;2", "not understood"),
        ("1\x00", "not understood"),
        ("\uff12+\uff12", "not understood"),
    ],
)
def test_hostile_expressions(expression: str, reason: str) -> None:
    started = time.perf_counter()
    with pytest.raises(CalculationError, match=f"^{reason}$"):
        calculate(expression)
    assert time.perf_counter() - started < 1.0


def test_depth_within_the_length_is_computed() -> None:
    assert calculate("-" * 198 + "1") == "1"
    assert calculate("(" * 90 + "1" + ")" * 90) == "1"


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("<<12*34>>", "408"),
        ("Let me see: <<12*34>>\n", "408"),
        ("<<1+1>> and <<2+2>>", "4"),
        ("<<1/0>>", "error: division by zero"),
        ("<<>>", "error: not understood"),
        ("408", None),
        ("<<12*34>> is 408", None),
        ("<<12*34>", None),
        ("", None),
    ],
)
def test_a_turn_that_ends_in_a_call_is_answered(action: str, answer: str | None) -> None:
    environment = Calculator()
    assert environment.reset(Problem(id="0", prompt="12*34=", answer="408")) == "12*34="
    observation = environment.step(action)
    assert (observation and observation.text) == answer
    assert observation is None or observation.tool_calls == 1
