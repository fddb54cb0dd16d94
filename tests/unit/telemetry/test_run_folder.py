"""What a run folder keeps of an earlier part of its run."""

from rlsync.telemetry.run_folder import RunFolder, ended, results


def test_a_longer_run_ends_anew(tmp_path):
    first = RunFolder(tmp_path, "")
    assert results(tmp_path) is None
    first.write_metrics({"step": 1})
    first.write_summary({"steps": 1})
    first.close()
    assert results(tmp_path) == tmp_path / "metrics.jsonl"
    assert ended(tmp_path)
    RunFolder(tmp_path, "", done=1).close()
    assert not ended(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
