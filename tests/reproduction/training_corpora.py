"""What GLEE's and LISA-GLEE's recipes train on and start from, as it is published, a few pictures each."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np

from .conftest import BOXES, CATEGORIES, SIDE, coco_like, drawn, save_json, save_masks, save_picture

NAMES = ("1.jpg", "2.jpg")
# Small models for all three sizes; what follows stage 1 takes its sizes from the checkpoints.
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
RESNET |= {"layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"]}
SWIN = {"model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
SWIN |= {"window_size": 4, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
EVA = {"model_type": "glee_eva", "image_size": 128, "hidden_size": 24, "intermediate_size": 20, "window_size": 4}
EVA |= {"num_hidden_layers": 2, "num_attention_heads": 2, "window_block_indexes": [0], "pyramid_size": 32}
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "encoder_layers": 1}
SIZES |= {"decoder_layers": 2, "num_queries": 12, "fusion_size": 32, "fusion_heads": 2, "num_groups": 8}
SIZES |= {"template_size": 64}


def write_glee_corpora(root: Path) -> None:
    """
    Writes the corpora of stages 1 to 3 that no table is measured on.

    Args:
        root: with those that tables are measured on, see `object_corpora`.
    """
    _boxes(root)
    more = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    url = "http://images.cocodataset.org/train2017/1.jpg"
    coco_like(root / "lvis/lvis_v1_train.json", root / "coco/train2017", list(NAMES), coco_url=url, **more)
    coco_like(root / "uvo/FrameSet/UVO_frame_train.json", root / "uvo/uvo_videos_sparse_frames", ["v/1.png"])
    _visual_genome(root / "visual_genome")
    _bdd100k(root / "bdd100k")
    for name in ("sa1b_500k", "sa1b_2m"):
        _sa1b(root / name)
    _grit(root / "grit_5m")


def _boxes(root: Path) -> None:
    """Objects365 and OpenImages."""
    names = [f"patch8/objects365_v1_{name}" for name in NAMES]
    path = root / "objects365/zhiyuan_objv2_train.json"
    coco_like(path, root / "objects365/train", names)
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["file_name"] = f"images/v1/{image['file_name']}"
    content["annotations"] = [
        {name: value for name, value in one.items() if name != "segmentation"} | {"isfake": 0}
        for one in content["annotations"]
    ]
    save_json(path, content)
    lines = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction"]
    for name in ("aa", "bb"):
        save_picture(root / f"openimages/train/{name}.jpg")
        for number, (x0, y0, x1, y1) in BOXES.items():
            shares = ",".join(str(value / SIDE) for value in (x0, x1, y0, y1))
            lines.append(f"{name},xclick,/m/0{number},1,{shares},0,0,0,0")
    (root / "openimages/oidv6-train-annotations-bbox.csv").write_text("\n".join(lines) + "\n")
    (root / "openimages/class-descriptions-boxable.csv").write_text("/m/01,Tortoise\n/m/02,Traffic sign\n")


def _visual_genome(root: Path) -> None:
    objects, regions = [], []
    for image in (1, 2):
        save_picture(root / f"VG_100K/{image}.jpg")
        things, phrases = [], []
        for number, (x0, y0, x1, y1) in BOXES.items():
            id, width, height = 10 * image + number, x1 - x0, y1 - y0
            place = {"x": x0, "y": y0}
            things.append({"object_id": id, "w": width, "h": height, "names": [f"thing {number}"], **place})
            phrase = {"region_id": id, "image_id": image, "phrase": f"the thing {number}", **place}
            phrases.append(phrase | {"width": width, "height": height})
        objects.append({"image_id": image, "objects": things})
        regions.append({"id": image, "regions": phrases})
    save_json(root / "image_data.json", [{"image_id": n, "width": SIDE, "height": SIDE, "url": ""} for n in (1, 2)])
    save_json(root / "objects.json", objects)
    save_json(root / "region_descriptions.json", regions)


def _bdd100k(root: Path) -> None:
    """All pictures have the published size."""
    from PIL import Image

    from lookhear.processing.glee.geometry_glee import coco_rle

    for folder in ("100k", "10k"):
        path = root / f"images/{folder}/train/a.jpg"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (1280, 720), (90, 20, 200)).save(path)
    box = {"x1": 300, "y1": 100, "x2": 500, "y2": 200}
    labels = [{"id": "1", "category": "traffic light", "box2d": box}]
    save_json(root / "labels/det_20/det_train.json", [{"name": "a.jpg", "labels": labels}])
    mask = np.zeros((720, 1280), bool)
    mask[100:200, 300:500] = True
    labels = [{"id": "3", "category": "car", "rle": coco_rle(mask)}]
    save_json(root / "labels/ins_seg/rles/ins_seg_train.json", {"frames": [{"name": "a.jpg", "labels": labels}]})


def _sa1b(root: Path) -> None:
    from lookhear.processing.glee.geometry_glee import coco_rle

    files = {}
    for image in (1, 2):
        annotations = [
            {"id": number, "segmentation": coco_rle(drawn() == number)} | {"bbox": [x0, y0, x1 - x0, y1 - y0]}
            for number, (x0, y0, x1, y1) in BOXES.items()
        ]
        about = {"image_id": image, "width": SIDE, "height": SIDE, "file_name": f"sa_{image}.jpg"}
        files[f"./sa_{image}.jpg"] = _jpeg()
        files[f"./sa_{image}.json"] = json.dumps({"image": about, "annotations": annotations}).encode()
    _pack(root / "sa_000000.tar", files)


def _grit(root: Path) -> None:
    x0, y0, x1, y1 = (value / SIDE for value in BOXES[2])
    content = {"caption": "a bright thing on the ground", "noun_chunks": [[0, 14, x0, y0, x1, y1, 0.9]]}
    content["ref_exps"] = [[0, 28, x0, y0, x1, y1, 0.9]]
    _pack(root / "00000.tar", {"000.jpg": _jpeg(), "000.json": json.dumps(content).encode()})


def _jpeg() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.stack([drawn() * 100 + 30] * 3, axis=-1)).save(file, "JPEG")
    return file.getvalue()


def _pack(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_lisa_corpora(root: Path) -> None:
    """
    Writes the corpora of LISA-GLEE's recipes.

    Args:
        root: with COCO, and with ReasonSeg's validation part, see `object_corpora`.
    """
    _label_maps(root)
    names = ["cat", "cat:left ear"]
    for file, pictures, prefix in (
        (root / "pascal_part/train.json", root / "pascal_part/VOCdevkit/VOC2010/JPEGImages", ""),
        (root / "paco/annotations/paco_lvis_v1_train.json", root / "coco", "train2017/"),
    ):
        coco_like(file, pictures, [f"{prefix}1.jpg", f"{prefix}2.jpg"])
        content = json.loads(file.read_text())
        parts = zip(CATEGORIES, names, strict=True)
        content["categories"] = [{"id": category["id"], "name": name} for category, name in parts]
        save_json(file, content)
    for name, refs, pictures in (
        ("refclef", "unc", root / "refer/saiapr_tc-12"),
        ("refcoco", "unc", root / "coco/train2014"),
        ("refcoco+", "unc", root / "coco/train2014"),
        ("refcocog", "umd", root / "coco/train2014"),
    ):
        coco_like(root / f"refer/{name}/instances.json", pictures, ["00/a.jpg" if name == "refclef" else "a.jpg"])
        said = {"ref_id": 1, "image_id": 1, "ann_id": 3, "split": "train", "sentences": [{"sent": "the upper one"}]}
        (root / f"refer/{name}/refs({refs}).p").write_bytes(pickle.dumps([said], protocol=2))
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "a square . Here it is"}]
    save_json(root / "llava_instruct_150k.json", [{"id": "1", "image": "1.jpg", "conversations": turns}])
    save_picture(root / "reason_seg/ReasonSeg/train/a.jpg")
    x0, y0, x1, y1 = BOXES[1]
    shape = {"label": "target", "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}
    content = {"shapes": [shape], "text": ["Which one is above?"], "is_sentence": True}
    save_json(root / "reason_seg/ReasonSeg/train/a.json", content)


def _label_maps(root: Path) -> None:
    """ADE20K and COCO-Stuff."""
    folder = root / "ADEChallengeData2016"
    save_picture(folder / "images/training/ADE_train_00000001.jpg")
    save_masks(folder / "annotations/training/ADE_train_00000001.png", 0)
    table = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.1\t9\t9\t1\tsquare, box", "2\t0.1\t9\t9\t1\tbar"]
    (folder / "objectInfo150.txt").write_text("\n".join(table) + "\n")
    for name in NAMES:
        save_masks(root / "cocostuff/train2017" / Path(name).with_suffix(".png"), 0)
    (root / "cocostuff/labels.txt").write_text("0: unlabeled\n1: person\n2: grass\n3: sky\n")


def write_starts(root: Path, tokenizer) -> None:
    """
    Writes what new models start from, under the names of the sources.

    Args:
        root: folder of the sources.
        tokenizer: of CLIP.
    """
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, ResNetBackbone, ResNetConfig, SwinBackbone, SwinConfig

    torch.manual_seed(0)
    for name, kind, config, fields in (
        ("resnet-50", ResNetBackbone, ResNetConfig, RESNET),
        ("swin-large", SwinBackbone, SwinConfig, SWIN),
    ):
        known = {key: value for key, value in fields.items() if key != "model_type"}
        kind(config(**known)).save_pretrained(root / name)
    CLIPTextModel(CLIPTextConfig(**text_config(tokenizer))).save_pretrained(root / "clip-vit-base-patch32")
    tokenizer.save_pretrained(root / "clip-vit-base-patch32")
    torch.save({"module": _published_eva()}, root / "eva02_L_pt_m38m_p14to16.pt")


def text_config(tokenizer) -> dict:
    """Returns the fields of a small CLIP's text encoder."""
    fields = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return fields | {"num_attention_heads": 2} | ends


def _published_eva() -> dict:
    """Returns random weights of a small EVA-02 under the names of its authors."""
    from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection

    config = GleeConfig.pro(**SIZES, backbone_config=EVA, text_config={"hidden_size": 16, "num_hidden_layers": 1})
    names = {"embeddings.position_embeddings": "pos_embed", "embeddings.patch_embeddings": "patch_embed.proj"}
    names |= {"layers.": "blocks.", "layernorm_before": "norm1", "layernorm_after": "norm2", "mlp.norm": "mlp.ffn_ln"}
    names |= {"attention.q_proj.bias": "attn.q_bias", "attention.v_proj.bias": "attn.v_bias"}
    names |= {"attention.o_proj": "attn.proj", "attention.": "attn."}
    names |= {"mlp.gate_proj": "mlp.w1", "mlp.up_proj": "mlp.w2", "mlp.down_proj": "mlp.w3"}
    published = {}
    for name, value in GleeForObjectDetection(config).model.backbone.state_dict().items():
        if not name.startswith("pyramid."):
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            published[name] = value
    return published
