"""`lookhear evaluate`: error rates under noise and beside other talkers, and published protocols for objects."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from .argument_types import comma_list, count, positive, share
from .parsing import Commands, add_command
from .shared_options import (
    MODALITIES,
    add_dtype,
    add_model,
    add_search,
    check_folder,
    check_outputs,
    checked_model,
    packaged,
    search_settings,
)

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps")  # that are drawn
ASKED = ("reasonseg", "scene-questions")  # protocols of questions, which a LISA-GLEE answers


def add(commands: Commands) -> None:
    example = "lookhear evaluate avsr --data grid/test --modality audio,visual,audiovisual --snr clean,5,0,-5 "
    example += "--json out.json"
    example += "\n  lookhear evaluate avsr --data grid/test --non-speech --json quiet.json"
    example += "\n  lookhear evaluate glee --protocol coco --data /data/coco --model glee-lite/ --output runs/coco"
    example += "\n  lookhear evaluate glee --protocol reasonseg --data /data/reason_seg --model lisa-glee/"
    example += "\n  lookhear evaluate two-talkers --data grid/test --others grid_speakers --output runs/two-talkers"
    example += "\n  lookhear evaluate words --data /data/LRW --model runs/lrw_words"
    summary = (
        "measure error rates under noise or beside other talkers, the accuracy of words read from lips, or run a "
    )
    summary += "published protocol for objects; "
    summary += "the figures go to stdout"
    parser = add_command(commands, "evaluate", summary, example, run)
    parser.add_argument("system", choices=("avsr", "words", "two-talkers", "glee"), help="what to measure")
    data = (
        "folder of videos with a metadata.jsonl (file_name, text), or one made by `lookhear prepare`; for glee, the "
    )
    data += "folder of the protocol's data set as it is published; for words, also LRW; two-talkers makes portraits "
    data += "without it, and scene-questions scenes"
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=data)
    add_model(parser)
    add_dtype(parser)
    _add_protocol(parser)
    _add_two_talkers(parser)
    parser.add_argument(
        "--modality",
        type=comma_list,
        default=list(MODALITIES),
        help="comma-separated audio, visual, audiovisual (all three)",
    )
    snr = "comma-separated decibels and 'clean' (clean; for two-talkers 5,0,-5)"
    parser.add_argument("--snr", type=comma_list, help=snr)
    noise = "comma-separated: babble, human, talker, or a sound file (babble)"
    parser.add_argument("--noise", type=comma_list, default=["babble"], help=noise)
    part = "probability of each clip to be disturbed, the same clips at every SNR (1; the paper's test: 0.25)"
    parser.add_argument("--noise-probability", type=share, metavar="P", help=part)
    strict = "avsr: end at the first clip that cannot be read; else it is left out, and listed on stderr and in --json"
    parser.add_argument("--strict", action="store_true", help=strict)
    readers = "avsr: processes that read videos, before the model reads them (one for each core)"
    parser.add_argument("--num-workers", type=count, metavar="N", help=readers)
    quiet = "avsr: words a minute that are read where nobody speaks, of twelve kinds of sound and lips, instead of "
    quiet += "error rates"
    parser.add_argument("--non-speech", action="store_true", help=quiet)
    outside = "let a metadata.jsonl name files outside of its folder"
    parser.add_argument("--allow-outside", action="store_true", help=outside)
    add_search(parser)
    parser.set_defaults(batch_size=None)  # 8 clips, 32 words, or 1 picture: padding changes a little what is found
    anew = "begin anew instead of resuming what a command that was interrupted has read or found"
    parser.add_argument("--overwrite", action="store_true", help=anew)
    parser.add_argument("--seed", type=int, default=0, help="seed of noise and intervals (0)")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N clips, pictures or videos only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results as CSV")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw WER over SNR (png, svg, pdf)")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    glee = parser.add_argument_group("a published protocol (lookhear evaluate glee)")
    glee.add_argument(
        "--protocol",
        metavar="NAME",
        help="coco, lvis, refcoco, reasonseg, ytvis19, davis, tao, …; evaluation/protocols/README.md lists all",
    )
    glee.add_argument("--split", help="part of the data set (the protocol's own; for words, LRW's test)")
    glee.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures (the published one)")
    results_folder = "results, and files for a server; an interrupted run resumes there (the protocol's name; avsr: "
    results_folder += "beside --json, --csv or --picture)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=results_folder)
    how = "how labels are followed: with a memory (memory), or as published (minvis)"
    glee.add_argument("--tracking", choices=("memory", "minvis"), default="memory", help=how)


def _add_two_talkers(parser: argparse.ArgumentParser) -> None:
    people = parser.add_argument_group("people side by side whose voices are mixed (lookhear evaluate two-talkers)")
    others = "folder with a metadata.jsonl of people who talk beside those of --data"
    people.add_argument("--others", type=Path, metavar="FOLDER", help=others)
    people.add_argument(
        "--talking", type=count, default=200, metavar="N", help="mixtures in which the target talks (200)"
    )
    people.add_argument(
        "--silent", type=count, default=100, metavar="N", help="mixtures in which the target is silent (100)"
    )
    how = "name people by their place (words), or say where they are, without a search (track)"
    people.add_argument("--choose", choices=("words", "track"), default="words", help=how)
    people.add_argument(
        "--speaker-model",
        metavar="MODEL",
        help="checkpoint that finds people: folder or Hub id (the packaged glee-tiny)",
    )


def run(options: argparse.Namespace) -> None:
    _check_outputs(options)
    if options.system != "avsr" and options.noise_probability is not None:
        raise ValueError("--noise-probability applies to avsr only: leave it out")
    if options.non_speech and options.system != "avsr":
        raise ValueError("--non-speech applies to avsr only: leave it out")
    if options.dtype != "auto" and options.system != "avsr":
        raise ValueError("--dtype applies to avsr only: leave it out")
    if options.num_workers is not None and (options.system != "avsr" or options.non_speech):
        raise ValueError("--num-workers applies to the error rates of avsr only: leave it out")
    if options.system == "two-talkers":
        from lookhear.commands import evaluate_two_talkers

        return evaluate_two_talkers.run(
            options, checked_model(options, "avsr"), search_settings(options), _Progress("it")
        )
    if options.data is None and options.protocol != "scene-questions":  # which is made from settings in the package
        raise ValueError(f"evaluate {options.system} needs --data FOLDER")
    if options.system == "glee":
        from lookhear.commands import evaluate_glee

        if options.model == packaged("avsr-grid-tiny"):
            options.model = packaged("lisa-glee-tiny" if options.protocol in ASKED else "glee-tiny")
        options.model = checked_model(options)
        return evaluate_glee.run(options, _Progress("it"))
    if options.system == "words":
        return _words(options)
    if options.non_speech:
        return _non_speech(options)
    from lookhear.evaluation.avsr_conditions import evaluate_avsr
    from lookhear.evaluation.tables import draw_results, format_table, format_word_times, to_csv, to_json
    from lookhear.evaluation.whole_files import write_text

    model, stored = checked_model(options, "avsr"), _readings(options)
    problems: list[dict[str, str]] = []

    def left_out(clip: str, error: Exception) -> None:
        problems.append({"id": clip, "problem": " ".join(str(error).split()) or type(error).__name__})

    try:
        rows = [
            result.to_dict()
            for result in evaluate_avsr(
                model,
                options.data,
                modalities=options.modality,
                noises=options.noise,
                snrs=options.snr or ["clean"],
                noise_probability=1.0 if options.noise_probability is None else options.noise_probability,
                seed=options.seed,
                limit=options.limit,
                device=options.device,
                dtype=options.dtype,
                batch_size=options.batch_size or 8,
                progress=_Progress(),
                on_problem=None if options.strict else left_out,
                stored=stored,
                allow_outside=options.allow_outside,
                num_workers=options.num_workers,
                **search_settings(options),
            )
        ]
    except BaseException:
        if stored is not None and not len(stored):
            stored.remove()
        raise
    for problem in problems:
        print(f"lookhear evaluate: {problem['id']} was left out: {problem['problem']}", file=sys.stderr)
    print(format_table(rows), end="")
    if times := format_word_times(rows):
        print("\n" + times, end="")
    if options.json:
        write_text(options.json, to_json(rows, problems))
    if options.csv:
        write_text(options.csv, to_csv(rows))
    if options.picture:
        draw_results(rows, options.picture)
    if stored is not None and options.output is None:
        stored.remove()


def _check_outputs(options: argparse.Namespace) -> None:
    """Raises ValueError for a file or folder of results that cannot be written, before anything is computed."""
    check_outputs(json=options.json, csv=options.csv, picture=options.picture)
    if options.picture is not None and options.picture.suffix.lower() not in PICTURES:
        raise ValueError(f"--picture {options.picture}: the ending must be one of {', '.join(PICTURES)}")
    check_folder(options.output)


def _readings(options: argparse.Namespace) -> Any:
    """
    Opens what an interrupted command has read: in the folder of --output, where it stays, or beside the first file of
    results, where it is removed once that is written; None without either.
    """
    from lookhear.evaluation.fingerprints import with_content
    from lookhear.evaluation.protocols.stored_results import StoredResults, resumed_work

    names = ("num_beams", "ctc_weight", "search", "batch_size", "limit", "seed", "dtype", "noise_probability")
    about = {name: getattr(options, name) for name in names}
    about |= {name: with_content(os.path.join(getattr(options, name), "")) for name in ("model", "data")}
    if options.output is not None:
        path = options.output / "readings.jsonl"
        if options.overwrite:
            path.unlink(missing_ok=True)
        return StoredResults(path, about)
    beside = next((path for path in (options.json, options.csv, options.picture) if path is not None), None)
    return beside and resumed_work(beside.with_name(f".{beside.name}.readings"), about, options.overwrite)


def _words(options: argparse.Namespace) -> None:
    unused: dict[str, Any] = {"modality": list(MODALITIES), "noise": ["babble"]}  # with their defaults
    unused |= {"overwrite": False}
    unused |= dict.fromkeys(("snr", "num_beams", "ctc_weight", "search", "protocol", "images", "output", "others"))
    for name, default in unused.items():
        if getattr(options, name) != default:
            raise ValueError(f"--{name.replace('_', '-')} does not apply to words: leave it out")
    if options.model == packaged("avsr-grid-tiny"):
        raise ValueError(
            "evaluate words needs --model: a classifier of words, such as `lookhear train lrw_words.yaml`'s"
        )
    from lookhear.commands import evaluate_words

    evaluate_words.run(options, checked_model(options, "avsr"), _Progress("clip"))


def _non_speech(options: argparse.Namespace) -> None:
    unused: dict[str, Any] = {"noise": ["babble"]}  # with its default
    unused |= dict.fromkeys(("snr", "noise_probability", "picture", "csv"))
    for name, default in unused.items():
        if getattr(options, name) != default:
            raise ValueError(f"--{name.replace('_', '-')} does not apply to --non-speech: leave it out")
    import json

    from lookhear.evaluation.non_speech import evaluate_non_speech, format_non_speech
    from lookhear.evaluation.whole_files import write_text

    results = evaluate_non_speech(
        checked_model(options, "avsr"),
        options.data,
        modalities=options.modality,
        seed=options.seed,
        limit=options.limit,
        device=options.device,
        dtype=options.dtype,
        batch_size=options.batch_size or 8,
        progress=_Progress(),
        **search_settings(options),
    )
    print(format_non_speech(results), end="")
    if options.json:
        write_text(options.json, json.dumps({"non_speech": [row.to_dict() for row in results]}, indent=2) + "\n")


class _Progress:
    """A bar on stderr for each label that reports: (label, done, total); `unit` is what is counted."""

    def __init__(self, unit: str = "clip"):
        self.unit = unit
        self.label: str | None = None
        self.bar: Any = None  # tqdm, which is imported when there is something to show

    def __call__(self, label: str, done: int, total: int) -> None:
        from tqdm.auto import tqdm

        if self.label != label:
            self.bar, self.label = tqdm(total=total, desc=label, unit=self.unit, file=sys.stderr), label
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()
