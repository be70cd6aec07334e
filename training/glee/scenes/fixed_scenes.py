"""A fixed set of generated scenes and of frames of generated videos, or a share of it, instead of endless scenes."""

import numpy as np

from lookhear.training.glee.scenes.moving_scenes import MovingRecipe, MovingScene, make_moving_scene
from lookhear.training.glee.scenes.recipe import FixedScenesRecipe
from lookhear.training.glee.scenes.scenes import Scene, SceneMaterial, SceneRecipe, make_scene

STILLS, VIDEOS = 0, 1  # what a seed is for


class FixedScenes:
    """
    Draws scenes of a fixed set. Scene and video number n are the same in every run, and in sets of every share.

    Args:
        recipe: of the set.
        canvases: sizes (height, width) in pixels; scene n has number n of them, counted round.
        look: settings of scenes and videos.
        material: photos and people.

    Raises:
        ValueError: a share of the set has fewer scenes, or videos, than there are canvases.
    """

    def __init__(
        self, recipe: FixedScenesRecipe, canvases: list[tuple[int, int]], look: SceneRecipe, material: SceneMaterial
    ):
        self.recipe, self.canvases, self.look, self.material = recipe, canvases, look, material
        self.stills, self.videos = (round(recipe.fraction * count) for count in (recipe.stills, recipe.videos))
        for name, count, used in (("stills", recipe.stills, self.stills), ("videos", recipe.videos, self.videos)):
            if count and used < len(canvases):
                raise ValueError(
                    f"data.fixed: {recipe.fraction:g} of {count} {name} are {used}, fewer than the {len(canvases)} "
                    f"data.canvases: make data.fixed.{name} larger"
                )

    def draw(self, random: np.random.Generator, canvas: int) -> Scene:
        """
        Draws a still or a frame of a video, either equally likely where the set has both.

        Args:
            random: for all random choices.
            canvas: which of the canvases the scene has.
        """
        if not self.stills or (self.videos and random.random() < 0.5):
            return self._frame(self.video(self._number(random, self.videos, canvas)), random)
        return self.still(self._number(random, self.stills, canvas))

    def _number(self, random: np.random.Generator, count: int, canvas: int) -> int:
        """Draws a number below `count` whose scene has the canvas."""
        step = len(self.canvases)
        return canvas + step * int(random.integers((count - canvas - 1) // step + 1))

    def still(self, number: int) -> Scene:
        """Generates the still with this number."""
        random = np.random.default_rng((self.recipe.seed, STILLS, number))
        return make_scene(random, self.canvases[number % len(self.canvases)], self.look, self.material)

    def video(self, number: int) -> MovingScene:
        """Generates the video with this number, whose frames are drawn on demand."""
        random = np.random.default_rng((self.recipe.seed, VIDEOS, number))
        size = self.canvases[number % len(self.canvases)]
        return make_moving_scene(random, size, MovingRecipe(look=self.look), self.material)

    @staticmethod
    def _frame(video: MovingScene, random: np.random.Generator) -> Scene:
        """Draws a frame in which an object is clearly visible; in the first one all are apart."""
        scene, _ = video.frame(int(random.integers(len(video)))).as_still()
        return scene if scene.shapes else video.frame(0).as_still()[0]
