"""What the tests of GLEE's processing share."""

import pytest
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with one letter per token: 256 bytes, each alone or ending a word, and two special tokens."""
    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


@pytest.fixture(scope="session")
def write_clip():
    """
    `write_clip(path, frames, fps=25, codec="mpeg4", times=None, turn=None, **options of the codec)`: a video file.

    frames: `(height, width, 3)` uint8 each; times: of each frame in seconds; turn: degrees that players turn it by.
    """
    from fractions import Fraction

    import av

    def write(path, frames, fps=25, codec="mpeg4", times=None, turn=None, **options):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps, options={"g": "5", **options})
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.bit_rate = 4_000_000
            base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            stream.time_base = stream.codec_context.time_base = base
            if turn is not None:
                stream.set_display_rotation(turn)
            for index, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = index if times is None else round(1000 * times[index])
                frame.time_base = base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def numbered():
    """`numbered(count, height=48, width=64)`: grey frames, each a little lighter than the one before."""
    import numpy as np

    def make(count, height=48, width=64):
        return [np.full((height, width, 3), 20 + 5 * (index % 40), np.uint8) for index in range(count)]

    return make
