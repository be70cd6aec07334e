"""Studies of small trainings: intervals, what is left to do, tables; and the rows of the speech paper's miniatures."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookhear.training.avsr.corpora import Utterance
from lookhear.training.avsr.prepare import PREPARED_SCHEMA, decode_row, load_prepared, shard_name
from lookhear.training.avsr.recipe import Recipe
from lookhear.training.recipe_reading import fill


@pytest.fixture
def study(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks" / "miniatures"))
    import study

    class Here:
        """Does jobs at once, in this process."""

        def __init__(self, *arguments, **settings): ...

        def __enter__(self):
            return self

        def __exit__(self, *error): ...

        def submit(self, work, job):
            future: Future = Future()
            try:
                future.set_result(work(job))
            except RuntimeError as error:
                future.set_exception(error)
            return future

    monkeypatch.setattr(study, "ProcessPoolExecutor", Here)
    return study


# ----------------------------------------------------------------------------------------------------------- intervals


def test_a_rate_is_all_errors_by_all_words(study):
    assert study.rate(np.array([[1, 0], [2, 3]]), np.array([6, 4])) == 6 / 20


def test_an_interval_is_that_of_the_draws(study):
    """
    One clip and two seeds, of which one errs: draws of two seeds have rates of 0, 1/2 and 1 with chances of 1/4, 1/2
    and 1/4, as have draws of two clips with one seed.
    """
    assert study.interval(np.array([[0], [1]]), np.array([1])) == (0, 1)
    assert study.interval(np.array([[0, 1]]), np.array([1, 1])) == (0, 1)
    assert study.interval(np.array([[1, 1], [1, 1]]), np.array([2, 2])) == (0.5, 0.5)


def test_an_interval_agrees_with_all_draws_counted(study):
    errors, lengths = np.array([[0, 1, 3], [2, 1, 1]]), np.array([3, 2, 4])
    rates = sorted(
        errors[np.ix_(seeds, clips)].sum() / (2 * lengths[list(clips)].sum())
        for seeds in np.ndindex(2, 2)
        for clips in np.ndindex(3, 3, 3)
    )
    low, high = np.quantile(rates, (0.025, 0.975))
    assert study.interval(errors, lengths) == pytest.approx((low, high), abs=0.03)


def test_an_interval_of_what_is_no_sum_draws_clips_and_trainings(study):
    """Two trainings of which each has a rate whatever is drawn; one whose rate is that of the draw."""
    assert study.interval_of_draws(np.array([[0.2] * 5, [0.4] * 5])) == (pytest.approx(0.2), pytest.approx(0.4))
    low, high = study.interval_of_draws(np.linspace(0, 1, 201)[None])
    assert (low, high) == (pytest.approx(0.025, abs=0.01), pytest.approx(0.975, abs=0.01))


def test_a_difference_is_taken_on_the_same_clips(study):
    """Clips differ much, trainings by one error on each: the difference is certain, though neither rate is."""
    one, other, lengths = np.array([[0, 9, 5]]), np.array([[1, 10, 6]]), np.array([10, 10, 10])
    low, high = study.interval(one, lengths)
    assert high - low > 0.5
    assert study.interval(one, lengths, other) == pytest.approx((-0.1, -0.1))


@pytest.mark.parametrize(
    ("ends", "wanted", "said"),
    [
        ((-0.3, -0.1), -1, "yes"),
        ((0.1, 0.3), 1, "yes"),
        ((-0.3, -0.1), 1, "no, the opposite"),
        ((0.1, 0.3), -1, "no, the opposite"),
        ((-0.1, 0.2), 1, "cannot be told apart"),
        ((0.0, 0.2), 1, "cannot be told apart"),
        ((0.1, 0.3), 0, ""),
    ],
)
def test_a_change_is_as_the_paper_says_only_where_zero_is_left_out(study, ends, wanted, said):
    assert study.says(ends, wanted) == said


# ------------------------------------------------------------------------------------------------------------- running


def test_a_study_resumes_and_a_failure_stops_only_what_needs_it(study, tmp_path, capsys):
    jobs = [study.Job("a", 0), study.Job("b", 0, (("a", 0),)), study.Job("c", 0), study.Job("d", 0, (("c", 0),))]
    results, done = study.Results(tmp_path), []

    def work(job, broken=("c",)):
        if job.name in broken:
            raise RuntimeError("no luck")
        done.append(job.name)
        results.write(job, {"clean": study.Errors([0], [1])})

    assert [job.name for job in study.run(jobs, results, work)] == ["c", "d"]
    assert done == ["a", "b"] and "c, seed 0: RuntimeError: no luck" in capsys.readouterr().err
    assert study.run(jobs, results, lambda job: work(job, ())) == []
    assert done == ["a", "b", "c", "d"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a-0.json", "b-0.json", "c-0.json", "d-0.json"]


def test_no_training_is_begun_after_the_minutes(study, tmp_path):
    jobs = [study.Job("a", seed) for seed in range(3)]
    assert study.run(jobs, study.Results(tmp_path), lambda job: pytest.fail("begun"), minutes=-1) == jobs


def test_figures_of_other_settings_are_refused(study, tmp_path):
    results = study.Results(tmp_path)
    results.write(study.Job("a", 0, about={"steps": 3}), {}, seconds=2)
    assert results.read(study.Job("a", 0, about={"steps": 3}))["seconds"] == 2
    with pytest.raises(ValueError, match=r"a-0\.json was measured with other settings: choose another --output"):
        results.read(study.Job("a", 0, about={"steps": 4}))


def test_a_table_has_figures_changes_and_what_is_missing(study, tmp_path):
    jobs, results = [study.Job(name, seed) for seed in (0, 1) for name in "abc"], study.Results(tmp_path)
    for job, errors in zip(jobs, ([4, 4], [1, 1], None, [2, 2], [1, 1], None), strict=True):
        if errors:
            results.write(job, {"clean": study.Errors(errors, [10, 10])})
    rows = [
        study.Row("a", "first"),
        study.Row("b", "second", "a", "-9", -1),
        study.Row("c", "third", "b", "-2", -1),
    ]
    lines = list(study.markdown(rows, jobs, results))
    assert lines[2] == "| `a` | first | 30.0 (20.0 to 40.0) | 40.0, 20.0 |  |  |  |"
    assert lines[3] == "| `b` | second | 10.0 (10.0 to 10.0) | 10.0, 10.0 | -20.0 (-30.0 to -10.0) | -9 | yes |"
    assert lines[4] == "| `c` | third | not measured |  |  | -2 |  |"
    lines = list(study.markdown(rows, jobs, results, changes=True))
    assert lines == ["| `b` | `a` | -20.0 (-30.0 to -10.0) | -9 | yes |", "| `c` | `b` | not measured | -2 |  |"]
    lines = list(study.markdown([rows[0], study.Row("b", "second", "a", "+9", 1)], jobs, results, right=True))
    assert lines[2] == "| `a` | first | 70.0 (60.0 to 80.0) | 60.0, 80.0 |  |  |  |"
    assert lines[3] == "| `b` | second | 90.0 (90.0 to 90.0) | 90.0, 90.0 | +20.0 (+10.0 to +30.0) | +9 | yes |"


# ---------------------------------------------------------------------------------------------------------------- rows


def test_each_row_is_a_training_and_each_training_has_a_recipe(study, repository):
    import speech

    jobs = speech.jobs_of(2)
    seen: set[tuple[str, int]] = set()
    for job in jobs:
        assert set(job.needs) <= seen, job.name
        seen.add(job.key)
        if job.name not in speech.SHARED and not job.seed:
            continue  # as with seed 1
        recipe = fill(Recipe, speech.recipe_of(job, Path("out")))
        assert recipe.training["output_dir"] == f"out/runs/{job.name}-{job.seed}"
        for source in recipe.model.initialise:
            assert tuple(Path(source["checkpoint"]).name.rsplit("-", 1))[0] in {name for name, _ in job.needs}
    shipped = {path.stem for path in (repository / "training/avsr/recipes/tables").glob("table*.yaml")}
    assert shipped - {"table5_conv"} == set(speech.TRAININGS) - set(speech.SHARED)
    for rows in (speech.WORDS, *speech.TABLES.values()):
        names = [row.name for row in rows]
        assert len(names) == len(set(names))
        for row in rows:
            assert (row.run or row.name) in speech.TRAININGS and row.against in (None, *names)
            assert row.condition == "clean" or (row.run or row.name) in speech.NOISY


def test_rows_differ_as_the_tables_recipes_do(study):
    import speech

    def config(name):
        return speech.small_recipe(name)["model"]["config"]

    assert [config(name)["ctc_loss_weight"] for name in ("table6_librilight", "table6_hybrid")] == [0.0, 0.2]
    assert config("table6_stft")["audio_config"] == {"front_end": "spectrogram"}
    depths = [config(name)["visual_config"]["layer_type"] for name in ("table5_resnet18", "table5_resnet50")]
    assert depths == ["basic", "bottleneck"]
    assert speech.small_recipe("table7_frozen")["model"]["freeze"] == ["model.encoder.visual_front_end"]
    assert speech.small_recipe("table9_audio_28h")["data"]["train"] == ["grid_share"]
    starts = speech.small_recipe("table3_audiovisual")["model"]["initialise"]
    assert [source["checkpoint"] for source in starts] == ["table6_hybrid", "table7_moco"]


# ------------------------------------------------------------------------------------------------------------- corpora


@pytest.fixture
def sentences(study, tmp_path) -> Path:
    """Two prepared clips of 30 frames, each frame as bright as its number, with words at 0.2 and 0.8 s."""
    words = [{"word": "bin", "start": 0.1, "end": 0.3}, {"word": "now", "start": 0.7, "end": 0.9}]
    mouths, landmarks = (
        np.arange(30, dtype=np.uint8)[:, None, None] + np.zeros((4, 4), np.uint8),
        np.zeros((30, 68, 2)),
    )
    row = dict.fromkeys(PREPARED_SCHEMA.names) | {"text": "bin now", "words": words, "duration": 1.2}
    row |= {"mouths": mouths.tobytes(), "mouth_shape": [30, 4, 4], "landmarks": landmarks.astype(np.float16).tobytes()}
    row |= {"report": json.dumps({"frames_with_face": 1.0})}
    rows = [row | {"id": str(number), "speaker": f"s{number % 4}"} for number in range(8)]
    folder = tmp_path / "sentences"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, PREPARED_SCHEMA), folder / shard_name(0, 1))
    settings = {"roi_size": 4, "mouth_width": 2.0, "fps": 25.0, "clips": 8, "clips_per_shard": 8}
    (folder / "prepare.json").write_text(json.dumps(settings))
    return folder


def ids(folder: Path) -> set[str]:
    return {row["id"] for shard in folder.glob("*.parquet") for row in pq.read_table(shard).to_pylist()}


def test_words_are_cut_out_with_their_middle_in_the_middle(study, sentences, tmp_path):
    import corpora

    folder = corpora.cut_words(sentences, tmp_path / "words")
    clips = [decode_row(row) for row in load_prepared(folder, cache_dir=tmp_path / "cache").select(range(2))]
    assert [(clip["id"], clip["text"]) for clip in clips] == [("0-0", "bin"), ("0-1", "now")]
    assert clips[1]["mouths"][:, 0, 0].tolist() == list(range(12, 27))  # around frame 20, 15 of them
    assert clips[0]["mouths"][:, 0, 0].tolist() == [0, 0, *range(0, 13)]  # around frame 5; there is none before 0
    assert json.loads((folder / "summary.json").read_text())["clips"] == 16


def test_shares_are_nested_and_made_once(study, sentences, tmp_path):
    import corpora

    half, quarter = (ids(corpora.take_share(sentences, tmp_path / str(s), s)) for s in (0.5, 0.25))
    assert len(half) == 4 and len(quarter) == 2 and quarter < half
    assert ids(corpora.take_speakers(sentences, tmp_path / "few", 2)) == {"0", "1", "4", "5"}
    before = (tmp_path / "few" / shard_name(0, 1)).stat().st_mtime_ns
    corpora.take_speakers(sentences, tmp_path / "few", 2)
    assert (tmp_path / "few" / shard_name(0, 1)).stat().st_mtime_ns == before


def test_clips_are_cut_to_their_words(study):
    import corpora

    words = [{"word": "bin", "start": 0.95, "end": 1.18}, {"word": "now", "start": 1.89, "end": 2.12}]
    cut = corpora.within_words(Utterance("a", Path("a.mp4"), "bin now", words=words))
    assert (cut.start, cut.end) == (pytest.approx(0.83), pytest.approx(2.24))
    assert [(word["start"], word["end"]) for word in cut.words] == [(0.12, 0.35), (1.06, 1.29)]
    with pytest.raises(ValueError, match=r"a\.mp4: the times of its words are needed"):
        corpora.within_words(Utterance("a", Path("a.mp4"), "bin now"))


# ------------------------------------------------------------------------------------------------------- scale of data


def test_the_study_of_scale_has_its_table_and_its_picture(study, tmp_path):
    import data_scale

    jobs, results = data_scale.jobs_of(2), study.Results(tmp_path / "results")
    assert [(job.name, job.seed) for job in jobs[:5]] == [
        ("scale_10", 1),
        ("scale_20", 1),
        ("scale_50", 1),
        ("scale_100", 1),
        ("scale_10", 2),
    ]
    for job, missed in ((jobs[0], 0.8), (jobs[4], 0.6)):
        results.write(job, {name: study.Errors([missed], [1.0]) for name in data_scale.MEASURES})
    lines = list(data_scale.table(jobs, results))
    assert lines[2] == "| 10 % | 2 |" + " 30.0 (20.0 to 40.0) |" * 4
    assert lines[3] == "| 20 % | 0 |" + " not measured |" * 4
    data_scale.plot(jobs, results, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes()[:4] == b"\x89PNG"


def test_average_precision_of_draws(study, monkeypatch):
    """By hand: of two pictures with a circle each, the one of the first is found; AP is the share of it in a draw."""
    import data_scale

    monkeypatch.setattr(data_scale, "DRAWS", 8)
    box = {"labels": ["circle"], "boxes": [(0, 0, 10, 10)]}
    found = [{**box, "scores": [0.9]}, {"labels": [], "boxes": [], "scores": []}]
    errors = data_scale.precision_errors([box, box], found)
    drawn = np.random.default_rng(0).integers(2, size=(8, 2))
    # half the objects are found, all results right: 51 of the 101 recalls 0, 0.01, … 1 are reached
    shares = {0: 1.0, 1: 51 / 101, 2: 0.0}
    assert errors.draws == pytest.approx([1 - shares[row] for row in drawn.sum(axis=1)])
    assert errors.errors == pytest.approx([50 / 101]) and errors.lengths == [1.0]


@pytest.mark.slow
def test_the_study_of_scale_trains_and_measures(study, tmp_path, monkeypatch):
    import data_scale

    monkeypatch.setattr(data_scale, "STILLS", 4)
    monkeypatch.setattr(data_scale, "VIDEOS", 1)
    monkeypatch.setattr(data_scale, "DRAWS", 3)
    jobs = data_scale.jobs_of(1, steps=0.004)[:1]
    results = study.Results(tmp_path / "results")
    assert study.run(jobs, results, lambda job: data_scale.work(job, tmp_path)) == []
    assert set(results.read(jobs[0])["figures"]) == set(data_scale.MEASURES)
    assert results.draws(jobs, "labels").shape == (1, 3) and results.draws(jobs, "sentences") is None
