"""What the decoder keeps during a beam search: the beams stay where they are, and a mask says who continues whom."""

import torch


class LayerBeams:
    """
    One decoder layer's keys and values.

    Attributes:
        heard: of the encoder's frames, two `(clips, heads, frames, head_dim)`, shared by the beams of a clip.
        fused: weight and bias of self-attention's query, key and value as one; None where they must stay apart.
        said: of the characters so far, `(2, clips, heads, capacity, head_dim)`; the buffer doubles when it is full.
    """

    def __init__(
        self, heard: tuple[torch.Tensor, torch.Tensor], fused: tuple[torch.Tensor, torch.Tensor] | None = None
    ):
        self.heard, self.fused = heard, fused
        self.said: torch.Tensor | None = None
        self.length = 0

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes `(clips, heads, beams, head_dim)` of the next character; returns those of all, `(clips, heads, length, …)`."""
        past, self.length = self.length, self.length + keys.shape[2]
        if self.said is None or self.length > self.said.shape[3]:
            larger = keys.new_empty(2, *keys.shape[:2], 2 * self.length, keys.shape[3])
            if self.said is not None:
                larger[:, :, :, :past] = self.said
            self.said = larger
        all_keys, all_values = self.said[:, :, :, : self.length]
        all_keys[:, :, past:], all_values[:, :, past:] = keys, values
        return all_keys, all_values


class AvsrBeamCache:
    """
    The cache of `num_beams` beams of each clip that grow by one character a step.

    The beams of a clip are the queries of one row, so that they share the keys of its sound and lips. What they have
    said stands side by side in the order in which it was computed and is never copied when beams are dropped or split:
    `ancestry` says which of it belongs to each beam.

    Attributes:
        steps: characters that each beam holds.
        layers: one [`LayerBeams`] a decoder layer, none before the first step.
        encoder_mask: `(clips, 1, 1, frames)`, added to scores: 0 for frames, the lowest number for padding;
            None without padding.
        ancestry: `(clips, 1, beams, steps * beams)`, in the same way.
    """

    is_compileable = False

    def __init__(self, num_beams: int):
        self.num_beams = num_beams
        self.steps = 0
        self.layers: list[LayerBeams] = []
        self.encoder_mask: torch.Tensor | None = None
        self.ancestry: torch.Tensor | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """As of transformers' caches."""
        return self.steps

    def grow(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Makes room for the next character `(clips, beams, size)`; returns the new `ancestry`."""
        clips, beams = hidden_states.shape[:2]
        own = as_bias(torch.eye(beams, dtype=torch.bool, device=hidden_states.device), hidden_states.dtype)
        own = own.expand(clips, 1, -1, -1)
        self.ancestry = own if self.ancestry is None else torch.cat((self.ancestry, own), dim=3)
        self.steps += 1
        return self.ancestry

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Each row of `(clips * beams,)` goes on from the row named there, one of the same clip."""
        parents = beam_idx.view(-1, 1, self.num_beams, 1).to(self.ancestry.device, torch.long) % self.num_beams
        self.ancestry = self.ancestry.gather(2, parents.expand_as(self.ancestry))


def as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """True -> 0, False -> the lowest number: what is added to attention scores."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
