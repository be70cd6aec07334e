"""What lies between a mouth and a file: pitch, a room, a codec, a telephone; each keeps the times of the words."""

import io
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

RATE = 16000  # Hz
LONGEST_DELAY = 4096  # samples by which a codec may move the sound
MU = 255.0  # of G.711's law
# Name: container, encoder, and options with which it is fast, as it runs in every batch.
CODECS = {
    "aac": ("adts", "aac", {"aac_coder": "fast"}),
    "opus": ("ogg", "libopus", {"compression_level": "2"}),
}


def change_pitch(audio: np.ndarray, factor: float) -> np.ndarray:
    """
    Raises the pitch of a voice without changing its tempo.

    Args:
        audio: `(samples,)` float32 at 16 kHz.
        factor: of all frequencies, 0.5 to 2.

    Returns:
        As long as the input, float32.
    """
    graph = av.filter.Graph()
    nodes = [graph.add_abuffer(sample_rate=RATE, format="flt", layout="mono", time_base=Fraction(1, RATE))]
    nodes.append(graph.add("asetrate", str(round(RATE * factor))))
    nodes.append(graph.add("aresample", str(RATE)))
    nodes.append(graph.add("atempo", f"{1 / factor:.6f}"))
    nodes.append(graph.add("aformat", f"sample_fmts=flt:sample_rates={RATE}:channel_layouts=mono"))
    nodes.append(graph.add("abuffersink"))
    for before, after in zip(nodes, nodes[1:]):
        before.link_to(after)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[None], np.float32), format="flt", layout="mono")
    frame.sample_rate = RATE
    graph.push(frame)
    graph.push(None)
    return _fitted(np.concatenate([*_pulled(graph), np.zeros(0, np.float32)]), len(audio))


def _pulled(graph: av.filter.Graph) -> list[np.ndarray]:
    """Returns all that a filter graph gives, once its input has ended."""
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray().reshape(-1))
        except (av.error.EOFError, av.error.BlockingIOError):
            return parts


def add_room(audio: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """
    Adds the echo of a random room: noise that dies away after the direct sound, which stays in its place.

    Args:
        audio: `(samples,)` float32 at 16 kHz.
        generator: source of random numbers.

    Returns:
        `(samples,)` float32 of the same power.
    """
    decay = generator.uniform(0.08, 0.7)  # seconds until the echo is 60 dB below
    length = int(decay * RATE)
    response = generator.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    response[: int(generator.uniform(0.001, 0.01) * RATE)] = 0.0  # the way to the first wall
    energy = np.sqrt(np.square(response).sum()) + 1e-9
    response *= 10 ** (-generator.uniform(0, 15) / 20) / energy  # the echo is 0 to 15 dB below the direct sound
    response[0] = 1.0
    wet = fftconvolve(audio, response)[: len(audio)]
    before, after = (float(np.sqrt(np.mean(np.square(wave)))) for wave in (audio, wet))
    return (wet * (before / max(after, 1e-9))).astype(np.float32)


def telephone(audio: np.ndarray) -> np.ndarray:
    """Sends `(samples,)` at 16 kHz over a telephone: 300 to 3400 Hz, 8 kHz, 8 bits by G.711's mu-law; float32."""
    filtered = sosfilt(butter(4, (300, 3400), "bandpass", fs=RATE, output="sos"), audio)
    narrow = resample_poly(filtered, 1, 2)
    peak = max(float(np.abs(narrow).max(initial=0)), 1e-9)
    squeezed = np.sign(narrow) * np.log1p(MU * np.abs(narrow) / peak) / np.log1p(MU)
    stepped = np.round(squeezed * 127) / 127
    expanded = np.sign(stepped) * np.expm1(np.abs(stepped) * np.log1p(MU)) / MU * peak
    return _fitted(resample_poly(expanded, 2, 1).astype(np.float32), len(audio))


def encode(audio: np.ndarray, codec: str, bit_rate: int) -> np.ndarray:
    """
    Encodes and decodes sound; what the codec delays is moved back.

    Args:
        audio: `(samples,)` float32 at 16 kHz.
        codec: of `CODECS`.
        bit_rate: bits per second.

    Returns:
        `(samples,)` float32.
    """
    container_name, encoder, options = CODECS[codec]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_name) as container:
        stream = container.add_stream(encoder, rate=RATE, options=options, layout="mono")
        assert isinstance(stream, av.AudioStream)  # the encoders are of sound
        stream.bit_rate = bit_rate
        form = stream.codec_context.format.name if stream.codec_context.format is not None else "fltp"
        values = audio[None] if form.startswith("flt") else np.round(audio[None] * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format=form, layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    buffer.seek(0)
    with av.open(buffer, "r") as encoded:
        resampler = av.AudioResampler("flt", "mono", RATE)
        frames = [part for frame in encoded.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    decoded = np.concatenate([np.zeros(0, np.float32), *(frame.to_ndarray().reshape(-1) for frame in frames)])
    delay = delay_of(decoded, audio)
    return _fitted(decoded[delay:] if delay >= 0 else np.pad(decoded, (-delay, 0)), len(audio))


def delay_of(late: np.ndarray, early: np.ndarray) -> int:
    """
    Finds by how many samples one wave lags behind another one that it is a copy of.

    Args:
        late: `(any,)`.
        early: `(any,)`.

    Returns:
        Between -4096 and 4096; the place of the highest correlation.
    """
    length = 1 << int(np.ceil(np.log2(len(late) + len(early) + 1)))
    product = np.fft.rfft(late, length) * np.conj(np.fft.rfft(early, length))
    correlation = np.fft.irfft(product, length)
    around = np.concatenate([correlation[-LONGEST_DELAY:], correlation[: LONGEST_DELAY + 1]])
    return int(around.argmax()) - LONGEST_DELAY


def _fitted(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cuts a wave, or fills it up with zeros, to a number of samples."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio)))).astype(np.float32)


def random_codec(audio: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Sends `(samples,)` float32 at 16 kHz through AAC, Opus or a telephone, at a random bit rate."""
    if not audio.any():
        return audio
    ways: list[Callable[[], np.ndarray]] = [
        lambda: encode(audio, "aac", int(generator.choice([12000, 16000, 24000, 32000, 48000]))),
        lambda: encode(audio, "opus", int(generator.choice([8000, 12000, 16000, 24000, 32000]))),
        lambda: telephone(audio),
    ]
    return ways[int(generator.integers(len(ways)))]()
