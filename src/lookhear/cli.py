"""The command line: `lookhear transcribe | perceive | prepare | train | evaluate | convert | synthesize | demo`.

Results go to stdout, messages and progress to stderr. Bad input ends in one line and exit code 2. Whatever is heavy is
imported by the command that needs it, after the arguments have been read.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

MODALITIES = ("audio", "visual", "audiovisual")
FORMATS = ("txt", "srt", "vtt", "tsv", "json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 1 for anything unforeseen, 130 after Ctrl-C."""
    options = build_parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    try:
        return options.run(options) or 0
    except (ValueError, OSError, ImportError) as error:
        code = 2
        message = str(error)
    except KeyboardInterrupt:
        print("lookhear: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("LOOKHEAR_TRACEBACK"):
            raise
        code = 1
        message = f"{type(error).__name__}: {error} (LOOKHEAR_TRACEBACK=1 shows where)"
    print(f"lookhear {options.command}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--snr -5,0` as `--snr=-5,0`: argparse takes a list that begins with a minus for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--snr", "--point", "--box", "--scribble"):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


class _Parser(argparse.ArgumentParser):
    """Answers wrong arguments with one line instead of the whole usage."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help shows how)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each one's `run` is the function that carries it out."""
    parser = _Parser(
        prog="lookhear",
        description="Reads what a talking face says, and finds in images what is named, described or pointed at.",
        epilog="example: lookhear transcribe clip.mp4",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('lookhear')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_transcribe,
        _add_perceive,
        _add_prepare,
        _add_train,
        _add_evaluate,
        _add_convert,
        _add_synthesize,
        _add_demo,
    ):
        add(commands)
    return parser


def _command(commands, name: str, summary: str, example: str, run) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


# -------------------------------------------------------------------------------------------------------- transcribe


def _add_transcribe(commands) -> None:
    example = "lookhear transcribe interview.mp4 --format srt --output subtitles/"
    parser = _command(commands, "transcribe", "read what is said in video or sound files", example, _transcribe)
    parser.add_argument("files", nargs="+", metavar="FILE", help="video or sound file, or URL")
    _add_model(parser)
    parser.add_argument("--modality", choices=("auto", *MODALITIES), default="auto", help="what to read from (auto)")
    parser.add_argument("--format", choices=FORMATS, default="txt", help="of the result (txt)")
    parser.add_argument("--output", metavar="DIR", type=Path, help="write DIR/NAME.FORMAT for each file")
    parser.add_argument("--timestamps", choices=("word", "char"), help="put times into the json")
    chunk = "what goes through the model at once; longer files are read utterance by utterance (the checkpoint's)"
    parser.add_argument("--chunk-length", type=_chunk_length, metavar="SECONDS", help=chunk)
    bar = "show how far a long file is read (on a terminal)"
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=None, help=bar)
    _add_search(parser)


def _transcribe(options: argparse.Namespace) -> int:
    names = [_name(file) for file in options.files]
    if options.output is None and len(names) > 1 and options.format in ("srt", "vtt", "tsv"):
        raise ValueError(f"several files as {options.format} need --output DIR")
    if options.output is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two files would both be written to {options.output / twice}.{options.format}; rename one")
    from lookhear.processing.avsr.captions_avsr import format_captions, write_captions

    asr = _pipeline(options)
    timestamps = options.timestamps or ("word" if options.format in ("srt", "vtt", "tsv") else False)
    failed = 0
    for file, name, result, error in _results(asr, options, names, timestamps):
        if result is not None and options.output is not None:
            print(write_captions(result, options.output / f"{name}.{options.format}", options.format))
        elif result is not None:
            start = f"{file}\t" if len(names) > 1 and options.format == "txt" else ""
            print(start + format_captions(result, options.format), end="", flush=True)
        if error is not None:
            failed += 1
            part = "" if result is None else f" (the first {result['report']['duration']:.1f} s were read)"
            message = " ".join(str(error).split()) or type(error).__name__
            print(f"lookhear transcribe: error: {message}{part}", file=sys.stderr)
        if isinstance(error, KeyboardInterrupt):
            raise error
    return 2 if failed else 0


def _results(asr, options: argparse.Namespace, names: list[str], timestamps):
    """(file, name, result, error) one by one; a batch in which one file cannot be read is read file by file."""
    settings = {"modality": options.modality, "chunk_length_s": options.chunk_length, **_search_settings(options)}
    settings["return_timestamps"] = timestamps
    for first in range(0, len(names), options.batch_size):
        files = options.files[first : first + options.batch_size]
        opened = [_attempt(asr.stream, file, **settings) for file in files]
        short = [speech.source for speech, error in opened if error is None and not speech.chunked]
        together, failed = _attempt(asr, short, batch_size=len(short), **settings) if short else ([], None)
        together = iter(together or [])
        for file, name, (speech, error) in zip(files, names[first:], opened):
            if error is not None:
                result = None
            elif speech.chunked:
                result, error = _read_long(speech, name, options.progress)
            elif failed is not None:
                result, error = _attempt(asr, file, **settings)
            else:
                result = next(together)
            yield file, name, result, error


def _attempt(read, *arguments, **settings):
    """(what `read` returns, None), or (None, the error) where the input is bad."""
    try:
        return read(*arguments, **settings), None
    except (ValueError, OSError) as error:
        return None, error


def _read_long(speech, name: str, progress: bool | None):
    """The result of a long file, as far as it could be read, and what stopped the reading of it."""
    from tqdm.auto import tqdm

    hidden = not sys.stderr.isatty() if progress is None else not progress
    shape = (
        "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]" if speech.duration else None
    )
    chunks, error = [], None
    with speech, tqdm(total=speech.duration, desc=name, file=sys.stderr, disable=hidden, bar_format=shape) as bar:
        try:
            for chunk in speech:
                chunks.append(chunk)
                bar.update(speech.position - bar.n)
            bar.update(speech.position - bar.n)
        except (ValueError, OSError, KeyboardInterrupt) as caught:
            error = caught
    return (speech.to_result(chunks) if chunks or error is None else None), error


def _name(file: str) -> str:
    """What the result of a file or URL is called: the file's name without its ending."""
    return Path(file.split("?")[0].rstrip("/")).stem or "result"


# ---------------------------------------------------------------------------------------------------------- perceive

ASKED = ("labels", "expression", "point", "box", "scribble", "mask")  # options of what to look for
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv")  # that are written


def _add_perceive(commands) -> None:
    example = (
        "lookhear perceive street.jpg --model glee-lite/ --labels person,dog --out overlay.png\n  "
        'lookhear perceive street.jpg --model glee-lite/ --expression "the man on the left" --point 120,80 --json\n  '
        'lookhear perceive street.mp4 --model glee-lite/ --expression "the red car" --out tracked.mp4 --json tracks.jsonl'
    )
    summary = "find and segment what is named, described or pointed at in images, and follow it through a video"
    parser = _command(commands, "perceive", summary, example, _perceive)
    files = "image file, or URL; or one video: file, URL, or folder of numbered pictures"
    parser.add_argument("files", nargs="+", metavar="IMAGE", help=files)
    _add_model(parser, "glee-tiny", "shapes of generated scenes, nothing else")
    parser.add_argument(
        "--labels", type=_list, help="comma-separated names, any number of objects each; 'object' is all"
    )
    again = "; may be repeated"
    parser.add_argument("--expression", action="append", metavar="TEXT", help="a sentence about one object" + again)
    parser.add_argument(
        "--point", action="append", type=_points, metavar="X,Y[;X,Y…]", help="points of one object" + again
    )
    parser.add_argument("--box", action="append", type=_box, metavar="X0,Y0,X1,Y1", help="around one object" + again)
    parser.add_argument(
        "--scribble", action="append", type=_line, metavar='"X,Y X,Y…"', help="a line on one object" + again
    )
    parser.add_argument(
        "--mask", action="append", metavar="FILE", help="image that is black outside one object" + again
    )
    parser.add_argument("--threshold", type=_share, default=0.2, help="lowest score of what --labels finds (0.2)")
    parser.add_argument(
        "--top-k", type=_positive, default=100, metavar="N", help="most objects that --labels finds (100)"
    )
    together = "images (1) or frames (4) that go through the model together"
    parser.add_argument("--batch-size", type=_positive, metavar="N", help=together)
    out = "draw what was found: an image file, or a folder for NAME.png of each image; of a video an mp4, mov or mkv"
    parser.add_argument("--out", type=Path, metavar="PATH", help=out)
    masks = (
        "with masks as COCO run lengths, of a video a line a frame; without a name, or with -, on stdout instead of "
    )
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help=masks + "the table")
    video = parser.add_argument_group("a video")
    video.add_argument(
        "--coco-vis", type=Path, metavar="FILE", help="tracks in COCO's layout for videos (YouTube-VIS)"
    )
    video.add_argument("--mot", type=Path, metavar="FILE", help="boxes of the tracks as MOT Challenge has them")
    video.add_argument("--fps", type=_rate, metavar="N", help="frames a second of a folder of pictures")
    how = "how labels are followed: with a memory (memory), or as published (minvis)"
    video.add_argument("--tracking", choices=("memory", "minvis"), help=how)
    bar = "show how far it is (on a terminal)"
    video.add_argument("--progress", action=argparse.BooleanOptionalAction, default=None, help=bar)


def _perceive(options: argparse.Namespace) -> int:
    asked = [name for name in ASKED if getattr(options, name) is not None]
    if not asked:
        raise ValueError(f"nothing to look for: give {', '.join('--' + name for name in ASKED[:-1])} or --{ASKED[-1]}")
    if len(options.files) > 1 and (placed := [name for name in asked if name not in ("labels", "expression")]):
        raise ValueError(f"--{placed[0]} is about one image, and there are {len(options.files)}")
    if options.json not in (None, "-") and Path(options.json).suffix.lower() in PICTURES:
        raise ValueError(f"--json would write text to {options.json}; put --json behind the images")
    if any(Path(file).suffix.lower() not in PICTURES and _is_video(file) for file in options.files):
        return _perceive_video(options)
    for name in ("coco_vis", "mot", "fps", "tracking"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is about a video, and {options.files[0]} is none")
    pictures = _overlays(options.files, options.out)
    _model(options)

    from lookhear.perceive import perceive

    prompts = _prompts(options)
    failed = perceive(
        options.files,
        _seeing(options),
        prompts,
        pictures=pictures,
        json_path=options.json,
        batch_size=options.batch_size or 1,
        threshold=options.threshold,
        top_k=options.top_k,
    )
    return 2 if failed else 0


def _perceive_video(options: argparse.Namespace) -> int:
    if len(options.files) > 1:
        raise ValueError(f"a video is looked at by itself, and there are {len(options.files)} files")
    file, out = options.files[0], options.out
    if out is not None and (out.is_dir() or not out.suffix):
        out = out / f"{_name(file)}.mp4"
    if out is not None and out.suffix.lower() not in VIDEOS:
        raise ValueError(f"--out {out}: the ending of a video must be one of {', '.join(VIDEOS)}")
    json = None if options.json in (None, "-") else Path(options.json)
    written = [path.absolute() for path in (out, json, options.coco_vis, options.mot) if path is not None]
    for path in written:
        if written.count(path) > 1 or path == Path(file).absolute():
            raise ValueError(f"{path} would be written over")
    _model(options)

    from lookhear.perceive_video import VideoOutputs, perceive_video

    settings = {"batch_size": options.batch_size, "tracking": options.tracking}
    prompts = _prompts(options)
    return perceive_video(
        file,
        _seeing(options),
        prompts,
        VideoOutputs(out, options.json, options.coco_vis, options.mot),
        fps=options.fps,
        progress=options.progress,
        threshold=options.threshold,
        top_k=options.top_k,
        **{name: value for name, value in settings.items() if value is not None},
    )


def _is_video(file: str) -> bool:
    from lookhear.processing.glee.video_source_glee import is_video_source

    return is_video_source(file)


def _seeing(options: argparse.Namespace):
    from transformers import pipeline

    import lookhear  # noqa: F401 - registers the task

    return pipeline("object-perception", model=options.model, device=options.device)


def _prompts(options: argparse.Namespace) -> dict:
    from lookhear.perceive import read_mask

    prompts = {"labels": options.labels, "expressions": options.expression, "points": options.point}
    prompts |= {"boxes": options.box, "scribbles": options.scribble}
    prompts["masks"] = [read_mask(mask) for mask in options.mask or ()] or None
    return {name: value for name, value in prompts.items() if value is not None}


def _overlays(files: list[str], out: Path | None) -> list[Path] | None:
    """Where the overlay of each file goes."""
    if out is None:
        return None
    folder = len(files) > 1 or out.is_dir() or not out.suffix
    if folder and (out.is_file() or out.suffix.lower() in PICTURES):
        raise ValueError(f"--out {out}: several images need a folder")
    if not folder and out.suffix.lower() not in PICTURES:
        raise ValueError(f"--out {out}: the ending must be one of {', '.join(PICTURES)}")
    pictures = [out / f"{_name(file)}.png" for file in files] if folder else [out]
    for picture, file in zip(pictures, files):
        if pictures.count(picture) > 1:
            raise ValueError(f"two images would both be drawn to {picture}; rename one")
        if picture.exists() and Path(file).exists() and picture.samefile(file):
            raise ValueError(f"--out would write over the image {file}")
    return pictures


# ----------------------------------------------------------------------------------------------------- prepare, train


def _add_prepare(commands) -> None:
    example = "lookhear prepare lrs3 /data/LRS3 prepared/lrs3 --split trainval --num-proc 8 --shard 0/16"
    summary = "turn a corpus into Parquet shards of mouth crops, sound and text"
    parser = _command(commands, "prepare", summary, example, _prepare)
    corpora = ("folder", "grid", "lrs2", "lrs3", "lrw")
    parser.add_argument("corpus", choices=corpora, help="layout of SOURCE; folder: videos with a metadata.jsonl")
    parser.add_argument("source", type=Path, help="folder of the corpus")
    parser.add_argument("output", type=Path, help="folder of the shards; what is there already is not made again")
    parser.add_argument("--split", help="part of the corpus (all)")
    parser.add_argument("--num-proc", type=_positive, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="this job of N jobs, from 0 (0/1)")
    parser.add_argument("--model", help="take the crop's geometry from this checkpoint (the paper's)")
    parser.add_argument("--roi-size", type=_positive, metavar="PIXELS", help="side of the stored crop")
    parser.add_argument("--crop-size", type=_positive, metavar="PIXELS", help="side of what the network sees")
    parser.add_argument("--mouth-width", type=float, metavar="PIXELS", help="mouth corner to mouth corner in the crop")
    parser.add_argument("--clips-per-shard", type=_positive, default=200, metavar="N", help="clips in a file (200)")


def _prepare(options: argparse.Namespace) -> None:
    from lookhear.training.avsr.prepare import prepare

    settings = {name: value for name, value in vars(options).items() if name not in ("run", "command")}
    corpus, source, output = (settings.pop(name) for name in ("corpus", "source", "output"))
    print(prepare(corpus, source, output, **settings))


def _add_train(commands) -> None:
    example = "lookhear train grid_tiny.yaml training.output_dir=runs/grid training.learning_rate=5e-4\n  "
    example += "lookhear train glee --data my_coco.json --images pictures/ --model glee-lite/ --output my-glee/"
    summary = "train a model by a recipe, or GLEE on your own classes"
    parser = _command(commands, "train", summary, example, _train)
    recipe = "a file, the name of a shipped recipe, or 'glee' with the options below"
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help=recipe)
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="replaces one setting")
    _add_own_classes(parser)


def _add_own_classes(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("your own classes (lookhear train glee)")
    own.add_argument("--data", type=Path, metavar="FILE", help="COCO file; its categories are the classes")
    own.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures (the file's own)")
    own.add_argument("--model", metavar="FOLDER", help="GLEE checkpoint to start from: folder or Hub id")
    own.add_argument("--output", type=Path, metavar="DIR", help="where the result goes; a stopped run goes on there")
    own.add_argument("--validation", type=Path, metavar="FILE", help="COCO file to measure on (a tenth of --data)")
    own.add_argument("--validation-images", type=Path, metavar="DIR", help="folder of its pictures (the file's own)")
    own.add_argument("--text", choices=("frozen", "trained"), default="frozen", help="the text encoder (frozen)")
    own.add_argument("--epochs", type=float, default=12, metavar="N", help="12; after each, AP is measured")
    own.add_argument("--batch-size", type=_positive, default=2, metavar="N", help="pictures a step and process (2)")
    own.add_argument("--learning-rate", type=float, default=1e-4, metavar="X", help="1e-4; a tenth for the backbone")
    own.add_argument("--skip-bad", action="store_true", help="go on without annotations that cannot be used")
    own.add_argument("--keep-empty", action="store_true", help="train on pictures without objects, too")
    own.add_argument("--seed", type=int, default=0, help="of order, augmentation and what is held out (0)")


def _train(options: argparse.Namespace) -> None:
    if str(options.recipe) == "glee":
        from lookhear.fine_tune import run

        return run(options, options.settings)
    from lookhear.training.run_recipe import run_recipe

    run_recipe(options.recipe, options.settings)


# ---------------------------------------------------------------------------------------------------------- evaluate


def _add_evaluate(commands) -> None:
    example = "lookhear evaluate avsr --data grid/test --modality audio,visual,audiovisual --snr clean,5,0,-5 --json out.json"
    example += "\n  lookhear evaluate glee --protocol coco --data /data/coco --model glee-lite/ --output runs/coco"
    summary = "measure error rates under noise, or run a published protocol for objects; the figures go to stdout"
    parser = _command(commands, "evaluate", summary, example, _evaluate)
    parser.add_argument("system", choices=("avsr", "glee"), help="what to measure")
    data = "folder of videos with a metadata.jsonl (file_name, text), or one made by `lookhear prepare`; of glee, the "
    data += "folder of the protocol's data set as it is published"
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER", help=data)
    _add_model(parser)
    _add_protocol(parser)
    parser.add_argument("--modality", type=_list, default=list(MODALITIES), help="comma-separated (all three)")
    parser.add_argument("--snr", type=_list, default=["clean"], help="comma-separated decibels and 'clean' (clean)")
    noise = "comma-separated: babble, human, talker, or a sound file (babble)"
    parser.add_argument("--noise", type=_list, default=["babble"], help=noise)
    _add_search(parser)
    parser.set_defaults(batch_size=None)  # 8 clips, or 1 picture: padding changes a little what is found
    parser.add_argument("--seed", type=int, default=0, help="of noise and intervals (0)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="the first N clips, pictures or videos only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results as CSV")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw WER over SNR (png, svg, pdf)")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    glee = parser.add_argument_group("a published protocol (lookhear evaluate glee)")
    glee.add_argument(
        "--protocol",
        metavar="NAME",
        help="coco, lvis, refcoco, ytvis19, davis, tao, …; evaluation/protocols/README.md lists all",
    )
    glee.add_argument("--split", help="part of the data set (the protocol's own)")
    glee.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures (the published one)")
    kept = "predictions, figures, and the file for a server; a stopped run goes on there (the protocol's name)"
    glee.add_argument("--output", type=Path, metavar="DIR", help=kept)
    how = "how labels are followed: with a memory (memory), or as published (minvis)"
    glee.add_argument("--tracking", choices=("memory", "minvis"), default="memory", help=how)


def _evaluate(options: argparse.Namespace) -> None:
    if options.system == "glee":
        from lookhear.evaluate_glee import run

        if options.model == _packaged("avsr-grid-tiny"):
            options.model = _packaged("glee-tiny")
        _model(options)
        return run(options, _Progress("it"))
    from lookhear.evaluation.avsr_conditions import evaluate_avsr
    from lookhear.evaluation.tables import draw_results, format_table, format_word_times, to_csv, to_json, write_text

    rows = [
        result.to_dict()
        for result in evaluate_avsr(
            _model(options),
            options.data,
            modalities=options.modality,
            noises=options.noise,
            snrs=options.snr,
            seed=options.seed,
            limit=options.limit,
            device=options.device,
            batch_size=options.batch_size or 8,
            progress=_Progress(),
            **_search_settings(options),
        )
    ]
    print(format_table(rows), end="")
    if times := format_word_times(rows):
        print("\n" + times, end="")
    if options.json:
        write_text(options.json, to_json(rows))
    if options.csv:
        write_text(options.csv, to_csv(rows))
    if options.picture:
        draw_results(rows, options.picture)


class _Progress:
    """A bar on stderr for each label that reports: (label, done, total); `unit` is what is counted."""

    def __init__(self, unit: str = "clip"):
        self.bar, self.label, self.unit = None, None, unit

    def __call__(self, label: str, done: int, total: int) -> None:
        from tqdm.auto import tqdm

        if self.label != label:
            self.bar, self.label = tqdm(total=total, desc=label, unit=self.unit, file=sys.stderr), label
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()


# ----------------------------------------------------------------------------------------------------------- convert


def _add_convert(commands) -> None:
    example = "lookhear convert glee GLEE_Lite_joint.pth glee-lite/"
    summary = "turn a published checkpoint into a folder that from_pretrained reads"
    parser = _command(commands, "convert", summary, example, None)
    systems = parser.add_subparsers(required=True, metavar="SYSTEM", title="systems")
    glee = _command(systems, "glee", "convert a checkpoint of GLEE", example, _convert_glee)
    glee.add_argument(
        "checkpoint", type=Path, metavar="FILE", help=".pth, .pt, .bin or .safetensors; no code in it is run"
    )
    glee.add_argument("output", type=Path, metavar="DIR", help="folder to make")
    clip = "openai/clip-vit-base-patch32"
    glee.add_argument("--tokenizer", metavar="FOLDER", help=f"folder or Hub id of the tokenizer ({clip})")
    glee.add_argument("--config", metavar="FOLDER", help="a GleeConfig's folder or config.json (read off the weights)")
    glee.add_argument("--for-training", action="store_true", help="keep the text teacher and the denoising tables")
    summary = "convert a recogniser, a word classifier, or what a front-end starts from: MoCo v2, wav2vec 2.0"
    avsr = _command(
        systems, "avsr", summary, "lookhear convert avsr audiovisual.ckpt avsr-audiovisual/", _convert_avsr
    )
    files = "checkpoint of the reference code, MoCo v2, torchvision or fairseq; no code in it is run; or "
    avsr.add_argument("checkpoint", metavar="FILE", help=files + "a wav2vec2, HuBERT or WavLM folder or Hub id")
    avsr.add_argument("output", type=Path, metavar="DIR", help="folder to make")
    avsr.add_argument(
        "--config", metavar="FOLDER", help="an AvsrConfig's folder or config.json (read off the weights)"
    )


def _convert_glee(options: argparse.Namespace) -> None:
    from lookhear.training.glee.convert import convert_checkpoint

    settings = {name: getattr(options, name) for name in ("tokenizer", "config", "for_training")}
    print(convert_checkpoint(options.checkpoint, options.output, **settings))


def _convert_avsr(options: argparse.Namespace) -> None:
    from lookhear.training.avsr.convert import convert_checkpoint

    print(convert_checkpoint(options.checkpoint, options.output, config=options.config))


# --------------------------------------------------------------------------------------------------- synthesize, demo


def _add_synthesize(commands) -> None:
    example = 'lookhear synthesize --text "bin blue at f two now" --portrait photo.jpg -o clip.mp4'
    example += "\n  lookhear synthesize --scene --seed 7 -o scene.png"
    summary = "make a portrait say a text (a video with sound), or a scene of shapes (a picture)"
    parser = _command(commands, "synthesize", summary, example, _synthesize)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", help="what to say")
    what.add_argument("--scene", action="store_true", help="make a picture of shapes; --seed says which")
    facts = "word times, or the scene's objects and sentences about them, go beside it"
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help=facts)
    portraits = "a photo of one face, 'astronaut' or 'hopper'"
    parser.add_argument("--portrait", metavar="PHOTO", help=portraits + " (astronaut)")
    parser.add_argument("--voice", default="en-us", help="an espeak-ng voice (en-us)")
    parser.add_argument("--rate", type=_positive, metavar="WORDS", help="words a minute (by the seed)")
    parser.add_argument("--pitch", type=int, help="0 to 100 (by the seed)")
    parser.add_argument("--seed", type=int, default=0, help="of pauses, head movements and what is not given (0)")
    parser.add_argument("--second", metavar="PHOTO", help=portraits + ", shown on the right")
    parser.add_argument("--second-text", metavar="TEXT", help="what the second face says; without it, nothing")
    parser.add_argument("--second-voice", metavar="VOICE", help="of the second face (another than the first)")


def _synthesize(options: argparse.Namespace) -> None:
    if options.scene:
        from lookhear.training.glee.scene_file import write_scene

        print(*write_scene(options.output, options.seed), sep="\n")
        return
    from lookhear.training.avsr.synthesis import synthesize_clip

    options.output.parent.mkdir(parents=True, exist_ok=True)
    names = ("portrait", "voice", "rate", "pitch", "seed", "second", "second_text", "second_voice")
    clip = synthesize_clip(options.text, options.output, **{name: getattr(options, name) for name in names})
    print(clip.video)
    print(clip.metadata)


def _add_demo(commands) -> None:
    example = "lookhear demo --video holiday.mp4 --output demo"
    summary = "read a talking face in three ways, clean and in babble, and write captions and a picture"
    parser = _command(commands, "demo", summary, example, _demo)
    parser.add_argument("--video", type=Path, help="a clip of yours; without it one is synthesized")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where results go (demo)")
    _add_model(parser)


def _demo(options: argparse.Namespace) -> None:
    from lookhear.demo import run_demo

    run_demo(options.output, video=options.video, model=_model(options), device=options.device)


# ----------------------------------------------------------------------------------------------------- shared options


def _add_model(
    parser: argparse.ArgumentParser, name: str = "avsr-grid-tiny", knows: str = "English commands of the GRID corpus"
) -> None:
    text = f"checkpoint folder or Hub id (the packaged {name}: {knows})"
    parser.add_argument("--model", default=_packaged(name), help=text)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (the first accelerator, else cpu)")


def _packaged(name: str) -> str:
    """The folder of a checkpoint that comes with the package."""
    return str(Path(__file__).parent / "model_cards" / name)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-beams", type=_positive, metavar="N", help="width of the beam search (the checkpoint's)")
    parser.add_argument("--ctc-weight", type=_share, metavar="W", help="of CTC in it, 0 to 1 (the checkpoint's)")
    parser.add_argument("--batch-size", type=_positive, default=8, metavar="N", help="clips read together (8)")


def _model(options: argparse.Namespace) -> str:
    """The checkpoint, checked where it is meant as a folder; a Hub id has one slash at most."""
    model = options.model
    if (model.startswith((".", os.sep)) or model.count("/") > 1) and not Path(model).is_dir():
        raise ValueError(f"--model: there is no folder {model}")
    return model


def _search_settings(options: argparse.Namespace) -> dict:
    settings = {"num_beams": options.num_beams, "ctc_weight": options.ctc_weight}
    return {name: value for name, value in settings.items() if value is not None}


def _pipeline(options: argparse.Namespace):
    from transformers import pipeline

    return pipeline("audio-visual-speech-recognition", model=_model(options), device=options.device)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _chunk_length(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 2 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 2 or more")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number


def _numbers(text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not {count} numbers with commas between them")
    return numbers


def _points(text: str) -> list[tuple[float, ...]]:
    return [_numbers(point, 2) for point in text.split(";")]


def _line(text: str) -> list[tuple[float, ...]]:
    points = [_numbers(point, 2) for point in text.split()]
    if not points:
        raise argparse.ArgumentTypeError("it has no point")
    return points


def _box(text: str) -> tuple[float, ...]:
    return _numbers(text, 4)


def _list(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty entry")
    return items


if __name__ == "__main__":
    sys.exit(main())
