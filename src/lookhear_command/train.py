"""`lookhear train`: by a recipe, or GLEE on classes of your own."""

from __future__ import annotations

import argparse
from pathlib import Path

from .argument_types import comma_list, positive
from .parsing import Commands, add_command


def add(commands: Commands) -> None:
    example = "lookhear train grid_tiny.yaml training.output_dir=runs/grid training.learning_rate=5e-4\n  "
    example += "lookhear train glee --data my_coco.json --images pictures/ --model glee-lite/ --output my-glee/"
    summary = "train a model by a recipe, or GLEE on your own classes"
    parser = add_command(commands, "train", summary, example, run)
    recipe = "a file, the name of a shipped recipe, or 'glee' with the options below"
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help=recipe)
    setting = "replaces one setting; options may come before"
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help=setting)
    dry = "print a LISA-GLEE recipe's shapes, trained weights and memory instead, without data or network"
    parser.add_argument("--dry-run", action="store_true", help=dry)
    again = "remove the checkpoints of an earlier run in the output folder (it is resumed, if nothing has changed)"
    parser.add_argument("--overwrite", action="store_true", help=again)
    _add_own_classes(parser)


def _add_own_classes(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("your own classes (lookhear train glee)")
    own.add_argument("--data", type=Path, metavar="FILE", help="COCO file; its categories are the classes")
    own.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures (the file's own)")
    own.add_argument("--model", metavar="FOLDER", help="GLEE checkpoint to start from: folder or Hub id")
    own.add_argument(
        "--output", type=Path, metavar="DIR", help="where the result goes; an interrupted run resumes there"
    )
    own.add_argument("--validation", type=Path, metavar="FILE", help="COCO file to measure on (a tenth of --data)")
    own.add_argument("--validation-images", type=Path, metavar="DIR", help="folder of its pictures (the file's own)")
    own.add_argument(
        "--shots", type=positive, metavar="N", help="train on some pictures only, with N objects of each class (all)"
    )
    own.add_argument(
        "--freeze",
        type=comma_list,
        metavar="PARTS",
        help="what learns nothing: backbone, text, or a module's name",
    )
    patience = "stop after N evaluations in a row without a better AP (never)"
    own.add_argument("--patience", type=positive, metavar="N", help=patience)
    own.add_argument("--text", choices=("frozen", "trained"), default="frozen", help="the text encoder (frozen)")
    own.add_argument(
        "--epochs", type=float, default=12, metavar="N", help="passes over the data (12); AP is measured after each"
    )
    own.add_argument("--batch-size", type=positive, default=2, metavar="N", help="pictures per step and process (2)")
    own.add_argument(
        "--learning-rate",
        type=float,
        default=1e-4,
        metavar="X",
        help="learning rate (1e-4); the backbone's is a tenth of it",
    )
    own.add_argument("--skip-bad", action="store_true", help="skip annotations that cannot be used")
    own.add_argument("--keep-empty", action="store_true", help="train on pictures without objects, too")
    own.add_argument("--seed", type=int, default=0, help="seed of order, augmentation and chosen pictures (0)")


def run(options: argparse.Namespace) -> None:
    if str(options.recipe) == "glee":
        if options.dry_run:
            raise ValueError("--dry-run is for recipes of the system lisa_glee; train without it")
        from lookhear.commands.fine_tune import run

        return run(options, options.settings)
    from lookhear.training.run_recipe import run_recipe

    anew = ["training.overwrite=true"] if options.overwrite else []
    run_recipe(options.recipe, [*options.settings, *anew], options.dry_run)
