"""The AVSR pipeline from a video file to captions: real-time factor, the stages' shares, peak memory, RTFx.

    python benchmarks/avsr_pipeline.py [--minutes 1 10 60] [--modality auto] [--device cpu] [--threads 2] [--clips 32]
    python benchmarks/avsr_pipeline.py --folder GRID/s1/test --limit 40 --repeat 3

The video is made here: a portrait says four sentences of GRID's kind (360x288, 25 frames/s, 16 kHz), over and over;
its packets are repeated without encoding them again. Rows of the table:

- each stage by itself, one after the other, on the first of the lengths, in one thread, and its share in their sum;
- from file to captions with `asr.stream`, where the stages overlap, each length in a process of its own: the peak
  memory is that process's (ru_maxrss), "of it" what the loaded model and one short clip need already;
- RTFx as the Open ASR Leaderboard defines it, seconds of speech by seconds of processing over a batch of clips that
  are in memory (sound, crops of the mouth, or both), after a first batch that isn't counted.

With `--folder`, only `lookhear transcribe` of the videos in it, as a process of its own: without and with the usual
processes that read beside the model, in turns; the same of one video, most of which is to start, beside what the
libraries take of that. `--limit 1` for the start alone. Shares are of the processor's seconds.

The real-time factor is seconds on the clock by seconds of speech. The processor's seconds say more where a machine is
busy with other things. With the defaults it takes about a third as long as the lengths together on two cores.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

SENTENCES = (
    "bin blue at f two now",
    "lay red by z nine soon",
    "set white with p four please",
    "place green in k one again",
)
FPS, RATE = 25, 16000
UNIT = 8  # frames are a whole number of AAC packets (1024 samples) long: the streams of the repeated clip stay level
TASK = "audio-visual-speech-recognition"
IMPORTS = {
    "import torch": "import torch",
    "import torch and transformers' base classes": "import transformers.modeling_utils, transformers.pipelines.base",
}


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of speech, seconds that it took, megabytes."""

    what: str
    speech: float
    clock: float | None = None
    processor: float | None = None
    share: float | None = None
    peak: float | None = None
    loaded: float | None = None


# ----------------------------------------------------------------------------------------------------------- the video


def make_video(path: Path) -> float:
    """Makes a portrait say each sentence once; returns the video's length in seconds."""
    from lookhear.processing.avsr import write_video
    from lookhear.training.avsr.synthesis import render_clip

    takes = [render_clip(sentence, seed=7) for sentence in SENTENCES]  # one seed: one place, one voice
    frames = [frame for take in takes for frame in take[0]]
    sound = np.concatenate([take[1] for take in takes])
    count = len(frames) // UNIT * UNIT
    write_video(path, frames[:count], FPS, sound[: count * RATE // FPS], RATE)
    return count / FPS


def repeat_video(source: Path, target: Path, length: float, seconds: float) -> float:
    """Writes the packets of a video of `length` seconds over and over until there are `seconds`; returns how many."""
    import av

    times = max(1, round(seconds / length))
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for turn in range(times):
            old.seek(0)
            for packet in old.demux():
                if packet.dts is None or packet.pts is None:
                    continue
                unit, sound = packet.time_base, packet.stream.type == "audio"
                if sound and not -1e-6 <= packet.pts * unit < length - 1e-6:
                    continue  # the encoder's priming and padding
                shift = round(turn * length / unit)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return times * length


# --------------------------------------------------------------------------------------------------------- one process


def load(options: argparse.Namespace):
    """Loads the pipeline on its device."""
    import torch
    from transformers import pipeline

    import lookhear  # noqa: F401 - registers the task

    torch.set_num_threads(options.threads)
    return pipeline(TASK, model=str(options.model), device=options.device, dtype=options.dtype)


def write_captions_of(asr, video: Path, modality: str) -> int:
    """Writes the subtitles of a file, word by word; returns the number of words."""
    from lookhear.processing.avsr import write_captions

    with asr.stream(str(video), modality=modality, return_timestamps="word") as words:
        chunks = list(words)
    text = " ".join(chunk["text"] for chunk in chunks)
    write_captions({"text": text, "chunks": chunks}, video.with_suffix(".srt"))
    return len(chunks)


def peak_memory() -> float:
    """Returns the peak memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def read_in_this_process(options: argparse.Namespace) -> None:
    """Does what `--read` asks for: prints one JSON line with the time and the memory of one video."""
    asr = load(options)
    video, short = options.read
    write_captions_of(asr, short, options.modality)
    loaded, clock, processor = peak_memory(), time.perf_counter(), time.process_time()
    words = write_captions_of(asr, video, options.modality)
    seconds = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
    print(json.dumps({**seconds, "loaded": loaded, "peak": peak_memory(), "words": words}))


def read_in_a_process(options: argparse.Namespace, video: Path, short: Path) -> dict:
    """Returns the same figures, measured in a process of its own."""
    names = ("model", "modality", "device", "dtype", "threads")
    settings = [f"--{name}={getattr(options, name)}" for name in names if getattr(options, name) is not None]
    command = [sys.executable, __file__, *settings, "--read", str(video), str(short)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------- the stages


class Clock:
    """Adds up the seconds that some calls take: the processor's, or with a GPU those until its queue is empty."""

    def __init__(self, device):
        self.device, self.seconds = device, {}

    def now(self) -> float:
        import torch

        if self.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, name: str, call: Callable) -> Callable:
        """Wraps a function so that its time is added to `seconds[name]`."""

        def measured(*args, **kwargs):
            started = self.now()
            result = call(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - started
            return result

        return measured


def measure_stages(asr, video: Path, speech: float, modality: str) -> list[Row]:
    """Measures each stage on its own, one after the other, with its share in their sum."""
    import torch

    from lookhear.processing.avsr import read_audio, read_frames

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    clock, images = Clock(asr.device), asr.processor.image_processor
    clip, seconds = {}, {}
    if modality != "visual":
        clip |= {"audio": clock.timed("sound", read_audio)(str(video), RATE), "sampling_rate": RATE}
        seconds["decoding sound"] = clock.seconds["sound"]
    if modality != "audio":
        clock.timed("pictures", lambda: sum(1 for _ in read_frames(str(video), FPS)))()
        mouths = clock.timed("searched", images.extract)(read_frames(str(video), FPS))
        clock.timed("cut", images.extract)(read_frames(str(video), FPS), mouths.landmarks)
        pictures, searched, cut = (clock.seconds[name] for name in ("pictures", "searched", "cut"))
        seconds["decoding pictures"] = pictures
        seconds["finding and tracking the face, landmarks"] = searched - cut
        seconds["mouth crops"] = max(cut - pictures, 0.0)
        clip["mouths"] = mouths.mouths
    seconds |= model_stages(asr, clock, clip, modality)
    torch.set_num_threads(threads)
    total = sum(seconds.values())
    return [Row(name, speech, processor=spent, share=spent / total) for name, spent in seconds.items()]


def model_stages(asr, clock: Clock, clip: dict, modality: str) -> dict[str, float]:
    """Measures encoder, search, and the rest of reading a clip that is in memory."""
    model, encoder = asr.model, asr.model.get_encoder()
    plain = encoder.forward, model.generate
    encoder.forward, model.generate = clock.timed("encoder", plain[0]), clock.timed("search", plain[1])
    try:
        clock.timed("all", lambda: list(asr.stream(clip, modality=modality, return_timestamps="word")))()
    finally:
        encoder.forward, model.generate = plain
    encoded, searched, total = (clock.seconds[name] for name in ("encoder", "search", "all"))
    return {"encoder": encoded, "beam search": searched, "times of the words, joining": total - encoded - searched}


# ---------------------------------------------------------------------------------------------------------------- RTFx


def measure_rtfx(asr, video: Path, length: float, clips: int, batch_size: int) -> Iterator[Row]:
    """Clips of one sentence each, in memory, read in batches."""
    from lookhear.processing.avsr import read_audio, read_frames

    images = asr.processor.image_processor
    sound, mouths = read_audio(str(video), RATE), images.extract(read_frames(str(video), FPS)).mouths
    frames = round(length * FPS) // len(SENTENCES)
    parts = []
    for index in range(clips):
        first = index % len(SENTENCES) * frames
        samples = slice(first * RATE // FPS, (first + frames) * RATE // FPS)
        parts.append({"audio": sound[samples], "sampling_rate": RATE, "mouths": mouths[first : first + frames]})
    speech = clips * frames / FPS
    for modality in ("audio", "visual", "audiovisual"):
        settings = {"batch_size": batch_size, "modality": modality}
        asr(parts[:batch_size], **settings)
        clock, processor = time.perf_counter(), time.process_time()
        asr(parts, **settings)
        spent = time.perf_counter() - clock, time.process_time() - processor
        yield Row(f"{clips} clips in memory, {batch_size} at once: {modality}", speech, *spent)


# -------------------------------------------------------------------------------------------------------- many files


def measure_folder(options: argparse.Namespace) -> None:
    """Prints what the command takes on the videos of a folder, and to start, least and median of a few turns."""
    files = sorted(path for path in options.folder.iterdir() if path.suffix in (".mp4", ".mpg", ".mov", ".mkv"))
    files = files[: options.limit]
    lookhear = [sys.executable, "-m", "lookhear"]
    transcribe = [*lookhear, "transcribe", "--model", str(options.model)]
    asked = {}
    if len(files) > 1:
        asked |= {f"transcribe {len(files)} files, --num-workers 0": [*transcribe, *files, "--num-workers", "0"]}
        asked |= {f"transcribe {len(files)} files": [*transcribe, *files]}
    asked |= {"transcribe one file": [*transcribe, files[0]], "--help": [*lookhear, "--help"]}
    asked |= {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}
    spent: dict[str, list[tuple[float, float]]] = {what: [] for what in asked}
    for turn in range(options.repeat):
        for what, command in asked.items():
            spent[what].append(time_of_process([*map(str, command)]))
            print(f"turn {turn + 1}: {what}: {spent[what][-1][0]:.1f} s", file=sys.stderr)
    print("| what | s, least | s, median | processor s, least | median | share |\n|---|---:|---:|---:|---:|---:|")
    first = np.median(next(iter(spent.values())), axis=0)[1]
    for what, seconds in spent.items():
        (least, busy_least), (middle, busy) = np.min(seconds, axis=0), np.median(seconds, axis=0)
        print(f"| {what} | {least:.1f} | {middle:.1f} | {busy_least:.2f} | {busy:.2f} | {busy / first:.2f} |")


def time_of_process(command: list[str]) -> tuple[float, float]:
    """Runs a command; returns its seconds on the clock, and its processor seconds with all processes it started."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    return clock, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


# ----------------------------------------------------------------------------------------------------------- the table


def print_table(rows: list[Row], device: str) -> None:
    """Prints the table in Markdown, with the machine below it."""
    print(
        "| what | speech, min | s | processor s | share | real-time factor | RTFx | peak memory, MB | of it loaded |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        factor, rtfx = (row.clock / row.speech, row.speech / row.clock) if row.clock else (None, None)
        cells = (_figure(row.speech / 60, 1), _figure(row.clock, 1), _figure(row.processor, 1), _figure(row.share, 2))
        cells += (_figure(factor, 3), _figure(rtfx, 1), _figure(row.peak, 0), _figure(row.loaded, 0))
        print(f"| {row.what} | {' | '.join(cells)} |")
    print(f"\nOn {device}.")


def _figure(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def name_device(asr, threads: int) -> str:
    """Returns the name of the processor or GPU that the model ran on."""
    import torch

    if asr.device.type == "cuda":
        return torch.cuda.get_device_name(asr.device)
    names = [line.split(":")[1].strip() for line in cpu_facts() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {threads} threads, PyTorch {torch.__version__}"


def cpu_facts() -> list[str]:
    """Returns the lines of /proc/cpuinfo if it exists."""
    facts = Path("/proc/cpuinfo")
    return facts.read_text().splitlines() if facts.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 10, 60], help="lengths of the video (1 10 60)")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent.parent / "model_cards" / "avsr-grid-tiny")
    parser.add_argument("--modality", choices=("auto", "audio", "visual", "audiovisual"), default="auto")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (cpu)")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or float16 (as the checkpoint is stored)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch on the CPU (2)")
    parser.add_argument("--clips", type=int, default=32, help="how many RTFx is taken over (32)")
    parser.add_argument("--batch-size", type=int, default=8, help="clips in a batch (8)")
    parser.add_argument("--folder", type=Path, help="measure `transcribe` of the videos in this folder instead")
    parser.add_argument("--limit", type=int, default=40, help="of them, at most this many (40)")
    parser.add_argument("--repeat", type=int, default=3, help="turns (3)")
    parser.add_argument("--read", nargs=2, type=Path, help=argparse.SUPPRESS)  # the process of its own
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(options.threads))
    if options.read:
        read_in_this_process(options)
        return
    if options.folder:
        measure_folder(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / "short.mp4"
        length = make_video(short)
        videos = [Path(folder) / f"{minutes:g}.mp4" for minutes in options.minutes]
        speech = [repeat_video(short, video, length, 60 * m) for video, m in zip(videos, options.minutes)]
        asr = load(options)
        rows = measure_stages(asr, videos[0], speech[0], options.modality)
        print_progress("stages", rows)
        for video, seconds in zip(videos, speech):
            figures = read_in_a_process(options, video, short)
            words = figures.pop("words")
            rows.append(Row(f"from file to captions, all at once ({words} words)", seconds, **figures))
            print_progress(video.stem, rows[-1:])
        rows += measure_rtfx(asr, short, length, options.clips, options.batch_size)
    print_table(rows, name_device(asr, options.threads))


def print_progress(label: str, rows: list[Row]) -> None:
    """Prints on stderr what is done."""
    for row in rows:
        values = (f"{field.name} {getattr(row, field.name)}" for field in fields(row) if getattr(row, field.name))
        print(f"{label}: {', '.join(values)}", file=sys.stderr)


if __name__ == "__main__":
    main()
