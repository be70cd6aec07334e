"""GLEE's study of data's scale in miniature: glee-tiny on 10, 20, 50 and 100 % of a fixed set of scenes and videos.

    python benchmarks/miniatures/data_scale.py [--output runs/data_scale] [--seeds 2] [--processes 2] [--plot FILE.png]

Needs no data: `training/glee/recipes/data_scale_tiny.yaml` generates it. Every training has the same number of steps
and is measured on scenes and on frames of videos that are in no set. A quarter of an hour on two cores for each seed;
`--output` has what is measured, so that an interrupted study resumes. `--table` prints and draws what there is.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from study import Errors, Job, Results, interval, interval_of_draws, rate, run

RECIPE = Path(__file__).parents[2] / "training" / "glee" / "recipes" / "data_scale_tiny.yaml"
FRACTIONS = (0.1, 0.2, 0.5, 1.0)
STILLS, VIDEOS, FRAMES = 60, 15, 4  # that are measured on: scenes, and frames of each video
DRAWS = 200  # of the pictures, for the interval of AP
HELD_OUT = 20_261_128  # seed of the videos that are measured on
MEASURES = {  # condition: what the table calls it
    "labels": "objects by their kind, scenes",
    "labels of frames": "objects by their kind, frames of videos",
    "sentences": "objects by a sentence",
    "prompts": "objects by a point, box, scribble or mask",
}
COLOURS = ("#2a78d6", "#1f8f5f", "#e0803c", "#8a4fbf")


def jobs_of(seeds: int, steps: float = 1.0) -> list[Job]:
    """
    Lists the trainings, seed by seed.

    Args:
        seeds: number of trainings of each fraction, from seed 1, which is the recipe's.
        steps: factor on the steps of all.
    """
    about = {"recipe": RECIPE.read_text(encoding="utf-8"), "steps": steps, "measured": (STILLS, VIDEOS, FRAMES, DRAWS)}
    return [
        Job(f"scale_{100 * fraction:.0f}", seed, (), {**about, "fraction": fraction})
        for seed in range(1, seeds + 1)
        for fraction in FRACTIONS
    ]


def work(job: Job, output: Path) -> None:
    """Trains a job and measures it, in a process of its own."""
    from transformers.utils import logging

    from lookhear.training.glee.scenes.recipe import GleeRecipe
    from lookhear.training.glee.scenes.train import train
    from lookhear.training.recipe_reading import read_recipe

    logging.set_verbosity_error()
    folder = output / "runs" / f"{job.name}-{job.seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted training
    recipe = read_recipe(RECIPE, [f"data.fixed.fraction={job.about['fraction']}"], GleeRecipe, RECIPE.parents[1])
    steps = max(2, round(job.about["steps"] * recipe.training["max_steps"]))
    decay = {**recipe.training["lr_scheduler_kwargs"], "num_decay_steps": max(1, 3 * steps // 10)}
    given = {"max_steps": steps, "lr_scheduler_kwargs": decay, "warmup_steps": min(30, steps // 4)}
    given |= {"seed": job.seed, "output_dir": str(folder), "disable_tqdm": True}
    recipe = replace(recipe, training={**recipe.training, **given})
    begun = time.process_time()
    trainer = train(recipe)
    seconds = round(time.process_time() - begun, 1)
    figures = dict(measure(trainer.model, trainer.processing_class, recipe))
    loss = trainer.state.log_history[-1].get("train_loss", float("nan"))
    Results(output / "results").write(job, figures, seconds=seconds, loss=round(loss, 4))


def measure(model, processor, recipe) -> Iterator[tuple[str, Errors]]:
    """Yields, for scenes and frames that are in no set, what is not found."""
    from lookhear.training.glee.scenes.evaluate_scenes import SceneEvaluation
    from lookhear.training.glee.scenes.moving_scenes import MovingRecipe, make_moving_scene

    size, look = recipe.data.canvases[0], recipe.data.scene_recipe()
    evaluation = SceneEvaluation(model, processor, size)
    scenes = evaluation.scenes(STILLS, look)
    frames = []
    for number in range(VIDEOS):
        video = make_moving_scene(np.random.default_rng((HELD_OUT, number)), size, MovingRecipe(look=look))
        stills = [video.frame(round(at)).as_still()[0] for at in np.linspace(0, len(video) - 1, FRAMES)]
        frames += [still for still in stills if still.shapes]
    for name, some in (("labels", scenes), ("labels of frames", frames)):
        yield name, precision_errors(*evaluation.labelled(some, "kind"))
    said = evaluation.expressions(scenes)
    found = [iou > 0.5 for form in ("attribute", "place") for iou in said.get(form, [])]
    yield "sentences", Errors([float(not one) for one in found], [1.0] * len(found))
    shown = [iou for ious in evaluation.prompts(scenes).values() for iou in ious]
    yield "prompts", Errors([1 - iou for iou in shown], [1.0] * len(shown))


def precision_errors(references: Sequence[Mapping], predictions: Sequence[Mapping]) -> Errors:
    """
    Computes 1 - AP of boxes at an IoU of 0.5, of all pictures and of draws of them.

    Args:
        references: what is in each picture, see `picture_precision`.
        predictions: what was found there.
    """
    from lookhear.evaluation.measures.average_precision import picture_precision

    def missed(chosen: Sequence[int]) -> float:
        truth, found = ([side[number] for number in chosen] for side in (references, predictions))
        return 1 - picture_precision(truth, found, "box").average_precision(0.5)

    drawn = np.random.default_rng(0).integers(len(references), size=(DRAWS, len(references))).tolist()
    return Errors([missed(range(len(references)))], [1.0], [missed(chosen) for chosen in drawn])


# --------------------------------------------------------------------------------------------------------------- shown


def points(jobs: Sequence[Job], results: Results) -> dict[str, list[tuple[float, float, float, float]]]:
    """Returns, for each measure, (fraction, share of what is right, both ends of its interval) of what is measured."""
    lines: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in MEASURES}
    for fraction in FRACTIONS:
        mine = [job for job in jobs if job.about["fraction"] == fraction]
        for name, line in lines.items():
            if (found := results.errors(mine, name)) is not None:
                drawn = results.draws(mine, name)
                low, high = interval(*found) if drawn is None else interval_of_draws(drawn)
                line.append((fraction, 1 - rate(*found), 1 - high, 1 - low))
    return lines


def table(jobs: Sequence[Job], results: Results) -> Iterator[str]:
    """Yields the lines of the table: a row for each fraction."""
    lines = points(jobs, results)
    yield "| data | seeds | labels, box AP50 % | of frames, box AP50 % | sentences, P@0.5 % | prompts, mask IoU % |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for fraction in FRACTIONS:
        seeds = sum(job.about["fraction"] == fraction and results.read(job) is not None for job in jobs)
        cells = []
        for line in lines.values():
            found = [
                f"{100 * mid:.1f} ({100 * low:.1f} to {100 * high:.1f})"
                for at, mid, low, high in line
                if at == fraction
            ]
            cells += found or ["not measured"]
        yield f"| {100 * fraction:.0f} % | {seeds} | {' | '.join(cells)} |"


def plot(jobs: Sequence[Job], results: Results, path: Path) -> None:
    """Draws the measures over the fraction, with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for colour, (name, line) in zip(COLOURS, points(jobs, results).items(), strict=True):
        if line:
            at, middle, low, high = 100 * np.array(line).T
            axes.errorbar(
                at, middle, (middle - low, high - middle), label=MEASURES[name], color=colour, marker="o", capsize=3
            )
    axes.set_xscale("log")
    axes.set_xticks([100 * fraction for fraction in FRACTIONS], [f"{100 * fraction:.0f} %" for fraction in FRACTIONS])
    axes.minorticks_off()
    axes.set(xlabel="share of the scenes and videos", ylabel="found, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/data_scale"), help="keeps everything")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each fraction")
    parser.add_argument("--steps", type=float, default=1.0, help="factor on the steps of all trainings")
    parser.add_argument("--processes", type=int, default=1, help="trainings at the same time, one thread each")
    parser.add_argument("--minutes", type=float, help="begin no training after these")
    parser.add_argument("--plot", type=Path, help="picture to draw")
    parser.add_argument("--table", action="store_true", help="print and draw what is measured, and measure nothing")
    options = parser.parse_args()
    jobs, results = jobs_of(options.seeds, options.steps), Results(options.output / "results")
    if not options.table:
        left = run(jobs, results, partial(work, output=options.output), options.processes, options.minutes)
        print(f"{len(jobs) - len(left)} of {len(jobs)} trainings are measured", file=sys.stderr)
    print("\n".join(table(jobs, results)))
    if options.plot is not None:
        plot(jobs, results, options.plot)


if __name__ == "__main__":
    main()
