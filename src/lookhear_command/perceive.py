"""`lookhear perceive`: what is named, described or pointed at in images or a video."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import IO, Any

from .argument_types import box, comma_list, count, line, points, positive, rate, share, share_or_auto
from .found_files import readable
from .interrupted import FilesDone
from .overlays import PICTURES, overlay_paths
from .parsing import Commands, add_command
from .perceive_folders import add_options, check_options, perceive_folders
from .shared_options import STANDARD_INPUT, add_dtype, add_model, check_outputs, checked_model, result_name

ASKED = ("labels", "expression", "point", "box", "scribble", "mask")  # options of what to look for
STILL = (".jpg", ".jpeg", ".bmp")  # pictures that are one picture
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webp")  # that are written; the last is an animated picture


def add(commands: Commands) -> None:
    example = (
        "lookhear perceive street.jpg --model glee-lite/ --labels person,dog --out overlay.png\n  "
        'lookhear perceive street.jpg --model glee-lite/ --expression "the man on the left" --point 120,80 --json\n  '
        'lookhear perceive street.mp4 --model glee-lite/ --expression "the red car" --out tracked.mp4 '
        "--json tracks.jsonl\n  "
        "lookhear perceive pictures/ --recursive --model glee-lite/ --labels person --output found/"
    )
    summary = "find and segment what is named, described or pointed at in images, and follow it through a video"
    parser = add_command(commands, "perceive", summary, example, run)
    files = "image file, URL, or - for the standard input; or one video: file, URL, -, folder of numbered pictures, "
    files += "or animated GIF or WebP"
    parser.add_argument("files", nargs="+", metavar="IMAGE", help=files)
    add_model(parser, "glee-tiny", "shapes of generated scenes, nothing else")
    add_dtype(parser, "scores")
    parser.add_argument(
        "--labels",
        type=comma_list,
        action="extend",
        help="comma-separated names, any number of objects each; 'object' finds all objects; may be repeated",
    )
    again = "; may be repeated"
    one = "one name, which may have a comma in it" + again
    parser.add_argument("--label", dest="labels", action="append", metavar="NAME", help=one)
    parser.add_argument("--expression", action="append", metavar="TEXT", help="a sentence about one object" + again)
    parser.add_argument(
        "--point", action="append", type=points, metavar="X,Y[;X,Y…]", help="points of one object" + again
    )
    parser.add_argument(
        "--box", action="append", type=box, metavar="X0,Y0,X1,Y1", help="a box around one object" + again
    )
    parser.add_argument(
        "--scribble", action="append", type=line, metavar='"X,Y X,Y…"', help="a line on one object" + again
    )
    parser.add_argument(
        "--mask", action="append", metavar="FILE", help="image that is black outside one object" + again
    )
    lowest = "lowest score of objects found by --labels (the checkpoint's own, or 0.2)"
    parser.add_argument("--threshold", type=share, help=lowest)
    there = "leave out what is found for an --expression below this score; auto: the checkpoint's own (0 in an image)"
    parser.add_argument("--expression-threshold", type=share_or_auto, metavar="SHARE", help=there)
    parser.add_argument(
        "--top-k", type=positive, default=100, metavar="N", help="at most N objects are found by --labels (100)"
    )
    best = "give an object its best label only, not each that fits"
    parser.add_argument("--one-label", action="store_true", help=best)
    frames = "what a folder or an animated picture is: a video, each of its pictures by itself, or the first (video)"
    parser.add_argument("--frames", choices=("video", "each", "first"), help=frames)
    parser.add_argument("--each", dest="frames", action="store_const", const="each", help="short for --frames each")
    together = "images (1) or frames (4) that go through the model together"
    parser.add_argument("--batch-size", type=positive, metavar="N", help=together)
    readers = "processes that read image files, ahead of the model (one for each core but one, from nine files on)"
    parser.add_argument("--num-workers", type=count, metavar="N", help=readers)
    size = "pixels that an image (89478485) or a frame (36000000) may have; larger ones are refused"
    parser.add_argument("--max-pixels", type=positive, metavar="N", help=size)
    out = "draw what was found: an image file, or a folder for NAME.png of each image; for a video an mp4, mov "
    out += "or mkv, or an animated webp"
    parser.add_argument("--out", type=Path, metavar="PATH", help=out)
    results = (
        "write JSON with masks as COCO run lengths, for a video one line per frame; without a name, or with -, to "
    )
    results += "stdout instead of the table"
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help=results)
    coco = "write what was found in images in COCO's form, which 'lookhear train glee' reads; of a folder, in each of "
    coco += "its pictures"
    parser.add_argument("--coco", type=Path, metavar="FILE", help=coco)
    anew = "search all images, also those that an interrupted command has searched (--out, --json or --coco)"
    parser.add_argument("--overwrite", action="store_true", help=anew)
    video = parser.add_argument_group("options for a video")
    video.add_argument(
        "--coco-vis", type=Path, metavar="FILE", help="tracks in COCO's layout for videos (YouTube-VIS)"
    )
    video.add_argument("--mot", type=Path, metavar="FILE", help="boxes of the tracks in MOT Challenge's layout")
    video.add_argument("--fps", type=rate, metavar="N", help="frames per second of a folder of pictures")
    how = "how labels are tracked: with a memory (memory), or as published (minvis)"
    video.add_argument("--tracking", choices=("memory", "minvis"), help=how)
    by_mask = "look for the object of an --expression by its own mask, too"
    video.add_argument("--reprompt", action="store_true", default=None, help=by_mask)
    ways = (
        "how objects of --point, --box, --scribble and --mask are followed: each for itself (exact), or most of the "
    )
    ways += "work once for all of them, less exactly (shared)"
    video.add_argument("--following", choices=("exact", "shared"), help=ways)
    bar = "show how far it is (on a terminal)"
    video.add_argument("--progress", action=argparse.BooleanOptionalAction, default=None, help=bar)
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    asked = [name for name in ASKED if getattr(options, name) is not None]
    if not asked and not _knows_classes(options.model):
        raise ValueError(f"nothing to look for: give {', '.join('--' + name for name in ASKED[:-1])} or --{ASKED[-1]}")
    check_options(options)
    if options.output is not None:
        return perceive_folders(options, _prompts(options))
    if len(options.files) > 1 and (placed := [name for name in asked if name not in ("labels", "expression")]):
        raise ValueError(f"--{placed[0]} applies to a single image, and there are {len(options.files)}")
    if options.json not in (None, "-") and Path(options.json).suffix.lower() in PICTURES:
        raise ValueError(f"--json would write text to {options.json}; put --json after the images")
    _check_coco(options)
    frames = options.frames or ("video" if options.coco is None else "each")
    piped = {file: pipe for file in options.files if not isinstance(pipe := readable(file), str)}
    if piped and options.coco is not None:
        raise ValueError(f"--coco names files, and {next(iter(piped))} is none: write it to a file first")
    moving = [
        file for file in options.files if Path(file).suffix.lower() not in STILL and _is_video(piped.get(file, file))
    ]
    if moving and frames == "video":
        return _perceive_video(options, piped.get(options.files[0]))
    for name in ("coco_vis", "mot", "fps", "tracking", "reprompt", "following"):
        if getattr(options, name) is not None:
            which = "looked at as pictures" if moving else "not one"
            raise ValueError(f"--{name.replace('_', '-')} applies to videos only, and {options.files[0]} is {which}")
    from lookhear.commands.stills import PipedFile, as_stills

    stills = options.files
    if moving:
        if animated := [file for file in moving if file in piped]:
            raise ValueError(f"--frames {frames} needs a file, and {animated[0]} is a pipe: write it to a file first")
        stills = as_stills(options.files, moving, frames)
        if options.coco is not None and (parts := [still for still in stills if not isinstance(still, str)]):
            raise ValueError(f"--coco names files of one picture each, and {parts[0].file} holds several")
    if len(stills) > 1 and (placed := [name for name in asked if name not in ("labels", "expression")]):
        raise ValueError(f"--{placed[0]} applies to a single image, and there are {len(stills)}")
    stills = [PipedFile(_shown(file), piped[file]) if file in piped else file for file in stills]
    names = [str(still) for still in stills]
    pictures = overlay_paths(names, options.out)
    check_outputs(json=options.json, coco=options.coco, out=pictures[0] if pictures else None)
    options.model = checked_model(options, "glee")

    from lookhear.commands.perceive import perceive

    prompts, done = _prompts(options), None if piped else _done(options, names)
    failed = perceive(
        stills,
        _seeing(options),
        prompts,
        pictures=pictures,
        json_path=options.json,
        coco=options.coco,
        batch_size=options.batch_size or 1,
        num_workers=options.num_workers,
        done=done,
        threshold=options.threshold,
        expression_threshold=options.expression_threshold,
        top_k=options.top_k,
        one_label=options.one_label,
        max_pixels=options.max_pixels,
    )
    if done is not None:
        done.remove()
    return 2 if failed else 0


def _done(options: argparse.Namespace, names: list[str]) -> FilesDone | None:
    """
    Returns what the same command has done before it was interrupted: in the folder of --out, or beside the file of
    --json or --coco. None without any of them, or for a single picture.
    """
    if len(names) < 2:
        return None
    if options.out is not None:
        return FilesDone(options.out / ".perceive.done", options, names=names)
    files = [Path(path) for path in (options.json, options.coco) if path not in (None, "-")]
    return FilesDone(files[0].with_name(f".{files[0].name}.done"), options, names=names) if files else None


def _knows_classes(model: str) -> bool:
    """Returns whether a checkpoint's folder names the classes that it was fine-tuned on."""
    path = Path(model) / "config.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8")).get("id2label")
    except (OSError, ValueError, AttributeError):
        return False
    return bool(names)


def _check_coco(options: argparse.Namespace) -> None:
    """Raises ValueError where `--coco` cannot be written."""
    if options.coco is None:
        return
    if options.frames == "video":
        raise ValueError("--coco is for pictures; for a video pass --coco-vis")
    if options.coco.suffix.lower() != ".json":
        raise ValueError(f"--coco {options.coco}: its ending must be .json")
    if any(Path(file).absolute() == options.coco.absolute() for file in [*options.files, options.json or "-"]):
        raise ValueError(f"{options.coco} would be overwritten")


def _shown(file: str) -> str:
    """Returns the name of a file in messages and results."""
    return result_name(file) if file == STANDARD_INPUT else file


def _perceive_video(options: argparse.Namespace, content: IO[bytes] | None = None) -> int:
    if len(options.files) > 1:
        raise ValueError(f"pass one video at a time, there are {len(options.files)} files")
    if options.num_workers is not None:
        raise ValueError("--num-workers is for images, and the frames of a video come from one file")
    file, out = _shown(options.files[0]), options.out
    if out is not None and (out.is_dir() or not out.suffix):
        out = out / f"{result_name(file)}.mp4"
    if out is not None and out.suffix.lower() not in VIDEOS:
        raise ValueError(f"--out {out}: the ending of a video must be one of {', '.join(VIDEOS)}")
    json = None if options.json in (None, "-") else Path(options.json)
    written = [path.absolute() for path in (out, json, options.coco_vis, options.mot) if path is not None]
    for path in written:
        if written.count(path) > 1 or path == Path(file).absolute():
            raise ValueError(f"{path} would be overwritten")
    check_outputs(out=out, json=json, coco_vis=options.coco_vis, mot=options.mot)
    options.model = checked_model(options, "glee")

    from lookhear.commands.perceive_video import VideoOutputs, perceive_video

    names = ("batch_size", "tracking", "reprompt", "following", "max_pixels")
    settings = {name: getattr(options, name) for name in names}
    prompts = _prompts(options)
    return perceive_video(
        file,
        _seeing(options),
        prompts,
        VideoOutputs(out, options.json, options.coco_vis, options.mot),
        content=content,
        fps=options.fps,
        progress=options.progress,
        threshold=options.threshold,
        expression_threshold=options.expression_threshold,
        top_k=options.top_k,
        **{name: value for name, value in settings.items() if value is not None},
    )


def _is_video(file: str | IO[bytes]) -> bool:
    from lookhear.processing.glee import is_video_source

    return is_video_source(file)


def _seeing(options: argparse.Namespace) -> Any:
    """Loads the pipeline `object-perception`."""
    from lookhear.commands.loading import load_pipeline

    return load_pipeline("object-perception", options.model, options.device, options.dtype)


def _prompts(options: argparse.Namespace) -> dict:
    from lookhear.commands.perceive import read_mask

    prompts = {"labels": options.labels, "expressions": options.expression, "points": options.point}
    prompts |= {"boxes": options.box, "scribbles": options.scribble}
    prompts["masks"] = [read_mask(mask) for mask in options.mask or ()] or None
    return {name: value for name, value in prompts.items() if value is not None}
