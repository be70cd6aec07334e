"""Miniatures of the speech paper's tables 3, 5, 6, 7 and 9 and figure 3: the same rows, small, on a speaker of GRID.

    python benchmarks/miniatures/speech.py --grid GRID/s1 --voices VOICES [--output runs/miniatures] [--seeds 3]

`--grid` holds `train` and `test`, each with videos and a `metadata.jsonl` with word times; `--voices` is such a folder
of sound in other voices. Half an hour on two cores (`--processes 2`). What is measured is kept in `--output`, and a
study that was interrupted resumes; `--table` prints what there is. What stands for what: `docs/miniatures.md`.
"""

import argparse
import copy
import shutil
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from corpora import (
    CROPS,
    MARGIN,
    WORD_FRAMES,
    cut_words,
    prepare_sentences,
    synthesize_portraits,
    take_share,
    take_speakers,
)
from study import Errors, Job, Results, Row, heading, markdown, run

from lookhear.training.recipe_reading import fill, load_content, merge

TABLES_FOLDER = Path(__file__).parents[2] / "training" / "avsr" / "recipes" / "tables"
PORTRAITS, PORTRAIT_SEED = 160, 1818
SHARE = 28 / 224  # of the sentences: the paper's 28 of 224 hours
FEW_VOICES = 6  # of 24: LibriSpeech beside Libri-Light
SNRS = ("5", "0", "-5")

RESNETS = {
    "basic": {"layer_type": "basic", "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]},
    "bottleneck": {"layer_type": "bottleneck", "hidden_sizes": [64, 128, 256], "depths": [1, 2, 1]},
}
WAV2VEC2 = {
    "front_end": "wav2vec2",
    "encoder_config": {
        "model_type": "wav2vec2",
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "conv_dim": [32, 48, 48, 48, 64, 64, 64],
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "mask_time_prob": 0.0,
        "layerdrop": 0.0,
    },
}
# What every recipe of the tables is made small by.
SMALL: dict[str, Any] = {
    "model": {
        "config": {
            "visual_config": {
                "stem_channels": 8,
                "stem_kernel_size": [5, 5, 5],
                "crop_size": CROPS["crop_size"],
                "pooling": "flatten",
            },
            "hidden_size": 96,
            "encoder_layers": 2,
            "fusion_layers": 1,
            "decoder_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "norm_first": True,
            "conv_kernel_size": 3,
            "head_hidden_sizes": [],
            "classifier_hidden_size": 128,
            "ctc_upsampling": 2,  # at 25 steps a second, a fifth of GRID's words are too short for their letters
            "attn_implementation": "eager",
        },
        "image_processor": CROPS,
    },
    "data": {"validation": [], "word_window": None},
    "augmentation": {"noise_bank": 60},
}
TRAINING = {
    "per_device_train_batch_size": 8,
    "learning_rate": 2.0e-3,
    "adam_beta2": 0.98,
    "weight_decay": 0.01,
    "max_grad_norm": 2.0,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 40,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_steps": 50,
    "disable_tqdm": True,
}
STEPS = {"words": 300, "audio": 600, "visual": 300, "audiovisual": 200, "voices_few": 600, "voices_all": 600}

# ----------------------------------------------------------------------------------------------------- what is trained

# What is trained instead of being downloaded: one training for all seeds, as the paper has one wav2vec 2.0.
SHARED = ("voices_few", "voices_all", "portraits")
FRONT_END = ["model.encoder.audio_front_end"]
STAND_INS = {  # checkpoint in the tables' recipes: training whose modules are copied instead
    "data/moco_v2_800ep_pretrain.pth.tar": {"checkpoint": "portraits", "modules": ["visual_front_end"]},
    "facebook/wav2vec2-large": {"checkpoint": "voices_few", "modules": FRONT_END},
    "facebook/wav2vec2-large-lv60": {"checkpoint": "voices_all", "modules": FRONT_END},
}
CORPORA = {  # data in the tables' recipes: data here
    ("prepared/lrs2_pretrain", "prepared/lrs2_train"): "grid_train",
    ("prepared/lrs2_train",): "grid_share",
    ("prepared/lrw_train",): "grid_train_words",
}
TRAININGS = (
    *SHARED,
    "table5_resnet18",
    "table5_resnet50",
    "table5_moco",
    "table5_transformer",
    "table6_stft",
    "table6_librispeech",
    "table6_librilight",
    "table6_hybrid",
    "table7_frozen",
    "table7_end_to_end",
    "table7_moco",
    "table3_audiovisual",
    "table9_audio_28h",
    "table9_visual_28h",
)


def small_recipe(name: str) -> dict[str, Any]:
    """
    Returns a training's recipe: that of the table's row, or of a stand-in for a download, made small.

    Args:
        name: one of `TRAININGS`. Checkpoints and data in the recipe have names, too.
    """
    if name == "portraits":
        recipe = _row("table5_resnet50")
        recipe["data"]["train"] = ["portraits_words"]
    elif name in SHARED:
        recipe = _row("table6_hybrid")
        recipe["model"]["initialise"] = []
        # A new front-end that hears raw sound has to train its convolutions, too; word times help it to begin.
        recipe["model"]["config"] |= {"alignment_loss_weight": 0.5}
        recipe["model"]["config"]["audio_config"] |= {"freeze_feature_encoder": False}
        recipe["data"]["train"] = ["voices" if name == "voices_all" else name]
    else:
        recipe = _row(name)
    kind = "words" if recipe["model"].get("task") == "words" else recipe["model"]["config"]["modality"]
    recipe["training"]["max_steps"] = STEPS.get(name, STEPS[kind])
    if kind == "words":
        recipe["training"]["per_device_train_batch_size"] = 16
    return recipe


def _row(name: str) -> dict[str, Any]:
    """Returns the recipe of a table's row, made small."""
    content = load_content(TABLES_FOLDER / f"{name}.yaml", TABLES_FOLDER.parents[1])
    recipe = copy.deepcopy(merge(content, SMALL))
    recipe.pop("system")
    recipe["data"].pop("cache_features", None)  # clips are few: their noise and crops are new in each epoch
    config = recipe["model"]["config"]
    config["visual_config"] |= RESNETS[config["visual_config"].get("layer_type", "bottleneck")]
    if config.get("audio_config", {}).get("front_end") != "spectrogram":
        config["audio_config"] = copy.deepcopy(WAV2VEC2)
    starts = recipe["model"].get("initialise", [])
    recipe["model"]["initialise"] = [_stand_in(source) for source in starts]
    recipe["data"]["train"] = [CORPORA[tuple(recipe["data"]["train"])]]
    recipe["training"] = dict(TRAINING)
    return recipe


def _stand_in(source: dict[str, Any]) -> dict[str, Any]:
    """Returns what is copied here in the place of a checkpoint: a run of this study by its name."""
    checkpoint = source["checkpoint"]
    if checkpoint in STAND_INS:
        return copy.deepcopy(STAND_INS[checkpoint])
    return {**source, "checkpoint": checkpoint.removeprefix("runs/")}


NOISY = ("table6_hybrid", "table3_audiovisual")

# ---------------------------------------------------------------------------------------------------- what is reported

WORDS = [
    Row("table5_resnet18", "ResNet-18's blocks, TCN back-end"),
    Row("table5_resnet50", "ResNet-50's blocks", "table5_resnet18", "+2.1", 1),
    Row("table5_moco", "trained on portraits first", "table5_resnet50", "+2.3", 1),
    Row("table5_transformer", "Transformer back-end", "table5_moco", "+6.0", 1),
]
TABLES = {
    "Table 3": [
        Row("table3_visual", "lips", paper="43.2", run="table7_moco"),
        Row("table3_audio", "sound", "table3_visual", "2.7 against 43.2", -1, run="table6_hybrid"),
        Row("table3_audiovisual", "both", "table3_audio", "2.6 against 2.7", -1),
    ],
    "Table 6": [
        Row("table6_stft", "spectrogram, attention loss"),
        Row("table6_librispeech", f"wav2vec 2.0 trained on {FEW_VOICES} voices", "table6_stft", "-11.1", -1),
        Row("table6_librilight", "wav2vec 2.0 trained on all voices", "table6_librispeech", "-0.6", -1),
        Row("table6_hybrid", "hybrid loss", "table6_librilight", "-0.9", -1),
    ],
    "Table 7": [
        Row("table7_frozen", "front-end of the words, frozen; attention loss"),
        Row("table7_end_to_end", "end to end, hybrid loss", "table7_frozen", "-16.0", -1),
        Row("table7_moco", "front-end trained on portraits before", "table7_end_to_end", "-5.8", -1),
    ],
    "Table 9": [
        Row("table9_audio", "sound, all sentences", paper="2.7", run="table6_hybrid"),
        Row("table9_audio_28h", "sound, an eighth of them", "table9_audio", "3.4 against 2.7", 1),
        Row("table9_visual", "lips, all sentences", paper="43.2", run="table7_moco"),
        Row("table9_visual_28h", "lips, an eighth of them", "table9_visual", "far higher", 1),
    ],
    "Figure 3": [
        row
        for snr in SNRS
        for row in (
            Row(f"babble_{snr}_audio", f"sound, babble at {snr} dB", run="table6_hybrid", condition=f"babble {snr}"),
            Row(
                f"babble_{snr}_audiovisual",
                f"both, babble at {snr} dB",
                f"babble_{snr}_audio",
                {"5": "6.3 against 6.8", "0": "24.5 against 32.5"}.get(snr, ""),
                -1,
                "table3_audiovisual",
                f"babble {snr}",
            ),
            Row(
                f"figure3_{snr}_audio",
                f"sound, human noise at {snr} dB",
                f"babble_{snr}_audio",
                "higher",
                1,
                "table6_hybrid",
                f"human {snr}",
            ),
            Row(
                f"figure3_{snr}_audiovisual",
                f"both, human noise at {snr} dB",
                f"babble_{snr}_audiovisual",
                "higher",
                1,
                "table3_audiovisual",
                f"human {snr}",
            ),
        )
    ],
}


def jobs_of(seeds: int, steps: float = 1.0) -> list[Job]:
    """
    Lists the trainings in an order in which each comes after those that it starts from, seed by seed.

    Args:
        seeds: number of trainings of each row, from seed 0.
        steps: factor on the steps of all.
    """
    order = []
    for seed in range(seeds):
        for name in TRAININGS:
            if name in SHARED and seed:
                continue
            recipe = small_recipe(name)
            starts = [source["checkpoint"] for source in recipe["model"]["initialise"]]
            needs = tuple((start, 0 if start in SHARED else seed) for start in starts)
            about = {"recipe": recipe, "steps": steps, "margin": MARGIN, "word frames": WORD_FRAMES}
            about |= {"portraits": (PORTRAITS, PORTRAIT_SEED), "share": SHARE, "voices": FEW_VOICES}
            order.append(Job(name, seed, needs, about))
    return order


# -------------------------------------------------------------------------------------------------------------- a job


def prepare(grid: Path, voices: Path, output: Path) -> None:
    """
    Makes all corpora that are not there yet.

    Args:
        grid: one speaker's folder, with `train` and `test`.
        voices: folder of sentences in other voices.
        output: of the study.
    """
    folder = output / "corpora"
    for split in ("train", "test"):
        prepare_sentences(grid / split, folder / f"grid_{split}")
    prepare_sentences(voices, folder / "voices")
    portraits = synthesize_portraits(output / "portraits", PORTRAITS, PORTRAIT_SEED)
    prepare_sentences(portraits, folder / "portraits")
    take_speakers(folder / "voices", folder / "voices_few", FEW_VOICES)
    take_share(folder / "grid_train", folder / "grid_share", SHARE)
    for name in ("grid_train", "grid_test", "portraits"):
        cut_words(folder / name, folder / f"{name}_words")


def recipe_of(job: Job, output: Path) -> dict:
    """Returns the job's recipe with the folders of its corpora and checkpoints."""
    recipe = copy.deepcopy(job.about["recipe"])
    seeds = dict(job.needs)
    for source in recipe["model"]["initialise"]:
        name = source["checkpoint"]
        source["checkpoint"] = str(_run_folder(output, name, seeds[name]))
    recipe["data"]["train"] = [str(output / "corpora" / name) for name in recipe["data"]["train"]]
    training = recipe["training"]
    training |= {"seed": job.seed, "output_dir": str(_run_folder(output, *job.key))}
    training["max_steps"] = max(2, round(job.about["steps"] * training["max_steps"]))
    training["warmup_steps"] = min(training["warmup_steps"], training["max_steps"] // 4)
    return recipe


def _run_folder(output: Path, name: str, seed: int) -> Path:
    return output / "runs" / f"{name}-{seed}"


def work(job: Job, output: Path) -> None:
    """Trains a job and measures it, in a process of its own."""
    from transformers.utils import logging

    from lookhear.training.avsr.recipe import Recipe
    from lookhear.training.avsr.train import train
    from lookhear.training.avsr.train_words import train_words

    logging.set_verbosity_error()
    recipe = fill(Recipe, recipe_of(job, output))
    folder = _run_folder(output, *job.key)
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted training
    begun = time.process_time()
    trainer = (train_words if recipe.model.task == "words" else train)(recipe)
    seconds = time.process_time() - begun
    facts = {
        "seconds": round(seconds, 1),
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "loss": round(trainer.state.log_history[-1].get("train_loss", float("nan")), 4),
    }
    figures = {} if job.name in SHARED else dict(_measure(job.name, folder, output / "corpora", recipe.model.task))
    Results(output / "results").write(job, figures, **facts)


def _measure(name: str, folder: Path, corpora: Path, task: str) -> Iterator[tuple[str, Errors]]:
    """Yields condition and errors on the test clips."""
    if task == "words":
        from lookhear.evaluation.lip_words import evaluate_words

        counts = evaluate_words(folder, corpora / "grid_test_words").errors
        yield "clean", Errors(counts.errors.tolist(), counts.lengths.tolist())
        return
    from lookhear.evaluation.avsr_conditions import evaluate_avsr

    modality = small_recipe(name)["model"]["config"]["modality"]
    wanted = [("babble", ("clean", *SNRS)), ("human", SNRS)] if name in NOISY else [("babble", ("clean",))]
    for noise, snrs in wanted:
        settings = {"modalities": [modality], "noises": [noise], "snrs": snrs, "num_beams": 5, "batch_size": 25}
        for result in evaluate_avsr(folder, corpora / "grid_test", **settings):
            condition = "clean" if result.snr == "clean" else f"{noise} {result.snr}"
            yield condition, Errors(result.words.errors.tolist(), result.words.lengths.tolist())


def tables(jobs: list[Job], results: Results) -> Iterator[str]:
    """Yields the lines of all tables, the first one of all changes."""
    yield from ("Changes, percentage points", "", *heading(changes=True))
    yield from markdown(WORDS, jobs, results, right=True, changes=True)
    for rows in TABLES.values():
        yield from markdown(rows, jobs, results, changes=True)
    yield from ("", "Table 5: words recognised, %", "", *markdown(WORDS, jobs, results, right=True))
    for name, rows in TABLES.items():
        yield from ("", f"{name}: word error rate, %", "", *markdown(rows, jobs, results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=Path, help="folder of one GRID speaker, with train and test")
    parser.add_argument("--voices", type=Path, help="folder of GRID's sentences in other voices")
    parser.add_argument("--output", type=Path, default=Path("runs/miniatures"), help="keeps everything")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row")
    parser.add_argument("--steps", type=float, default=1.0, help="factor on the steps of all trainings")
    parser.add_argument("--processes", type=int, default=1, help="trainings at the same time, one thread each")
    parser.add_argument("--minutes", type=float, help="begin no training after these")
    parser.add_argument("--table", action="store_true", help="print what is measured, and measure nothing")
    options = parser.parse_args()
    jobs, results = jobs_of(options.seeds, options.steps), Results(options.output / "results")
    if not options.table:
        for name in ("grid", "voices"):
            if getattr(options, name) is None or not getattr(options, name).is_dir():
                parser.error(f"--{name} must be a folder with a metadata.jsonl (of --grid: train and test below it)")
        prepare(options.grid, options.voices, options.output)
        left = run(jobs, results, partial(work, output=options.output), options.processes, options.minutes)
        print(f"{len(jobs) - len(left)} of {len(jobs)} trainings are measured", file=sys.stderr)
    print("\n".join(tables(jobs, results)))


if __name__ == "__main__":
    main()
