"""Joint CTC/attention beam search beside ESPnet's: seconds an utterance at the paper's full size, random weights.

    python benchmarks/avsr_decoding.py [--frames 75 80 150] [--characters 40] [--batch 1 8] [--repeat 3] [--threads 1]

Both search with a decoder of six layers of 512 (8 heads, 2048), 40 labels, beam 5, CTC weight 0.1, over an encoded
clip; shortest and longest text are the same, so that random weights do equal work. ESPnet's BatchBeamSearch takes one
clip after the other. The cases take turns in one run, so that a busy machine slows all of them equally; what is
compared is the time the processor spent (least of the repetitions), with the time on the clock beside it. About five
minutes on one thread.

With `--usr2`, ours also encodes: USR 2.0's base model, 1,049 word pieces, beam 40, on the sound and lips of a clip,
beside ESPnet's search alone with a decoder of the same size and the published rules of its pre-beam.

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


def our_search(clips: int, frames: int, characters: int) -> Callable[[], None]:
    """Returns a function that runs `generate` on clips that are encoded already."""
    import torch

    from lookhear import AvsrConfig, AvsrForConditionalGeneration
    from lookhear.modeling.avsr import AvsrEncoderOutput

    torch.manual_seed(0)
    config = AvsrConfig(modality="visual", encoder_layers=1, fusion_layers=1)  # the encoder isn't used
    model = AvsrForConditionalGeneration(config).eval()
    states = torch.randn(clips, frames, config.hidden_size)
    encoded = AvsrEncoderOutput(last_hidden_state=states, frame_mask=torch.ones(clips, frames, dtype=torch.bool))
    lengths = {"min_new_tokens": characters, "max_new_tokens": characters + 1}  # the last one is EOS

    def search() -> None:
        found = model.generate(encoder_outputs=encoded, num_beams=PAPER.beams, ctc_weight=CTC_WEIGHT, **lengths)
        assert found.shape == (clips, characters + 2)

    return search


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
    """Prints one row per case, in Markdown; the ratio is ESPnet's processor time to ours."""
    print("| frames | search | clips at once | processor s an utterance | clock s | times ESPnet's speed |")
    print("|---:|---|---:|---:|---:|---:|")
    peers = {case.frames: min(case.processor) for case in cases if case.name == "ESPnet"}
    for case in cases:
        least = min(case.processor)
        ratio = f"{peers[case.frames] / least:.1f}" if case.frames in peers else ""
        print(f"| {case.frames} | {case.name} | {case.clips} | {least:.2f} | {min(case.clock):.2f} | {ratio} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", nargs="+", type=int, default=[75, 80, 150], help="of the clips, 25 a second")
    parser.add_argument("--characters", type=int, default=40, help="of each text")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], help="clips that are searched together")
    parser.add_argument("--repeat", type=int, default=3, help="timed calls of each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--usr2", action="store_true", help="USR 2.0's base model and beam 40 instead of the paper's")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(options.threads))
    import torch

    torch.set_num_threads(options.threads)
    cases = []
    for frames in options.frames:
        peer = espnet_search(frames, options.characters, USR2 if options.usr2 else PAPER)
        cases += [Case("ESPnet", frames, 1, peer)] if peer else []
        if options.usr2:
            cases.append(Case("ours, with the encoder", frames, 1, our_reading(frames, options.characters)))
            continue
        ours = [(clips, our_search(clips, frames, options.characters)) for clips in options.batch]
        cases += [Case("ours", frames, clips, search) for clips, search in ours]
    measure(cases, options.repeat)
    print_table(cases)


if __name__ == "__main__":
    main()
