"""What TensorBoard would show, read back from its event files."""

import pytest

from rlsync.telemetry.alarms import Fired
from rlsync.telemetry.histograms import Histogram
from rlsync.telemetry.tensorboard_sink import TensorboardSink


def test_metrics_histograms_and_alarms(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorboardSink(tmp_path)
    histogram = Histogram(key="reward/histogram", counts=[3, 1], edges=[0.0, 0.5, 1.0])
    for step, reward in ((1, 0.25), (2, 0.5)):
        sink.log({"step": step, "reward/mean": reward}, [histogram])
    sink.alert(Fired(step=2, name="a", value=1.0, message="step 2: it happened.", actions=[]))
    sink.close()
    read = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0})
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("reward/mean")] == [(1, 0.25), (2, 0.5)]
    assert "step" not in read.Tags()["scalars"]
    (first, _) = read.Histograms("reward/histogram")
    assert (first.histogram_value.num, first.histogram_value.min, first.histogram_value.max) == (4, 0.0, 1.0)
    assert "alarms/a/text_summary" in read.Tags()["tensors"]
