"""The recognisers USR 2.0, auto_avsr and VSR-ML: what is known of their files, and their conversion."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.modeling.avsr.configuration_avsr import read_model_json
from lookhear.modeling.avsr.convert_avsr import convert_espnet, espnet_config, espnet_layout, espnet_weights
from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.training.avsr.export import save_checkpoint
from lookhear.training.checkpoint_files import check_new_folder, check_weights, new_folder, read_checkpoint

PUBLISHED_BEAMS, PUBLISHED_CTC_WEIGHT = 40, 0.1
WEIGHTS = "model.pth"  # in a folder of VSR-ML, beside model.json
WANTED_FILES = (WEIGHTS, "model.json", "*units*.txt", "*.model")  # of a repository on the Hub


@dataclass(frozen=True)
class Kind:
    """
    One family of published recognisers.

    Attributes:
        title: its name.
        page: where its code and its weights are described.
        licence: of the weights, by the Hub's names.
        terms: what that means, in a sentence.
        units: the name of its list of units, in the repository of its code.
    """

    title: str
    page: str
    licence: str
    terms: str
    units: str


KINDS = {
    "usr2": Kind(
        "USR 2.0",
        "https://github.com/ahaliassos/usr2",
        "cc-by-nc-4.0",
        "The weights are licensed under CC BY-NC 4.0: name the authors, no commercial use.",
        "unigram1000_units.txt",
    ),
    "auto_avsr": Kind(
        "auto_avsr",
        "https://github.com/mpc001/auto_avsr",
        "other",
        "The code is Apache-2.0; the weights have no licence of their own, and terms of the data sets that they were "
        "trained on may apply.",
        "unigram5000_units.txt",
    ),
    "vsr-ml": Kind(
        "VSR-ML",
        "https://github.com/mpc001/Visual_Speech_Recognition_for_Multiple_Languages",
        "other",
        "The weights are for non-commercial research, private study and benchmarking only.",
        "unigram5000_units.txt",
    ),
}

DRIVE = "https://drive.google.com/file/d/"
HUB_NAMES = {"vsr-ml-lrs3-visual": ("vsr-ml", "Amanvir/LRS3_V_WER19.1")}
DRIVE_NAMES = {  # what has to be fetched in a browser: its kind and its page
    "usr2-base": ("usr2", DRIVE + "1S-gTw2K-AaYAZFQFknx50-ymaj4qTfcX"),
    "usr2-base+": ("usr2", DRIVE + "18vmJjdem5XPOA8bmizybIW5sLJuHMdRR"),
    "usr2-large": ("usr2", DRIVE + "1XDNLfZMv_nn8ALiFmDh3asrJKGC2uHs1"),
    "usr2-huge": ("usr2", DRIVE + "1LzFOTYu45zCLOHGVLQt7pMGjw6jmmo9Y"),
    "auto-avsr-vsr-lrs2-lrs3-vox2-avsp": ("auto_avsr", DRIVE + "1r1kx7l9sWnDOCnaFHIGvOtzuhFyFA88_"),
    "auto-avsr-vsr-lrs3-vox2": ("auto_avsr", DRIVE + "1shcWXUK2iauRhW9NbwCc25FjU1CoMm8i"),
    "auto-avsr-vsr-lrs3": ("auto_avsr", DRIVE + "12PNM5szUsk_CuaV1yB9dL_YWvSM1zvAd"),
    "auto-avsr-asr-lrs3-vox2": ("auto_avsr", DRIVE + "1YN9lwZN6iWn2qNQRpfpGpnf2r6ZTQqVT"),
    "auto-avsr-asr-lrs3": ("auto_avsr", DRIVE + "1IBMkI7XyZo8mF3rz109rXrMH7MyxRuiY"),
}


def convert_published(
    kind: str,
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    units: str | os.PathLike | None = None,
    sentencepiece_model: str | os.PathLike | None = None,
) -> Path:
    """
    Converts one published recogniser. The folder appears once it is complete, or not at all.

    Args:
        kind: `"usr2"`, `"auto_avsr"` or `"vsr-ml"`.
        source: its file, from which nothing is executed; of VSR-ML, the folder with `model.pth` and `model.json`, or
            the Hub id of such a folder.
        output: folder to create; one that is not empty is refused.
        units: its list of units, of the repository of its code, which may not be copied from there; by default the one
            beside the file, or the list of characters in `model.json`.
        sentencepiece_model: the model that its texts were written with; only training and forced alignment need it.

    Returns:
        The folder.

    Raises:
        ValueError: the file is unsafe, damaged or of another kind, its list of units is missing or of another model,
            the output exists already, or weights are missing, unknown or of another shape.
    """
    output = check_new_folder(output)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    file, folder, model_json = _files(kind, source)
    weights = espnet_weights(read_checkpoint(file))
    if (layout := espnet_layout(weights)) != kind:
        others = f"it is one of {KINDS[layout].title}: lookhear convert {layout}" if layout else "it has other names"
        raise ValueError(f"checkpoint {str(file)!r} is not one of {KINDS[kind].title}: {others}")
    config = espnet_config(weights, model_json)
    tokens = _tokens(kind, config.vocab_size, folder, units, model_json)
    tokenizer = AvsrTokenizer.from_units(tokens, sentencepiece_model)
    model = load_published_recogniser(weights, config)
    with new_folder(output) as partial:
        save_checkpoint(model, published_processor(kind, tokenizer), partial, half=False)
        (partial / "README.md").write_text(_card(kind, model), encoding="utf-8")
    return output


def load_published_recogniser(weights: Mapping[str, torch.Tensor], config: AvsrConfig) -> AvsrForConditionalGeneration:
    """
    Returns the recogniser in float32 and evaluation mode; no weight of it is left at random.

    Args:
        weights: published names without prefixes.
        config: of the model that they are of.

    Raises:
        ValueError: the weights are not exactly those of the model.
    """
    converted = convert_espnet(weights)
    with torch.device("meta"):
        empty = AvsrForConditionalGeneration(config)
    check_weights(converted, empty.state_dict())
    converted = {name: value.float() if value.is_floating_point() else value for name, value in converted.items()}
    model = AvsrForConditionalGeneration.from_pretrained(None, config=config, state_dict=converted).eval()
    model.generation_config.num_beams = PUBLISHED_BEAMS
    model.generation_config.ctc_weight = PUBLISHED_CTC_WEIGHT
    return model


def published_processor(kind: str, tokenizer: AvsrTokenizer) -> AvsrProcessor:
    """Returns what a family's recognisers read with: its crops and its sound."""
    images = MouthRoiImageProcessor.vsr_ml() if kind == "vsr-ml" else MouthRoiImageProcessor.auto_avsr()
    return AvsrProcessor(AvsrFeatureExtractor(do_normalize=kind != "usr2"), images, tokenizer)


def _files(kind: str, source: str | os.PathLike) -> tuple[Path, Path, dict[str, Any] | None]:
    """Returns the file of the weights, the folder in which other files may lie, and the content of `model.json`."""
    path = Path(source)
    if kind != "vsr-ml":
        return path, path.parent, None
    if not path.exists() and str(source).count("/") == 1:
        path = _fetched(str(source))
    folder = path if path.is_dir() else path.parent
    for name in (WEIGHTS, "model.json"):
        if not (folder / name).is_file():
            raise ValueError(f"checkpoint {str(source)!r}: {name} is missing in {folder}")
    return folder / WEIGHTS, folder, read_model_json(folder / "model.json")


def _fetched(repository: str) -> Path:
    """Fetches a repository from the Hub; returns its folder in the cache."""
    try:
        return Path(snapshot_download(repository, allow_patterns=list(WANTED_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"checkpoint {repository!r} is no folder, and the Hub gave none: {reason}") from None


def _tokens(
    kind: str,
    size: int,
    folder: Path,
    units: str | os.PathLike | None,
    model_json: Mapping[str, Any] | None,
) -> list[str]:
    """Returns the tokens of a vocabulary of a size, in the order of their ids."""
    characters = list((model_json or {}).get("char_list") or ())
    if units is None and characters:
        return _checked(characters, size, "model.json")
    known = KINDS[kind]
    if units is None:
        beside = [*sorted(folder.glob("*units*.txt")), cache_folder() / known.units]
        units = next((file for file in beside if file.is_file()), None)
    if units is None:
        raise ValueError(
            f"units: {known.units} is needed, which may not be shipped: fetch it from {known.page}, and put it beside "
            "the checkpoint or name it with --units"
        )
    return _checked(read_tokens(units), size, str(units))


def _checked(tokens: list[str], size: int, source: str) -> list[str]:
    if len(tokens) != size:
        raise ValueError(f"units: {source} makes {len(tokens)} ids, and the checkpoint has {size}: it is another list")
    return tokens


def read_tokens(units: str | os.PathLike) -> list[str]:
    """Returns the tokens of a list of units, in the order of their ids."""
    vocabulary = AvsrTokenizer.from_units(units).encoder
    return sorted(vocabulary, key=lambda token: vocabulary[token])


def _card(kind: str, model: AvsrForConditionalGeneration) -> str:
    """Returns the README of a converted recogniser."""
    known = KINDS[kind]
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    header = ["license: " + known.licence]
    if known.licence == "other":
        header += [f"license_name: {kind}-weights", f"license_link: {known.page}"]
    reads = {"audio": "sound", "visual": "lips", "audiovisual": "sound, lips or both"}[model.config.modality]
    if model.config.fusion == "mlp":
        reads = "sound and lips together"
    lines = [
        "---",
        *header,
        "library_name: transformers",
        "pipeline_tag: automatic-speech-recognition",
        "tags:\n- lookhear\n- lip-reading",
        "---",
        "",
        f"# {known.title}, converted",
        "",
        f"A recogniser of {known.title} that reads {reads}; {millions:.1f} million parameters, converted from its "
        f"published file by LookHear. Its authors, its figures and its data: {known.page}.",
        "",
        "## Licence",
        "",
        known.terms,
        "",
        "## Use",
        "",
        "```python",
        "import lookhear",
        "from transformers import pipeline",
        "",
        'asr = pipeline("audio-visual-speech-recognition", model="this folder")',
        'asr("talk.mp4", return_timestamps="word")',
        "```",
        "",
        f"The search is LookHear's exact one with the published beam ({PUBLISHED_BEAMS}) and CTC weight "
        f'({PUBLISHED_CTC_WEIGHT}); `search="espnet"` follows the published rules.',
        "",
    ]
    return "\n".join(lines)


def cache_folder() -> Path:
    """Returns where recognisers that were converted by name lie."""
    return Path(constants.HF_HOME) / "lookhear"


def is_published(name: str) -> bool:
    """Returns whether a model's name is one of those in `HUB_NAMES` or `DRIVE_NAMES`."""
    return name in HUB_NAMES or name in DRIVE_NAMES


def converted_by_name(name: str) -> Path:
    """
    Returns the folder of a recogniser that is known by name, which is fetched and converted the first time.

    Args:
        name: in `HUB_NAMES` or `DRIVE_NAMES`.

    Raises:
        ValueError: it has to be fetched in a browser; or see [`convert_published`].
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    if name in DRIVE_NAMES:
        kind, page = DRIVE_NAMES[name]
        raise ValueError(
            f"{name} is on Google Drive and has to be fetched in a browser: {page} ; then: lookhear convert {kind} "
            f"FILE {folder} --units {KINDS[kind].units}"
        )
    kind, repository = HUB_NAMES[name]
    print(f"{name}: {KINDS[kind].terms}", file=sys.stderr)
    return convert_published(kind, repository, folder)
