"""A corpus becomes shards and comes back the same; broken clips are noted; a second run only fills gaps."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import pytest

from lookhear.processing.avsr.clip_report_avsr import ClipReport
from lookhear.processing.avsr.rendering_avsr import write_video
from lookhear.training.avsr.corpora import Utterance, read_folder
from lookhear.training.avsr.pixels import GreyValues
from lookhear.training.avsr.prepare import (
    decode_row,
    encode_flac,
    load_prepared,
    parse_shard,
    prepare,
    prepare_clip,
    prepare_corpus,
    shard_files,
    summarize,
)


@dataclass
class Clip:
    mouths: np.ndarray
    landmarks: np.ndarray
    found: np.ndarray
    report: ClipReport


class CornerCrops:
    """Stands in for MouthRoiImageProcessor: the upper left corner of each frame, landmarks that count frames."""

    roi_size, mouth_width, smoothing_window, detect_every, fps, landmarks = 8, 4.0, 12, 10, 25.0, "dlib"

    def __init__(self):
        self.calls = 0

    def extract(self, frames, landmarks=None, fps_in=None):
        self.calls += 1
        mouths = np.stack([frame[:8, :8, 0] for frame in frames] or [np.zeros((8, 8), np.uint8)])
        landmarks = np.arange(len(mouths), dtype=np.float32)[:, None, None] + np.zeros((1, 68, 2), np.float32)
        found = mouths.mean(axis=(1, 2)) > 10  # a black picture has no face
        report = ClipReport(frames_with_face=0.5, warnings=["no face in 12 frames"], fps_in=fps_in)
        return Clip(mouths, landmarks, found, report)


def make_clip(path, frames=10, audio=True, shade=100):
    """`frames` grey frames, each 4 levels brighter than the one before, and a quiet tone."""
    pictures = (np.full((32, 48, 3), shade + 4 * number, np.uint8) for number in range(frames))
    tone = 0.25 * np.sin(np.arange(int(frames / 25 * 16000)) * 0.2).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, pictures, fps=25, audio=tone if audio else None)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Five clips: two good, one silent, one part of a file, one that is no video."""
    root = tmp_path_factory.mktemp("corpus")
    make_clip(root / "a.mp4", frames=10)
    make_clip(root / "b.mp4", frames=15)
    make_clip(root / "mute.mp4", frames=5, audio=False)
    (root / "broken.mp4").write_text("this is no video")
    words = [{"word": "set", "start": 0.0, "end": 0.2}, {"word": "blue", "start": 0.2, "end": 0.4}]
    rows = [
        {"file_name": "a.mp4", "text": "set blue", "words": words, "speaker": "s1"},
        {"file_name": "b.mp4", "text": "hello"},
        {"file_name": "broken.mp4", "text": "nothing"},
        {"file_name": "mute.mp4", "text": "quiet"},
        {"file_name": "b.mp4", "id": "part", "text": "hel", "start": 0.2, "end": 0.4},
    ]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def run(corpus, output, processor=None, **options):
    options = {"clips_per_shard": 2, "progress": False} | options
    return prepare_corpus(read_folder(corpus), output, processor or CornerCrops(), **options)


def test_rows_come_back_as_arrays(corpus, tmp_path):
    summary = run(corpus, tmp_path / "out")
    rows = {row["id"]: row for row in map(decode_row, load_prepared(tmp_path / "out", cache_dir=tmp_path / "cache"))}
    assert list(rows) == ["a", "b", "mute", "part"]
    a = rows["a"]
    assert a["text"] == "set blue" and a["speaker"] == "s1" and a["words"][1]["word"] == "blue"
    assert a["words"][1]["end"] == pytest.approx(0.4)
    assert a["mouths"].shape == (10, 8, 8) and a["mouths"].dtype == np.uint8
    assert np.abs(a["mouths"].mean(axis=(1, 2)) - (100 + 4 * np.arange(10))).max() < 6  # grey survives the video codec
    assert a["landmarks"].shape == (10, 68, 2) and (a["landmarks"][:, 0, 0] == np.arange(10)).all()
    assert a["audio"].dtype == np.float32 and abs(len(a["audio"]) - 6400) <= 16 and 0.2 < a["audio"].max() < 0.3
    assert a["sampling_rate"] == 16000 and a["duration"] == pytest.approx(0.4, abs=0.01)
    assert "no face in 12 frames" in a["report"]["warnings"]
    assert rows["mute"]["audio"] is None and rows["mute"]["mouths"].shape == (5, 8, 8)
    assert rows["mute"]["words"] is None and rows["mute"]["speaker"] is None
    assert (summary.clips, summary.problems, summary.shards, summary.with_face) == (4, 1, 3, 0.5)
    assert summary.warnings["no face in # frames"] == 4
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["clips"] == 4


def test_the_pixels_of_the_corpus_are_counted(corpus, tmp_path):
    """Mean and deviation of all crops that were stored, in one pile, whatever shards they are in."""
    summary = run(corpus, tmp_path)
    rows = [decode_row(row) for path in shard_files(tmp_path) for row in pq.read_table(path).to_pylist()]
    pile = np.concatenate([row["mouths"].ravel() for row in rows]) / 255
    assert summary.pixels == pile.size > 0
    assert (summary.pixel_mean, summary.pixel_std) == (pytest.approx(pile.mean()), pytest.approx(pile.std()))
    assert f"mean {pile.mean():.4f}, standard deviation {pile.std():.4f}" in str(summary)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert (written["pixels"], written["pixel_mean"]) == (summary.pixels, summary.pixel_mean)
    for path in shard_files(tmp_path):  # as they were before pixels were counted
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({}), path)
    again = summarize(tmp_path)
    assert (again.pixels, again.pixel_mean, again.pixel_std) == (summary.pixels, summary.pixel_mean, summary.pixel_std)


def test_black_frames_do_not_count():
    grey = GreyValues.of()
    grey.add(np.stack([np.zeros((2, 2), np.uint8), np.array([[0, 255], [255, 255]], np.uint8)]))
    assert (grey.pixels, grey.mean, grey.deviation) == (4, 0.75, pytest.approx(np.sqrt(3) / 4))
    assert np.isnan(GreyValues.of().mean)


def test_a_part_of_a_file_is_cut_out_of_sound_and_picture_alike(corpus, tmp_path):
    run(corpus, tmp_path)
    rows = {row["id"]: decode_row(row) for path in shard_files(tmp_path) for row in pq.read_table(path).to_pylist()}
    assert (rows["part"]["mouths"] == rows["b"]["mouths"][5:10]).all()
    assert np.abs(rows["part"]["audio"] - rows["b"]["audio"][3200:6400]).max() < 1e-6


def test_bad_clips_are_written_down_with_their_reason(corpus, tmp_path):
    run(corpus, tmp_path)
    (problem,) = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert problem["id"] == "broken" and "broken.mp4" in problem["problem"]


def test_finished_shards_are_kept_and_missing_ones_made(corpus, tmp_path):
    run(corpus, tmp_path)
    files = shard_files(tmp_path)
    kept = [path.stat().st_mtime_ns for path in files]
    files[1].unlink()
    with pytest.raises(ValueError, match="2 of 3 shards"):
        load_prepared(tmp_path)
    processor = CornerCrops()
    assert run(corpus, tmp_path, processor).clips == 4
    assert processor.calls == 1  # shard 1 holds the broken clip and the silent one
    assert [path.stat().st_mtime_ns for path in (files[0], files[2])] == [kept[0], kept[2]]
    assert not list(tmp_path.glob(".*tmp"))


def test_jobs_of_an_array_share_one_folder(corpus, tmp_path):
    assert run(corpus, tmp_path, shard=(0, 2)).shards == 2  # shards 0 and 2
    assert run(corpus, tmp_path, shard=(1, 2)).clips == 4
    assert [path.name for path in shard_files(tmp_path)] == [f"clips-0000{n}-of-00003.parquet" for n in range(3)]


def test_a_folder_of_other_settings_is_refused(corpus, tmp_path):
    run(corpus, tmp_path)
    other = CornerCrops()
    other.roi_size = 16
    with pytest.raises(ValueError, match="roi_size 8 there, 16 now"):
        run(corpus, tmp_path, other)
    with pytest.raises(ValueError, match="clips_per_shard 2 there, 3 now"):
        run(corpus, tmp_path, clips_per_shard=3)


def test_an_interrupted_shard_leaves_nothing_behind(corpus, tmp_path):
    class Interrupted(CornerCrops):
        def extract(self, *args, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path, Interrupted())
    assert not shard_files(tmp_path) and not list(tmp_path.glob(".*tmp"))
    assert run(corpus, tmp_path).clips == 4


def test_a_missing_package_ends_the_run(corpus, tmp_path):
    class WithoutDlib(CornerCrops):
        def extract(self, *args, **kwargs):
            raise ImportError("pip install lookhear[face]")

    with pytest.raises(ImportError, match="face"):
        run(corpus, tmp_path, WithoutDlib())


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"")
    clips = [Utterance("x", tmp_path / "x.mp4", "text"), Utterance("y", tmp_path / "y.mp4", "text")]
    with pytest.raises(ValueError, match="no clip could be read.*x.mp4"):
        prepare_corpus(clips, tmp_path / "out", CornerCrops(), progress=False)
    with pytest.raises(ValueError, match="no utterances"):
        prepare_corpus([], tmp_path / "out", CornerCrops())


def test_a_clip_without_a_face_keeps_its_sound_only(tmp_path):
    black = make_clip(tmp_path / "black.mp4", frames=2, shade=0)
    row = decode_row(prepare_clip(Utterance("black", black, "text"), CornerCrops()))
    assert row["mouths"] is None and row["landmarks"] is None and len(row["audio"]) == 1280
    silent = make_clip(tmp_path / "silent.mp4", shade=0, frames=2, audio=False)
    with pytest.raises(ValueError, match="neither sound nor a face"):
        prepare_clip(Utterance("silent", silent, "text"), CornerCrops())


@pytest.mark.parametrize("shard", ["3/3", "1", "a/b", "-1/2", (2, 2)])
def test_wrong_shards_are_refused(shard):
    with pytest.raises(ValueError, match="shard"):
        parse_shard(shard)
    assert parse_shard("0/1") == (0, 1) and parse_shard(" 7/8 ") == (7, 8)


def test_prepare_refuses_an_unknown_corpus(tmp_path):
    with pytest.raises(ValueError, match="'lrs4'.*lrs3"):
        prepare("lrs4", tmp_path, tmp_path / "out")


def test_flac_scales_loud_clips_and_refuses_damaged_ones():
    loud = np.array([0.0, 2.0, -4.0, 1.0], np.float32)
    row = dict.fromkeys(("mouths", "mouth_shape", "landmarks")) | {"audio": encode_flac(loud), "report": "{}"}
    assert np.abs(decode_row(row)["audio"] - loud / 4).max() < 1e-4
    with pytest.raises(ValueError, match="finite"):
        encode_flac(np.array([0.0, np.nan], np.float32))


def test_folders_of_different_crops_do_not_mix(corpus, tmp_path):
    run(corpus, tmp_path / "one")
    other = CornerCrops()
    other.mouth_width = 9.0
    run(corpus, tmp_path / "two", other)
    with pytest.raises(ValueError, match="different crops"):
        load_prepared([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(ValueError, match="no prepared clips"):
        load_prepared(tmp_path / "three")


def test_streaming_gives_the_same_rows(corpus, tmp_path):
    run(corpus, tmp_path / "out")
    streamed = list(load_prepared([tmp_path / "out"], streaming=True))
    assert [row["id"] for row in streamed] == ["a", "b", "mute", "part"]
    assert decode_row(streamed[0])["mouths"].shape == (10, 8, 8)


@pytest.mark.slow
def test_processes_give_what_one_process_gives(corpus, tmp_path):
    """With the real image processor (each worker process imports it anew); these clips have no face."""
    options = {"roi_size": 16, "crop_size": 12, "mouth_width": 8.0, "clips_per_shard": 3, "progress": False}
    prepare("folder", corpus, tmp_path / "one", **options)
    summary = prepare("folder", corpus, tmp_path / "two", num_proc=2, **options)
    assert summary.clips == 3 and summary.problems == 2  # the broken one, and the silent one without a face
    for one, two in zip(shard_files(tmp_path / "one"), shard_files(tmp_path / "two"), strict=True):
        assert pq.read_table(one).equals(pq.read_table(two))


@pytest.mark.shared
@pytest.mark.slow
def test_a_grid_clip_becomes_a_row_with_a_mouth(shared):
    from lookhear.processing.avsr.processing_avsr import MouthRoiImageProcessor

    utterance = next(read_folder(shared / "data" / "grid_speakers"))
    processor = MouthRoiImageProcessor(roi_size=64, crop_size=56, mouth_width=36.0)
    row = decode_row(prepare_clip(utterance, processor))
    assert row["mouths"].shape == (75, 64, 64) and row["landmarks"].shape == (75, 68, 2)
    assert row["report"]["frames_with_face"] > 0.98 and len(row["audio"]) == pytest.approx(48000, abs=400)
    assert row["report"]["warnings"] == []
