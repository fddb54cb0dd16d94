"""Folders of configs/ and recipes/: beside the package in a clone, inside the package in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped(name: str) -> Path:
    """Return the path of the folder `configs` or `recipes`."""
    clone = _PACKAGE.parent / name
    return clone if clone.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file() else _PACKAGE / name


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(path.parent.name for path in shipped("recipes").glob("*/recipe.yaml"))


def group_options() -> dict[str, list[str]]:
    """Return the options of each configuration group, sorted."""
    groups = sorted(path for path in shipped("configs").iterdir() if path.is_dir())
    return {group.name: sorted(file.stem for file in group.glob("*.yaml")) for group in groups}
