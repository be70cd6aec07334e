"""What every test may rely on: no network, few threads, and the developers' data folder where there is one."""

from __future__ import annotations

import contextlib
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before transformers, datasets or evaluate are imported: nothing is downloaded, telemetry is off.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_EVALUATE_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.setdefault("OMP_NUM_THREADS", "2")
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers of `make test` share the cores
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LOOKHEAR_SHARED", ROOT.parent / "shared"))
PARITY = Path(os.environ.get("LOOKHEAR_PARITY", SHARED / "parity"))
LLAVA_WORDS = """USER: ASSISTANT: . , ? ! : " ' Here it is I have marked It this This what you mean Where the in
picture Mark Please outline every part of that shows Which pixels belong to am looking for Can show me Find and mark
following describe Show refers square bar ground answer your red blue dark light"""
FOLDERS = {"shared": ("LOOKHEAR_SHARED", SHARED), "parity": ("LOOKHEAR_PARITY", PARITY)}

# Before a script: the one that follows cannot import lookhear.
NO_LOOKHEAR = """
import sys

class NoLookhear:
    def find_spec(self, name, path=None, target=None):
        if name == "lookhear" or name.startswith("lookhear."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoLookhear())
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: a worker per core, at most four, and no more than fit into memory; each grows beyond 2 GB."""
    import psutil

    fit = psutil.virtual_memory().total // (3 * 2**30)
    return max(1, min(os.cpu_count() or 1, fit, 4))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what reads a developers' folder where there is none, and says how to name one."""
    for marker, (variable, folder) in FOLDERS.items():
        if folder.is_dir():
            continue
        skip = pytest.mark.skip(reason=f"no folder {folder}; set {variable} to its path")
        for item in items:
            if marker in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def full_disk() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """`with full_disk(size):` no file can become larger than `size` bytes, as if the disk were full then."""
    resource = pytest.importorskip("resource", reason="limits of files are POSIX's")

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield  # Python ignores the signal, so that writing raises OSError
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' data folder; for tests marked `shared` only."""
    return SHARED


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """The folder of numbers that the published code produced; for tests marked `parity` only."""
    return PARITY


@pytest.fixture(scope="session")
def without_lookhear() -> Callable[[str], str]:
    """`without_lookhear(script)`: the same script, for a Python process in which lookhear cannot be imported."""
    return lambda script: NO_LOOKHEAR + script


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint folder as it is published, of a random model that is small enough to run in milliseconds."""
    import torch

    from lookhear import (
        AvsrConfig,
        AvsrFeatureExtractor,
        AvsrForConditionalGeneration,
        AvsrProcessor,
        AvsrTokenizer,
        MouthRoiImageProcessor,
    )
    from lookhear.training.avsr.export import save_checkpoint

    torch.manual_seed(0)
    config = AvsrConfig(
        audio_config={"front_end": "spectrogram", "num_mel_bins": 8, "n_fft": 400},
        visual_config={
            "stem_channels": 4,
            "hidden_sizes": (4, 8),
            "depths": (1, 1),
            "layer_type": "basic",
            "crop_size": 20,
        },
        hidden_size=16,
        encoder_layers=1,
        fusion_layers=1,
        decoder_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        head_hidden_sizes=(16,),
        ctc_upsampling=2,
    )
    images = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0)
    processor = AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer())
    model = AvsrForConditionalGeneration(config).eval()
    with torch.no_grad():  # of random texts the empty one is the most probable; this model has something to say
        model.decoder_head.output.bias[config.eos_token_id] = -4.0
        model.ctc_head.output.bias.unflatten(0, (config.ctc_upsampling, -1))[:, config.pad_token_id] = -4.0
    model.generation_config.lip_evidence = 0.0  # its lips and sound agree on nothing
    return save_checkpoint(model, processor, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def talking_clips(tmp_path_factory) -> Path:
    """A `metadata.jsonl` folder of two talking portraits and one sound file; about a second and a half each."""
    import json

    import soundfile

    from lookhear.training.avsr.synthesis import render_clip, synthesize_clip

    folder = tmp_path_factory.mktemp("clips")
    rows = [("0.mp4", "bin blue", "hopper"), ("1.mp4", "set red", "astronaut"), ("2.wav", "lay green", "hopper")]
    for seed, (name, text, portrait) in enumerate(rows):
        if name.endswith(".mp4"):
            synthesize_clip(text, folder / name, portrait=portrait, seed=seed)
        else:
            soundfile.write(folder / name, render_clip(text, portrait=portrait, seed=seed)[1], 16000)
    lines = [json.dumps({"file_name": name, "text": text}) for name, text, _ in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_glee():
    """(model, processor) of a random GLEE that is small enough to run in milliseconds, with a tokenizer of letters."""
    import torch
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
    from lookhear.processing.glee import GleeImageProcessor, GleeProcessor

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])
    text = {"vocab_size": len(tokens), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
    backbone |= {"layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    config = GleeConfig(
        backbone_config=backbone,
        text_config=text,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=48,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=12,
        fusion_size=32,
        fusion_heads=2,
        num_groups=8,
        template_size=64,
    )
    torch.manual_seed(0)
    model = GleeForObjectDetection(config).eval()
    image_processor = GleeImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    return model, GleeProcessor(image_processor, tokenizer)


@pytest.fixture
def light_command():
    """`light_command("ask", "--help")` runs the command line and fails if it imports what takes seconds."""
    script = (
        "import sys; sys.argv = ['lookhear', *sys.argv[1:]]; import lookhear_command\n"
        "try: code = lookhear_command.main()\n"
        "except SystemExit as error: code = error.code\n"
        "assert not {'torch', 'transformers', 'lookhear', 'PIL'} & set(sys.modules)\n"
        "sys.exit(code)"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def answering_checkpoint(tmp_path_factory) -> Path:
    """Folder of a LISA-GLEE on top of glee-tiny that answers every question by "the red star", and shows something."""
    script = runpy.run_path(str(ROOT / "tests" / "answering_checkpoint.py"))
    folder = tmp_path_factory.mktemp("answering")
    return script["save_answering_checkpoint"](ROOT / "model_cards" / "glee-tiny", folder)


@pytest.fixture(scope="session")
def tiny_lisa_glee(tiny_glee):
    """The pipeline of a random LISA-GLEE that is small enough to run in milliseconds and often says `[SEG]`."""
    import copy

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lookhear import (
        LisaGleeConfig,
        LisaGleeForReasoningSegmentation,
        LisaGleeProcessor,
        ReasoningSegmentationPipeline,
    )
    from lookhear.training.lisa_glee.vocabulary import CHAT_TEMPLATE, OBJECTS, SEGMENT, word_tokenizer

    glee, seeing = tiny_glee
    tokenizer = word_tokenizer(
        ["Which of the two is red? Show it.", "yes, the red star [SEG] and the moon [SEG]", "none"]
    )
    object_token, segment = tokenizer.convert_tokens_to_ids([OBJECTS, SEGMENT])
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LisaGleeConfig(
        perception_config=copy.deepcopy(glee.config),
        language_config=LlamaConfig(vocab_size=len(tokenizer), **sizes, **ends),
        object_token_id=object_token,
        segment_token_id=segment,
        object_label_ids=seeing.tokenizer(["object"]).input_ids[0],
        num_objects=5,
        object_layers=1,
        choose_objects=True,
    )
    torch.manual_seed(0)
    model = LisaGleeForReasoningSegmentation(config)
    torch.manual_seed(6)  # with these weights answers differ from picture to picture, and show something
    model.language_model = LlamaForCausalLM(config.language_config)
    model.eval()
    with torch.no_grad():
        model.get_output_embeddings().weight[segment] *= 8
    processor = LisaGleeProcessor(seeing.image_processor, tokenizer, CHAT_TEMPLATE, num_objects=5)
    return ReasoningSegmentationPipeline(model=model, processor=processor, task="reasoning-segmentation")


@pytest.fixture(scope="session")
def llava_start(tmp_path_factory) -> Path:
    """The folder of a random LLaVA with a tokenizer of words, which has a place for pictures but no new tokens yet."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        PreTrainedTokenizerFast,
    )

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *LLAVA_WORDS.split()]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"(?<=[a-z])(?=[^\w])|(?<=[\W_])(?=\w)"), "isolated"),
        ]
    )
    tokenizer.add_special_tokens(special)
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(1)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=vocabulary["<image>"], image_seq_length=4
    )
    folder = tmp_path_factory.mktemp("llava")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def table_reader():
    """
    `table_reader(next_label, ctc_logits, lengths)`: a recogniser whose scores come from tables, and its
    `encoder_outputs`.

    `next_label(clips, ids)` gives the decoder's scores `(rows, vocab)` of clips `(rows,)` after ids `(rows, length)`;
    ctc_logits `(batch, steps, vocab)`; lengths `(batch,)`. Blank is 0, start and EOS are the last id.
    """
    import torch

    from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
    from lookhear.modeling.avsr.modeling_avsr import AvsrEncoderOutput, AvsrOutput

    class TableReader(AvsrForConditionalGeneration):
        def forward(self, decoder_input_ids=None, encoder_outputs=None, **kwargs):
            clips = encoder_outputs.last_hidden_state[:, 0, 0].long()  # (rows,)
            return AvsrOutput(logits=self.next_label(clips, decoder_input_ids)[:, None])

        def compute_ctc_logits(self, encoder_outputs):
            return self.ctc_logits

    def make(next_label, ctc_logits, lengths):
        batch, steps, vocab = ctc_logits.shape
        end = dict.fromkeys(("eos_token_id", "bos_token_id", "decoder_start_token_id"), vocab - 1)
        layers = {"encoder_layers": 1, "decoder_layers": 1, "hidden_size": 8, "num_attention_heads": 1}
        sizes = {"intermediate_size": 8, "head_hidden_sizes": (), "vocab_size": vocab, "modality": "visual"}
        visual = {"layer_type": "basic", "stem_channels": 4, "hidden_sizes": (4,), "depths": (1,), "crop_size": 16}
        model = TableReader(AvsrConfig(**layers, **sizes, **end, use_cache=False, visual_config=visual)).eval()
        model.next_label, model.ctc_logits = next_label, ctc_logits
        clips = torch.arange(batch, dtype=torch.float32)[:, None, None].expand(batch, steps, 1)
        frame_mask = torch.arange(steps) < torch.as_tensor(lengths)[:, None]
        return model, AvsrEncoderOutput(last_hidden_state=clips, frame_mask=frame_mask)

    return make
