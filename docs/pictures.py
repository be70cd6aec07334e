"""Draws the pictures of these pages from what the packaged checkpoints find: `python docs/pictures.py [NAME …]`.

Everything is synthesized here, nothing is downloaded; all takes about five minutes on two cores. Look at a picture
before it is committed: captions in the pages say what is in it.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lookhear_command import main

FOLDER = Path(__file__).parent / "pictures"
CARDS = Path(__file__).parents[1] / "model_cards"
WIDTH = 1000  # pixels: a page shows about 700, a sharp screen twice that
SENTENCES = (
    "bin blue at f two now",
    "set white by k nine soon",
    "lay green with a four please",
    "place red in m seven again",
    "bin white by s one now",
    "set blue at e five soon",
)


def command(*arguments) -> None:
    """Runs `lookhear …` in this process.

    Args:
        arguments: what follows `lookhear`.

    Raises:
        RuntimeError: the command has failed.
    """
    if main([str(argument) for argument in arguments]):
        raise RuntimeError(f"lookhear {' '.join(map(str, arguments))} has failed")


def frames_of(video: Path) -> list[Image.Image]:
    """Decodes a short video whole."""
    with av.open(str(video)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def save(picture: Image.Image, name: str) -> None:
    """Writes a picture no wider than `WIDTH`; JPEG or PNG by its name."""
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture.convert("RGB").save(FOLDER / name, quality=82, optimize=True)


def beside(*pictures: Image.Image, gap: int = 12) -> Image.Image:
    """Places pictures of one height side by side on white."""
    sheet = Image.new("RGB", (sum(p.width for p in pictures) + gap * (len(pictures) - 1), pictures[0].height), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


def captions(folder: Path) -> None:
    """A portrait says a sentence: three moments of the captioned video, and what is read in babble."""
    command("demo", "--output", folder)
    frames = frames_of(folder / "captioned.mp4")
    save(beside(*(frames[round(len(frames) * share)] for share in (0.25, 0.5, 0.72))), "captions.jpg")
    save(Image.open(folder / "reading.png"), "babble.png")
    save(Image.open(folder / "speaker.jpg"), "speaker.jpg")


def found(folder: Path) -> None:
    """A scene, by labels on the left, by sentences and a point on the right."""
    command("synthesize", "--scene", "--seed", 11, "-o", folder / "scene.png")
    scene = folder / "scene.png"
    command("perceive", scene, "--labels", "circle,square,triangle,star,heart,moon,cross,ring", "--threshold", 0.5,
            "--out", folder / "labels.png")  # fmt: skip
    sentence, point = _question(folder / "scene.json")
    command("perceive", scene, "--expression", sentence, "--point", point, "--out", folder / "sentence.png")
    save(beside(Image.open(folder / "labels.png"), Image.open(folder / "sentence.png")), "found.jpg")


def _question(facts: Path) -> tuple[str, str]:
    """Chooses a sentence about one object, and a point on another: ("the leftmost star", "120,80")."""
    scene = json.loads(facts.read_text())
    expression = max(scene["expressions"], key=lambda one: len(one["text"]))
    other = next(one for number, one in enumerate(scene["objects"]) if number != expression["object"])
    left, top, right, bottom = other["box"]
    return expression["text"], f"{(left + right) / 2:.0f},{(top + bottom) / 2:.0f}"


def asked(folder: Path) -> None:
    """Two questions about a scene, each with its answer in words and as drawn on the scene."""
    command("synthesize", "--scene", "--seed", 11, "-o", folder / "scene.png")
    questions = ("Which of these would roll? Show it.", "Which star is the leftmost?")
    sheets = []
    for number, question in enumerate(questions):
        overlay, facts = folder / f"{number}.png", folder / f"{number}.json"
        command("ask", folder / "scene.png", question, "--out", overlay, "--json", facts)
        answer = json.loads(facts.read_text())["images"][0]["answers"][0]["text"]
        with Image.open(overlay) as drawn:
            sheet = Image.new("RGB", (drawn.width, drawn.height + 74), "white")
            sheet.paste(drawn)
        pen = ImageDraw.Draw(sheet)
        pen.text((4, sheet.height - 66), question, "#555555", ImageFont.load_default(24))
        pen.text((4, sheet.height - 34), answer, "black", ImageFont.load_default(24))
        sheets.append(sheet)
    save(beside(*sheets), "asked.jpg")


def overview(folder: Path) -> None:
    """Both systems side by side, from two pictures that are drawn by now: the chosen speaker, the scene by labels."""
    speaker, scene = Image.open(FOLDER / "speaker.jpg"), Image.open(FOLDER / "found.jpg")
    scene = scene.crop((0, 0, (scene.width - 12) // 2, scene.height))
    height = 360
    sized = [
        one.resize((round(one.width * height / one.height), height), Image.Resampling.LANCZOS)
        for one in (speaker, scene)
    ]
    save(beside(*sized), "overview.jpg")


def tracked(folder: Path) -> None:
    """What is named keeps its number through a video; every third frame of it."""
    command("synthesize", "--scene", "--seed", 2, "-o", folder / "scene.mp4")
    command("perceive", folder / "scene.mp4", "--labels", "circle,ring,moon,person", "--out", folder / "tracked.mp4")
    frames = [
        frame.resize((480, round(480 * frame.height / frame.width))) for frame in frames_of(folder / "tracked.mp4")
    ]
    frames[0].save(
        FOLDER / "tracked.webp", save_all=True, append_images=frames[3::3], duration=240, loop=0, quality=40
    )


def fine_tuning(folder: Path) -> None:
    """Three epochs on twenty scenes whose classes are pairs of colour and kind: the contact sheet of the run."""
    data = coco_file(folder / "coco", scenes=20)
    command("train", "glee", "--data", data, "--model", CARDS / "glee-tiny", "--output", folder / "own", "--epochs", 3)
    sheet = Image.open(folder / "own" / "contact_sheet.jpg")  # pairs of found and annotated, two in a row
    save(sheet.crop((sheet.width // 2, 0, sheet.width, sheet.height)), "fine_tuning.jpg")


def coco_file(folder: Path, scenes: int) -> Path:
    """Writes generated scenes as somebody's own COCO file.

    Args:
        folder: made; pictures and `my_coco.json` go there.
        scenes: how many pictures.
    """
    folder.mkdir()
    images, annotations, categories = [], [], {}
    for number in range(scenes):
        command("synthesize", "--scene", "--seed", 100 + number, "-o", folder / f"{number}.png")
        with Image.open(folder / f"{number}.png") as picture:
            width, height = picture.size
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for one in json.loads((folder / f"{number}.json").read_text())["objects"]:
            left, top, right, bottom = one["box"]
            box = [left, top, right - left, bottom - top]
            category = categories.setdefault(one["label"], len(categories) + 1)
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box}
            annotations.append(row | {"area": box[2] * box[3], "iscrowd": 0})
    named = [{"id": number, "name": name} for name, number in categories.items()]
    (folder / "my_coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": named})
    )
    return folder / "my_coco.json"


def clips(folder: Path) -> Path:
    """Writes talking portraits with a `metadata.jsonl`: one for each of `SENTENCES`."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number, text in enumerate(SENTENCES):
        portrait = ("hopper", "astronaut")[number % 2]
        command("synthesize", "--text", text, "--portrait", portrait, "--seed", number, "-o", folder / f"{number}.mp4")
        rows.append({"file_name": f"{number}.mp4", "text": text})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def training(folder: Path) -> None:
    """The mouths that `lookhear prepare` stores: every sixth frame of four clips."""
    from lookhear.training.avsr.prepare import decode_row, load_prepared

    command("prepare", "folder", clips(folder / "clips"), folder / "prepared", "--model", CARDS / "avsr-grid-tiny")
    rows = [decode_row(row) for row in load_prepared([str(folder / "prepared")]).select(range(4))]
    font, side = ImageFont.load_default(18), 76
    sheet = Image.new("RGB", (12 * side, len(rows) * (side + 30)), "white")
    for number, row in enumerate(rows):
        top = number * (side + 30)
        ImageDraw.Draw(sheet).text((2, top + 4), row["text"], "black", font)
        for column, mouth in enumerate(row["mouths"][6::6][:12]):
            crop = Image.fromarray(np.asarray(mouth)).resize((side - 4, side - 4))
            sheet.paste(crop.convert("RGB"), (column * side, top + 28))
    save(sheet, "training.jpg")


def publishing(folder: Path) -> None:
    """Word error rates over the loudness of babble, as a card shows them."""
    command(
        "evaluate", "avsr", "--data", clips(folder / "clips"), "--snr", "clean,5,0,-5", "--picture", folder / "wer.png"
    )
    save(Image.open(folder / "wer.png"), "publishing.png")


PICTURES = {
    one.__name__: one for one in (captions, found, asked, overview, tracked, fine_tuning, training, publishing)
}

if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", MPLBACKEND="Agg")
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        with tempfile.TemporaryDirectory() as scratch:
            PICTURES[name](Path(scratch))
