"""`lookhear prepare`: a corpus as Parquet shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from .argument_types import positive
from .parsing import Commands, add_command
from .shared_options import check_folder

# Options of a corpus, which features don't have, with their defaults.
OF_CORPORA = {
    "split": None,
    "num_proc": 1,
    "model": None,
    "roi_size": None,
    "crop_size": None,
    "mouth_width": None,
    "landmarks": None,
    "clips_per_shard": 200,
    "allow_outside": False,
}


def add(commands: Commands) -> None:
    example = "lookhear prepare lrs3 /data/LRS3 prepared/lrs3 --split trainval --num-proc 8 --shard 0/16\n  "
    example += "lookhear prepare features lrs2_audiovisual.yaml features/lrs2 --shard 0/16"
    summary = "convert a corpus to Parquet shards of mouth crops, sound and text"
    parser = add_command(commands, "prepare", summary, example, run)
    corpora = ("folder", "grid", "lrs2", "lrs3", "lrw", "features")
    layouts = "layout of SOURCE; folder: videos with a metadata.jsonl; features: what a recipe's frozen parts compute"
    parser.add_argument("corpus", choices=corpora, help=layouts)
    parser.add_argument("source", type=Path, help="folder of the corpus; of features: the recipe")
    parser.add_argument("output", type=Path, help="folder of the shards; existing ones are not made again")
    settings = "replaces one setting of the recipe (features)"
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help=settings)
    parser.add_argument("--split", help="part of the corpus (all)")
    parser.add_argument("--num-proc", type=positive, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="this job of N jobs, from 0 (0/1)")
    parser.add_argument("--model", help="checkpoint that the crop's geometry is taken from (the paper's)")
    parser.add_argument("--roi-size", type=positive, metavar="PIXELS", help="side of the stored crop")
    parser.add_argument("--crop-size", type=positive, metavar="PIXELS", help="side of what the network sees")
    parser.add_argument("--mouth-width", type=float, metavar="PIXELS", help="mouth corner to mouth corner in the crop")
    parser.add_argument("--landmarks", choices=("mesh", "dlib"), help="what finds the mouths (as the model says)")
    parser.add_argument("--clips-per-shard", type=positive, default=200, metavar="N", help="clips in a file (200)")
    outside = "let a metadata.jsonl name files outside of its folder"
    parser.add_argument("--allow-outside", action="store_true", help=outside)


def run(options: argparse.Namespace) -> None:
    arguments = {name: value for name, value in vars(options).items() if name not in ("run", "command")}
    corpus, source, output, settings = (arguments.pop(name) for name in ("corpus", "source", "output", "settings"))
    check_folder(output, "output")
    if corpus == "features":
        shard = arguments.pop("shard")
        changed = [name for name, value in arguments.items() if value != OF_CORPORA[name]]
        if changed:
            raise ValueError(f"--{changed[0].replace('_', '-')} is for a corpus; features follow the recipe")
        from lookhear.training.avsr.prepare_features import prepare_features

        print(prepare_features(source, output, settings, shard=shard))
        return
    if settings:
        raise ValueError(f"{settings[0]!r} is one argument too many: settings of a recipe are for features")
    from lookhear.training.avsr.prepare import prepare

    print(prepare(corpus, source, output, **arguments))
