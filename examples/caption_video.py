"""Write subtitles for a video: what is said in it, word by word, with times.

python examples/caption_video.py clip.mp4 clip.srt
"""

import argparse

from transformers import pipeline

import lookhear  # noqa: F401 - registers the pipeline's task
from lookhear.processing.avsr import write_captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="path or URL of a video, or of a sound file")
    parser.add_argument("captions", help="file to write; it ends in .srt, .vtt, .tsv, .json or .txt")
    parser.add_argument("--model", default="model_cards/avsr-grid-tiny", help="folder or Hub id")
    parser.add_argument("--modality", default="auto", choices=("auto", "audio", "visual", "audiovisual"))
    options = parser.parse_args()

    asr = pipeline("audio-visual-speech-recognition", model=options.model)
    result = asr(options.video, modality=options.modality, return_timestamps="word")
    for warning in result["report"]["warnings"]:  # a dark mouth, a turned head, faint sound: why the text may be wrong
        print(f"warning: {warning}")
    for word in result["chunks"]:
        start, end = word["timestamp"]
        print(f"{start:6.2f} {end:6.2f}  {word['text']}  ({word['confidence']:.0%} sure)")
    print(write_captions(result, options.captions))


if __name__ == "__main__":
    main()
