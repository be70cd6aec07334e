"""Joint CTC/attention beam search beside ESPnet's: seconds an utterance at the paper's full size, random weights.

    python benchmarks/avsr_decoding.py [--frames 75 80 150] [--characters 40] [--batch 1 8] [--repeat 3] [--threads 1]
        [--dtype bfloat16]
    python benchmarks/avsr_decoding.py --frames 250 --characters 150 --batch 1 --candidates 10  # quicker searches too

Both search with a decoder of six layers of 512 (8 heads, 2048), 40 labels, beam 5, CTC weight 0.1, over an encoded
clip; shortest and longest text are the same, so that random weights do equal work. ESPnet's BatchBeamSearch takes one
clip after the other. The cases take turns in one run, so that a busy machine slows all of them equally; what is
compared is the time the processor spent (least of the repetitions), with the time on the clock beside it. About five
minutes on one thread.

With `--candidates N` there are rows for the search in two passes, which compares N texts of CTC, and for CTC alone. So
that CTC has texts of that length to say, its scores are made up: a random text, one step a character, each of them
almost certain but for one in ten, where the second best is up to 20 times less probable.

With `--usr2`, ours also encodes: USR 2.0's base model, 1,049 word pieces, beam 40, on the sound and lips of a clip of
ten seconds, beside ESPnet's search alone with a decoder of the same size and the published rules of its pre-beam.

ESPnet's column is left out where it isn't installed. To install it beside this environment, without what it would
replace:

    pip install --no-deps --target espnet_peer espnet typeguard==2.13.3
    PYTHONPATH=espnet_peer python benchmarks/avsr_decoding.py
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CTC_WEIGHT = 0.1


@dataclass(frozen=True)
class Sizes:
    """Beams, labels, and whether ours is USR 2.0's base model, encoder included."""

    beams: int = 5
    vocab: int = 40
    usr2: bool = False


PAPER, USR2 = Sizes(), Sizes(beams=40, vocab=1049, usr2=True)


@dataclass
class Case:
    """Something to time: `search()` decodes `clips` utterances."""

    name: str
    frames: int
    clips: int
    search: Callable[[], None]
    processor: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)


def made_up_scores(clips: int, frames: int, characters: int, vocab: int) -> "torch.Tensor":
    """Returns CTC scores `(clips, frames, vocab)` that say random texts, with a doubt in every tenth character."""
    import torch

    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(clips, frames, vocab, generator=generator)
    for row in scores:
        steps = torch.randperm(frames, generator=generator)[:characters].sort().values
        labels = torch.randint(1, vocab - 1, (characters,), generator=generator)
        labels[1:] += labels[1:] == labels[:-1]  # equal neighbours would need a blank
        labels = labels.clamp(max=vocab - 2)
        row[:, 0] += 10
        row[steps, 0] -= 10
        row[steps, labels] += 10
        doubts = torch.arange(5, characters, 10)
        others, depth = labels[doubts] % (vocab - 2) + 1, 3 * torch.rand(len(doubts), generator=generator)
        row[steps[doubts], others] = row[steps[doubts], labels[doubts]] - depth
    return scores


def our_search(
    clips: int, frames: int, characters: int, search: str = "joint", texts: int = 0, dtype: str = "float32"
) -> Callable[[], None]:
    """Returns a function that runs `generate` on clips that are encoded already."""
    import torch

    from lookhear import AvsrConfig, AvsrForConditionalGeneration
    from lookhear.modeling.avsr import AvsrEncoderOutput

    torch.manual_seed(0)
    config = AvsrConfig(modality="visual", encoder_layers=1, fusion_layers=1)  # the encoder isn't used
    model = AvsrForConditionalGeneration(config).eval().to(getattr(torch, dtype))
    states = torch.randn(clips, frames, config.hidden_size, dtype=model.dtype)
    encoded = AvsrEncoderOutput(last_hidden_state=states, frame_mask=torch.ones(clips, frames, dtype=torch.bool))
    if characters <= frames:
        scores = made_up_scores(clips, frames, characters, config.vocab_size)
        model.compute_ctc_logits = lambda encoded: scores
    options: dict[str, Any] = {}
    if search == "joint":
        lengths = {"min_new_tokens": characters, "max_new_tokens": characters + 1}  # the last one is EOS
        options = {"num_beams": PAPER.beams, "ctc_weight": CTC_WEIGHT, **lengths}
    elif search == "two_pass":
        options = {"num_beams": texts, "ctc_weight": CTC_WEIGHT}

    def run() -> None:
        found = model.generate(encoder_outputs=encoded, search=search, **options)
        assert len(found) == clips and abs(found.shape[1] - characters - 2) <= characters // 10

    return run


def our_reading(frames: int, pieces: int) -> Callable[[], None]:
    """Returns a function that encodes the sound and lips of one clip with USR 2.0's base model and searches."""
    import torch

    from lookhear import AvsrConfig, AvsrForConditionalGeneration

    torch.manual_seed(0)
    model = AvsrForConditionalGeneration(AvsrConfig.usr2("base")).eval()
    inputs = {"input_values": torch.randn(1, 640 * frames), "pixel_values_videos": torch.randn(1, frames, 1, 88, 88)}
    lengths = {"min_new_tokens": pieces, "max_new_tokens": pieces + 1}

    def read() -> None:
        found = model.generate(**inputs, num_beams=USR2.beams, ctc_weight=CTC_WEIGHT, **lengths)
        assert found.shape == (1, pieces + 2)

    return read


def espnet_search(frames: int, characters: int, sizes: Sizes = PAPER) -> Callable[[], None] | None:
    """
    Returns a function that runs ESPnet's BatchBeamSearch with its CTC prefix scorer on one clip; None without ESPnet.
    """
    try:
        from espnet.nets.batch_beam_search import BatchBeamSearch
        from espnet.nets.scorers.ctc import CTCPrefixScorer
        from espnet2.asr.ctc import CTC
        from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
    except ImportError as error:
        print(f"no column for ESPnet ({error}); the top of this script says how to install it", file=sys.stderr)
        return None
    import torch

    torch.manual_seed(0)
    vocab, eos = sizes.vocab, sizes.vocab - 1
    decoder = TransformerDecoder(vocab, 512, attention_heads=8, linear_units=2048, num_blocks=6, use_flash_attn=False)
    ctc = CTC(vocab, 512)
    scorers = {"decoder": decoder.eval(), "ctc": CTCPrefixScorer(ctc=ctc.eval(), eos=eos)}
    weights = {"decoder": 1 - CTC_WEIGHT, "ctc": CTC_WEIGHT}
    key = "decoder" if sizes.usr2 else "full"
    beam = BatchBeamSearch(scorers, weights, sizes.beams, vocab, sos=eos, eos=eos, pre_beam_score_key=key).eval()
    states = torch.randn(frames, 512)

    def search() -> None:
        with torch.inference_mode():
            beam(states, maxlenratio=-characters, minlenratio=-characters)  # it warns that nothing ended before

    return search


def measure(cases: list[Case], repeat: int) -> None:
    """Fills in the seconds an utterance of each case; one call each goes before, untimed."""
    for turn in range(repeat + 1):
        for case in cases:
            clock, processor = time.perf_counter(), time.process_time()
            case.search()
            processor, clock = time.process_time() - processor, time.perf_counter() - clock
            print(f"call {turn} of {repeat}: {case.name}, {case.frames} frames, {clock:.2f} s", file=sys.stderr)
            if turn:
                case.processor.append(processor / case.clips)
                case.clock.append(clock / case.clips)


def print_table(cases: list[Case]) -> None:
    """Prints one row per case, in Markdown: ESPnet's processor time in times of each, and each's share of ours."""
    print("| frames | search | clips at once | processor s an utterance | clock s | times ESPnet's | share of ours |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    own = {(case.frames, case.clips): min(case.processor) for case in cases if case.name == "ours"}
    peers = {case.frames: min(case.processor) for case in cases if case.name == "ESPnet"}
    for case in cases:
        least = min(case.processor)
        ratio = f"{peers[case.frames] / least:.1f}" if case.frames in peers else ""
        joint = own.get((case.frames, case.clips))
        share = f"{least / joint:.2f}" if joint else ""
        figures = f"{least:.2f} | {min(case.clock):.2f} | {ratio} | {share}"
        print(f"| {case.frames} | {case.name} | {case.clips} | {figures} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    frames = "of the clips, 25 a second (75 80 150; with --usr2 250)"
    parser.add_argument("--frames", nargs="+", type=int, help=frames)
    parser.add_argument("--characters", type=int, default=40, help="of each text")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], help="clips that are searched together")
    parser.add_argument("--repeat", type=int, default=3, help="timed calls of each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--candidates", type=int, default=0, help="texts of the search in two passes; 0: leave it out")
    types = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=types, default="float32", help="another type of ours, beside float32")
    parser.add_argument("--usr2", action="store_true", help="USR 2.0's base model and beam 40 instead of the paper's")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(options.threads))
    import torch

    torch.set_num_threads(options.threads)
    cases = []
    for frames in options.frames or ([250] if options.usr2 else [75, 80, 150]):
        peer = espnet_search(frames, options.characters, USR2 if options.usr2 else PAPER)
        cases += [Case("ESPnet", frames, 1, peer)] if peer else []
        if options.usr2:
            cases.append(Case("ours, with the encoder", frames, 1, our_reading(frames, options.characters)))
            continue
        ours = [(clips, our_search(clips, frames, options.characters)) for clips in options.batch]
        cases += [Case("ours", frames, clips, search) for clips, search in ours]
        if options.dtype != "float32":
            for clips in options.batch:
                search = our_search(clips, frames, options.characters, dtype=options.dtype)
                cases.append(Case(f"ours, {options.dtype}", frames, clips, search))
        if options.candidates:
            for clips in options.batch:
                sizes = clips, frames, options.characters
                two = our_search(*sizes, "two_pass", options.candidates)
                cases.append(Case(f"ours, two passes of {options.candidates}", frames, clips, two))
                cases.append(Case("ours, CTC alone", frames, clips, our_search(*sizes, "greedy")))
    measure(cases, options.repeat)
    print_table(cases)


if __name__ == "__main__":
    main()
