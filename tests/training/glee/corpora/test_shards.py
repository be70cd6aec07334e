"""SA-1B and GRIT, from tar files and folders, picture by picture."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from PIL import Image

from lookhear.processing.glee.geometry_glee import coco_rle
from lookhear.training.glee.corpora.grit import read_grit
from lookhear.training.glee.corpora.opening import stream_corpus
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.sa1b import read_sa1b, sa1b_shards


def jpeg(size=(30, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (200, 90, 20)).save(file, "JPEG")
    return file.getvalue()


def pack(path, files: dict[str, bytes]):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def segment_anything(square):
    """The JSON of one picture of SA-1B as bytes."""

    def make(number: int) -> bytes:
        runs = coco_rle(square[2])
        entry = {"id": number * 10, "segmentation": runs, "bbox": square[0], "area": 100, "predicted_iou": 0.9}
        whole = entry | {"id": number * 10 + 1, "bbox": [5, 8, 11, 11]}
        image = {"image_id": number, "width": 40, "height": 30, "file_name": f"sa_{number}.jpg"}
        return json.dumps({"image": image, "annotations": [entry, whole]}).encode()

    return make


@pytest.fixture
def sa1b(tree, segment_anything):
    for shard in range(3):
        one, two = 2 * shard, 2 * shard + 1
        files = {f"./sa_{one}.jpg": jpeg(), f"./sa_{two}.jpg": jpeg(), f"./sa_{two}.json": segment_anything(two)}
        pack(tree.file(f"sa_00000{shard}.tar"), {**files, f"./sa_{one}.json": segment_anything(one)})
    return tree


def test_sa1b_from_tar_files(sa1b):
    rows = list(read_sa1b(sa1b.root))
    assert [row["id"] for row in rows] == ["sa_1", "sa_0", "sa_3", "sa_2", "sa_5", "sa_4"]
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (40, 30)
    assert rows[0]["objects"][0]["box"] == [5, 8, 15, 18] and rows[0]["objects"][0]["category"] is None
    assert len(list(read_sa1b(sa1b.root, shards=sa1b_shards(sa1b.root)[:1]))) == 2


def test_of_overlapping_objects_the_larger_stays(sa1b):
    assert [thing["box"] for thing in next(read_sa1b(sa1b.root, overlap=0.5))["objects"]] == [[5, 8, 16, 19]]


def test_sa1b_from_folders(tree, segment_anything):
    tree.file("images/sa_000000/sa_1.json").write_bytes(segment_anything(1))
    tree.file("images/sa_000000/sa_2.json").write_bytes(segment_anything(2))
    tree.picture("images/sa_000000/sa_1.jpg")
    with pytest.raises(CorpusError, match="image sa_2: it has no picture"):
        list(read_sa1b(tree.root))
    (row,) = read_sa1b(tree.root, problems=Problems(skip=True))
    assert row["image"]["path"].endswith("sa_1.jpg")


def test_damaged_shards_are_named(tree):
    tree.text("sa_000000.tar", "no tar file")
    with pytest.raises(CorpusError, match="sa_000000.tar is damaged"):
        list(read_sa1b(tree.root))
    pack(tree.root / "sa_000000.tar", {"sa_1.jpg": jpeg(), "sa_1.json": b"{"})
    with pytest.raises(CorpusError, match="image sa_1: its JSON .* cannot be read"):
        list(read_sa1b(tree.root))
    with pytest.raises(CorpusError, match="expected sa_000000.tar, or folders"):
        list(read_sa1b(tree.file("empty/x").parent))


def test_a_stream_is_spread_over_shards(sa1b):
    stream = stream_corpus("sa1b", sa1b.root)
    assert stream.num_shards == 3
    halves = [[row["id"] for row in stream.shard(3, index)] for index in range(3)]
    assert halves == [["sa_1", "sa_0"], ["sa_3", "sa_2"], ["sa_5", "sa_4"]]


@pytest.fixture
def grit(tree):
    caption = "a dog in a field of flowers"
    chunks = [[0, 5, 0.25, 0.1, 0.5, 0.4, 0.9], [9, 16, 0.0, 0.5, 1.0, 1.0, 0.7]]
    references = [[0, 27, 0.25, 0.1, 0.5, 0.4, 0.9]]
    content = {"key": "000000001", "caption": caption, "width": 40, "height": 30, "url": "", "status": "success"}
    content |= {"noun_chunks": chunks, "ref_exps": json.dumps(references)}
    files = {
        "000000001.jpg": jpeg(),
        "000000001.txt": caption.encode(),
        "000000001.json": json.dumps(content).encode(),
    }
    pack(tree.file("00000.tar"), files)
    return tree


def test_grit(grit):
    (row,) = read_grit(grit.root)
    assert [thing["box"] for thing in row["objects"]] == [pytest.approx([10, 3, 20, 12]), [0, 15, 40, 30]]
    wanted = [("a dog", [0]), ("a field", [1]), ("a dog in a field of flowers", [0])]
    assert [(entry["text"], entry["objects"]) for entry in row["expressions"]] == wanted
    (row,) = read_grit(grit.root, kinds=["noun_chunks"], least_score=0.8)
    assert [entry["text"] for entry in row["expressions"]] == ["a dog"]
