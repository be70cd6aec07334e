"""The speaker is bright and framed, the others are dark; boxes move between the seconds that they are known for."""

import numpy as np
import pytest

from lookhear.processing.avsr.media_avsr import probe_media, read_frames
from lookhear.processing.avsr.rendering_avsr import OUTLINE, box_at, outline_speaker, write_speaker_video, write_video

SECONDS = [
    {"second": 0, "box": [100, 100, 300, 400]},
    {"second": 1, "box": [140, 100, 340, 400]},
    {"second": 2, "box": None},
]


def test_boxes_move_evenly_between_the_middles_of_seconds():
    boxes = {row["second"]: np.array(row["box"], float) for row in SECONDS if row["box"]}
    assert [box_at(boxes, time)[0] for time in (0.0, 0.5, 0.75, 1.0, 1.25, 1.5)] == pytest.approx(
        [100, 100, 110, 120, 130, 140]
    )
    assert box_at(boxes, 1.9)[0] == pytest.approx(140)  # nothing is known of the next second
    assert box_at(boxes, 2.1) is None


def test_everything_but_the_speaker_is_darker():
    frames = [np.full((480, 640, 3), 200, np.uint8)] * 75
    drawn = list(outline_speaker(iter(frames), SECONDS, 25))
    assert len(drawn) == 75 and drawn[0].shape == (480, 640, 3)
    assert tuple(drawn[12][250, 200]) == (200, 200, 200)
    assert tuple(drawn[12][250, 101]) == OUTLINE and tuple(drawn[12][399, 200]) == OUTLINE
    assert tuple(drawn[12][250, 500]) == (90, 90, 90)
    assert (drawn[60] == 200).all()  # the speaker is not in view
    assert (frames[0] == 200).all()


def test_small_pictures_are_enlarged_and_boxes_with_them():
    frame = np.full((240, 320, 3), 200, np.uint8)
    (drawn,) = outline_speaker(iter([frame]), [{"second": 0, "box": [50, 50, 150, 200]}], 25)
    assert drawn.shape == (480, 640, 3)
    assert tuple(drawn[300, 101]) == OUTLINE and tuple(drawn[250, 200]) == (200, 200, 200)


def test_a_box_that_leaves_the_picture_is_cut_off():
    frame = np.full((480, 640, 3), 200, np.uint8)
    (drawn,) = outline_speaker(iter([frame]), [{"second": 0, "box": [-50, -50, 900, 900]}], 25)
    assert tuple(drawn[0, 0]) == OUTLINE and tuple(drawn[240, 320]) == (200, 200, 200)


def test_the_video_is_written_with_box_and_words(tmp_path):
    write_video(tmp_path / "in.mp4", [np.full((480, 640, 3), 200, np.uint8)] * 25, 25, np.zeros(16000, np.float32))
    chunks = [{"text": "bin", "timestamp": (0.1, 0.9), "confidence": 0.9}]
    result = {"text": "bin", "chunks": chunks, "report": {"speaker": {"seconds": SECONDS}}}
    path = write_speaker_video(tmp_path / "in.mp4", result, tmp_path / "out.mp4")
    assert probe_media(path).has_audio
    frame = list(read_frames(path))[12]
    assert frame[250, 500].mean() == pytest.approx(90, abs=6) and frame[250, 200].mean() == pytest.approx(200, abs=6)
    assert np.abs(frame[430:460, 280:360].astype(int) - 90).max() > 60  # a caption


def test_a_result_without_a_speaker_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the result has no speaker: call the pipeline with `speaker=`"):
        write_speaker_video(tmp_path / "in.mp4", {"text": "", "chunks": [], "report": {}}, tmp_path / "out.mp4")
