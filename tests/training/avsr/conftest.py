"""Prepared folders made by code: clips whose sound and lips spell their text letter by letter."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookhear.training.avsr.prepare import PREPARED_SCHEMA, encode_flac

ROI, CROP = 20, 16  # pixels
LETTERS = " ETOAIN"
FRAMES_PER_LETTER = 3

TINY_MODEL = {
    "config": {
        "audio_config": {"front_end": "spectrogram", "num_mel_bins": 16, "n_fft": 400},
        "visual_config": {
            "layer_type": "basic",
            "stem_channels": 4,
            "hidden_sizes": [8],
            "depths": [1],
            "crop_size": CROP,
            "pooling": "flatten",
        },
        "hidden_size": 32,
        "encoder_layers": 1,
        "fusion_layers": 1,
        "decoder_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "head_hidden_sizes": [],
        "norm_first": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    },
    "image_processor": {"roi_size": ROI, "crop_size": CROP, "mouth_width": 10},
}


def spell(text: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound (one tone per letter) and mouths (one bright place per letter), three frames each, with a little noise."""
    generator = np.random.default_rng(seed)
    frames = FRAMES_PER_LETTER * len(text)
    audio = 0.01 * generator.normal(size=frames * 640).astype(np.float32)
    mouths = generator.integers(0, 40, (frames, ROI, ROI)).astype(np.uint8)
    time = np.arange(FRAMES_PER_LETTER * 640) / 16000
    for place, letter in enumerate(text):
        number = LETTERS.index(letter)
        start = place * FRAMES_PER_LETTER
        audio[start * 640 : (start + FRAMES_PER_LETTER) * 640] += 0.3 * np.sin(2 * np.pi * (300 + 600 * number) * time)
        row, column = 3 + 7 * (number // 3), 3 + 5 * (number % 3)
        mouths[start : start + 2, row : row + 4, column : column + 4] = 220  # the third frame closes the mouth
    return audio, mouths


def word_times(text: str) -> list[dict]:
    """Each word of a spelled text with its start and end in seconds."""
    words, place = [], 0
    for word in text.split(" "):
        seconds = FRAMES_PER_LETTER / 25
        words.append({"word": word, "start": place * seconds, "end": (place + len(word)) * seconds})
        place += len(word) + 1
    return words


def random_texts(count: int, seed: int = 0, words: int = 2) -> list[str]:
    """Texts of words of two different letters, no letter twice in a row."""
    generator = np.random.default_rng(seed)
    return [
        " ".join("".join(generator.permutation(list(LETTERS[1:]))[:2]) for _ in range(words)) for _ in range(count)
    ]


def write_prepared(folder, texts: list[str], speaker: str | None = "s1", clips=None):
    """A folder as `lookhear prepare` leaves it. clips: pairs (sound, mouths), else the texts are spelled."""
    folder.mkdir(parents=True)
    rows = []
    for number, text in enumerate(texts):
        audio, mouths = clips[number] if clips else spell(text, number)
        rows.append(
            {
                "id": f"clip{number}",
                "text": text,
                "speaker": speaker,
                "split": "train",
                "duration": len(text) * FRAMES_PER_LETTER / 25,
                "audio": None if audio is None else encode_flac(audio),
                "mouths": None if mouths is None else mouths.tobytes(),
                "mouth_shape": None if mouths is None else list(mouths.shape),
                "landmarks": None if mouths is None else np.zeros((len(mouths), 68, 2), np.float16).tobytes(),
                "words": word_times(text),
                "report": json.dumps({"frames_with_face": 1.0 if number % 2 == 0 else 0.25}),
            }
        )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=PREPARED_SCHEMA), buffer)
    (folder / "clips-00000-of-00001.parquet").write_bytes(buffer.getvalue())
    (folder / "prepare.json").write_text(json.dumps({"roi_size": ROI, "mouth_width": 10.0, "fps": 25.0}))
    return folder


@pytest.fixture(autouse=True)
def dataset_cache(tmp_path_factory, monkeypatch):
    """The memory-mapped copies of prepared folders go away with the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))


@pytest.fixture(scope="session")
def prepared_folder():
    return write_prepared


@pytest.fixture(scope="session")
def make_texts():
    return random_texts


@pytest.fixture(scope="session")
def spelled():
    return spell


@pytest.fixture(scope="session")
def tiny_recipe():
    """Sections of a recipe for prepared folders of this file: 6 steps of 2 clips, a checkpoint after 3."""

    def make(folder, output, **training) -> dict:
        settings = {
            "output_dir": str(output),
            "use_cpu": True,
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 8,
            "learning_rate": 2e-3,
            "logging_steps": 1,
            "save_steps": 3,
            "disable_tqdm": True,
            "seed": 3,
        }
        return {
            "model": TINY_MODEL,
            "data": {"train": [str(folder)]},
            "augmentation": {"noise_probability": 0.5, "noise_talkers": [1, 2]},
            "training": settings | training,
        }

    return make
