"""Pages that scripts write are what the scripts write now, and the reference has every key of the configuration."""

import re
from pathlib import Path

import config_page
import pytest
import recipes_page
from config_keys import sections

from rlsync.config.fields import valid_keys
from rlsync.config.paths import group_options, recipe_names

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "configuration.md").read_text()
HEADINGS = re.findall(r"^### `([\w.]+)`$", REFERENCE, re.MULTILINE)
KEYS = {key.name: key for section in sections() for key in section.keys}


def _missing(headings):
    return sorted(set(valid_keys()) - set(headings))


def test_the_reference_is_what_the_generator_writes():
    assert config_page.page() == REFERENCE, "run `make reference`"


def test_the_reference_has_every_key():
    assert _missing(HEADINGS) == []
    assert list(KEYS) == HEADINGS
    assert "reward.parts.NAME.weight" in HEADINGS


def test_control_a_changed_page_and_a_missing_key_are_found():
    assert config_page.page() != REFERENCE.replace("Integer, default `8`", "Integer, default `9`")
    assert _missing([name for name in HEADINGS if name != "trainer.lr"]) == ["trainer.lr"]


def test_every_key_and_every_choice_is_explained():
    """The docstrings in rlsync/config are the only source of the page."""
    assert [name for name, key in KEYS.items() if not key.text] == []
    assert [f"{name}={choice}" for name, key in KEYS.items() for choice, text in key.choices.items() if not text] == []


@pytest.mark.parametrize("group", group_options())
def test_every_option_of_a_group_is_explained(group):
    (section,) = (each for each in sections() if each.name.removesuffix(".NAME") == group)
    assert [option.name for option in section.options] == group_options()[group]
    assert [option.name for option in section.options if not option.text] == []


def test_what_the_page_says_about_single_keys():
    assert KEYS["algorithm.gamma"].read_if == ["`algorithm.advantage` is `gae`"]
    assert KEYS["rollout.kv_cache_mib"].type == "integer in MiB"
    assert KEYS["trainer.max_grad_norm"].default == 1.0
    assert KEYS["data.template"].composed == "{expression}="
    assert KEYS["data.weight"].never == "only a part of a mixture has a weight"
    assert list(KEYS["parity.fault"].choices) == ["none", "ulp", "stale_shard"]


def test_the_page_of_recipes_is_what_the_generator_writes():
    assert recipes_page.page() == (DOCS / "recipes.md").read_text(), "run `make reference`"
    assert re.findall(r"^## (\w+)$", recipes_page.page(), re.MULTILINE) == recipe_names()
