"""Writing of stored clips: what they depend on, and their computation by the frozen parts of a model."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm
from transformers import TrainingArguments

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.processing.avsr import AvsrProcessor
from lookhear.training.avsr.augmentation import Clip
from lookhear.training.avsr.digests import digest_of_shards, digest_of_weights
from lookhear.training.avsr.examples import ClipCollator, EvaluationClips, TrainingClips
from lookhear.training.avsr.features import FeatureClips
from lookhear.training.avsr.prepare import shard_files
from lookhear.training.avsr.recipe import Recipe
from lookhear.training.avsr.shards import ShardFolder, claim_folder

CLIPS_PER_SHARD = 200
MODALITIES = {"audio": ("audio",), "visual": ("visual",), "audiovisual": ("audio", "visual")}  # of `config.modality`

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("frames", pa.int32()),  # of the clip
        ("words", pa.list_(pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())]))),
        ("audio", pa.binary()),  # (frames, hidden_size) bfloat16, C order; null without sound
        ("visual", pa.binary()),  # the same of the lips; null without a face
    ]
)

# Fields of the configuration that the outputs of front-ends and back-ends in evaluation mode don't depend on. A field
# that is not listed counts: features are rather computed again than wrong.
UNRELATED = {
    *("architectures", "transformers_version", "dtype", "is_encoder_decoder", "use_cache", "tie_word_embeddings"),
    *("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "initializer_range"),
    *("fusion_layers", "decoder_layers", "head_hidden_sizes", "num_frames", "id2label", "label2id"),
    *("ctc_upsampling", "ctc_loss_weight", "alignment_loss_weight", "label_smoothing"),
    *("dropout", "attention_dropout", "activation_dropout", "modality_dropout", "modality_loss_weights"),
    *("classifier_back_end", "classifier_hidden_size", "output_hidden_states", "output_attentions", "return_dict"),
}
IMAGE_FIELDS = ("roi_size", "crop_size", "image_mean", "image_std", "rescale_factor")
SOUND_FIELDS = ("sampling_rate", "do_normalize", "padding_value")


@dataclass
class _ClipsAndBatch:
    """Collates clips and returns them with the batch; a class, so that worker processes can have it."""

    collator: ClipCollator

    def __call__(self, clips: list[Clip]) -> tuple[list[Clip], dict[str, torch.Tensor]]:
        return clips, self.collator(clips)


@dataclass
class FeatureWriter:
    """
    Computes and stores the clips of a training by the frozen parts of its model.

    Attributes:
        model: whose front-ends and back-ends are frozen; see [`frozen_parts`].
        processor: makes its inputs.
        recipe: of the training.
        arguments: of the training: its precision, batch size and worker processes.
        progress: whether a progress bar is shown on stderr.
    """

    model: AvsrForConditionalGeneration
    processor: AvsrProcessor
    recipe: Recipe
    arguments: TrainingArguments
    progress: bool = True

    def store(self, name: str, clips: TrainingClips | EvaluationClips) -> FeatureClips:
        """Writes what is missing of a data set, and opens it; see `write` and `read`."""
        self.write(name, clips)
        return self.read(name, clips)

    def shards_of(self, name: str, clips: TrainingClips | EvaluationClips) -> list[ShardFolder]:
        """Returns the shards of each version of a data set, in the folder of this name."""
        trained = isinstance(clips, TrainingClips)
        folder = Path(str(self.recipe.data.cache_features)) / name
        versions = self.recipe.data.feature_versions if trained else 1
        return [ShardFolder(folder, f"version{number}", len(clips), CLIPS_PER_SHARD) for number in range(versions)]

    def write(self, name: str, clips: TrainingClips | EvaluationClips, part: tuple[int, int] = (0, 1)) -> None:
        """
        Writes the missing shards of a data set.

        Args:
            name: `"train"` or `"validation"`, a folder in `data.cache_features`.
            clips: the data set.
            part: of an array of jobs, from 0, and the number of jobs; the processes of a job share its part.

        Raises:
            ValueError: the folder is of other clips, weights or settings.
        """
        shards, state = self.shards_of(name, clips), PartialState()
        self.claim(shards[0].folder, clips)
        job = (part[0] * state.num_processes + state.process_index, part[1] * state.num_processes)
        total = sum(len(version.items_of(n)) for version in shards for n in version.missing() if n % job[1] == job[0])
        shown = self.progress and total > 0 and state.is_local_main_process
        with tqdm(total=total, desc=f"features of {name}", unit="clip", disable=not shown) as bar:
            for epoch, version in enumerate(shards):
                if isinstance(clips, TrainingClips):
                    clips.set_epoch(epoch)
                version.write(SCHEMA, lambda places: self.compute(clips, places), job, bar.update)
        if isinstance(clips, TrainingClips):
            clips.set_epoch(0)
        # The trainer decides where the model is.
        self.model.get_encoder().to("cpu")  # type: ignore[arg-type]  # transformers' wrapper has no signature
        state.wait_for_everyone()

    def read(self, name: str, clips: TrainingClips | EvaluationClips) -> FeatureClips:
        """
        Opens the stored clips of a data set.

        Args:
            name: see `write`.
            clips: the data set.

        Raises:
            ValueError: some of them are missing.
        """
        shards = self.shards_of(name, clips)
        missing, total = sum(len(part.missing()) for part in shards), sum(part.shards for part in shards)
        if missing:
            raise ValueError(
                f"{shards[0].folder} has {total - missing} of {total} shards of features; "
                "run the same `lookhear prepare features` again to finish it"
            )
        files = [part.path(number) for part in shards for number in range(part.shards)]
        return FeatureClips(files, len(clips), self.model.config.hidden_size)

    def summarize(self, name: str, clips: TrainingClips | EvaluationClips) -> str:
        """Describes the stored clips of a data set in a line: shards, clips and size on disk."""
        shards = self.shards_of(name, clips)
        written = [part.path(number) for part in shards for number in range(part.shards)]
        sizes = [path.stat().st_size for path in written if path.exists()]
        versions = f" in {len(shards)} versions" if len(shards) > 1 else ""
        return (
            f"{shards[0].folder}: {len(sizes)} of {len(written)} shards, {len(clips)} clips{versions}, "
            f"{sum(sizes) / 1e9:.2f} GB"
        )

    def claim(self, folder: Path, clips: TrainingClips | EvaluationClips) -> None:
        """
        Writes what the features depend on into `features.json`, or compares it with what is there.

        Args:
            folder: of a data set's shards.
            clips: the data set.

        Raises:
            ValueError: the folder is of other clips, weights or settings, which are named.
        """
        trained, data = isinstance(clips, TrainingClips), self.recipe.data
        modules = frozen_parts(self.model, self.recipe.model.freeze)
        files = [file for path in (data.train if trained else data.validation) for file in shard_files(path)]
        settings: dict[str, Any] = {
            "weights": digest_of_weights(modules),
            **encoder_settings(self.model.config),
            **{name: getattr(self.processor.image_processor, name) for name in IMAGE_FIELDS},
            **{name: getattr(self.processor.feature_extractor, name) for name in SOUND_FIELDS},
            "precision": str(self._precision()),
            "clips": digest_of_shards(files),
            "number of clips": len(clips),
            "data.min_frames_with_face": data.min_frames_with_face,
        }
        if isinstance(clips, TrainingClips):
            settings |= {f"data.{name}": getattr(data, name) for name in ("max_frames", "word_window")}
            settings |= {f"data.{name}": getattr(data, name) for name in ("cut_long_clips", "aligner")}
            settings |= {f"augmentation.{name}": value for name, value in asdict(self.recipe.augmentation).items()}
            settings |= {"data.feature_versions": data.feature_versions, "training.seed": clips.seed}
        claim_folder(folder / "features.json", settings, "data.cache_features")

    def _precision(self) -> torch.dtype:
        if self.arguments.bf16:
            return torch.bfloat16
        return torch.float16 if self.arguments.fp16 else torch.float32

    def _autocast(self, device: torch.device) -> AbstractContextManager:
        precision = self._precision()
        return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)

    @torch.no_grad()
    def compute(self, clips: Dataset, places: range) -> Iterator[dict]:
        """
        Computes stored clips.

        Args:
            clips: the data set.
            places: of the clips in it.

        Yields:
            Rows of `SCHEMA`.
        """
        device = self.arguments.device
        encoder = self.model.get_encoder().eval()
        encoder.to(device)
        loader: DataLoader = DataLoader(
            Subset(clips, places),
            batch_size=self.arguments.per_device_eval_batch_size,
            collate_fn=_ClipsAndBatch(ClipCollator(self.processor)),
            num_workers=self.arguments.dataloader_num_workers,
            generator=torch.Generator(),  # of its own, so that training's random numbers stay as they are
        )
        for batch, inputs in loader:
            inputs = {name: value.to(device) for name, value in inputs.items() if name != "labels"}
            with self._autocast(device):
                encoded = encoder.encode_modalities(**self._read_inputs(inputs))
            for place, clip in enumerate(batch):
                row = {"text": clip.text, "frames": clip.frames, "words": None}
                if clip.words is not None:
                    row["words"] = [{"word": word, "start": start, "end": end} for word, start, end in clip.words]
                for name, (output, mask) in encoded.items():
                    row[name] = _to_bytes(output["last_hidden_state"][place], mask[place])
                yield row

    def _read_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Returns the inputs of the modalities that the model reads."""
        names = {"audio": ("input_values", "attention_mask")}
        names["visual"] = ("pixel_values_videos", "video_attention_mask")
        read = [name for modality in MODALITIES[self.model.config.modality] for name in names[modality]]
        return {name: inputs[name] for name in read if name in inputs}


def _to_bytes(states: torch.Tensor, mask: torch.Tensor) -> bytes | None:
    """Returns the valid frames of `(frames, hidden_size)`, which come first, in bfloat16; None if there are none."""
    count = int(mask.sum())
    return states[:count].to(torch.bfloat16).contiguous().view(torch.int16).cpu().numpy().tobytes() if count else None


def encoder_settings(config: AvsrConfig) -> dict[str, Any]:
    """Returns the fields of a configuration that the outputs of front-ends and back-ends depend on, by dotted name."""
    return _flatten(config.to_dict(), "model.config")


def _flatten(fields: dict[str, Any], name: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field, value in fields.items():
        if field not in UNRELATED and not field.startswith("_"):
            flat |= _flatten(value, f"{name}.{field}") if isinstance(value, dict) else {f"{name}.{field}": value}
    return flat


def frozen_parts(model: AvsrForConditionalGeneration, freeze: Sequence[str]) -> dict[str, torch.nn.Module]:
    """
    Returns the parts of a model whose outputs can be stored: front-ends, back-ends and their norms, by name.

    Args:
        model: in training.
        freeze: names of the modules that are not trained.

    Raises:
        ValueError: one of the parts is trained, or a clip's outputs depend on more than the clip.
    """
    config = model.config
    names = [f"{modality}_{part}" for modality in MODALITIES[config.modality] for part in ("front_end", "encoder")]
    norms = [f"{name}_norm" for name in MODALITIES[config.modality]] if config.modality == "audiovisual" else ["norm"]
    parts = {f"model.encoder.{name}": model.get_encoder().get_submodule(name) for name in [*names, *norms]}
    trained = [
        name
        for name, module in parts.items()
        if any(True for _ in module.parameters()) and not any(f"{name}.".startswith(f"{part}.") for part in freeze)
    ]
    if trained:
        raise ValueError(
            f"data.cache_features stores what frozen parts compute: add {', '.join(trained)} to model.freeze"
        )
    if config.layout == "reference":
        raise ValueError(
            "data.cache_features is for layout 'paper': in layout 'reference' what is computed of the sound depends "
            "on the lips, and padding counts in the loss; leave it out"
        )
    if config.modality != "visual" and config.audio.front_end == "wav2vec2" and config.audio.length_rule == "division":
        raise ValueError(
            "data.cache_features is not for audio_config.length_rule 'division', by which what is computed of a clip "
            "depends on the others of its batch; set 'convolution', or leave data.cache_features out"
        )
    return parts
