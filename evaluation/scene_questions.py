"""Makes the benchmark scene-questions: generated pictures, held-out questions about them, and their exact answers.

`python -m lookhear.evaluation.scene_questions FOLDER` writes its repository; the same settings give the same bytes.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lookhear.evaluation.tables import whole_file
from lookhear.training.recipe_reading import Count, CountOrZero, fill

CARD = Path(__file__).parent / "dataset_cards" / "scene-questions"
SETTINGS, DATA = "scenes.yaml", "test.parquet"


@dataclass
class SceneSettings:
    """
    What determines the benchmark.

    Attributes:
        scenes: number of pictures.
        seed: other seeds give other scenes and questions.
    """

    scenes: Count = 200
    seed: CountOrZero = 777_777


def read_settings(path: Path) -> SceneSettings:
    """
    Reads `scenes.yaml`.

    Raises:
        ValueError: it is not a mapping of the fields of `SceneSettings`.
    """
    try:
        return fill(SceneSettings, yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def make_rows(settings: SceneSettings) -> Iterator[dict[str, Any]]:
    """
    Makes the benchmark's rows, one for each question, in the order of their pictures.

    Args:
        settings: of the benchmark.

    Yields:
        `id`; `image` ({"bytes": of a PNG file, "path": its name}); `question`; `answer`, with `[SEG]` after the words
        for each object; `masks`, the run lengths of each object, in the order of the `[SEG]`; `family` and `form` of
        the question; `new_pair`, whether an object has one of the pairs of colour and kind that training leaves out;
        `other_question`, about another picture; `scene`, the picture's index; `seed`.
    """
    from lookhear.evaluation.measures.mask_runs import encode_mask
    from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS
    from lookhear.training.lisa_glee.evaluate_scenes import exchange, scene_questions

    asked = [(scene, one) for scene in range(settings.scenes) for one in scene_questions(scene, settings.seed)]
    others = exchange([one for _, one in asked])
    pictures: dict[int, bytes] = {}  # of the current scene
    for (scene, one), other in zip(asked, others, strict=True):
        if scene not in pictures:
            pictures = {scene: _png(one.scene.image)}
        objects = [one.scene.shapes[index] for index in one.question.objects]
        yield {
            "id": f"{scene:04d}-{one.question.family}",
            "image": {"bytes": pictures[scene], "path": f"{scene:04d}.png"},
            "question": one.question.text,
            "answer": one.question.answer,
            "masks": [encode_mask(shape.mask) for shape in objects],
            "family": one.question.family,
            "form": one.question.form,
            "new_pair": any((shape.colour, shape.kind) in HELD_OUT_PAIRS for shape in objects),
            "other_question": other.text,
            "scene": scene,
            "seed": settings.seed,
        }


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def to_parquet(rows: Iterable[dict[str, Any]]) -> bytes:
    """
    Writes rows as a Parquet file that `datasets` reads with their features.

    Args:
        rows: see [`make_rows`].

    Returns:
        The file. A picture is in the row of each question about it, but takes up space once: the compression finds the
        repetitions, which are close together.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lookhear.evaluation.measures.metric_rows import MASK

    text, number = datasets.Value("string"), datasets.Value("int64")
    features = datasets.Features(
        {
            "id": text,
            "image": datasets.Image(),
            "question": text,
            "answer": text,
            "masks": [MASK],
            "family": text,
            "form": text,
            "new_pair": datasets.Value("bool"),
            "other_question": text,
            "scene": number,
            "seed": number,
        }
    )
    table = pa.Table.from_pylist(list(rows), schema=features.arrow_schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=["family", "form"])
    return buffer.getvalue()


def load_rows(folder: Path) -> list[dict[str, Any]]:
    """
    Loads the benchmark's rows.

    Args:
        folder: of the repository; one without `test.parquet`, as in the project, makes its rows from `scenes.yaml`.

    Returns:
        Rows as [`make_rows`] yields them.

    Raises:
        ValueError: the folder has neither, or the file has other columns.
    """
    if (folder / DATA).is_file():
        return _read_parquet(folder / DATA)
    if (folder / SETTINGS).is_file():
        return list(make_rows(read_settings(folder / SETTINGS)))
    raise ValueError(
        f"{folder}: expected {DATA}; download the benchmark scene-questions there, or make it with "
        f"python -m lookhear.evaluation.scene_questions {folder}"
    )


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file: {' '.join(str(error).split())}") from None
    needed = ("scene", "image", "question", "other_question", "answer", "masks", "family", "new_pair")
    if missing := [name for name in needed if name not in table.column_names]:
        raise ValueError(f"{path} is not the data of scene-questions: it has no column {missing[0]}")
    return table.to_pylist()


def write_benchmark(folder: Path, settings: SceneSettings) -> None:
    """
    Writes the repository: the card, the tasks, the settings and the data.

    Args:
        folder: where to; it is made if need be, and its files of these names are replaced.
        settings: of the benchmark.
    """
    made = yaml.safe_dump({"scenes": settings.scenes, "seed": settings.seed}, sort_keys=False).encode()
    contents = {path.name: path.read_bytes() for path in CARD.iterdir() if path.suffix in (".md", ".yaml")}
    for name, content in {**contents, SETTINGS: made, DATA: to_parquet(make_rows(settings))}.items():
        with whole_file(folder / name) as partial:
            partial.write_bytes(content)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Writes the benchmark to a folder.

    Args:
        arguments: of the command line; those of the process if None.
    """
    usual = read_settings(CARD / SETTINGS)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write the repository")
    parser.add_argument("--scenes", type=int, default=usual.scenes, help=f"pictures ({usual.scenes})")
    parser.add_argument("--seed", type=int, default=usual.seed, help="other seeds give other scenes and questions")
    options = parser.parse_args(arguments)
    try:
        settings = fill(SceneSettings, {"scenes": options.scenes, "seed": options.seed}, "")
        write_benchmark(options.folder, settings)
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
