"""People side by side whose voices are mixed: what sound alone, the person named, and a neighbour give of what the
person named says.

    python benchmarks/two_talkers.py --data GRID/s1/test [--others GRID/speakers] [--model model_cards/avsr-grid-tiny]

FOLDER holds a `metadata.jsonl` with word times beside videos of one face each. Without `--data` portraits are
synthesized, and the mixtures are few (24 and 12). `followed`: share of the mixtures in which the right person was
followed for nine tenths of the time. `--output` keeps mixtures and readings; an interrupted run resumes there.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from transformers import pipeline

import lookhear  # noqa: F401 - registers the task
from lookhear.evaluation.two_talkers.measuring import CHOICES
from lookhear.evaluation.two_talkers.running import run_two_talkers
from lookhear.evaluation.two_talkers.showing import to_markdown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with a metadata.jsonl")
    parser.add_argument("--others", type=Path, help="another one, of people who talk beside them")
    parser.add_argument("--model", default=Path(__file__).parent.parent / "model_cards" / "avsr-grid-tiny")
    parser.add_argument("--speaker-model", help="what finds people (the packaged glee-tiny)")
    parser.add_argument(
        "--choose", choices=CHOICES, default="words", help="name people by place, or say where they are"
    )
    parser.add_argument("--talking", type=int, help="mixtures in which the target talks (200; 24 of portraits)")
    parser.add_argument("--silent", type=int, help="in which the target is silent (100; 12 of portraits)")
    parser.add_argument("--output", type=Path, help="folder that keeps everything")
    options = parser.parse_args()
    talking, silent = (200, 100) if options.data else (24, 12)
    search = {} if options.speaker_model is None else {"speaker_model": options.speaker_model}
    asr = pipeline("audio-visual-speech-recognition", model=str(options.model), **search)
    with tempfile.TemporaryDirectory() as folder:
        results = run_two_talkers(
            asr,
            options.output or folder,
            data=options.data,
            others=options.others,
            talking=talking if options.talking is None else options.talking,
            silent=silent if options.silent is None else options.silent,
            about=f"{options.model} {options.speaker_model or ''}".strip(),
            choose=options.choose,
            progress=_progress,
        )
    print(to_markdown([result.to_dict() for result in results]), end="")


def _progress(label: str, done: int, total: int) -> None:
    if done == total or done % 25 == 0:
        print(f"{label}: {done} of {total}", file=sys.stderr)


if __name__ == "__main__":
    main()
