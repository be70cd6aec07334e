"""Stored outputs of frozen parts: what they are, what they depend on, and a training that computes them once."""

import json
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from lookhear.modeling.avsr.encoder_avsr import AvsrEncoder
from lookhear.processing.avsr import AvsrProcessor, AvsrTokenizer
from lookhear.training.avsr import feature_writing
from lookhear.training.avsr.digests import digest_of_shards, digest_of_weights
from lookhear.training.avsr.examples import ClipCollator
from lookhear.training.avsr.feature_writing import FeatureWriter, frozen_parts
from lookhear.training.avsr.features import EncodedClip, FeatureCollator
from lookhear.training.avsr.prepare_features import prepare_features
from lookhear.training.avsr.recipe import load_recipe
from lookhear.training.avsr.train import build_model, build_parts, train
from lookhear_command import main

PARTS = ("audio_front_end", "audio_encoder", "audio_norm", "visual_front_end", "visual_encoder", "visual_norm")
FROZEN = [f"model.encoder.{name}" for name in PARTS]
CLIPS = 6


@pytest.fixture
def recipe(tiny_recipe, prepared_folder, make_texts, spelled, tmp_path):
    """The file of a recipe of stage 3 on clips of several lengths, one of which has no face and one no sound."""
    texts = [*make_texts(CLIPS - 2), "ET", "OA"]
    clips = [spelled(text, number) for number, text in enumerate(texts)]
    clips[1], clips[2] = (clips[1][0], None), (None, clips[2][1])
    folder = prepared_folder(tmp_path / "data", texts, clips=clips)
    content = tiny_recipe(folder, tmp_path / "run", max_steps=4, eval_strategy="steps", eval_steps=4)
    content["training"] |= {"save_strategy": "no", "disable_tqdm": True}
    content["model"] = content["model"] | {"freeze": FROZEN}
    content["data"]["validation"] = content["data"]["train"]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def writer(recipe, tmp_path):
    """Makes the parts of a training and what writes its features; arguments are overrides of the recipe."""

    def make(*overrides: str):
        loaded = load_recipe(recipe, [f"data.cache_features={tmp_path / 'features'}", *overrides])
        parts = build_parts(loaded)
        return parts, FeatureWriter(parts.model, parts.processor, loaded, parts.arguments, progress=False)

    return make


def losses(trainer) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history for name in ("loss", "eval_loss") if name in entry]


def test_a_training_reads_what_it_computed_once(recipe, tmp_path, monkeypatch):
    """Two versions of the clips, three steps an epoch: the losses of recomputing, with dropout, and the same WER."""
    dropout = "model.config.dropout=0.1"
    features = [dropout, f"data.cache_features={tmp_path / 'features'}", "data.feature_versions=2"]
    plan = load_recipe(recipe, [dropout])
    computed = train(plan)
    written = train(load_recipe(recipe, [*features, f"training.output_dir={tmp_path / 'written'}"]))
    assert len(losses(computed)) == 5 and losses(written) == pytest.approx(losses(computed), rel=2**-8)
    assert losses(written) != losses(computed)  # they come from bfloat16

    torch.manual_seed(plan.training["seed"])
    before, after = build_model(plan.model).state_dict(), written.model.state_dict()
    for name, value in before.items():
        if name.startswith(tuple(FROZEN)):
            assert torch.equal(value, after[name]), name

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(AvsrEncoder, "encode_modalities", fail)
    read = train(load_recipe(recipe, [*features, f"training.output_dir={tmp_path / 'read'}"]))
    assert losses(read) == losses(written)
    assert all(torch.equal(value, after[name]) for name, value in read.model.state_dict().items())


@torch.no_grad()
def test_stored_clips_are_those_of_each_clip_alone(writer):
    """Neither the batch nor its padding counts; a clip without sound has none, and words and text stay."""
    parts, features = writer("data.feature_versions=2", "augmentation.noise_probability=1.0")
    stored = features.store("train", parts.train)
    assert len(stored) == CLIPS
    encoder = parts.model.get_encoder()
    for epoch in (0, 1, 2, 3):
        stored.set_epoch(epoch)
        parts.train.set_epoch(epoch % 2)
        for place in range(CLIPS):
            clip, found = parts.train[place], stored[place]
            inputs = {k: v for k, v in ClipCollator(parts.processor)([clip]).items() if k != "labels"}
            expected = {
                name: out.last_hidden_state[0] for name, (out, _) in encoder.encode_modalities(**inputs).items()
            }
            assert (found.text, found.frames) == (clip.text, clip.frames)
            assert [word for word, *_ in found.words] == clip.text.split()
            assert found.words[0][1:] == pytest.approx(clip.words[0][1:])
            for name, states in (("audio", found.audio), ("visual", found.visual)):
                assert (states is None) == (name not in expected)
                if states is not None:
                    assert states.dtype == torch.bfloat16
                    torch.testing.assert_close(states.float(), expected[name], rtol=2**-8, atol=1e-3)
    assert stored[1].visual is None and stored[2].audio is None
    validation = features.store("validation", parts.validation)
    assert validation[0].frames == parts.validation[0].frames


def test_a_batch_of_stored_clips():
    """Both modalities get the length of the longest, and each clip's mask its own."""
    processor = AvsrProcessor.__new__(AvsrProcessor)
    processor.tokenizer = AvsrTokenizer()
    times = (("AT", 0.0, 0.08),)
    clips = [
        EncodedClip("AT", 2, torch.full((2, 3), 1.0).bfloat16(), torch.full((1, 3), 2.0).bfloat16(), times),
        EncodedClip("A", 4, None, torch.full((4, 3), 3.0).bfloat16()),
    ]
    batch = FeatureCollator(processor, steps_per_second=25)(clips)
    assert batch["labels"].shape == (2, 3)
    assert batch["audio_encodings"][:, :, 0].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert batch["visual_encodings"][:, :, 0].tolist() == [[2, 0, 0, 0], [3, 3, 3, 3]]
    assert batch["audio_encoding_mask"].sum(dim=1).tolist() == [2, 0]
    assert batch["visual_encoding_mask"].sum(dim=1).tolist() == [1, 4]
    ids = processor.tokenizer("AT").input_ids[:-1]
    assert batch["alignment_labels"].tolist() == [[*ids, -100, -100], [-100] * 4]
    assert "audio_encodings" not in FeatureCollator(processor)(clips[1:])


def test_an_interrupted_writing_resumes(writer, monkeypatch):
    """Shards of two clips; the second is broken off, and of a third job's part only what is missing is made."""
    monkeypatch.setattr(feature_writing, "CLIPS_PER_SHARD", 2)
    parts, features = writer()
    rows, made = FeatureWriter.compute, []

    def counted(self, clips, places):
        for place, row in zip(places, rows(self, clips, places)):
            if len(made) == 3:
                raise RuntimeError("killed")
            made.append(place)
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "compute", counted)
        with pytest.raises(RuntimeError, match="killed"):
            features.write("train", parts.train)
    folder = features.shards_of("train", parts.train)[0].folder
    assert made == [0, 1, 2] and [path.name for path in sorted(folder.iterdir())] == [
        "features.json",
        "version0-00000-of-00003.parquet",
    ]
    first = (folder / "version0-00000-of-00003.parquet").stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"has 1 of 3 shards of features; run the same `lookhear prepare features`"):
        features.read("train", parts.train)
    features.write("train", parts.train, (2, 3))
    assert not (folder / "version0-00001-of-00003.parquet").exists()
    assert features.summarize("train", parts.train).startswith(f"{folder}: 2 of 3 shards, 6 clips, 0.00 GB")
    stored = features.store("train", parts.train)
    assert (folder / "version0-00000-of-00003.parquet").stat().st_mtime_ns == first
    assert [stored[place].text for place in range(CLIPS)] == [parts.train[place].text for place in range(CLIPS)]


@pytest.mark.slow
def test_a_killed_process_resumes(tiny_recipe, prepared_folder, make_texts, tmp_path):
    """SIGKILL once the first of three shards is there; the second run leaves it alone and ends with all clips."""
    folder = prepared_folder(tmp_path / "data", make_texts(450))
    content = tiny_recipe(folder, tmp_path / "run")
    content["model"] = content["model"] | {"freeze": FROZEN}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "lookhear", "prepare", "features", str(path)]
    first = tmp_path / "killed" / "train" / "version0-00000-of-00003.parquet"
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 280
    while not first.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert len(list(first.parent.glob("*.parquet"))) < 3
    made = first.stat().st_mtime_ns
    for name in ("killed", "whole"):
        done = subprocess.run(
            [*command, str(tmp_path / name)], capture_output=True, text=True, timeout=280, check=True
        )
        assert "train: 3 of 3 shards, 450 clips" in done.stdout
    assert first.stat().st_mtime_ns == made
    for shard in sorted(first.parent.glob("*.parquet")):
        assert pq.read_table(shard).equals(pq.read_table(tmp_path / "whole" / "train" / shard.name))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("augmentation.flip=0.1", r"augmentation\.flip 0\.5 there, 0\.1 now"),
        ("data.word_window=0.5", r"data\.word_window None there, 0\.5 now"),
        ("training.seed=4", "weights .* there, .* now; training.seed 3 there, 4 now"),
        ("training.bf16=true", r"precision torch\.float32 there, torch\.bfloat16 now"),
        ("model.image_processor.image_std=0.2", r"image_std 0\.1688 there, 0\.2 now"),
        ("data.feature_versions=2", r"data\.feature_versions 1 there, 2 now"),
        ("model.config.audio_config.num_mel_bins=20", r"model\.config\.audio_config\.num_mel_bins 16 there, 20 now"),
    ],
)
def test_features_of_something_else_are_refused(writer, change, named):
    parts, features = writer()
    features.claim(features.shards_of("train", parts.train)[0].folder, parts.train)
    parts, features = writer(change)
    with pytest.raises(ValueError, match=rf"features/train was begun with .*{named}.*; choose another data\.cache_fe"):
        features.write("train", parts.train)


def test_what_does_not_change_features_is_not_compared(writer):
    for change in ("training.max_steps=9", "model.config.dropout=0.3", "model.config.ctc_loss_weight=0.5"):
        parts, features = writer(change, "training.data_seed=1", "training.seed=3")
        features.claim(features.shards_of("train", parts.train)[0].folder, parts.train)
    parts, features = writer("augmentation.flip=0.1")  # validation clips are not augmented
    features.claim(features.shards_of("validation", parts.validation)[0].folder, parts.validation)
    parts, features = writer()
    features.claim(features.shards_of("validation", parts.validation)[0].folder, parts.validation)


def test_digests_see_each_bit(prepared_folder, tmp_path, spelled):
    sound, mouths = spelled("ET", 0)
    louder = sound.copy()
    louder[7] += 0.01
    first, second, third = (
        prepared_folder(tmp_path / name, ["ET"], clips=[(audio, mouths)])
        for name, audio in (("a", sound), ("b", sound), ("c", louder))
    )
    digests = [digest_of_shards(sorted(folder.glob("*.parquet"))) for folder in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]
    layer = torch.nn.Linear(2, 2)
    before = digest_of_weights({"layer": layer})
    with torch.no_grad():
        layer.bias[1] = torch.nextafter(layer.bias[1], torch.tensor(9.0))
    assert digest_of_weights({"layer": layer}) != before


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ([f"model.freeze={json.dumps(FROZEN[:-1])}"], r"add model\.encoder\.visual_norm to model\.freeze"),
        (["model.freeze=[]"], r"add model\.encoder\.audio_encoder, model\.encoder\.visual_front_end, "),
        (["model.config.layout=reference"], "data.cache_features is for layout 'paper'"),
        (["model.config.modality=audio", "model.freeze=[model.encoder]"], None),
        (["model.freeze=[model]"], None),
    ],
)
def test_only_frozen_parts_are_stored(recipe, overrides, named):
    plan = load_recipe(recipe, overrides)
    model = build_model(plan.model)
    if named is None:
        assert frozen_parts(model, plan.model.freeze)
    else:
        with pytest.raises(ValueError, match=named):
            frozen_parts(model, plan.model.freeze)


def test_features_of_words_or_of_another_system_are_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match="features are for the task 'recognition'"):
        prepare_features(recipe, tmp_path / "out", ["model.task=words"])
    with pytest.raises(ValueError, match="data.cache_features is for the task 'recognition'"):
        from lookhear.training.avsr.train import main as train_by

        train_by(recipe, ["model.task=words", "data.cache_features=out"])
    with pytest.raises(ValueError, match=r"'stage1_lite\.yaml' is of glee"):
        prepare_features("stage1_lite.yaml", tmp_path / "out")
    with pytest.raises(ValueError, match="shard 2/2 does not exist"):
        prepare_features(recipe, tmp_path / "out", shard="2/2")
    assert not (tmp_path / "out").exists()


def test_command(recipe, tmp_path, capsys):
    """`lookhear prepare features` writes what the training reads."""
    out = tmp_path / "features"
    assert main(["prepare", "features", str(recipe), str(out), "data.feature_versions=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{out / 'train'}: 2 of 2 shards, 6 clips in 2 versions, 0.00 GB",
        f"{out / 'validation'}: 1 of 1 shards, 6 clips, 0.00 GB",
    ]
    assert main(["prepare", "features", str(recipe), str(out), "--roi-size", "20"]) == 2
    assert "--roi-size is for a corpus; features follow the recipe" in capsys.readouterr().err
    assert main(["prepare", "folder", str(tmp_path), str(out), "training.seed=1"]) == 2
    assert "'training.seed=1' is one argument too many" in capsys.readouterr().err
