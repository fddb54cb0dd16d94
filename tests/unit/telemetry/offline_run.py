"""Reads back what an offline wandb run has written.

The file is a LevelDB log: after a header of seven bytes, blocks of 32 KiB with records, each with a checksum, a size
and a kind (whole, first, middle, last). A record is a protobuf message.
"""

import json
import struct
import time

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK, PREFIX = 7, 32 * 1024, 7
WHOLE, LAST = 1, 4
PATIENCE_S = 60


def records(folder):
    """The records of the only offline run in a run folder. wandb's own process may write them after the run's end."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + PATIENCE_S
    while not (found := _read(file.read_bytes())) or found[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline, f"the file has no end after {len(found)} records"
        time.sleep(0.05)
    return found


def _read(data):
    position, part, found = HEADER, b"", []
    assert data[:4] == b":W&B"[: len(data)]
    while position + PREFIX <= len(data):
        left = BLOCK - position % BLOCK
        if left < PREFIX:
            position += left
            continue
        size, kind = struct.unpack_from("<HB", data, position + 4)
        part += data[position + PREFIX : position + PREFIX + size]
        position += PREFIX + size
        if position > len(data):
            break  # not written yet
        if kind in (WHOLE, LAST):
            found.append(Record.FromString(part))
            part = b""
    return found


def of_kind(folder, kind):
    return [getattr(record, kind) for record in records(folder) if record.WhichOneof("record_type") == kind]


def config(folder):
    (run,) = of_kind(folder, "run")
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def history(folder):
    """The rows, with nested keys joined by colons."""
    return [
        {item.key or ":".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        for row in of_kind(folder, "history")
    ]


def table(folder, row):
    """The table of samples of a row of the history, as one dictionary for each sample."""
    (files,) = folder.glob("wandb/offline-run-*/files")
    content = json.loads((files / row["samples/table:path"]).read_text())
    return [dict(zip(content["columns"], cells, strict=True)) for cells in content["data"]]
