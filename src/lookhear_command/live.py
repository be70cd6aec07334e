"""`lookhear live`: what is said now, in front of a camera and a microphone, or in a stream."""

from __future__ import annotations

import argparse
import sys

from .argument_types import positive, rate, share, speaker
from .parsing import Commands, add_command
from .shared_options import (
    MODALITIES,
    SEARCHES,
    STANDARD_INPUT,
    add_dtype,
    add_model,
    checked_model,
)


def add(commands: Commands) -> None:
    example = (
        "lookhear live                               # the camera and the microphone of this machine\n  "
        "lookhear live clip.mp4                      # a file, at its own speed\n  "
        'lookhear live rtsp://camera/stream --speaker "the person on the left"'
    )
    parser = add_command(commands, "live", "read what is said while it is said", example, run)
    where = "stream's address, file (at its own speed), or - for the standard input; none: a camera and a microphone"
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=where)
    add_model(parser)
    add_dtype(parser)
    parser.add_argument("--camera", metavar="DEVICE", help="which camera (the first), or none: only sound is read")
    parser.add_argument("--microphone", metavar="DEVICE", help="which microphone (the default), or none: only lips")
    parser.add_argument("--modality", choices=("auto", *MODALITIES), default="auto", help="what to read from (auto)")
    who = "whom to read: words that describe one person, X,Y or X0,Y0,X1,Y1 in pixels of the first picture; on a "
    who += "terminal, a line typed meanwhile chooses somebody else, an empty one the most prominent face"
    parser.add_argument("--speaker", type=speaker, metavar="WHO", help=who)
    finder = "checkpoint that finds the speaker, folder or Hub id (the packaged glee-tiny: people side by side)"
    parser.add_argument("--speaker-model", metavar="MODEL", help=finder)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each word, with its delay")
    parser.add_argument("--seconds", type=rate, metavar="N", help="stop after N seconds (never)")
    parser.add_argument("--num-beams", type=positive, metavar="N", help="width of the beam search (the checkpoint's)")
    parser.add_argument("--ctc-weight", type=share, metavar="W", help="weight of CTC, 0 to 1 (the checkpoint's)")
    parser.add_argument("--search", choices=SEARCHES, help="see transcribe (the checkpoint's)")
    least = "leave out what is read with a lower confidence, 0 to 1, as no speech; 0: nothing (the checkpoint's)"
    parser.add_argument("--speech-confidence", type=share, metavar="C", help=least)


def run(options: argparse.Namespace) -> int:
    if options.source is not None and (options.camera is not None or options.microphone is not None):
        raise ValueError(f"--camera and --microphone are for devices, and SOURCE is {options.source}: leave them out")
    if options.camera == "none" and options.microphone == "none":
        raise ValueError("--camera none and --microphone none leave nothing to read")
    model = checked_model(options, "avsr")
    from lookhear.commands.live import Caption, open_devices, open_source, read_live, summary
    from lookhear.commands.loading import load_pipeline
    from lookhear.training.named_models import local_model

    if options.source is None:
        inputs = open_devices(options.camera, options.microphone)
    else:
        inputs = [open_source(None if options.source == STANDARD_INPUT else options.source)]
    try:
        settings = {
            name: getattr(options, name) for name in ("num_beams", "ctc_weight", "search", "speech_confidence")
        }
        settings |= {"modality": options.modality, "speaker": options.speaker}
        if options.speaker_model is not None:
            settings["speaker_model"] = local_model(options.speaker_model)
        asr = load_pipeline("audio-visual-speech-recognition", model, options.device, options.dtype)
        report = read_live(asr, inputs, Caption(options.json), options.seconds, speaker, **settings)
    finally:
        for one in inputs:
            one.close()
    print(f"lookhear live: {summary(report)}", file=sys.stderr)
    if report["error"] is not None:
        print(f"lookhear live: error: {report['error']}", file=sys.stderr)
    return 2 if report["error"] is not None else 0
