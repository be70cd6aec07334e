"""A batch is a question about pictures of one source, fixed by its number, that a model can learn from."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.mixture.augmentation import AugmentationRecipe
from lookhear.training.glee.mixture.collating import QueryCollator, shortened
from lookhear.training.glee.mixture.mixture import CorpusBatches, Source
from lookhear.training.glee.mixture.row_order import RowStream
from lookhear.training.glee.mixture.sources import open_source

COLOURS = {"cup": (200, 20, 20), "dog": (20, 200, 20), "cat": (20, 20, 200), "bus": (200, 200, 20), None: (90, 90, 90)}

SMALL = AugmentationRecipe(shortest_edges=[56, 64], longest_edge=128, crop_edges=[64], crop_window=(48, 64))


@pytest.fixture(scope="session")
def rectangles():
    """
    A function that makes a `datasets.Dataset` of pictures of 64 x 96 or 96 x 64 with two rectangles each.

    Arguments: count; names, drawn evenly; masks, whether there are some; sentences, whether each object has one
    ("the left cup"); video, frames of each video (0: stills); seed. A third of the objects of videos is missing.
    """
    from datasets import Dataset

    from lookhear.processing.glee.geometry_glee import coco_rle
    from lookhear.training.glee.corpora.schema import features, make_expression, make_row

    def make(count, names=("cup", "dog", "cat"), masks=True, sentences=False, video=0, seed=0):
        random = np.random.default_rng(seed)
        rows = []
        for index in range(count):
            size = (64, 96) if index % 3 or video else (96, 64)
            pixels = np.zeros((*size, 3), dtype=np.uint8) + 30
            objects, expressions = [], []
            for place in range(2):
                if video and random.random() < 0.33 and index % video:
                    continue
                x0 = int(random.integers(2, 8)) + place * size[1] // 2
                y0 = int(random.integers(2, 30))
                name = (
                    names[random.integers(len(names))] if not video else names[(index // video + place) % len(names)]
                )
                mask = np.zeros(size, dtype=bool)
                mask[y0 : y0 + 30, x0 : x0 + 20] = True
                pixels[mask] = COLOURS[name]
                expressions.append(make_expression(f"the {('left', 'right')[place]} {name}", [len(objects)]))
                runs = {"counts": coco_rle(mask)["counts"], "polygons": None}
                objects.append(
                    {
                        "box": [x0, y0, x0 + 20, y0 + 30],
                        "mask": runs if masks else None,
                        "category": name,
                        "track_id": 10 + place if video else None,
                        "crowd": False,
                    }
                )
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            clip = (f"v{index // video}", index % video) if video else (None, None)
            said = expressions if sentences else ()
            rows.append(make_row(f"{seed}-{index}", file.getvalue(), size, objects, said, *clip))
        return Dataset.from_list(rows, features=features())

    return make


@pytest.fixture
def collator(tiny_glee):
    return QueryCollator(tiny_glee[1])


def same(first, second) -> bool:
    """Whether two questions are alike to the pixel."""
    return (
        first.prompts.keys() == second.prompts.keys()
        and first.rows == second.rows
        and first.supervision == second.supervision
        and all(torch.equal(a.image, b.image) for a, b in zip(first.pictures, second.pictures, strict=True))
    )


@pytest.fixture
def mixture(rectangles):
    def make(length=64, seed=0):
        sources = [
            Source(rectangles(9), ratio=1.0, vocabulary=["bus", "cat", "cup", "dog"], prompts=0.3, augmentation=SMALL),
            Source(rectangles(7, sentences=True, seed=1), ratio=2.0, task="expressions", augmentation=SMALL),
            Source(rectangles(12, video=4, seed=2), ratio=1.0, frames=2, reach=2, prompts=0.5, augmentation=SMALL),
        ]
        return CorpusBatches(sources, length, seed)

    return make


def test_a_batch_is_fixed_by_its_number(mixture):
    batches, other = mixture(), mixture()
    for index in (40, 3, 17, 63):  # in any order, whatever came before
        assert same(batches[index], other[index])
    assert not same(batches[3], mixture(seed=1)[3])
    with pytest.raises(IndexError):
        batches[64]


def test_a_batch_is_of_one_source(mixture):
    batches, kinds = mixture(), set()
    for index in range(64):
        question = batches[index]
        assert len({picture.id.split("-")[0] for picture in question.pictures}) == 1
        kinds.add((question.pictures[0].id[0], *question.prompts))
    assert {("0", "labels"), ("1", "expressions"), ("2", "labels")} <= kinds
    assert any(kind[0] == "0" and set(kind[1:]) <= {"masks", "boxes", "points"} for kind in kinds)


def test_processes_take_their_own_batches(mixture):
    """As accelerate divides a loader: two processes see in each step what one sees in two steps, also after a stop."""
    from accelerate.data_loader import prepare_data_loader, skip_first_batches
    from torch.utils.data import DataLoader, SequentialSampler

    batches = mixture(8)

    def loader(process, processes):
        plain = DataLoader(
            batches, sampler=SequentialSampler(batches), batch_size=1, collate_fn=lambda items: items[0]
        )
        return prepare_data_loader(plain, num_processes=processes, process_index=process, put_on_device=False)

    alone = [batches[index] for index in range(8)]
    divided = [list(loader(process, 2)) for process in range(2)]
    assert all(same(alone[2 * step + process], divided[process][step]) for step in range(4) for process in range(2))
    resumed = list(skip_first_batches(loader(1, 2), 3))
    assert len(resumed) == 1 and same(resumed[0], alone[7])


def test_objects_are_asked_by_their_categories(mixture, collator):
    batches = mixture()
    for index in range(64):
        question = batches[index]
        if "labels" not in question.prompts:
            continue
        labels = question.prompts["labels"]
        for number, found, classes in question.rows:
            picture = question.pictures[number]
            assert [picture.categories[thing] for thing in found] == [labels[name] for name in classes]
            assert len(found) == len(picture)
        if question.pictures[0].id[0] == "0":
            assert labels == ["bus", "cat", "cup", "dog"]


def test_sentences_name_what_they_say(mixture):
    """The colour of the object and its side are those of the sentence, also after a flip."""
    colours, batches = {"cup": 0, "dog": 1, "cat": 2}, mixture()
    seen = 0
    for index in range(64):
        question = batches[index]
        if "expressions" not in question.prompts:
            continue
        texts = [text for texts in question.prompts["expressions"] for text in texts]
        for text, (number, found, classes) in zip(texts, question.rows, strict=True):
            picture = question.pictures[number]
            _, side, kind = text.split()
            x0, y0, x1, y1 = picture.boxes[found[0]].tolist()
            assert classes == [0] and len(found) == 1
            assert ((x0 + x1) / 2 < picture.size[1] / 2) == (side == "left")
            pixel = picture.image[:, int(y0 + y1) // 2, int(x0 + x1) // 2]
            assert int(pixel.argmax()) == colours[kind]
            seen += 1
    assert seen > 40


def test_clips_keep_their_objects_apart(mixture, collator):
    batches, prompted = mixture(), 0
    for index in range(64):
        question = batches[index]
        if question.pictures[0].id[0] != "2":
            continue
        inputs = collator([question])
        assert inputs["supervision"].track_frames == 2 and len(inputs["labels"]) == len(question.pictures) == 4
        for entry in inputs["labels"]:
            assert len(set(entry["track_ids"].tolist())) == len(entry["boxes"])
            assert set(entry["track_ids"].tolist()) <= {10, 11}
        frames = [int(picture.id.split("-")[1]) for picture in question.pictures]
        assert frames[0] <= frames[1] and frames[0] // 4 == frames[1] // 4 and abs(frames[0] - frames[1]) <= 2
        if question.sources is not None:
            prompted += 1
            assert inputs["prompt_sources"].tolist() == [0, 0, 2, 2]
            assert all(len(inputs["labels"][row]["boxes"]) == 1 for row in (0, 2))
            tracks = [entry["track_ids"].tolist() for entry in inputs["labels"]]
            assert tracks[1] in ([], tracks[0]) and tracks[3] in ([], tracks[2])
            for row in (0, 2):
                prompt, mask = inputs["prompt_masks"][row], inputs["labels"][row]["masks"][0]
                assert (prompt & mask).any()
    assert prompted > 3


def test_a_model_learns_from_every_kind_of_batch(mixture, collator, tiny_glee):
    model = tiny_glee[0]
    model.config.loss_settings = {"mask_points": 32}
    batches, kinds = mixture(), {}
    for index in range(64):
        question = batches[index]
        kinds.setdefault((question.pictures[0].id[0], question.supervision.get("confidence", False)), question)
    assert len(kinds) == 5
    for (source, _), question in kinds.items():
        outputs = model(**collator([question]))
        assert torch.isfinite(outputs.loss) and outputs.loss > 0
        assert ("track" in outputs.loss_dict) == (source == "2")


def test_prompts_have_the_published_shares(rectangles):
    batches = CorpusBatches([Source(rectangles(6), images=1, prompts=0.2, augmentation=None)], 400)
    kinds = [next(iter(batches[index].prompts)) for index in range(400)]
    assert 50 < 400 - kinds.count("labels") < 110
    assert kinds.count("masks") > kinds.count("points") > kinds.count("boxes") > 0


def test_what_a_source_always_asks_for_is_in_its_pictures(rectangles):
    rows = rectangles(20, sentences=True, video=4)
    bare = [place for place, row in enumerate(rows) if not row["objects"]]
    assert bare
    for fields in ({"prompts": 1.0}, {"task": "expressions"}, {"task": "phrases"}):
        batches = CorpusBatches([Source(rows, images=4, augmentation=None, **fields)], 15)
        for index in range(15):
            question = batches[index]
            assert (
                len(question.pictures) == 4
                and all(map(len, question.pictures))
                and "labels" not in question.prompts
                or (fields == {"task": "phrases"} and all(found for _, found, _ in question.rows))
            )


def test_boxes_alone_teach_boxes_alone(rectangles, collator, tiny_glee):
    tiny_glee[0].config.loss_settings = {"mask_points": 32}
    source = Source(rectangles(4, masks=False), prompts=0.5, augmentation=SMALL, supervision={"masks": False})
    batches = CorpusBatches([source], 12)
    for index in range(12):
        inputs = collator([batches[index]])
        assert all("masks" not in entry for entry in inputs["labels"])
        if index < 3:
            assert "mask" not in tiny_glee[0](**inputs).loss_dict


def test_objects_without_class_are_objects(rectangles, collator):
    source = Source(rectangles(4, names=(None,)), supervision={"class_agnostic": True}, augmentation=None)
    question = CorpusBatches([source], 4)[0]
    assert question.prompts == {"labels": ["object"]} and question.rows == [(0, [0, 1], [0, 0]), (1, [0, 1], [0, 0])]
    assert collator([question])["supervision"].class_agnostic


def test_phrases_are_labels(rectangles, collator):
    rows = rectangles(6, sentences=True)
    source = Source(rows, task="phrases", images=3, supervision={"boxes": False}, augmentation=None)
    batches = CorpusBatches([source], 4)
    for index in range(4):
        question = batches[index]
        labels = question.prompts["labels"]
        for number, found, classes in question.rows:
            said = {things[0]: text for text, things in question.pictures[number].expressions}
            assert [said[thing] for thing in found] == [labels[name] for name in classes] and len(found) == 2
        assert not collator([question])["supervision"].boxes


def test_long_texts_are_shortened(collator, tiny_glee):
    tokenizer = tiny_glee[1].tokenizer  # a token a letter
    assert shortened("cup " * 40, tokenizer, 77).count("cup") == 25
    assert len(tokenizer(shortened("a" * 200, tokenizer, 77))["input_ids"]) == 77
    long = ["cup " * 30 + "one", "cup " * 30 + "two", "dog"]
    asked, classes = collator._fitting({"labels": long})
    assert len(asked["labels"]) == 2 and classes == [0, 0, 1]


@pytest.fixture
def broken(rectangles):
    """Six pictures, two of which cannot be read."""
    rows = rectangles(6)
    content = rows[0]["image"]["bytes"]
    bad = {1: b"no picture", 4: content[:-40]}
    return rows.map(
        lambda row, index: {"image": {"path": None, "bytes": bad.get(index, row["image"]["bytes"])}},
        with_indices=True,
        features=rows.features,
    )


def test_pictures_that_cannot_be_read_are_refused_or_replaced(broken):
    with pytest.raises(CorpusError, match="source 0: image 0-[14]: its file cannot be read"):
        batches = CorpusBatches([Source(broken)], 6)
        for index in range(6):
            batches[index]
    problems = Problems(skip=True)
    batches = CorpusBatches([Source(broken, images=3, augmentation=None)], 12, problems=problems)
    taken = [picture.id for index in range(12) for picture in batches[index].pictures]
    assert len(taken) == 36 and set(taken) == {"0-0", "0-2", "0-3", "0-5"} and problems.count >= 8
    again = CorpusBatches([Source(broken, images=3, augmentation=None)], 12, problems=Problems(skip=True))
    assert [picture.id for index in range(12) for picture in again[index].pictures] == taken


def test_only_broken_pictures_end_in_an_error(broken):
    problems = Problems(skip=True)
    with pytest.raises(CorpusError, match="100 pictures in a row cannot be used"):
        CorpusBatches([Source(broken.select([1]))], 1, problems=problems)[0]


def test_a_stream_is_a_source(rectangles, broken):
    rows = rectangles(6, seed=3)
    stream = RowStream([0, 1, 2], lambda shard: iter(rows.select([2 * shard, 2 * shard + 1])), buffer=2)
    batches = CorpusBatches([Source(stream), Source(rectangles(4))], 20)
    ids = [picture.id for index in range(20) for picture in batches[index].pictures if picture.id[0] == "3"]
    assert sorted(ids[:6]) == [f"3-{index}" for index in range(6)]
    assert same(batches[3], batches[3])
    with pytest.raises(ValueError, match="neither clips nor repeat factors"):
        Source(stream, frames=2)


def test_two_workers_give_the_same_batches(mixture):
    from torch.utils.data import DataLoader

    batches = mixture(8)
    loader = DataLoader(batches, batch_size=1, num_workers=2, collate_fn=lambda items: items[0])
    assert all(same(batches[index], question) for index, question in enumerate(loader))


def test_rare_categories_come_more_often(rectangles):
    rows = rectangles(12, names=("cup",)).select(range(11))
    from datasets import concatenate_datasets

    rows = concatenate_datasets([rows, rectangles(1, names=("dog",), seed=5)])
    batches = CorpusBatches([Source(rows, images=1, repeat_threshold=0.75, augmentation=None)], 420)
    dogs = sum(batches[index].pictures[0].id == "5-0" for index in range(420))
    assert dogs / 420 == pytest.approx(3 / 14, abs=0.02)  # sqrt(0.75 * 12) = 3


def test_open_source_fills_in_what_is_usual(coco_folder):
    source = open_source("coco", coco_folder, ratio=1.5, augmentation={"flip": 0.0}, options={"split": "train"})
    assert (
        source.vocabulary == ["dog", "traffic light"] and source.task == "labels" and source.augmentation.flip == 0.0
    )
    assert source.ratio == 1.5 and len(source.rows) == 2
    path = coco_folder / "annotations/instances_train2017.json"
    assert open_source("coco", coco_folder, vocabulary=path).vocabulary == ["traffic light", "dog"]
    assert open_source("coco", coco_folder, vocabulary=()).vocabulary == []
    assert source.prompts == 0
    stream = open_source("coco", coco_folder, stream=True)
    assert {row["id"] for row in stream.rows.batch(0, 2)} == {"7", "9"}
    with pytest.raises(ValueError, match="source coco has no field 'colour'; it has rows, ratio"):
        open_source("coco", coco_folder, colour=3)
    with pytest.raises(ValueError, match="task must be one of labels, expressions, phrases"):
        dataclasses.replace(source, task="captions")


@pytest.fixture
def coco_folder(tmp_path):
    """A COCO folder of two pictures with a box each."""
    import json

    images = [{"id": number, "file_name": f"{number}.jpg", "height": 30, "width": 40} for number in (7, 9)]
    annotations = [{"id": i, "image_id": (7, 9)[i], "category_id": 5 - i, "bbox": [1, 2, 9, 9]} for i in range(2)]
    categories = [{"id": 4, "name": "traffic_light"}, {"id": 5, "name": "dog"}]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    for image in images:
        Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(tmp_path / "train2017" / image["file_name"])
    return tmp_path
