"""The text of each token, from the tokenizer of the run's model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from rlsync.errors import RlsyncError
from rlsync.paths import expanded
from rlsync.report.rollout_line import RolloutLine
from rlsync.telemetry.names import CHECKPOINTS

_FILE, _UNKNOWN = "tokenizer.json", "\N{REPLACEMENT CHARACTER}"
_MARKED_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What a SentencePiece token begins with if a space stands before it."""
_LONGEST_CHARACTER = 8
"""Largest number of tokens that are tried as the bytes of one character."""


class Decoder(Protocol):
    """The part of a tokenizer that a report needs."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of token ids."""

    def convert_ids_to_tokens(self, token: int) -> str | None:
        """Return a token as the vocabulary spells it."""


class _FastDecoder:
    """Decodes with tokenizer.json alone, without transformers, whose import takes seconds."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def convert_ids_to_tokens(self, token: int) -> str | None:
        return self._tokenizer.id_to_token(token)


class Pieces:
    """Splits the text of a sequence into the texts of its tokens.

    Args:
        decoder: The tokenizer.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._alone: dict[int, str] = {}

    def text(self, ids: list[int], *, special: bool = True) -> str:
        """Return the text of token ids; `special`: with special tokens."""
        return self._decoder.decode(ids, skip_special_tokens=not special)

    def texts(self, ids: list[int]) -> list[str]:
        """Return a text for each token. A character of several tokens stands at the first, the others are empty."""
        found = [self._single(token) for token in ids]
        place = 0
        while place < len(ids):
            if _UNKNOWN not in found[place]:
                place += 1
                continue
            place += self._join(ids, found, place)
        return found

    def _join(self, ids: list[int], found: list[str], begin: int) -> int:
        """Put the text of a character into `found`, and return the number of its tokens."""
        for size in range(2, _LONGEST_CHARACTER + 1):
            text = self.text(ids[begin : begin + size])
            if _UNKNOWN not in text:
                found[begin : begin + size] = [text, *[""] * (len(ids[begin : begin + size]) - 1)]
                return size
        return 1

    def _single(self, token: int) -> str:
        if token not in self._alone:
            text, piece = self.text([token]), self._decoder.convert_ids_to_tokens(token) or ""
            spaced = piece.startswith(_MARKED_SPACE) and not text.startswith(" ")
            self._alone[token] = f" {text}" if spaced else text
        return self._alone[token]

    def explain(self, lines: list[RolloutLine]) -> bool:
        """Whether the rollouts' tokens decode to their texts, so that this is the tokenizer of their model."""
        try:
            return bool(lines) and all(self._explains(line) for line in lines)
        except Exception:  # noqa: BLE001  # ids that the tokenizer does not have raise many types
            return False

    def _explains(self, line: RolloutLine) -> bool:
        ids = line.tokens
        if None in line.bits:
            ids = ids[: line.bits.index(None)]
        text = line.turns[0] if line.turns else line.response
        return any(self.text(ids, special=special).startswith(text.strip()) for special in (False, True)) or (
            self.text(ids, special=False).strip().startswith(text.strip())
        )


def find_pieces(folder: Path, config: dict[str, str], lines: list[RolloutLine]) -> Pieces | None:
    """Return the texts of a run's tokens, or None if no tokenizer is found that explains some of its rollouts.

    Looked for are the run's checkpoints, its model, and the cache of tiny models. Nothing is downloaded.

    Args:
        folder: The run folder.
        config: The run's configuration, by dotted key.
        lines: Some rollouts of the run.
    """
    for load in _loaders(folder, config):
        try:
            pieces = Pieces(load())
        except Exception:  # noqa: BLE001  # a malformed tokenizer raises many types; another one may be found
            continue
        if pieces.explain(lines):
            return pieces
    return None


def _loaders(folder: Path, config: dict[str, str]) -> Iterator[Callable[[], Decoder]]:
    path = config.get("model.path", "")
    if config.get("model.source") == "tiny":
        elsewhere = sorted(expanded(config.get("model.cache_dir", "")).glob("tiny_*"))
    else:
        elsewhere = [model] if path and (model := _model_folder(path, config.get("model.revision"))) else []
    checkpoints = sorted((folder / CHECKPOINTS).glob("step_*"), key=lambda each: (len(each.name), each.name))
    for each in [*reversed(checkpoints), *elsewhere]:
        if (each / _FILE).is_file():
            yield partial(_FastDecoder, each / _FILE)
        elif each in elsewhere:
            yield partial(_slow_decoder, each)


def _model_folder(path: str, revision: str | None) -> Path | None:
    """Return the folder of a model; of a hub id the one in the hub's cache, if it is there."""
    if expanded(path).is_dir():
        return expanded(path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or no hub id at all
        return None


def _slow_decoder(folder: Path) -> Decoder:
    from rlsync.data.text import load_tokenizer  # imports transformers and torch

    tokenizer = load_tokenizer(str(folder))
    if not isinstance(tokenizer.decode([0]), str):
        raise RlsyncError(f"{folder}: its tokenizer returns no text")
    return tokenizer  # type: ignore[return-value]
