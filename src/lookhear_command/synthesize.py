"""`lookhear synthesize`: talking portraits, of a text or a recorded voice, and scenes of shapes."""

from __future__ import annotations

import argparse
from pathlib import Path

from .argument_types import positive
from .parsing import Commands, add_command
from .shared_options import check_outputs


def add(commands: Commands) -> None:
    example = 'lookhear synthesize --text "bin blue at f two now" --portrait photo.jpg -o clip.mp4'
    example += "\n  lookhear synthesize --sound voice.wav --phones voice.json --portrait hopper -o clip.mp4"
    example += "\n  lookhear synthesize --scene --seed 2 -o scene.mp4"
    summary = "make a portrait say a text (a video with sound), or a scene of shapes (a picture or a video)"
    parser = add_command(commands, "synthesize", summary, example, run)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", help="what to say")
    voice = "a recorded voice to be said instead of --text; needs --phones"
    what.add_argument("--sound", type=Path, metavar="FILE", help=voice)
    what.add_argument("--scene", action="store_true", help="make a picture of shapes, or a video of moving ones")
    phones = "phones of --sound (ARPABET or IPA) with their seconds: JSON of [phone, start, end], lines 'start end "
    phones += "phone', or a metadata.jsonl that names the sound; also words and text, if it has them"
    parser.add_argument("--phones", type=Path, metavar="FILE", help=phones)
    facts = "file to write; a json of word times, or of the scene's objects and sentences, goes beside it"
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help=facts)
    portraits = "a photo or a video of one face, 'astronaut' or 'hopper'"
    parser.add_argument("--portrait", metavar="PHOTO", help=portraits + " (astronaut)")
    parser.add_argument("--voice", default="en-us", help="an espeak-ng voice (en-us)")
    parser.add_argument("--rate", type=positive, metavar="WORDS", help="words per minute (by the seed)")
    parser.add_argument("--pitch", type=int, help="pitch of the voice, 0 to 100 (by the seed)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the scene, or of pauses, head movements and options that are not given (0)",
    )
    parser.add_argument("--second", metavar="PHOTO", help=portraits + ", shown on the right")
    parser.add_argument("--second-text", metavar="TEXT", help="what the second face says; without it, nothing")
    parser.add_argument("--second-voice", metavar="VOICE", help="voice of the second face (not the first one's)")


def run(options: argparse.Namespace) -> None:
    check_outputs(output=options.output)
    if options.scene:
        from lookhear.training.glee.scenes.scene_file import write_scene

        print(*write_scene(options.output, options.seed), sep="\n")
        return
    from lookhear.training.avsr.synthesis import load_recording, synthesize_clip

    if (options.sound is None) != (options.phones is None):
        raise ValueError("--sound and --phones go together: give both")
    recording = None if options.sound is None else load_recording(options.sound, options.phones)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    names = ("portrait", "voice", "rate", "pitch", "seed", "second", "second_text", "second_voice")
    given = {name: getattr(options, name) for name in names}
    clip = synthesize_clip(options.text, options.output, recording=recording, **given)
    print(clip.video)
    print(clip.metadata)
