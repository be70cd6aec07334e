"""Follow whatever words name through a video: one identity for each object, from the first frame to the last.

python examples/follow_what_is_named.py walk.mp4 tracked.webp --labels person dog
"""

import argparse

from transformers import pipeline

import lookhear  # noqa: F401 - registers the pipeline's task
from lookhear.processing.glee import draw_objects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="path or URL")
    parser.add_argument("output", help="animated picture to write: .webp or .gif")
    parser.add_argument("--labels", nargs="+", required=True, help="names of what to follow")
    parser.add_argument("--frames", type=int, default=100, help="how many frames to look at (100)")
    parser.add_argument("--model", default="model_cards/glee-tiny", help="folder or Hub id")
    options = parser.parse_args()

    see = pipeline("object-perception", model=options.model)
    pictures = []
    with see(options.video, labels=options.labels) as frames:
        for objects in frames:
            for found in objects:
                box = " ".join(f"{edge}={value:.0f}" for edge, value in found["box"].items())
                print(f"frame {frames.index}: {found['label']} {found['track_id']}, {found['score']:.0%} sure, {box}")
            pictures.append(draw_objects(frames.frame, objects))
            if len(pictures) == options.frames:
                break
    pictures[0].save(options.output, save_all=True, append_images=pictures[1:], duration=80, loop=0)
    print(options.output)


if __name__ == "__main__":
    main()
