"""Recipes: what is wrong in one is named, and every shipped one can be built."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import lookhear
from lookhear.modeling.avsr import AvsrConfig
from lookhear.processing.avsr import MouthRoiImageProcessor
from lookhear.training.avsr.initialise import select_modules
from lookhear.training.avsr.prepare import check_geometry, corpus_statistics, load_prepared, summarize
from lookhear.training.avsr.recipe import AugmentationRecipe, load_recipe
from lookhear.training.avsr.train import build_model, build_processor, load_rows, train
from lookhear.training.avsr.train_words import build_classifier, train_words, word_classes
from lookhear.training.running import training_arguments

FOLDER = Path(lookhear.__file__).parent / "training" / "avsr" / "recipes"
SHIPPED = sorted(path.name for path in FOLDER.glob("*.yaml"))
LAUGHS = "a0: &a0 [1]\n"  # each line repeats the one before ten times
LAUGHS += "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))


@pytest.fixture
def write(tmp_path):
    def write(content) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"modle": {}}, r"recipe has no field 'modle'; it has model, data, augmentation, training"),
        ({"model": {"colour": 1}}, r"model has no field 'colour'; it has task, checkpoint, config"),
        ({"data": {"trian": []}}, r"data has no field 'trian'.*; did you mean 'train'\?"),
        ({"augmentation": {"flipp": 1, "a": 2}}, r"augmentation has no field 'a', 'flipp'.*; did you mean 'flip'\?"),
        ({"model": ["config"]}, r"model must be a mapping of task, checkpoint"),
        ("- a\n- b\n", r"must have the sections model, data"),
        ("model: [unclosed", r"recipe\.yaml' is not YAML"),
        ("[" * 600, r"recipe\.yaml' is not YAML"),
        ("training: &a {output_dir: *a}", r"recipe\.yaml' has more than 100000 values, or is a part of itself"),
        (LAUGHS, r"recipe\.yaml' has more than 100000 values"),
    ],
)
def test_what_is_wrong_is_named(write, content, named):
    with pytest.raises(ValueError, match=named):
        load_recipe(write(content))


def test_missing_file_lists_the_shipped_ones(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.yaml' is not a file.*grid_tiny\.yaml.*lrw_words\.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "override", ["max_steps=3", "training.max_steps", "=", "model.task.deep=1", "training.seed.deep=1", "data=1"]
)
def test_overrides_that_lead_nowhere_are_named(write, override):
    with pytest.raises(ValueError, match=f"override '{override}'"):
        load_recipe(write({"model": {"task": "words"}, "training": {"seed": 1}}), [override])


def test_override_of_an_unknown_field_is_named(write):
    with pytest.raises(ValueError, match="data has no field 'folder'"):
        load_recipe(write({}), ["data.folder=x"])


def test_overrides_are_yaml(write):
    overrides = [
        "training.max_steps=7",
        "model.config.modality=audio",
        "data.train=[a, b]",
        "augmentation.noise_snr=[-5, 5]",
        "augmentation.silence=true",
    ]
    recipe = load_recipe(write("training:\nmodel: {config: {hidden_size: 8}}\n"), overrides)
    assert recipe.training == {"max_steps": 7} and recipe.data.train == ["a", "b"]
    assert recipe.model.config == {"hidden_size": 8, "modality": "audio"}
    assert recipe.augmentation.silence is True and list(recipe.augmentation.noise_snr) == [-5, 5]


def test_an_empty_recipe_is_the_paper(write):
    recipe = load_recipe(write(""))
    noise = recipe.augmentation
    assert (noise.noise_probability, noise.noise_snr, noise.noise_talkers) == (0.25, (5.0, 5.0), (20, 20))
    assert (noise.flip, noise.speed, noise.splice_probability, recipe.data.max_frames) == (0.5, (1.0, 1.0), 0.0, 160)
    assert len(fields(AugmentationRecipe)) >= 10 and recipe.training == {}


def test_unknown_training_argument_is_named(write, tmp_path):
    recipe = load_recipe(write({"training": {"output_dir": str(tmp_path), "learning_speed": 1}}))
    with pytest.raises(ValueError, match="training: .*learning_speed"):
        training_arguments(recipe.training)


WRONG_TRAINING = {
    "learning_rate=0": "training.learning_rate must be above 0, not 0",
    "learning_rate=fast": "training.learning_rate must be a number, not 'fast'",
    "num_train_epochs=-1": "training.num_train_epochs must be above 0, not -1",
    "per_device_train_batch_size=0": "training.per_device_train_batch_size must be at least 1, not 0",
    "weight_decay=-0.1": "training.weight_decay must be at least 0, not -0.1",
    "adam_beta2=1": "training.adam_beta2 must be at least 0 and below 1, not 1",
}


@pytest.mark.parametrize("override", WRONG_TRAINING)
def test_a_training_argument_out_of_range_is_refused(write, override):
    recipe = load_recipe(write({}), [f"training.{override}"])
    with pytest.raises(ValueError) as refused:
        training_arguments(recipe.training)
    assert str(refused.value) == WRONG_TRAINING[override]


WRONG = {
    "data.max_frames=abc": "data.max_frames must be a whole number, not 'abc'",
    "data.max_frames=1.5": "data.max_frames must be a whole number, not 1.5",
    "data.max_frames=true": "data.max_frames must be a whole number, not True",
    "data.max_frames=null": "data.max_frames must be a whole number, not None",
    "data.train=prepared/grid": "data.train must be a list (of each item: text), not 'prepared/grid'",
    "data.train=[a, 3]": "data.train[1] must be text, not 3; write it in quotes",
    "data.word_window=third": "data.word_window must be a number or null, not 'third'",
    "data.min_frames_with_face=[0.5]": "data.min_frames_with_face must be a number, not [0.5]",
    "augmentation.flip=[1,2]": "augmentation.flip must be a number, not [1, 2]",
    "augmentation.flip=yes": "augmentation.flip must be a number, not True",
    "augmentation.silence=[1,2]": "augmentation.silence must be true or false, not [1, 2]",
    "augmentation.silence=1": "augmentation.silence must be true or false, not 1",
    "augmentation.crop_jitter=2.5": "augmentation.crop_jitter must be a whole number or null, not 2.5",
    "augmentation.noise_snr=5": "augmentation.noise_snr must be a list of 2 (a number, a number), not 5",
    "augmentation.noise_snr=[5]": "augmentation.noise_snr must be a list of 2 (a number, a number), not [5]",
    "augmentation.noise_snr=[5, low]": "augmentation.noise_snr[1] must be a number, not 'low'",
    "augmentation.noise_talkers=[1.5, 2]": "augmentation.noise_talkers[0] must be a whole number, not 1.5",
    "augmentation.speed={least: 1}": "augmentation.speed must be a list of 2 (a number, a number), not {'least': 1}",
    "model.task=song": "model.task must be 'recognition' or 'words', not 'song'",
    "model.task=[words]": "model.task must be 'recognition' or 'words', not ['words']",
    "model.checkpoint=2024": "model.checkpoint must be text or null, not 2024; write it in quotes",
    "model.config=small": "model.config must be a mapping (of each value: anything), not 'small'",
    "model.initialise=[tiny]": "model.initialise[0] must be a mapping (of each value: anything), not 'tiny'",
    "model.freeze=model.encoder": "model.freeze must be a list (of each item: text), not 'model.encoder'",
    "data.train=[a": "override 'data.train=[a' is not YAML: while parsing a flow sequence",
    "data.max_frame=100": "data has no field 'max_frame'; it has train, validation, min_frames_with_face, max_frames, "
    "word_window, cut_long_clips, aligner, word_times, cache_features, feature_versions, held_speakers; did you mean "
    "'max_frames'?",
    "evaluation.num_beams=0": "evaluation.num_beams must be at least 1, not 0",
    "evaluation.beams=5": "evaluation has no field 'beams'; it has num_beams, by_folder; did you mean 'num_beams'?",
    "data.max_frames=0": "data.max_frames must be at least 1, not 0",
    "data.min_frames_with_face=1.5": "data.min_frames_with_face must be from 0 to 1, not 1.5",
    "data.word_window=0": "data.word_window must be above 0 and at most 1, not 0",
    "data.cut_long_clips=cut": "data.cut_long_clips must be 'leave_out' or 'alignment', not 'cut'",
    "data.cut_long_clips=alignment": "data.cut_long_clips: alignment and data.aligner, a recogniser's folder or Hub "
    "id, go together: set both or neither",
    "data.held_speakers=[a]": "data.held_speakers are measured with evaluation.by_folder: set it to true",
    "non_speech.share=1": "non_speech.share must be at least 0 and below 1, not 1",
    "non_speech.views=[1, 2]": "non_speech.views must be a list of 3 (a number, a number, a number), not [1, 2]",
    "augmentation.pitch=[0.9, 3]": "augmentation.pitch[1] must be from 0.5 to 2, not 3",
    "augmentation.slow_rates=[0, 20]": "augmentation.slow_rates[0] must be above 0 and at most 25, not 0",
    "data.feature_versions=2": "data.feature_versions is of data.cache_features: set both, or leave it out",
    "augmentation.flip=-0.1": "augmentation.flip must be from 0 to 1, not -0.1",
    "augmentation.flip=.nan": "augmentation.flip must be from 0 to 1, not nan",
    "augmentation.crop_jitter=-1": "augmentation.crop_jitter must be at least 0, not -1",
    "augmentation.noise_snr=[20, -5]": "augmentation.noise_snr must have the lower number first, not [20, -5]",
    "augmentation.noise_talkers=[0, 3]": "augmentation.noise_talkers[0] must be at least 1, not 0",
    "augmentation.speed=[0, 1]": "augmentation.speed[0] must be above 0, not 0",
    "model.config.hidden_sise=8": "model.config has no field 'hidden_sise'; did you mean 'hidden_size'?",
    "model.config.visual_config.depth=[1]": "model.config.visual_config has no field 'depth'; did you mean 'depths'?",
    "model.config.audio_config={encoder_config: {model_type: wav2vec2, layerdrp: 0}}": "model.config.audio_config."
    "encoder_config has no field 'layerdrp'; did you mean 'layerdrop'?",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_refused_with_field_value_and_type(write, override):
    with pytest.raises(ValueError) as refused:
        load_recipe(write({}), [override])
    assert str(refused.value).startswith(WRONG[override]) and "\n" not in str(refused.value)


def test_a_wrong_value_in_the_file_is_refused(write):
    with pytest.raises(ValueError, match="data.max_frames must be a whole number, not 'abc'"):
        load_recipe(write("data: {max_frames: abc}"))


@pytest.mark.parametrize("number", ["5e-4", "1e-7", "1e-2", "+1e3", "-2E5", "1.5e3", "1.e2", ".5e-1", "1.0e-4"])
def test_a_number_with_an_exponent_is_a_number(write, number):
    assert load_recipe(write({}), [f"training.learning_rate={number}"]).training["learning_rate"] == float(number)
    recipe = load_recipe(
        write(f"augmentation: {{noise_snr: [{number}, 1e9]}}\ntraining:\n  learning_rate: {number}\n")
    )
    assert recipe.training["learning_rate"] == recipe.augmentation.noise_snr[0] == float(number)


@pytest.mark.parametrize("text", ["e4", "5e", "5e-4x", "runs/5e-4", "5-4e", "model.e4"])
def test_what_only_looks_like_a_number_stays_text(write, text):
    assert load_recipe(write({}), [f"model.checkpoint={text}"]).model.checkpoint == text


def test_values_have_the_types_of_their_fields(write):
    recipe = load_recipe(write({}), ["data.max_frames=1e2", "augmentation.noise_talkers=[2, 3]", "model.freeze=[]"])
    assert recipe.data.max_frames == 100 and isinstance(recipe.data.max_frames, int)
    assert recipe.augmentation.noise_talkers == (2, 3) and recipe.model.freeze == []


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_a_field_that_transformers_renamed_goes_by_either_name(name, tmp_path, recwarn):
    arguments = training_arguments({"output_dir": str(tmp_path), "use_cpu": True, name: True})
    assert arguments.gradient_checkpointing is True
    assert not [str(warning.message) for warning in recwarn if "checkpointing" in str(warning.message)]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("learning_rate=fast", "training.learning_rate must be a number, not 'fast'"),
        ("max_steps=1.5", "training.max_steps must be a whole number, not 1.5"),
        ("bf16=[1]", r"training.bf16 must be true or false, not \[1\]"),
        ("learning_rates=1", "no field 'learning_rates'; did you mean 'learning_rate'"),
    ],
)
def test_wrong_training_arguments_are_refused(write, tmp_path, given, named):
    recipe = load_recipe(write({"training": {"output_dir": str(tmp_path)}}), [f"training.{given}"])
    with pytest.raises(ValueError, match=named):
        training_arguments(recipe.training)


def test_bfloat16_needs_a_gpu_that_computes_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr("lookhear.training.running.is_torch_bf16_gpu_available", lambda: False)
    for name in ("bf16", "bf16_full_eval"):
        with pytest.raises(ValueError, match=rf"^training.{name}: this machine has no GPU .* training.use_cpu=true$"):
            training_arguments({"output_dir": str(tmp_path), name: True})
        assert getattr(training_arguments({"output_dir": str(tmp_path), name: True, "use_cpu": True}), name)


def test_the_example_of_the_commands_help_can_be_run(tmp_path):
    overrides = ["training.learning_rate=5e-4", f"training.output_dir={tmp_path}", "training.use_cpu=true"]
    assert training_arguments(load_recipe(FOLDER / "grid_tiny.yaml", overrides).training).learning_rate == 5e-4


def plain(value):
    """Tuples as lists, as YAML has them."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_keeps_its_values(name):
    recipe = plain(asdict(load_recipe(FOLDER / name)))
    for section, content in yaml.safe_load((FOLDER / name).read_text()).items():
        if section != "system":
            assert recipe[section] | content == recipe[section]


def test_the_recipe_that_goes_on_starts_from_the_packaged_checkpoint(repository, monkeypatch):
    monkeypatch.chdir(repository)
    recipe = load_recipe(FOLDER / "tuned" / "grid_tiny_quiet_on.yaml")
    model = build_model(recipe.model)
    assert model.config.empty_text_length == 22 and len(model.config.modality_loss_weights) == 3
    assert "intermediate_size" not in model.generation_config.to_dict()  # a field of the model is none of its search
    assert model.config.intermediate_size == 752 and recipe.augmentation.ramp_epochs == 0
    assert recipe.training["lr_scheduler_kwargs"] is None and recipe.non_speech.share > 0
    assert training_arguments({**recipe.training, "output_dir": "none"}).metric_for_best_model == "mean_wer"


def test_no_data_is_named(write):
    recipe = load_recipe(write({}))
    with pytest.raises(ValueError, match="data.train is empty"):
        load_rows(recipe.data.train, recipe.data)


def test_clips_without_a_face_are_left_out(prepared_folder, make_texts, write, tmp_path):
    folder = prepared_folder(tmp_path / "data", make_texts(6))
    recipe = load_recipe(write({"data": {"train": [str(folder)], "min_frames_with_face": 0.5}}))
    assert len(load_rows([str(folder)], recipe.data)) == 3
    assert len(load_rows([str(folder), str(folder)], load_recipe(write({})).data)) == 12


def test_long_clips_without_word_times_are_left_out_and_counted(prepared_folder, make_texts, write, tmp_path, caplog):
    """Six frames a word: three of six clips are 15 frames long, and only one of these can be cut."""
    texts = ["ET", "OA", "ET OA", "IN TE", "NO TA", "NE"]
    folder = prepared_folder(tmp_path / "data", texts)
    forget_words(folder, [0, 2, 3])
    recipe = load_recipe(write({"data": {"train": [str(folder)], "max_frames": 12}}))
    with caplog.at_level("WARNING"):
        rows = load_rows([str(folder)], recipe.data, training=True)
    assert rows["text"][:] == ["ET", "OA", "NO TA", "NE"]
    assert "2 of 6 clips are left out: more than data.max_frames (12) frames, and no word times" in caplog.text
    assert "1 of 4 clips have more than data.max_frames (12) frames and are cut between words" in caplog.text
    caplog.clear()
    assert len(load_rows([str(folder)], recipe.data)) == 6 and not caplog.text  # evaluation reads whole clips
    recipe.data.max_frames = 15  # exactly as long as the longest
    assert len(load_rows([str(folder)], recipe.data, training=True)) == 6 and not caplog.text
    forget_words(folder, range(6))
    recipe.data.max_frames = 5
    with pytest.raises(ValueError, match=r"no clip is left: all 6 have more than data.max_frames \(5\)"):
        load_rows([str(folder)], recipe.data, training=True)


def forget_words(folder, numbers) -> None:
    """Takes the word times from some clips of a prepared folder."""
    path = next(folder.glob("*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    for number in numbers:
        rows[number]["words"] = None
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_crops_of_another_geometry_are_refused_before_training(
    prepared_folder, tiny_recipe, make_texts, write, tmp_path
):
    folder = prepared_folder(tmp_path / "data", make_texts(2))
    content = tiny_recipe(folder, tmp_path / "run")
    recipe = load_recipe(write(content), ["model.image_processor.mouth_width=12", "data.validation=[]"])
    with pytest.raises(ValueError, match=r"data was prepared with mouth_width 10, not 12 .*--mouth-width"):
        train(recipe)
    recipe = load_recipe(write(content), ["model.image_processor.roi_size=24", "model.task=words"])
    with pytest.raises(ValueError, match="roi_size 20, not 24"):
        train_words(recipe)
    recipe = load_recipe(write(content), ["model.image_processor.crop_size=18"])
    with pytest.raises(ValueError, match="visual_config.crop_size is 16, and the processor's crop_size 18"):
        train(recipe)
    assert not (tmp_path / "run" / "recipe.yaml").exists()  # nothing has begun


def test_sound_alone_has_no_geometry(prepared_folder, make_texts, tmp_path, spelled):
    sounds = [(spelled(text, 0)[0], None) for text in make_texts(2)]
    folder = prepared_folder(tmp_path / "data", make_texts(2), clips=sounds)
    check_geometry([folder], MouthRoiImageProcessor())


def test_a_processor_finds_mouths_as_those_that_it_was_trained_on(
    prepared_folder, make_texts, write, tmp_path, spelled
):
    """And sound alone has none, so it may be mixed with any."""
    crops = [prepared_folder(tmp_path / name, make_texts(1)) for name in ("one", "two")]
    sound = prepared_folder(tmp_path / "sound", ["TO IN"], clips=[(spelled("TO IN", 0)[0], None)])
    for folder, name in zip((*crops, sound), ("mesh", "mesh", "dlib")):
        settings = json.loads((folder / "prepare.json").read_text())
        (folder / "prepare.json").write_text(json.dumps({**settings, "landmarks": name}))
    for order in ([*crops, sound], [sound, *crops]):
        assert build_processor(load_recipe(write({})).model, order).image_processor.landmarks == "mesh"
        assert len(load_prepared(order)) == 3
    (crops[1] / "prepare.json").write_text((sound / "prepare.json").read_text())
    assert build_processor(load_recipe(write({})).model, crops[1:]).image_processor.landmarks == "dlib"
    with pytest.raises(ValueError, match="one and .*two were made with different landmarks .mesh, dlib."):
        load_prepared(crops)


def test_a_new_processor_takes_the_statistics_of_its_corpus(prepared_folder, make_texts, write, tmp_path):
    """Of two folders, one listed twice: as if all pixels lay in one pile."""
    pixels = [np.full((3, 4, 4), 51, np.uint8), np.full((1, 4, 4), 204, np.uint8)]
    folders = []
    for number, mouths in enumerate(pixels):
        folder = prepared_folder(tmp_path / f"data{number}", make_texts(1), clips=[(None, mouths)])
        (folder / "prepare.json").write_text(json.dumps({"clips": 1, "clips_per_shard": 1}))
        with pytest.raises(ValueError, match=r"has no mean .* run the same `lookhear prepare` again"):
            corpus_statistics([folder])
        summarize(folder)
        folders.append(str(folder))
    folders.append(folders[1])
    pile = np.concatenate([pixels[0].ravel(), *(pixels[1].ravel(),) * 2]) / 255
    recipe = load_recipe(write({"model": {"corpus_statistics": True, "image_processor": {"crop_size": 100}}}))
    images = build_processor(recipe.model, folders).image_processor
    assert (images.image_mean, images.image_std) == (pytest.approx(pile.mean()), pytest.approx(pile.std()))
    assert images.crop_size == 100
    with pytest.raises(ValueError, match=r"model.corpus_statistics .* model.image_processor.image_std: leave one out"):
        load_recipe(write({"model": {"corpus_statistics": True, "image_processor": {"image_std": 0.1}}}))


def test_the_words_recipe_keeps_its_best_checkpoint():
    settings = load_recipe(FOLDER / "lrw_words.yaml").training
    assert settings["load_best_model_at_end"] is True and settings["save_total_limit"] == 3
    assert settings["metric_for_best_model"] == "accuracy" and settings["greater_is_better"] is True


def meta_model(recipe):
    """The recipe's model without memory for its weights, and without weights from elsewhere."""
    recipe.model.initialise = []
    with torch.device("meta"):
        if recipe.model.task == "words":
            return build_classifier(recipe.model, {f"WORD{number}": number for number in range(500)})
        return build_model(recipe.model)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipe_can_be_built(name, tmp_path):
    recipe = load_recipe(FOLDER / name, [f"training.output_dir={tmp_path}", "training.use_cpu=true"])
    sources = list(recipe.model.initialise)
    processor, model = build_processor(recipe.model), meta_model(recipe)
    assert processor.image_processor.crop_size == model.config.visual_config.crop_size
    assert len(processor.tokenizer) == model.config.vocab_size
    assert type(model.config) is AvsrConfig
    assert len(select_modules(model, recipe.model.freeze)) == len(recipe.model.freeze)
    arguments = training_arguments(recipe.training)
    assert arguments.remove_unused_columns is False and arguments.max_steps > 0 or arguments.num_train_epochs > 0
    assert recipe.data.train and recipe.data.validation
    for source in sources:  # the modules named are there, and of the same shapes, in the stage they come from
        stage = FOLDER / f"{Path(source['checkpoint']).name}.yaml"
        modules = source.get("modules", {})
        if isinstance(modules, dict) and modules:
            other = meta_model(load_recipe(stage))
            for there, here in modules.items():
                (theirs,), (ours,) = select_modules(other, [there]), select_modules(model, [here])
                assert {n: t.shape for n, t in theirs.state_dict().items()} == {
                    n: t.shape for n, t in ours.state_dict().items()
                }


def test_word_classes_are_sorted_and_checked():
    rows = {"text": ["bin", "AT", "Bin"]}
    assert word_classes(rows) == {"AT": 0, "BIN": 1}
    with pytest.raises(ValueError, match="data.validation has words that data.train lacks: BLUE"):
        word_classes(rows, {"text": ["at", "blue"]})


def test_augmentation_grows_over_the_ramp():
    recipe = AugmentationRecipe(
        noise_probability=0.4, splice_probability=0.2, video_masks=2, audio_masks=1, ramp_epochs=10
    )
    start, middle = recipe.at(0), recipe.at(5)
    assert (start.noise_probability, start.splice_probability, start.video_masks, start.audio_masks) == (0, 0, 0, 0)
    assert (middle.noise_probability, middle.splice_probability, middle.video_masks) == (0.2, 0.1, 1)
    assert recipe.at(10) == recipe.at(99) == recipe
    assert AugmentationRecipe().at(0) == AugmentationRecipe()
