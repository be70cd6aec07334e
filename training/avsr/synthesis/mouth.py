"""The mouth of a portrait: the shape of the lips for an articulation, and what is visible between them.

Everything here is in face units: the origin is the middle of the portrait's closed mouth, `u` runs along the line
of the eyes to the right of the picture, `v` down the face, and 1 is the distance between the outer eye corners.
"""

from dataclasses import dataclass

import numpy as np

from .visemes import ADVANCE, BITE, CLOSED, JAW, LOWER, ROUND, SPREAD, TONGUE, UPPER

UPPER_OUTER, LOWER_OUTER = (49, 50, 51, 52, 53), (59, 58, 57, 56, 55)  # of the 68 points, left to right
UPPER_INNER, LOWER_INNER = (60, 61, 62, 63, 64), (60, 67, 66, 65, 64)
INNER_SAMPLES = np.array([-0.9, -0.68, -0.36, 0.0, 0.36, 0.68, 0.9])  # control points along each inner lip edge

_LARGEST_REST_WIDTH = 0.62  # of the eye distance; a smile is wider and is relaxed to it
_TEETH_EDGE = 0.032  # edge of the upper teeth below the lip line
_JAW_TEETH = 0.150  # how far the lower teeth sink with the jaw
_UPPER_GAPS = np.array([0.0, 0.092, 0.162, 0.228, 0.282])  # lines between teeth, from the middle
_LOWER_GAPS = np.array([0.0, 0.058, 0.12, 0.186, 0.245])


@dataclass(frozen=True)
class LipShape:
    """
    One shape of the lips, in face units.

    Attributes:
        line: (3,) coefficients of the closed lips' line v = line[0] + line[1] s + line[2] s^2.
        half_width: half the width of the opening.
        outer_half_width: half the width of the lips.
        rise: upper lip's edge above the line, in the middle.
        drop: lower lip's edge below the line, in the middle.
        corner: corners below the line.
        power: 0.5 is an ellipse, larger is more pointed at the corners.
        upper_thickness: factor on the portrait's own upper lip.
        lower_thickness: factor on the portrait's own lower lip.
    """

    line: np.ndarray
    half_width: float
    outer_half_width: float
    rise: float
    drop: float
    corner: float
    power: float
    upper_thickness: float
    lower_thickness: float

    def edges(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns v of the upper and of the lower lip's inner edge at each u; both on the line beyond the corners."""
        s = np.clip(u / self.half_width, -1.0, 1.0)
        bow = np.power(np.maximum(1.0 - s * s, 0.0), self.power)
        line = self.line_at(u) + self.corner * s * s
        return line - self.rise * bow, line + self.drop * bow

    def middle(self, u: np.ndarray) -> np.ndarray:
        """Returns v half way between the edges, from a table: fast enough for all pixels of a face."""
        table = np.linspace(-0.5, 0.5, 1001)
        upper, lower = self.edges(table)
        values = ((upper + lower) / 2).astype(np.float32)
        return values[np.clip(u * 1000 + 500.5, 0, 1000).astype(np.int32)]

    def line_at(self, u: np.ndarray) -> np.ndarray:
        """Returns v of the line where closed lips meet."""
        s = np.clip(u / self.outer_half_width, -1.0, 1.0)
        return self.line[0] + s * (self.line[1] + s * self.line[2])


class MouthModel:
    """The lips of one portrait at rest, measured on its 68 points in face units (68, 2)."""

    def __init__(self, points: np.ndarray):
        left, right = points[48], points[54]
        self.photo_half_width = float(right[0] - left[0]) / 2
        self.photo_middle = float(right[0] + left[0]) / 2
        self.photo_opening = float(points[66, 1] - points[62, 1])
        self.half_width = min(self.photo_half_width, _LARGEST_REST_WIDTH / 2)
        self.upper_source, self.lower_source = self._inner_edges(points)
        self.corner_source = np.stack([left, right])
        self.upper_outer_source = points[list(UPPER_OUTER)]
        self.lower_outer_source = points[list(LOWER_OUTER)]
        self.upper_thickness = self._thickness(self.upper_outer_source, self.upper_source, -1.0)
        self.lower_thickness = self._thickness(self.lower_outer_source, self.lower_source, 1.0)
        self.line = self._rest_line(left, right)

    def _inner_edges(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inner edges of the photo's lips; of an open mouth, moved from the teeth a little."""
        upper, lower = points[list(UPPER_INNER)].copy(), points[list(LOWER_INNER)].copy()
        if self.photo_opening > 0.05:
            upper[1:4, 1] -= 0.38 * (upper[1:4, 1] - points[[50, 51, 52], 1])
            upper[[0, 4]] = lower[[0, 4]] = points[[48, 54]]
        return upper, lower

    def _thickness(self, outer: np.ndarray, inner: np.ndarray, sign: float) -> np.ndarray:
        """Returns (5,) height of the lip at its outer points; lips of a smile are relaxed with its width."""
        edge = np.interp(outer[:, 0], inner[:, 0], inner[:, 1])
        relaxed = (self.photo_half_width / self.half_width) ** 0.8
        smallest = 0.045 * np.array([0.5, 1.0, 1.0, 1.0, 0.5])
        return np.maximum(sign * (outer[:, 1] - edge) * relaxed, smallest)

    def _rest_line(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Returns (3,) quadratic in s = u / half width: the middle between the inner edges, a smile's bend halved."""
        upper, lower = self.upper_source, self.lower_source
        s = np.linspace(-0.8, 0.8, 9)
        u = self.photo_middle + s * self.photo_half_width
        middle = (np.interp(u, upper[:, 0], upper[:, 1]) + np.interp(u, lower[:, 0], lower[:, 1])) / 2
        tilt = (right[1] - left[1]) / 2
        if self.photo_opening > 0.05:  # a laughing mouth says little about its closed line
            corner = (right[1] + left[1]) / 2
            lift = (np.mean(upper[1:4, 1]) - corner) * 0.35
            return np.array([np.mean(upper[1:4, 1]) + 0.3 * self.photo_opening, tilt, -lift])
        quadratic, linear, constant = np.polyfit(s, middle, 2)
        return np.array([constant, linear, np.clip(quadratic, -0.06, 0.06)])

    def shape(self, articulation: np.ndarray) -> LipShape:
        """Returns the lips for one row (9,) of an articulation track."""
        a = articulation
        spread, pursed = max(float(a[SPREAD]), 0.0), max(-float(a[SPREAD]), 0.0)
        jaw, rounding, free = max(float(a[JAW]), 0.0), max(float(a[ROUND]), 0.0), 1.0 - float(a[CLOSED])
        outer = self.half_width * (1.0 + 0.15 * spread - 0.36 * pursed - 0.03 * jaw)
        rise = (0.014 * jaw + 0.042 * float(a[UPPER])) * free
        drop = (0.168 * jaw + 0.058 * float(a[LOWER]) + 0.038 * rounding) * free
        bite = float(a[BITE])
        drop = drop * (1.0 - bite) + (_TEETH_EDGE - 0.006) * bite
        return LipShape(
            line=self.line,
            half_width=outer * (0.94 - 0.34 * min(rounding, 1.0)),
            outer_half_width=outer,
            rise=rise,
            drop=drop,
            corner=0.22 * drop * (1.0 - bite),
            power=0.72 - 0.2 * min(rounding, 1.0),
            upper_thickness=1.0 + 0.22 * rounding - 0.12 * spread - 0.1 * float(a[UPPER]) - 0.3 * (1.0 - free),
            lower_thickness=1.0 + 0.2 * rounding - 0.08 * spread - 0.12 * jaw - 0.42 * bite - 0.3 * (1.0 - free),
        )

    def upper_controls(self, shape: LipShape) -> tuple[np.ndarray, np.ndarray]:
        """Returns where points of the upper lip are in the photo and where they go, each (12, 2)."""
        return self._controls(shape, self.upper_outer_source, self.upper_source, self.upper_thickness, True)

    def lower_controls(self, shape: LipShape) -> tuple[np.ndarray, np.ndarray]:
        """Returns where points of the lower lip are in the photo and where they go, each (12, 2)."""
        return self._controls(shape, self.lower_outer_source, self.lower_source, self.lower_thickness, False)

    def _controls(self, shape, outer, inner, thickness, upper) -> tuple[np.ndarray, np.ndarray]:
        half = (inner[4, 0] - inner[0, 0]) / 2
        u_photo = (inner[4, 0] + inner[0, 0]) / 2 + INNER_SAMPLES * half
        inner_source = np.stack([u_photo, np.interp(u_photo, inner[:, 0], inner[:, 1])], 1)
        u_inner = INNER_SAMPLES * shape.half_width
        edge = shape.edges(u_inner)[0 if upper else 1]
        u_outer = (outer[:, 0] - self.photo_middle) / self.photo_half_width * shape.outer_half_width
        edge_outer = shape.edges(u_outer * shape.half_width / shape.outer_half_width)[0 if upper else 1]
        factor = -shape.upper_thickness if upper else shape.lower_thickness
        outer_target = np.stack([u_outer, edge_outer + factor * thickness], 1)
        source = np.concatenate([outer, inner_source])
        return source, np.concatenate([outer_target, np.stack([u_inner, edge], 1)])

    def corner_controls(self, shape: LipShape) -> tuple[np.ndarray, np.ndarray]:
        """Returns the two outer mouth corners in the photo and where they go, each (2, 2)."""
        u = np.array([-shape.outer_half_width, shape.outer_half_width])
        return self.corner_source, np.stack([u, shape.line_at(u) + shape.corner], 1)


def paint_inner_mouth(
    u: np.ndarray, v: np.ndarray, shape: LipShape, articulation: np.ndarray, tone: np.ndarray, pixel: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paints what is visible between the lips.

    Args:
        u: (h, w) face coordinates of the pixels, to the right.
        v: (h, w) face coordinates of the pixels, downwards.
        shape: of the lips.
        articulation: (9,) row of an articulation track.
        tone: (3,) colour of white in the portrait's light, 0 to 255.
        pixel: size of one pixel in face units: edges are blurred by about as much.

    Returns:
        Colour (h, w, 3) 0 to 255, opening (h, w) 0 to 1, and shade (h, w), a factor that darkens lips at the seam.
    """
    upper, lower = shape.edges(u)
    soft = 1.1 * pixel
    inside = _ramp(shape.half_width - np.abs(u), 2.5 * pixel)
    opening = _ramp((v - upper) / _slant(upper, pixel), soft) * _ramp((lower - v) / _slant(lower, pixel), soft)
    opening *= inside
    rounding = float(np.clip(articulation[ROUND], 0.0, 1.0))
    teeth_edge = _TEETH_EDGE - 0.022 * rounding + shape.line[0] - 0.16 * u * u  # the arch rises to the sides
    jaw = max(float(articulation[JAW]), 0.0)
    lower_edge = teeth_edge - 0.012 + _JAW_TEETH * jaw

    colour = np.empty((*u.shape, 3), np.float32)
    depth = np.clip((v - upper) / 0.16, 0.0, 1.0)[..., None]
    colour[:] = tone * np.array([0.20, 0.075, 0.07]) * (1.0 - 0.5 * depth)  # the cavity
    advance = float(np.clip(articulation[ADVANCE], 0.0, 1.0))
    tongue_up = float(np.clip(max(articulation[TONGUE], advance), 0.0, 1.0))
    _paint_tongue(colour, u, v, teeth_edge, lower_edge, tongue_up, tone, pixel)
    light = np.exp(-((u / 0.36) ** 2)) * (1.0 - 0.6 * rounding * rounding)
    _paint_teeth(colour, u, _ramp(v - lower_edge, soft), light * 0.85, _LOWER_GAPS, tone, pixel)
    if advance > 0.05:
        _paint_tongue_tip(colour, u, v, teeth_edge, advance, tone, pixel)
    _paint_teeth(colour, u, _ramp(teeth_edge - v, soft), light, _UPPER_GAPS, tone, pixel)
    shadow = (
        1.0 - 0.3 * np.exp(-np.maximum(v - upper, 0.0) / 0.014) - 0.18 * np.exp(-np.maximum(lower - v, 0.0) / 0.012)
    )
    colour *= np.clip(shadow, 0.2, 1.0)[..., None]
    nearest = np.minimum(np.abs(v - upper), np.abs(lower - v)) / (1.3 * pixel)
    beyond = np.clip((shape.half_width * 1.04 - np.abs(u)) / (5 * pixel), 0.0, 1.0)
    return colour, opening, 1.0 - 0.38 * np.exp(-nearest * nearest) * beyond


def _ramp(distance: np.ndarray, soft: float) -> np.ndarray:
    """Returns 0 outside, 1 inside, with a linear ramp `soft` wide at the edge."""
    return np.clip(distance / soft + 0.5, 0.0, 1.0)


def _slant(edge: np.ndarray, pixel: float) -> np.ndarray:
    """Returns the length of a curve v(u) per unit of u, by which a vertical distance from it is too long."""
    return np.hypot(1.0, np.gradient(edge, axis=1) / pixel)


def _blend(colour: np.ndarray, layer: np.ndarray, alpha: np.ndarray) -> None:
    colour += alpha[..., None] * (layer - colour)


def _paint_teeth(colour, u, alpha, light, gaps, tone, pixel) -> None:
    """Paints a row of teeth: bright in the middle, darker to the sides, with soft lines between neighbours."""
    width = max(1.3 * pixel, 0.008)
    distance = np.abs(np.abs(u)[..., None] - gaps).min(-1)
    lines = 1.0 - 0.22 * np.exp(-((distance / width) ** 2))
    row = (light * lines)[..., None] * (tone * np.array([1.0, 0.95, 0.87]))
    _blend(colour, row, alpha * _ramp(0.33 - np.abs(u), 0.05))


def _paint_tongue(colour, u, v, teeth_edge, lower_edge, raised, tone, pixel) -> None:
    """Paints the tongue behind the lower teeth; raised, it fills the gap up to the upper teeth."""
    low = lower_edge - 0.04
    top = low + raised * (np.minimum(teeth_edge - 0.01, low) - low) + (0.9 - 0.35 * raised) * u * u
    shade = (0.46 + 0.22 * raised) * np.exp(-((u / 0.24) ** 2)) * (1.0 - 0.3 * np.exp(-((u / 0.02) ** 2)))
    layer = shade[..., None] * tone * np.array([1.1, 0.62, 0.6])
    _blend(colour, layer, _ramp(v - top, 3.0 * pixel))


def _paint_tongue_tip(colour, u, v, teeth_edge, advance, tone, pixel) -> None:
    """Paints the tip of the tongue under the edge of the upper teeth, over the lower ones (th)."""
    half_width, height = 0.16, 0.062 * advance
    across = np.clip(1.0 - (u / half_width) ** 2, 0.0, 1.0)
    bottom = teeth_edge + 0.004 + height * np.sqrt(across)
    alpha = _ramp(bottom - v, 2.0 * pixel) * _ramp(v - teeth_edge + 0.02, 2.0 * pixel) * np.clip(across * 4, 0, 1)
    layer = (0.78 * (0.7 + 0.3 * across))[..., None] * tone * np.array([1.05, 0.66, 0.63])
    _blend(colour, layer, alpha * min(1.0, 2.0 * advance))
