"""From maps to objects: the pixel decoder fuses a backbone's maps with text tokens into levels and mask features; the
object decoder proposes objects on them, refines them and reads them by its heads (paper, section 3.1)."""

from typing import Any, Unpack

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import TransformersKwargs

from .attention_glee import (
    GleeDeformableAttention,
    GleeEarlyFusion,
    GleeZeroLinear,
    MapSizes,
    attention_bias,
    eager_attention_forward,
    encoding_divisors,
    in_chunks,
    map_shape,
    pixel_centres,
    sine_encoding,
)
from .configuration_glee import NUM_LEVELS, GleeConfig, sub_config
from .transformers_seam_glee import attention_function
from .visual_prompts_glee import GleePromptTokens, GleeSharedMaps

# Extent of the box proposed at each pixel of a level, as a share of the image; doubled from level to level.
PROPOSAL_EXTENT = 0.05
# Pixels nearer to the padded image's edge than this share of it propose nothing.
PROPOSAL_MARGIN = 0.01


# The pixel decoder: text tokens, early fusion, encoded feature maps, features for the masks.


class GleeTextEncoder(nn.Module):
    """CLIP's last hidden states, projected to the width of the pixel tokens."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        text_config = sub_config(config, "text_config", CLIPTextConfig)
        self.clip = CLIPTextModel(text_config)
        self.projection = nn.Linear(text_config.hidden_size, config.hidden_size, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """
        Encodes texts, padding included.

        Args:
            input_ids: `(texts, length)`.
            attention_mask: `(texts, length)`, 0 for padding.

        Returns:
            `(texts, length, hidden_size)`.
        """
        hidden_states = self.clip(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.projection(hidden_states)


def mean_of_tokens(tokens: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """
    Pools each text to one vector: the mean of its tokens, begin and end of text included.

    `(texts, length, size)` -> `(texts, size)`.
    """
    weight = attention_mask[..., None].to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1)


def with_mean(tokens: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns for each text its vector, `(texts, 1, size)`, and its tokens, `(texts, length, size)`."""
    return mean_of_tokens(tokens, attention_mask)[:, None], tokens


def sine_position_map(
    height: int, width: int, size: int, device: torch.device, temperature: float = 10000.0
) -> torch.Tensor:
    """
    Computes the position encoding of a feature map: half of the channels for the row, then half for the column.

    Args:
        height: of the map.
        width: of the map.
        size: channels, a multiple of 4.
        device: of the result.
        temperature: see [`sine_encoding`].

    Returns:
        `(height * width, size)` float32, row by row.
    """
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 1) / (height + 1e-6)
    columns = (torch.arange(width, device=device, dtype=torch.float32) + 1) / (width + 1e-6)
    rows = sine_encoding(rows, size // 2, temperature)  # (height, size / 2)
    columns = sine_encoding(columns, size // 2, temperature)  # (width, size / 2)
    rows, columns = rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


class GleeInputProjection(nn.Module):
    """Convolution and group norm that bring one of the backbone's maps to `hidden_size`."""

    def __init__(self, config: GleeConfig, in_channels: int, downsample: bool = False):
        super().__init__()
        kernel, stride = (3, 2) if downsample else (1, 1)
        self.conv = nn.Conv2d(in_channels, config.hidden_size, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.GroupNorm(config.num_groups, config.hidden_size)

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(feature_map))  # (batch, hidden_size, height, width)


class GleeEncoderLayer(GradientCheckpointingLayer):
    """Deformable self-attention over all levels, then a feed-forward layer; a norm after each."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        size = config.hidden_size
        self.self_attn = GleeDeformableAttention(size, config.num_attention_heads, NUM_LEVELS, config.num_points)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, size)
        self.final_layer_norm = nn.LayerNorm(size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        positions: torch.Tensor,
        reference_points: torch.Tensor,
        shapes: MapSizes,
    ) -> torch.Tensor:
        # hidden_states (batch, tokens, size); positions (tokens, size); reference_points (batch, tokens, levels, 2)
        query = hidden_states + positions
        attended = self.self_attn(query, hidden_states, reference_points, shapes)
        hidden_states = self.self_attn_layer_norm(hidden_states + attended)
        return in_chunks(self._feed_forward, hidden_states)

    def _feed_forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.final_layer_norm(tokens + self.fc2(self.fc1(tokens).relu_()))


class GleePixelDecoder(nn.Module):
    """Fuses a backbone's feature maps with text tokens into four levels and the mask features."""

    def __init__(self, config: GleeConfig, channels: list[int]):
        super().__init__()
        size = config.hidden_size
        self.config = config
        if config.project_features:
            projections = [GleeInputProjection(config, width) for width in channels[1:]]
            projections.append(GleeInputProjection(config, channels[-1], downsample=True))
            self.input_projections = nn.ModuleList(projections)
        self.level_embedding = nn.Parameter(torch.empty(NUM_LEVELS, size))
        self.fusion = GleeEarlyFusion(config)
        self.layers = nn.ModuleList([GleeEncoderLayer(config) for _ in range(config.encoder_layers)])
        self.lateral_conv = nn.Conv2d(channels[0], size, 1, bias=False)
        self.lateral_norm = nn.GroupNorm(config.num_groups, size)
        self.output_conv = nn.Conv2d(size, size, 3, padding=1, bias=False)
        self.output_norm = nn.GroupNorm(config.num_groups, size)
        self.mask_projection = nn.Conv2d(size, size, 1)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels that a cell stands for: in the finest map of all, then in the four levels."""
        return (4 if self.config.project_features else 8, 8, 16, 32, 64)

    def project(self, feature_maps: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """
        Computes what doesn't depend on text; the backbone's maps are not needed after it.

        Args:
            feature_maps: of the backbone, finest first, each `(batch, channels, height, width)`.

        Returns:
            four levels, finest first, and the finest map of all, for the masks; each
            `(batch, hidden_size, height, width)`.
        """
        lateral = self.lateral_norm(self.lateral_conv(feature_maps[0]))
        if not self.config.project_features:
            return list(feature_maps), lateral
        sources = (*feature_maps[1:], feature_maps[-1])
        return [projection(source) for projection, source in zip(self.input_projections, sources)], lateral

    def forward(
        self,
        levels: list[torch.Tensor],
        lateral: torch.Tensor,
        text: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor | None]:
        """
        Fuses the levels with text and refines them.

        Args:
            levels: see [`GleePixelDecoder.project`].
            lateral: see there.
            text: `(batch or 1, tokens, hidden_size)`.
            attention_mask: added to the text's scores, see [`GleeEarlyFusion.forward`].

        Returns:
            mask features `(batch, hidden_size, height, width)` on the finest map; the four levels, finest first, each
            `(batch, hidden_size, height, width)`; the fused text or `None`.
        """
        shapes = [map_shape(level) for level in levels]
        hidden_states = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        hidden_states, text = self.fusion(hidden_states, text, attention_mask, **kwargs)  # (batch, tokens, size)
        positions = self._positions(shapes, hidden_states)
        centres = pixel_centres(shapes, hidden_states.device)[None, :, None]  # (1, tokens, 1, 2)
        centres = centres.expand(hidden_states.shape[0], -1, len(shapes), -1)
        map_sizes = MapSizes.of(shapes, hidden_states.device)
        for layer in self.layers:
            hidden_states = layer(hidden_states, positions, centres, map_sizes)
        sizes = [height * width for height, width in shapes]
        levels = [
            tokens.transpose(1, 2).unflatten(-1, shape)
            for tokens, shape in zip(hidden_states.split(sizes, dim=1), shapes)
        ]
        return self._mask_features(lateral, levels[0]), levels, text

    def _positions(self, shapes: list[tuple[int, int]], like: torch.Tensor) -> torch.Tensor:
        # (tokens, hidden_size): where in its map a token is, and in which map
        maps = [sine_position_map(*shape, self.config.hidden_size, like.device) for shape in shapes]
        return torch.cat([place.to(like.dtype) + level for place, level in zip(maps, self.level_embedding)])

    def _mask_features(self, lateral: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        # These are the largest maps of all, so each takes the place of the one before.
        size = lateral.shape[-2:]
        merged = nn.functional.interpolate(level, size=size, mode="bilinear", align_corners=False).add_(lateral)
        merged = self.output_conv(merged)
        merged = self.output_norm(merged).relu_()
        features = self.mask_projection(merged)
        if not self.config.mask_positions:
            return features
        height, width = features.shape[-2:]
        places = sine_position_map(height, width, self.config.hidden_size, features.device)
        return features + places.T.unflatten(-1, (height, width)).to(features.dtype)


# The object decoder: proposals, prompted layers, prediction heads.


class GleeMlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *sizes: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        tokens = hidden_states.flatten(0, -2)  # (tokens, size): else each layer would do it
        for layer in self.layers[:-1]:
            tokens = nn.functional.relu(layer(tokens))
        return self.layers[-1](tokens).unflatten(0, hidden_states.shape[:-1])


class GleeClassProjection(nn.Linear):
    """
    Projects texts to the space in which queries are scored.

    It starts small if products aren't scaled, because the losses of all classes add up.
    """


class GleeHeads(nn.Module):
    """Prediction heads of a query: its class against text, its confidence, its box and its mask."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        size = config.hidden_size
        self.class_projection = GleeClassProjection(size, size, bias=False)
        self.scale = size**-0.5 if config.scaled_products else 1.0
        self.class_bias = None if config.class_prior is None else nn.Parameter(torch.empty(1))
        self.confidence = GleeMlp(size, size, 1)
        self.box = GleeMlp(size, size, size, 4)
        self.box.layers[-1] = GleeZeroLinear(size, 4)  # boxes are refined from where they are
        self.mask = GleeMlp(size, size, size, size)
        self.mask_position = nn.Linear(2 * size, size) if config.mask_positions else None

    def class_logits(self, hidden_states: torch.Tensor, class_embeddings: torch.Tensor) -> torch.Tensor:
        """
        Scores queries against texts.

        Args:
            hidden_states: `(rows, queries, size)`.
            class_embeddings: `(rows or 1, classes, size)`.

        Returns:
            `(rows, queries, classes)`, before the sigmoid.
        """
        # Projects the few texts instead of the many queries.
        projected = self.scale * (class_embeddings @ self.class_projection.weight)
        logits = hidden_states @ projected.transpose(-1, -2)
        return logits if self.class_bias is None else logits + self.class_bias

    def best_queries(
        self,
        hidden_states: torch.Tensor,
        class_embeddings: torch.Tensor,
        count: int,
        query_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Finds the queries that match any of the texts best.

        Args:
            hidden_states: `(rows, queries, size)`.
            class_embeddings: `(rows or 1, classes, size)`.
            count: queries of each row.
            query_mask: `(rows, queries)` bool, False for empty queries, which come last.

        Returns:
            scores before the sigmoid, best first, and indices, both `(rows, count)`.
        """
        scores = self.class_logits(hidden_states, class_embeddings).amax(dim=-1)  # (rows, queries)
        if query_mask is not None:
            scores = scores.masked_fill(~query_mask, torch.finfo(scores.dtype).min)
        best = scores.topk(min(count, scores.shape[1]), dim=1)
        return best.values, best.indices

    def refined_boxes(self, hidden_states: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Applies the head's correction to boxes `(…, 4)`, cxcywh in [0, 1], in logit space."""
        return (self.box(hidden_states).float() + inverse_sigmoid(boxes)).sigmoid()

    def mask_embeddings(self, hidden_states: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """
        Computes what the mask features are multiplied with.

        Args:
            hidden_states: `(rows, queries, size)`.
            boxes: of the queries, `(rows, queries, 4)`, cxcywh in [0, 1].

        Returns:
            `(rows, queries, size)`.
        """
        if self.mask_position is not None:
            encoding = box_encoding(boxes.detach(), hidden_states.shape[-1])
            hidden_states = hidden_states + self.mask_position(encoding.to(hidden_states.dtype))
        return self.scale * self.mask(hidden_states)

    def mask_logits(
        self, hidden_states: torch.Tensor, boxes: torch.Tensor, mask_features: torch.Tensor
    ) -> torch.Tensor:
        """
        Reads the queries' masks from the mask features.

        Args:
            hidden_states: `(rows, queries, size)`.
            boxes: of the queries, `(rows, queries, 4)`, cxcywh in [0, 1].
            mask_features: `(rows, size, height, width)`; or of fewer images, as the memory of [`GleeDecoder.forward`].

        Returns:
            `(rows, queries, height, width)`, before the sigmoid.
        """
        return read_masks(self.mask_embeddings(hidden_states, boxes), mask_features)


def read_masks(embeddings: torch.Tensor, mask_features: torch.Tensor) -> torch.Tensor:
    """Multiplies the embeddings of [`GleeHeads.mask_embeddings`] with mask features, see [`GleeHeads.mask_logits`]."""
    masks = by_image(embeddings, len(mask_features)) @ mask_features.flatten(2)
    return masks.reshape(*embeddings.shape[:2], *mask_features.shape[-2:])


def inverse_sigmoid(probabilities: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """Computes logits in float32, bounded by those of `eps` and `1 - eps`."""
    probabilities = probabilities.float().clamp(0, 1)
    return torch.log(probabilities.clamp(min=eps) / (1 - probabilities).clamp(min=eps))


def proposal_boxes(
    shapes: list[tuple[int, int]], device: torch.device, from_coarsest: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Computes the box that each pixel of each level proposes, whatever the image shows.

    Args:
        shapes: (height, width) of the levels, coarsest first.
        device: of the result.
        from_coarsest: whether the smallest extent belongs to the coarsest level (published code) or to the finest.

    Returns:
        boxes `(tokens, 4)` float32, cxcywh in [0, 1], and which of them count `(tokens,)` bool: not at the edge.
    """
    steps = range(len(shapes)) if from_coarsest else reversed(range(len(shapes)))
    extents = torch.cat(
        [torch.full((h * w, 2), PROPOSAL_EXTENT * 2.0**step, device=device) for step, (h, w) in zip(steps, shapes)]
    )
    boxes = torch.cat((pixel_centres(shapes, device), extents), dim=-1)
    return boxes, ((boxes > PROPOSAL_MARGIN) & (boxes < 1 - PROPOSAL_MARGIN)).all(dim=-1)


class GleeProposals(nn.Module):
    """First stage: the pixels that match the prompt best become queries with boxes."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        self.config = config
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        memory: torch.Tensor,
        shapes: list[tuple[int, int]],
        heads: GleeHeads,
        class_embeddings: torch.Tensor,
        by_confidence: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Chooses the pixels that the queries start from.

        Args:
            memory: `(rows, tokens, hidden_size)`, coarsest level first, as `shapes`.
            shapes: (height, width) of the levels.
            heads: that rank the pixels and refine their boxes.
            class_embeddings: `(rows or 1, classes, hidden_size)`.
            by_confidence: whether to rank by the confidence head instead of the classes.

        Returns:
            queries `(rows, queries, hidden_size)`, their boxes `(rows, queries, 4)`, cxcywh in [0, 1], and the tokens
            they come from `(rows, queries)`, best first.
        """
        boxes, counts = proposal_boxes(shapes, memory.device, self.config.proposal_scale_from_coarsest)
        objects = self.norm(self.projection(memory * counts[:, None].to(memory.dtype)))  # (rows, tokens, size)
        if by_confidence:
            scores = heads.confidence(objects)[..., 0]
        else:
            scores = heads.class_logits(objects, class_embeddings).amax(dim=-1)
        best = scores.topk(min(self.config.num_queries, scores.shape[1]), dim=1).indices  # (rows, queries)
        queries = objects.gather(1, best[..., None].expand(-1, -1, objects.shape[-1]))
        logits = torch.logit(boxes).masked_fill(~counts[:, None], torch.inf)[best]  # (rows, queries, 4)
        return queries, (heads.box(queries).float() + logits).sigmoid(), best


class GleeSelfAttention(nn.Module):
    """Attention of the queries to each other and to the tokens of a prompt."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        self.config = config
        self.head_size = config.hidden_size // config.num_attention_heads
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # query (rows, queries, size); key, value (rows, queries + prompt tokens, size)
        heads = (-1, self.head_size)
        query = self.q_proj(query).unflatten(-1, heads).transpose(1, 2)  # (rows, heads, queries, head_size)
        key = self.k_proj(key).unflatten(-1, heads).transpose(1, 2)
        value = self.v_proj(value).unflatten(-1, heads).transpose(1, 2)
        attention = attention_function(self.config, eager_attention_forward)
        attended, weights = attention(
            self, query, key, value, attention_mask, scaling=self.head_size**-0.5, dropout=0.0, **kwargs
        )
        return self.out_proj(attended.flatten(2)), weights


class GleeDecoderLayer(GradientCheckpointingLayer):
    """Self-attention with the prompt, deformable attention to the pixels, feed-forward layer; a norm after each."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        size = config.hidden_size
        self.self_attn = GleeSelfAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.encoder_attn = GleeDeformableAttention(size, config.num_attention_heads, NUM_LEVELS, config.num_points)
        self.encoder_attn_layer_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, size)
        self.final_layer_norm = nn.LayerNorm(size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        positions: torch.Tensor,
        memory: torch.Tensor,
        boxes: torch.Tensor,
        sizes: MapSizes,
        prompt: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        # hidden_states and positions (rows, queries, size); boxes (rows, queries, 4);
        # memory (rows or images, tokens, size)
        query = key = hidden_states + positions
        value = hidden_states
        if (
            prompt is not None
        ):  # (rows, prompt tokens, size); a token is its own position, as published without gradient
            key, value = torch.cat((key, prompt + prompt.detach()), dim=1), torch.cat((value, prompt), dim=1)
        attended, _ = self.self_attn(query, key, value, attention_mask, **kwargs)
        hidden_states = self.self_attn_layer_norm(hidden_states + attended)
        reference_points = boxes[:, :, None].expand(-1, -1, len(sizes.shapes), -1)
        query, reference_points = (by_image(x, len(memory)) for x in (hidden_states + positions, reference_points))
        attended = self.encoder_attn(query, memory, reference_points, sizes).reshape(hidden_states.shape)
        hidden_states = self.encoder_attn_layer_norm(hidden_states + attended)
        forwarded = self.fc2(nn.functional.relu(self.fc1(hidden_states)))
        return self.final_layer_norm(hidden_states + forwarded)


class GleeDecoder(nn.Module):
    """The second stage: layers that refine queries and boxes, with the prompt in their self-attention."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.layers = nn.ModuleList([GleeDecoderLayer(config) for _ in range(config.decoder_layers)])
        self.query_position = GleeMlp(2 * size, size, size)
        self.norm = nn.LayerNorm(size)

    def forward(
        self,
        queries: torch.Tensor,
        boxes: torch.Tensor,
        memory: torch.Tensor,
        shapes: list[tuple[int, int]],
        heads: GleeHeads,
        prompts: list[torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Refines queries and boxes layer by layer.

        Args:
            queries: `(rows, queries, hidden_size)`.
            boxes: `(rows, queries, 4)`, cxcywh in [0, 1].
            memory: `(rows, tokens, hidden_size)`, coarsest level first, as `shapes`; or of fewer images, each of which
                belongs to as many consecutive rows.
            shapes: (height, width) of the levels.
            heads: whose box head refines the boxes.
            prompts: tokens `(rows, prompt tokens, hidden_size)`; layer i sees the (i modulo their number)-th.
            attention_mask: `(rows or 1, 1, queries or 1, queries + prompt tokens)`, added to the scores.

        Returns:
            normed states `(layers, rows, queries, hidden_size)` and boxes `(layers, rows, queries, 4)`.
        """
        # No gradient from one layer's boxes to those before (but for a box's own correction, "look forward twice"):
        # so what the box head learns from is computed once for all layers, when their inputs are known.
        references, states = [boxes], []
        sizes, size = MapSizes.of(shapes, memory.device), self.config.hidden_size
        divisors = encoding_divisors(size // 2, memory.device)
        for index, layer in enumerate(self.layers):
            reference = references[-1]
            positions = self.query_position(box_encoding(reference, size, divisors).to(queries.dtype))
            prompt = prompts[index % len(prompts)] if prompts else None
            queries = layer(queries, positions, memory, reference, sizes, prompt, attention_mask, **kwargs)
            states.append(queries)
            if index + 1 < len(self.layers):
                references.append(heads.refined_boxes(queries.detach(), reference).detach())
        starts = torch.stack(references)
        if torch.is_grad_enabled() and len(states) > 1:
            corrected = heads.refined_boxes(torch.stack(states[:-1]), starts[:-1].detach())
            starts = torch.cat((starts[:1], corrected))
        normed = self.norm(torch.stack(states))
        return normed, heads.refined_boxes(normed, starts)


def find_on_maps(
    proposals: GleeProposals,
    decoder: GleeDecoder,
    heads: GleeHeads,
    maps: GleeSharedMaps,
    prompts: GleePromptTokens,
    count: int | None = None,
    decoded: int | None = None,
) -> dict[str, Any]:
    """
    Decodes each prompt in each image; what doesn't depend on the prompts is computed once an image.

    Args:
        proposals: of the model, as the next two.
        decoder: see there.
        heads: see there.
        maps: of the images.
        prompts: to be searched for in each of them.
        count: queries of each row, those of the best scores; None for all.
        decoded: queries that are decoded, the best proposals; None for all.

    Returns:
        `logits`, `confidence`, `pred_boxes`, `pred_masks` and `track_embeddings`, see [`GleeObjectDetectionOutput`]; a
        row is a prompt in an image, all prompts of the first image first.
    """
    levels, classes, present = maps["levels"][::-1], maps["class_embeddings"], prompts["present"]
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)  # (images, tokens, size)
    shapes = [map_shape(level) for level in levels]
    queries, boxes, _ = proposals(memory, shapes, heads, classes, by_confidence=True)
    queries, boxes = (x[:, :decoded].repeat_interleave(len(present), dim=0) for x in (queries, boxes))  # a row each
    tokens = [level.repeat(len(memory), 1, 1) for level in prompts["levels"]]
    seen = torch.cat((present.new_ones(len(present), queries.shape[1]), present), dim=1).repeat(len(memory), 1)
    layers, refined = decoder(queries, boxes, memory, shapes, heads, tokens, attention_bias(seen, queries.dtype))
    track, boxes = layers[-1], refined[-1]
    states = decoder.norm(track) if decoder.config.double_decoder_norm else track
    if count is not None:
        best = heads.best_queries(states, classes, count)[1][..., None]
        track, states, boxes = (x.gather(1, best.expand(-1, -1, x.shape[-1])) for x in (track, states, boxes))
    return {
        "logits": heads.class_logits(states, classes),
        "confidence": heads.confidence(states)[..., 0],
        "pred_boxes": boxes,
        "pred_masks": heads.mask_logits(states, boxes, maps["mask_features"]),
        "track_embeddings": track,
    }


def by_image(rows: torch.Tensor, images: int) -> torch.Tensor:
    """Joins the queries of consecutive rows that share an image: `(rows, queries, …)` -> `(images, queries, …)`."""
    return rows if len(rows) == images else rows.reshape(images, -1, *rows.shape[2:])


def box_encoding(boxes: torch.Tensor, size: int, divisors: torch.Tensor | None = None) -> torch.Tensor:
    """
    Encodes boxes as sine encodings of y, x, w, h concatenated, `(…, 2 * size)` float32.

    Args:
        boxes: `(…, 4)` cxcywh.
        size: half of the channels of an encoding.
        divisors: of [`encoding_divisors`], `(size / 2,)`, where many boxes are encoded.
    """
    x, y, width, height = boxes.float().unbind(-1)
    return sine_encoding(torch.stack((y, x, width, height), dim=-1), size // 2, divisors=divisors).flatten(-2)
