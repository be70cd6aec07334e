"""Read one of several people who talk at the same time: describe them, or point at them in the first picture.

python examples/choose_speaker.py talk.mp4 --speaker "the person on the left"
python examples/choose_speaker.py talk.mp4 --point 120 80
"""

import argparse

from transformers import pipeline

import lookhear  # noqa: F401 - registers the pipeline's task, and a small model that finds people


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="path or URL")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--speaker", help="one person in words, or 'everyone'")
    who.add_argument("--point", nargs=2, type=float, metavar=("X", "Y"), help="pixels of the first picture")
    parser.add_argument("--model", default="model_cards/avsr-grid-tiny", help="folder or Hub id")
    options = parser.parse_args()

    asr = pipeline("audio-visual-speech-recognition", model=options.model)
    speaker = {"point": tuple(options.point)} if options.point else options.speaker
    chosen = asr(options.video, speaker=speaker, return_timestamps="word")
    for one in chosen.get("speakers", [chosen]):  # "everyone" has a result for each person
        print(f"{one.get('speaker', 'the speaker')}: {one['text'] or '(nothing)'}")
    for warning in chosen["report"]["warnings"]:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
