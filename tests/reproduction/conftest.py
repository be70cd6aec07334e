"""Corpora in their published layouts, small enough to be prepared and trained on in seconds."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

WORDS = ("ABOUT", "SEVEN")
TEXTS = ("SEE IT", "NO TEA", "TEN TOES", "ON TIN")
# Small models; `table5_*` shows that later trainings take their front-ends' sizes from the checkpoints.
TINY = [
    "prepare.roi_size=24",
    "prepare.crop_size=20",
    "prepare.mouth_width=12",
    "model.image_processor={roi_size: 24, crop_size: 20, mouth_width: 12}",
    "model.config.hidden_size=16",
    "model.config.encoder_layers=1",
    "model.config.fusion_layers=1",
    "model.config.decoder_layers=1",
    "model.config.num_attention_heads=2",
    "model.config.intermediate_size=32",
    "model.config.head_hidden_sizes=[]",
    "training.max_steps=2",
    "training.use_cpu=true",
    "training.bf16=false",
    "training.per_device_train_batch_size=2",
    "training.eval_strategy=steps",
    "training.save_strategy=steps",
    "training.eval_steps=1",
    "training.save_steps=1",
    "training.warmup_steps=1",
    "training.dataloader_num_workers=0",
    "training.disable_tqdm=true",
    "measure.num_beams=2",
    "measure.device=cpu",
]
SMALL_EYES = "{layer_type: basic, hidden_sizes: [64, 128, 256, 512], depths: [1, 1, 1, 1], crop_size: 20}"
LIPS = [f"table5_*:model.config.visual_config={SMALL_EYES}", "table5_*:model.config.classifier_hidden_size=8"]


@dataclass
class Crop:
    mouths: np.ndarray
    landmarks: np.ndarray
    found: np.ndarray
    report: object


@pytest.fixture
def upper_left_crops(monkeypatch):
    """Faces are not looked for: the upper left corner of each picture is the mouth."""
    from lookhear.processing.avsr import MouthRoiImageProcessor
    from lookhear.processing.avsr.clip_report_avsr import ClipReport

    def extract(self, frames, landmarks=None, fps_in=None):
        size = self.roi_size
        mouths = np.stack([frame[:size, :size, 0] for frame in frames] or [np.zeros((size, size), np.uint8)])
        found = np.full(len(mouths), bool(frames) or not isinstance(frames, list))
        report = ClipReport(frames_with_face=1.0, fps_in=fps_in)
        return Crop(mouths, np.zeros((len(mouths), 68, 2), np.float32), found, report)

    monkeypatch.setattr(MouthRoiImageProcessor, "extract", extract)


@pytest.fixture(autouse=True)
def dataset_cache(tmp_path_factory, monkeypatch):
    """The memory-mapped copies of prepared folders go away with the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))


@pytest.fixture(scope="session")
def clip() -> Callable[[Path, int, int], None]:
    """`clip(path, frames, seed)`: a video of noise that blinks, with a tone."""
    return _clip


def _clip(path: Path, frames: int, seed: int) -> None:
    from lookhear.processing.avsr.rendering_avsr import write_video

    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = (generator.integers(40, 200, (32, 48, 3), dtype=np.uint8) for _ in range(frames))
    tone = 0.2 * np.sin(np.arange(frames * 640) * (0.1 + 0.05 * seed))
    write_video(path, pictures, fps=25, audio=tone.astype(np.float32))


@pytest.fixture(scope="session")
def lrs2(clip, tmp_path_factory) -> Path:
    """LRS2 as it is published: two long clips with word times in `pretrain`, two each in the other parts."""
    root = tmp_path_factory.mktemp("corpora") / "lrs2"
    for number, part in enumerate(("pretrain", "train", "val", "test")):
        names = []
        for place in (1, 2):
            name, text = f"53554156990{number}/{place:05}", TEXTS[(number + place) % len(TEXTS)]
            folder = root / "mvlrs_v1" / ("pretrain" if part == "pretrain" else "main")
            clip(folder / f"{name}.mp4", 20, 2 * number + place)
            lines = [f"Text:  {text}", "Conf:  4"]
            if part == "pretrain":
                first, second = text.split()
                lines += ["", "WORD START END ASDSCORE", f"{first} 0.04 0.36 9.1", f"{second} 0.40 0.76 8.2"]
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
            names.append(name + (" NF" if part == "test" else ""))
        (root / f"{part}.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.fixture(scope="session")
def lrw(clip, tmp_path_factory) -> Path:
    """LRW as it is published: two words, two clips of 29 frames to train on, one each for the other parts."""
    root = tmp_path_factory.mktemp("corpora") / "lrw"
    for seed, word in enumerate(WORDS):
        for part, count in (("train", 2), ("val", 1), ("test", 1)):
            for number in range(1, count + 1):
                path = root / "lipread_mp4" / word / part / f"{word}_{number:05}.mp4"
                clip(path, 29, 10 * seed + number)
                path.with_suffix(".txt").write_text("Disk reference: 1\nDuration: 0.53 seconds\n")
    return root


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """The folder of a wav2vec 2.0 that is small enough to train in milliseconds."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 72, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    sizes |= {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    folder = tmp_path_factory.mktemp("encoder")
    Wav2Vec2Model(Wav2Vec2Config(**sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def moco(tmp_path_factory) -> Path:
    """MoCo's file of a small ResNet."""
    import torch
    from torchvision.models.resnet import BasicBlock, ResNet

    torch.manual_seed(1)
    weights = ResNet(BasicBlock, [1, 1, 1, 1]).state_dict()
    path = tmp_path_factory.mktemp("moco") / "moco_v2_800ep_pretrain.pth.tar"
    torch.save({"state_dict": {f"module.encoder_q.{name}": value for name, value in weights.items()}}, path)
    return path


@pytest.fixture(scope="session")
def sources(lrs2, lrw, encoder, moco) -> list[str]:
    """Arguments that name the speech paper's sources."""
    named = {"lrs2": lrs2, "lrw": lrw, moco.name: moco, "wav2vec2-large": encoder, "wav2vec2-large-lv60": encoder}
    return [word for name, path in named.items() for word in ("--data", f"{name}={path}")]


# ---------------------------------------------------------------------------------- GLEE: pictures of 64 x 64 pixels

SIDE, FRAMES = 64, 3
BOXES = {1: (4, 6, 24, 26), 2: (34, 36, 60, 52)}  # of two objects, which move to the right
CATEGORIES = [{"id": 3, "name": "cat", "frequency": "r"}, {"id": 5, "name": "wild_dog", "frequency": "f"}]
OF_OBJECT = {1: 3, 2: 5}  # number -> category


def drawn(frame: int = 0) -> np.ndarray:
    """`(64, 64)` uint8: the object in each pixel."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    for number, (x0, y0, x1, y1) in BOXES.items():
        pixels[y0:y1, x0 + frame : x1 + frame] = number
    return pixels


def save_picture(path: Path, frame: int = 0) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([drawn(frame) * 100 + 30] * 3, axis=-1)).save(path)


def save_masks(path: Path, frame: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(drawn(frame))
    picture.putpalette(list(range(256)) * 3)
    picture.save(path)


def save_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def entry(id: int, image: int, number: int, frame: int = 0, **more) -> dict:
    x0, y0, x1, y1 = BOXES[number]
    box = [x0 + frame, y0, x1 - x0, y1 - y0]
    corners = [x0 + frame, y0, x1 + frame, y0, x1 + frame, y1, x0 + frame, y1]
    fields = {"id": id, "image_id": image, "category_id": OF_OBJECT[number], "bbox": box, "iscrowd": 0}
    return fields | {"area": (x1 - x0) * (y1 - y0), "segmentation": [corners]} | more


def coco_like(path: Path, pictures: Path, names: list[str], **more) -> None:
    """A file in COCO's form and its pictures, each with both objects."""
    images = []
    for number, name in enumerate(names, start=1):
        save_picture(pictures / name)
        images.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE, **more})
    entries = [entry(2 * image + number, image, number) for image in range(1, len(names) + 1) for number in BOXES]
    save_json(path, {"images": images, "annotations": entries, "categories": CATEGORIES})


def video_file(path: Path, frames: Path, form: str, annotated: bool = True) -> None:
    """A file in YouTube-VIS' form, and the frames of two videos."""
    from lookhear.evaluation.measures.mask_runs import encode_mask

    videos, annotations = [], []
    for place in (1, 2):
        names = [f"v{place}/{form.format(frame)}" for frame in range(FRAMES)]
        for frame, name in enumerate(names):
            save_picture(frames / name, frame)
        videos.append({"id": place, "file_names": names, "height": SIDE, "width": SIDE, "length": FRAMES})
        for number, category in OF_OBJECT.items():
            runs = [encode_mask(drawn(frame) == number) for frame in range(FRAMES)]
            one = {"id": 10 * place + number, "video_id": place, "category_id": category, "iscrowd": 0}
            annotations.append(one | {"segmentations": runs, "bboxes": None})
    content = {"videos": videos, "categories": CATEGORIES, "annotations": annotations if annotated else None}
    save_json(path, content)


def sequences(pictures: Path, masks: Path | None) -> None:
    for name in ("v0", "v1"):
        for frame in range(FRAMES):
            save_picture(pictures / name / f"{frame:05}.jpg", frame)
            if masks is not None:
                save_masks(masks / name / f"{frame:05}.png", frame)


@pytest.fixture(scope="session")
def object_corpora(tmp_path_factory) -> Path:
    """All data sets that GLEE's tables measure on, and those of videos that are trained on, as they are published."""
    root = tmp_path_factory.mktemp("objects")
    for split in ("train2017", "val2017"):
        coco_like(root / f"coco/annotations/instances_{split}.json", root / "coco" / split, ["1.jpg", "2.jpg"])
    coco_like(
        root / "lvis/lvis_v1_val.json", root / "coco/val2017", ["1.jpg", "2.jpg"],
        neg_category_ids=[], not_exhaustive_category_ids=[], coco_url="http://images.cocodataset.org/val2017/1.jpg",
    )  # fmt: skip
    for name, refs in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        coco_like(root / name / "instances.json", root / "coco/train2014", ["a.jpg", "b.jpg"])
        rows = [
            {"ref_id": number, "image_id": number, "ann_id": 2 * number + 1, "split": split,
             "sentences": [{"sent": "the upper one", "raw": "", "tokens": [], "sent_id": number}]}
            for split in ("train", "val")
            for number in (1, 2)
        ]  # fmt: skip
        (root / name / f"refs({refs}).p").write_bytes(pickle.dumps(rows, protocol=2))
    coco_like(root / "uvo/FrameSet/UVO_frame_val.json", root / "uvo/uvo_videos_sparse_frames", ["v/1.png"])
    for split in ("train", "val"):
        video_file(
            root / f"uvo/VideoDenseSet/UVO_video_{split}_dense.json", root / "uvo/uvo_videos_dense_frames", "{}.png"
        )
    for name, file in (("youtube_vis_2019", "{}.json"), ("youtube_vis_2021", "{}/instances.json")):
        for split, annotated in (("train", True), ("valid", False)):
            frames = root / name / split / "JPEGImages"
            video_file(root / name / file.format(split), frames, "{:05d}.jpg", annotated)
    for split, annotated in (("train", True), ("valid", False)):
        video_file(root / f"ovis/annotations_{split}.json", root / "ovis" / split, "img_{:07d}.jpg", annotated)
    video_file(root / "lvvis/Annotations/val_instances.json", root / "lvvis/JPEGImages/val", "{:05d}.jpg")
    _tracking(root)
    sequences(root / "davis/JPEGImages/480p", root / "davis/Annotations/480p")
    (root / "davis/ImageSets/2017").mkdir(parents=True)
    (root / "davis/ImageSets/2017/val.txt").write_text("v0\nv1\n")
    for name in ("youtube_vos", "refer_youtube_vos"):
        sequences(root / name / "train/JPEGImages", root / name / "train/Annotations")
        objects = {str(number): {"category": "cat", "frames": ["00000"]} for number in BOXES}
        save_json(root / name / "train/meta.json", {"videos": {v: {"objects": objects} for v in ("v0", "v1")}})
    said = {"0": {"exp": "the grey one", "obj_id": "1"}, "1": {"exp": "the bright one", "obj_id": "2"}}
    names = [f"{frame:05}" for frame in range(FRAMES)]
    for split in ("train", "valid"):
        videos = {video: {"expressions": said, "frames": names} for video in ("v0", "v1")}
        save_json(root / f"refer_youtube_vos/meta_expressions/{split}/meta_expressions.json", {"videos": videos})
    sequences(root / "refer_youtube_vos/valid/JPEGImages", None)
    _pictures_with_words(root)
    return root


def _tracking(root: Path) -> None:
    """TAO and BURST: a video each."""
    from lookhear.evaluation.measures.mask_runs import encode_mask

    images, annotations, maps = [], [], []
    names = [f"{frame:05d}.jpg" for frame in range(FRAMES)]
    for frame, name in enumerate(names):
        save_picture(root / "tao/frames/val/LaSOT/a" / name, frame)
        save_picture(root / "burst/frames/val/LaSOT/a" / name, frame)
        file = {"id": frame, "video_id": 4, "file_name": f"val/LaSOT/a/{name}", "frame_index": frame}
        images.append(file | {"height": SIDE, "width": SIDE})
        annotations += [entry(10 * frame + n, frame, n, frame, video_id=4, track_id=n) for n in BOXES]
        runs = {str(n): {"rle": encode_mask(drawn(frame) == n)["counts"], "is_gt": True} for n in BOXES}
        maps.append(runs)
    video = {"id": 4, "name": "val/LaSOT/a", "neg_category_ids": [], "not_exhaustive_category_ids": []}
    content = {"videos": [video], "images": images, "categories": CATEGORIES, "tracks": []}
    save_json(root / "tao/annotations/validation.json", content | {"annotations": annotations})
    one = {"id": 1, "seq_name": "a", "dataset": "LaSOT", "height": SIDE, "width": SIDE, "fps": 30}
    one |= {"annotated_image_paths": names, "all_image_paths": names, "segmentations": maps}
    one |= {"track_category_ids": {"1": 3, "2": 5}, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    content = {"sequences": [one], "categories": CATEGORIES, "split": "val"}
    save_json(root / "burst/annotations/val/all_classes.json", content)
    one = one | {"track_category_ids": {"1": 3}}
    save_json(root / "burst/annotations/val/common_classes.json", content | {"sequences": [one]})


def _pictures_with_words(root: Path) -> None:
    """ODinW's thirteen data sets, OmniLabel and ReasonSeg."""
    from lookhear.evaluation.protocols.odinw import ODINW_13, OTHER_PARTS

    for name, folder in ODINW_13.items():
        for part in ("train", "valid", "test"):
            part = OTHER_PARTS.get(part, {}).get(name, part)
            place = root / "odinw" / folder
            if name == "pistols":  # files beside each other
                coco_like(place / f"{part}_annotations_without_background.json", place, ["1.jpg", "2.jpg"])
            else:
                coco_like(place / part / "annotations_without_background.json", place / part, ["1.jpg", "2.jpg"])
    save_picture(root / "omnilabel/coco/1.jpg")
    texts = (("cat", "category"), ("the bright one", "object_description"))
    about = [
        {"id": number, "text": text, "image_ids": [1], "anno_info": {"type": kind}}
        for number, (text, kind) in enumerate(texts, start=10)
    ]
    boxes = [entry(1, 1, 1) | {"description_ids": [10]}, entry(2, 1, 2) | {"description_ids": [11]}]
    content = {"images": [{"id": 1, "file_name": "coco/1.jpg"}], "descriptions": about, "annotations": boxes}
    save_json(root / "omnilabel/dataset_all_val_v0.1.4.json", content)
    folder = root / "reason_seg/ReasonSeg/val"
    save_picture(folder / "a.jpg")
    shape = {"label": "target", "points": [[4, 6], [24, 6], [24, 26], [4, 26]]}
    save_json(folder / "a.json", {"shapes": [shape], "text": ["the upper one"], "is_sentence": False})


@pytest.fixture(scope="session")
def detector(tiny_glee, tmp_path_factory) -> Path:
    """The folder of a random detector that is small enough to train in milliseconds."""
    from lookhear.training.glee.export import save_checkpoint

    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def all_corpora(object_corpora, tiny_glee, llava_start) -> Path:
    """`object_corpora` with all else that GLEE's and LISA-GLEE's recipes train on and start from."""
    from .training_corpora import write_glee_corpora, write_lisa_corpora, write_starts

    write_glee_corpora(object_corpora)
    write_lisa_corpora(object_corpora)
    write_starts(object_corpora, tiny_glee[1].tokenizer)
    (object_corpora / "llava-1.5-7b-hf").symlink_to(llava_start)
    return object_corpora
