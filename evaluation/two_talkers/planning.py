"""Who stands beside whom, who talks, and how loudly: drawn from a seed, without opening a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lookhear.training.avsr.corpora import Utterance

SNRS = (5.0, 0.0, -5.0)  # dB of the target over all other voices together
PROMPTS = {
    1: ("the person",),
    2: ("the person on the left", "the person on the right"),
    3: ("the person on the left", "the person in the middle", "the person on the right"),
}
TALKING = (2, 3)  # people in view where the target talks; in turn
SILENT = (2, 3, 1)  # people where the target is silent; where only the target is in view, a person out of view talks


@dataclass(frozen=True)
class Mixture:
    """
    One clip that is to be composed.

    Attributes:
        id: unique in the benchmark.
        people: whom one sees, from left to right.
        target: place of the one who is to be read.
        snr: of the target's voice over the others', in dB; None where the target is silent. All others talk.
        unseen: who talks out of view; None if there is no such person.
    """

    id: str
    people: tuple[Utterance, ...]
    target: int
    snr: float | None
    unseen: Utterance | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        """What each of the people is called."""
        return PROMPTS[len(self.people)]

    def text_of(self, place: int) -> str:
        """Returns what the person at a place says."""
        return "" if place == self.target and self.snr is None else self.people[place].text

    @property
    def voices(self) -> list[Utterance]:
        """Who talks beside the target."""
        others = [person for place, person in enumerate(self.people) if place != self.target]
        return others if self.unseen is None else [*others, self.unseen]


def plan_mixtures(
    targets: Sequence[Utterance],
    others: Sequence[Utterance] = (),
    *,
    talking: int = 200,
    silent: int = 100,
    snrs: Sequence[float] = SNRS,
    seed: int = 0,
) -> list[Mixture]:
    """
    Draws a benchmark. A mixture depends on the seed, its number and the clips only, so a longer one begins as a
    shorter one.

    Args:
        targets: clips of people whom the recogniser knows; each is the target equally often.
        others: clips of further people who may stand beside a target.
        talking: mixtures in which the target talks, and so do all others: of two and of three people in turn.
        silent: mixtures in which the target is silent: of two people, of three, and of one while a person out of view
            talks.
        snrs: levels, in turn, in decibels.
        seed: of everything that is drawn.

    Raises:
        ValueError: a number is not one, the clips have fewer than three different texts, or no silent moment is known
            of them.
    """
    _check(targets, others, talking, silent, snrs)
    plan = [_talking(index, targets, others, snrs, seed) for index in range(talking)]
    return plan + [_silent(index, targets, others, seed) for index in range(silent)]


def _talking(
    index: int, targets: Sequence[Utterance], others: Sequence[Utterance], snrs: Sequence[float], seed: int
) -> Mixture:
    generator = np.random.default_rng([seed, 0, index])
    count = TALKING[index % len(TALKING)]
    snr = float(snrs[index // len(TALKING) % len(snrs)])
    target = _in_turn(index, targets, seed)
    neighbours = _neighbours(target, count - 1, targets, others, generator)
    return _placed(f"talking-{index:04d}", target, neighbours, snr, None, generator)


def _silent(index: int, targets: Sequence[Utterance], others: Sequence[Utterance], seed: int) -> Mixture:
    generator = np.random.default_rng([seed, 1, index])
    count = SILENT[index % len(SILENT)]
    target = _in_turn(index, targets, seed)
    neighbours = _neighbours(target, max(count - 1, 1), targets, others, generator)
    unseen = neighbours.pop() if count == 1 else None
    return _placed(f"silent-{index:04d}", target, neighbours, None, unseen, generator)


def _in_turn(index: int, targets: Sequence[Utterance], seed: int) -> Utterance:
    """Returns the targets in a random order, again and again."""
    return targets[np.random.default_rng([seed, 2]).permutation(len(targets))[index % len(targets)]]


def _neighbours(
    target: Utterance,
    count: int,
    targets: Sequence[Utterance],
    others: Sequence[Utterance],
    generator: np.random.Generator,
) -> list[Utterance]:
    """Chooses different clips, none with the target's text or another's; of `others` as often as of `targets`."""
    chosen: list[Utterance] = []
    while len(chosen) < count:
        pool = others if len(others) and generator.random() < 0.5 else targets
        taken = {clip.text for clip in (target, *chosen)}
        pool = [clip for clip in pool if clip.text not in taken] or [
            clip for clip in (*targets, *others) if clip.text not in taken
        ]
        chosen.append(pool[generator.integers(len(pool))])
    return chosen


def _placed(
    id: str,
    target: Utterance,
    neighbours: list[Utterance],
    snr: float | None,
    unseen: Utterance | None,
    generator: np.random.Generator,
) -> Mixture:
    place = int(generator.integers(len(neighbours) + 1))
    people = (*neighbours[:place], target, *neighbours[place:])
    return Mixture(id, people, place, snr, unseen)


def _check(
    targets: Sequence[Utterance], others: Sequence[Utterance], talking: int, silent: int, snrs: Sequence[float]
) -> None:
    for name, count in (("talking", talking), ("silent", silent)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} has to be a whole number, 0 or more, not {count!r}")
    if talking + silent == 0:
        raise ValueError("talking and silent are both 0: there is nothing to compose")
    if not len(snrs) or not np.isfinite(np.asarray(snrs, float)).all():
        raise ValueError(f"snrs has to be a list of decibels, not {snrs!r}")
    if not len(targets) or len({clip.text for clip in (*targets, *others)}) < 3:
        raise ValueError("three people side by side need clips of three different texts, and at least one target")
    if silent and (unknown := [clip.id for clip in targets if not clip.words]):
        raise ValueError(
            f'silent targets need to know when a clip has no words: give {unknown[0]!r} its "words" '
            "in metadata.jsonl, or ask for no silent mixtures"
        )
