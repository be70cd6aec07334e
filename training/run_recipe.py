"""What `lookhear train RECIPE` runs: the training that the recipe is for."""

from pathlib import Path

from lookhear.training.recipe_reading import read_system, shipped_recipe

FOLDER = Path(__file__).parent


def run_recipe(recipe: Path, overrides: list[str] | tuple[str, ...] = (), dry_run: bool = False) -> None:
    """
    Trains by a recipe.

    Args:
        recipe: a file, or the name of a shipped recipe.
        overrides: `section.field=value` strings.
        dry_run: whether to print what the training takes instead; for recipes of `lisa_glee`.

    Raises:
        ValueError: there is no such recipe, or it cannot be run.
    """
    recipe = find_recipe(recipe)
    system = read_system(recipe, FOLDER)
    if system == "lisa_glee":
        from lookhear.training.lisa_glee.train import main as train_lisa_glee

        return train_lisa_glee(recipe, overrides, dry_run)
    if dry_run:
        raise ValueError(f"--dry-run is for recipes of the system lisa_glee, not {system}; train without it")
    if system == "avsr":
        from lookhear.training.avsr.train import main
    elif system == "glee":
        from lookhear.training.glee.mixture.train_corpora import main
    elif system == "lisa_glee_scenes":
        from lookhear.training.lisa_glee.train_scenes import main
    else:
        from lookhear.training.glee.scenes.train import main
    main(recipe, overrides)


def find_recipe(recipe: Path) -> Path:
    """Returns the file of a shipped recipe if there is no file of this path and the path is a shipped one's name."""
    return recipe if recipe.exists() else shipped_recipe(recipe, FOLDER) or recipe
