"""Clips that take no time to make: a grey level says who is seen, a tone who is heard."""

import json

import numpy as np
import pytest

from lookhear.processing.avsr.rendering_avsr import write_video
from lookhear.training.avsr.corpora import read_folder

TEXTS = (
    "bin blue at f two now",
    "set red by k one soon",
    "lay green in z nine again",
    "place white with a zero please",
)


def tone(number: int, seconds: float) -> np.ndarray:
    """A pure tone of 300, 500, 700, ... Hz while the words last."""
    times = np.arange(round(seconds * 16000)) / 16000
    wave = 0.1 * (1 + number) * np.sin(2 * np.pi * (300 + 200 * number) * times)
    wave[(times < 0.2) | (times > seconds - 0.4)] = 0
    return wave.astype(np.float32)


@pytest.fixture(scope="session")
def tone_clips(tmp_path_factory):
    """Four utterances of 1.2 s (the last: 0.8 s); the grey level is 40, 80, ... and 20 brighter during words."""
    folder, rows = tmp_path_factory.mktemp("tones"), []
    for number, text in enumerate(TEXTS):
        seconds = 0.8 if number == 3 else 1.2
        start, end = 0.2, seconds - 0.4
        frames = [
            np.full((32, 48, 3), 40 * (number + 1) + 20 * (start <= index / 25 < end), np.uint8)
            for index in range(round(25 * seconds))
        ]
        write_video(folder / f"{number}.mp4", frames, 25, tone(number, seconds))
        rows.append({"file_name": f"{number}.mp4", "text": text, "words": [{"word": "x", "start": start, "end": end}]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_folder(folder))
