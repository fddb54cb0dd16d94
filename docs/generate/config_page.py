"""Write docs/configuration.md, the reference of every key, from the docstrings and rules of rlsync/config.

Call it as `python docs/generate/config_page.py`.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import yaml
from config_keys import Key, Option, Section, sections

from rlsync.config.paths import group_options

PAGE = Path(__file__).resolve().parents[1] / "configuration.md"
_SOURCES = PAGE.parents[1] / "rlsync"
_INTRODUCTION = """\
# Configuration reference

<!-- Written by `make reference` from rlsync/config and configs. Do not edit this page: edit the docstrings there. -->

This page lists every key of the configuration: its type, its default, what it means, and under which condition it is
read. A key is set on the command line as `key=value`, in any order:

    rlsync train recipe=grpo_arithmetic_tiny_cpu trainer.lr=1e-4 rollout.tp=1

- **Groups.** An option of a group sets several keys at once: `algorithm=gspo` sets the values of
  `configs/algorithm/gspo.yaml`. The groups' options stand below the headings of their components.
- **Order.** Defaults come first, then the options of groups, then the recipe, then single keys. What comes later wins,
  so `algorithm=gspo algorithm.clip_low=1e-3` changes one value of the option, in whichever order the two are written.
- **Values** are [hydra](https://hydra.cc) overrides: `null`, `true`, lists as `model.lora.targets=[q_proj,v_proj]`,
  dictionaries as `'data.chat_args={enable_thinking: false}'`. Text fields take the text literally; the
  [README](../README.md#use) says more.
- **Parts.** `+GROUP@KEY.NAME=OPTION` adds a part under a name of your choice to `data.parts`, `reward.parts` or
  `eval.sets`, and `KEY.NAME.FIELD=VALUE` changes one of its values. `+alarms.slow.metric=time/step
  +alarms.slow.above=60` adds an alarm.
- **Unread keys.** Setting a key that nothing reads is refused, with the condition under which it would be read. A
  recipe or a group's option may set such a key.
- **Look first.** With `--dry-run` a command prints the composed configuration and the placement of all processes, and
  starts nothing.

The default is that of the schema. Where the default options of the groups set another value, that value follows.
"""
_PARTS = {
    "data.parts.NAME": "A part of a mixture has the keys of [data](#data), such as `data.parts.NAME.path`. Its weight "
    "is read; `data.held_out_percent` and `data.warm_start_percent` of the mixture apply to all its parts.",
    "eval.sets.NAME": "An evaluation set has the keys of [data](#data), such as `eval.sets.NAME.answer_column`. Only "
    "its held-out problems are used.",
    "alarms.NAME": "An alarm watches a metric ([watching.md](watching.md#alarms)). A new one needs at least `metric` "
    "and a bound.",
    "reward.parts.NAME": "A part of a weighted sum has the keys of [reward](#reward) that describe one function, and:",
}
"""Texts in place of the docstrings of classes that components share."""


def page() -> str:
    """Return the text of the page."""
    found = sections()
    names = {key.name for section in found for key in section.keys if "." in key.name}
    parts = [_INTRODUCTION, *(_section(section, names) for section in found)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _section(section: Section, names: set[str]) -> str:
    lines = [f"\n## {section.name or 'General'}\n"]
    if section.name:
        lines += [_wrapped(_PARTS.get(section.name) or _marked(section.text, section.name, names)), ""]
    if section.options:
        lines += _options(section.name.removesuffix(".NAME"), section.options, names)
    return "\n".join([*lines, *(_key(key, names) for key in section.keys)])


def _options(group: str, options: list[Option], names: set[str]) -> list[str]:
    rows = []
    for option in options:
        named = [name if value is ... else f"{name}: {_yaml(value)}" for name, value in option.values.items()]
        values = ", ".join(f"`{each}`" for each in named if not each.endswith(": ???"))
        usual = " (default)" if option.default else ""
        rows.append(
            f"| `{group}={option.name}`{usual} | {_cell(_marked(option.text, group, names))} | {_cell(values)} |"
        )
    return ["| option | what it is | what it sets |", "|---|---|---|", *rows, ""]


def _key(key: Key, names: set[str]) -> str:
    component = key.name.rpartition(".")[0]
    kind = key.type[0].upper() + key.type[1:]
    usual = f"`{_yaml(key.default)}`"
    if key.composed != key.default:
        usual += f", and `{_yaml(key.composed)}` with the default options of the groups"
    paragraphs = [f"{kind}, default {usual}.", _marked(key.text, component, names)]
    table = [f"| `{name}` | {_cell(_marked(text, component, names))} |" for name, text in key.choices.items()]
    read = [f"Read only if {', and only if '.join(key.read_if)}."] if key.read_if else []
    read += [f"Never read here: {key.never}."] if key.never else []
    blocks = [_wrapped(each) for each in paragraphs]
    blocks += ["\n".join(["| value | meaning |", "|---|---|", *table])] if table else []
    return "\n".join([f"### `{key.name}`\n", "\n\n".join(blocks + [_wrapped(each) for each in read]), ""])


def _marked(text: str, component: str, names: set[str]) -> str:
    """Return a docstring with code marks around the names of keys and files, and with links."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else _mark(piece, component, names) for piece in pieces)


def _mark(text: str, component: str, names: set[str]) -> str:
    def key(found: re.Match[str]) -> str:
        word = found[0]
        name = word.partition("=")[0]
        if name in names:
            return f"[`{word}`](#{name.replace('.', '').lower()})"
        sibling, option = f"{component}.{name}" in names, word.partition("=")[2]
        if (sibling and ("_" in name or option)) or option in group_options().get(name, []):
            return f"`{word}`"
        if word.endswith(".md") and (PAGE.parents[1] / word).is_file():
            return f"[{word.removeprefix('docs/')}]({word.removeprefix('docs/')})"
        file = word.removeprefix("rlsync/")
        if word.endswith(".py") and (_SOURCES / file).is_file():
            return f"[`{word}`](../rlsync/{file})"
        return word

    text = re.sub(r"\\boxed\{\}|\{[^}]*\}|[\w/]*<+[^>]+>+", lambda found: f"`{found[0]}`", text)
    outside = re.split(r"(`[^`]*`)", text)
    word = r"(?<![\w/.])[a-z]\w*(?:[./]\w+)*(?:=(?:[\w.]+:[\w:]+|\w+))?"
    return "".join(each if each.startswith("`") else _linked(re.sub(word, key, each)) for each in outside)


def _linked(text: str) -> str:
    text = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"(openreview\.net/forum\?id=\w+)", r"[\1](https://\1)", text)


def _wrapped(text: str) -> str:
    """Break a paragraph into lines, none of which begins with a sign that Markdown would read."""
    glued = re.sub(r" ([*+=-]) ", "\0\\1\0", text)
    glued = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", "\0"), glued)
    lines = textwrap.wrap(glued, 120, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _yaml(value: Any) -> str:
    """Return a value as it is written in YAML, on one line."""
    if isinstance(value, str):
        return str(value).replace("\n", "\\n") or '""'
    if isinstance(value, list):
        value = [str(each) if isinstance(each, str) else each for each in value]  # values of enumerations too
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
