import json

from rlsync.telemetry.json_text import to_json


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def test_what_is_not_finite_becomes_null() -> None:
    values = {"step": 1, "loss": float("nan"), "parts": [float("inf"), {"x": -float("inf")}, 0.1], "text": "NaN é"}
    text = to_json(values)
    assert json.loads(text, parse_constant=_refused) == {
        "step": 1, "loss": None, "parts": [None, {"x": None}, 0.1], "text": "NaN é",
    }  # fmt: skip
    assert text.startswith('{"step": 1, ')  # a resumed run looks for this text
    assert to_json(values, indent=2).startswith('{\n  "step": 1,\n')


def test_finite_values_are_written_as_ever() -> None:
    row = {"step": 3, "reward/mean": 0.1 + 0.2, "small": 5e-324, "count": 10**30, "none": None, "flag": True}
    assert to_json(row) == json.dumps(row, ensure_ascii=False)


def test_half_a_surrogate_pair_is_written_as_its_escape() -> None:
    text = to_json({"response": "a\ud83d", "whole": "\U0001f600"})
    assert text.encode() == b'{"response": "a\\ud83d", "whole": "\xf0\x9f\x98\x80"}'
    assert json.loads(text) == {"response": "a\ud83d", "whole": "\U0001f600"}
