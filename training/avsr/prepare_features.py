"""Stores the outputs of a recipe's frozen parts before its training: `lookhear prepare features RECIPE.yaml DIR`."""

import json
from pathlib import Path

from lookhear.training.avsr.prepare import parse_shard
from lookhear.training.avsr.recipe import load_recipe
from lookhear.training.recipe_reading import read_system
from lookhear.training.run_recipe import FOLDER, find_recipe


def prepare_features(
    recipe: str | Path,
    output: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    *,
    shard: str | tuple[int, int] = (0, 1),
    progress: bool = True,
) -> str:
    """
    Computes what a training by a recipe with `data.cache_features=OUTPUT` reads, as `lookhear prepare features` does.

    Args:
        recipe: a file, or the name of a shipped recipe, whose frozen front-ends and back-ends are computed.
        output: folder, created if missing; an interrupted run resumes there.
        overrides: `section.field=value` strings, the same as for the training.
        shard: part of an array job that this job does, `(i, n)` or `"i/n"` with `0 <= i < n`.
        progress: whether a progress bar is shown on stderr.

    Returns:
        A line for each data set: shards, clips and size on disk.

    Raises:
        ValueError: the recipe is of another system or task, cannot be run, or freezes too little; or the folder is of
            other clips, weights or settings.
    """
    path = find_recipe(Path(recipe))
    if (system := read_system(path, FOLDER)) != "avsr":
        raise ValueError(f"features are of recipes of the system avsr; {str(recipe)!r} is of {system}")
    loaded = load_recipe(path, [*overrides, f"data.cache_features={json.dumps(str(output))}"])
    if loaded.model.task != "recognition":
        raise ValueError("features are for the task 'recognition'; words are trained whole")
    part = parse_shard(shard)
    from lookhear.training.avsr.feature_writing import FeatureWriter
    from lookhear.training.avsr.train import build_parts

    parts = build_parts(loaded)
    writer = FeatureWriter(parts.model, parts.processor, loaded, parts.arguments, progress)
    lines = []
    for name, clips in (("train", parts.train), ("validation", parts.validation)):
        if clips is not None:
            writer.write(name, clips, part)
            lines.append(writer.summarize(name, clips))
    return "\n".join(lines)
