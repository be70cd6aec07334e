"""`lookhear prepare`: a corpus as Parquet shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from .argument_types import positive
from .parsing import Commands, add_command


def add(commands: Commands) -> None:
    example = "lookhear prepare lrs3 /data/LRS3 prepared/lrs3 --split trainval --num-proc 8 --shard 0/16"
    summary = "convert a corpus to Parquet shards of mouth crops, sound and text"
    parser = add_command(commands, "prepare", summary, example, run)
    corpora = ("folder", "grid", "lrs2", "lrs3", "lrw")
    parser.add_argument("corpus", choices=corpora, help="layout of SOURCE; folder: videos with a metadata.jsonl")
    parser.add_argument("source", type=Path, help="folder of the corpus")
    parser.add_argument("output", type=Path, help="folder of the shards; existing ones are not made again")
    parser.add_argument("--split", help="part of the corpus (all)")
    parser.add_argument("--num-proc", type=positive, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="this job of N jobs, from 0 (0/1)")
    parser.add_argument("--model", help="checkpoint that the crop's geometry is taken from (the paper's)")
    parser.add_argument("--roi-size", type=positive, metavar="PIXELS", help="side of the stored crop")
    parser.add_argument("--crop-size", type=positive, metavar="PIXELS", help="side of what the network sees")
    parser.add_argument("--mouth-width", type=float, metavar="PIXELS", help="mouth corner to mouth corner in the crop")
    parser.add_argument("--landmarks", choices=("dlib", "mesh"), help="what finds the mouths (as the model says)")
    parser.add_argument("--clips-per-shard", type=positive, default=200, metavar="N", help="clips in a file (200)")


def run(options: argparse.Namespace) -> None:
    from lookhear.training.avsr.prepare import prepare

    settings = {name: value for name, value in vars(options).items() if name not in ("run", "command")}
    corpus, source, output = (settings.pop(name) for name in ("corpus", "source", "output"))
    print(prepare(corpus, source, output, **settings))
