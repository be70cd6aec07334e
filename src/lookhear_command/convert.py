"""`lookhear convert`: published checkpoints as folders that `from_pretrained` reads."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .parsing import Commands, add_command


def add(commands: Commands) -> None:
    example = "lookhear convert glee GLEE_Lite_joint.pth glee-lite/"
    summary = "turn a published checkpoint into a folder that from_pretrained reads"
    parser = add_command(commands, "convert", summary, example, None)
    systems = parser.add_subparsers(required=True, metavar="SYSTEM", title="systems")
    glee = add_command(systems, "glee", "convert a checkpoint of GLEE", example, _convert_glee)
    glee.add_argument(
        "checkpoint", type=Path, metavar="FILE", help=".pth, .pt, .bin or .safetensors; no code in it is run"
    )
    glee.add_argument("output", type=Path, metavar="DIR", help="folder to make")
    clip = "openai/clip-vit-base-patch32"
    glee.add_argument("--tokenizer", metavar="FOLDER", help=f"folder or Hub id of the tokenizer ({clip})")
    glee.add_argument("--config", metavar="FOLDER", help="a GleeConfig's folder or config.json (read off the weights)")
    glee.add_argument("--for-training", action="store_true", help="include the text teacher and the denoising tables")
    summary = "convert a recogniser, a word classifier, or what a front-end starts from: MoCo v2, wav2vec 2.0"
    avsr = add_command(
        systems, "avsr", summary, "lookhear convert avsr audiovisual.ckpt avsr-audiovisual/", _convert_avsr
    )
    files = "checkpoint of the reference code, MoCo v2, torchvision or fairseq; no code in it is run; or "
    avsr.add_argument("checkpoint", metavar="FILE", help=files + "a wav2vec2, HuBERT or WavLM folder or Hub id")
    avsr.add_argument("output", type=Path, metavar="DIR", help="folder to make")
    avsr.add_argument(
        "--config", metavar="FOLDER", help="an AvsrConfig's folder or config.json (read off the weights)"
    )

    _add_published(systems)


def _add_published(systems: Commands) -> None:
    """Adds the recognisers of other authors."""
    beside = "its list of units (the one beside the checkpoint, or model.json's list of characters)"
    for name, title, source in (
        ("usr2", "USR 2.0, which reads sound, lips or both", "FILE"),
        ("auto_avsr", "auto_avsr, of sound or of lips", "FILE"),
        ("vsr-ml", "Visual Speech Recognition for Multiple Languages", "FOLDER"),
    ):
        example = f"lookhear convert {name} {'LRS3_V_WER19.1/' if source == 'FOLDER' else 'model.pth'} {name}/"
        parser = add_command(systems, name, f"convert a recogniser of {title}", example, _convert_published)
        what = "its checkpoint; no code in it is run"
        if source == "FOLDER":
            what = "folder or Hub id with model.pth and model.json; no code in them is run"
        parser.add_argument("checkpoint", metavar=source, help=what)
        parser.add_argument("output", type=Path, metavar="DIR", help="folder to make")
        parser.add_argument("--units", type=Path, metavar="FILE", help=beside)
        pieces = "the SentencePiece model of its texts, which training and alignment use (none)"
        parser.add_argument("--sentencepiece", type=Path, metavar="FILE", help=pieces)
        parser.set_defaults(kind=name)


def _convert_published(options: argparse.Namespace) -> None:
    from lookhear.training.avsr.published import KINDS, convert_published

    settings = {"units": options.units, "sentencepiece_model": options.sentencepiece}
    print(convert_published(options.kind, options.checkpoint, options.output, **settings))
    print(f"{KINDS[options.kind].title}: {KINDS[options.kind].terms}", file=sys.stderr)


def _convert_glee(options: argparse.Namespace) -> None:
    from lookhear.training.glee.convert import convert_checkpoint

    settings = {name: getattr(options, name) for name in ("tokenizer", "config", "for_training")}
    print(convert_checkpoint(options.checkpoint, options.output, **settings))


def _convert_avsr(options: argparse.Namespace) -> None:
    from lookhear.training.avsr.convert import convert_checkpoint

    print(convert_checkpoint(options.checkpoint, options.output, config=options.config))
