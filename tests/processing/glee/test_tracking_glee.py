"""Tracks over synthetic candidates: who keeps whose number, and what is remembered."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import pytest
import torch

from lookhear.processing.glee.tracker_settings_glee import (
    LifetimePolicy,
    MatchPolicy,
    ReidentifyPolicy,
    TrackerSettings,
)
from lookhear.processing.glee.tracking_glee import (
    FrameCandidates,
    GleeTracker,
    ObjectFollower,
    QueryAlignment,
    TrackMemory,
)

KINDS, SIZE, GRID, PIXELS = 3, 16, (24, 40), 4  # labels, numbers an embedding, cells of a mask, pixels a cell


@dataclass(frozen=True)
class Thing:
    """Something that a network might see: its middle in pixels, its kind, its embedding's number, how sure it is, what
    share of the embedding is that of something else, because it is half hidden, and its colour, NaN if not known."""

    x: float
    y: float
    kind: int = 0
    look: int = 0
    score: float = 0.9
    half: float = 10.0
    hidden: float = 0.0
    colour: tuple[float, float, float] = (torch.nan,) * 3


def looks(count: int = 40, seed: int = 0) -> torch.Tensor:
    """Embeddings that are as unlike as chance makes them."""
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


LOOKS = looks()
OTHER = 39  # the look of what hides things


def candidates(things: Sequence[Thing], random: torch.Generator, idle: int = 5, kinds: int = KINDS) -> FrameCandidates:
    """The things as candidates, among queries that stand for nothing, in random order; a little noise on all."""
    count = len(things) + idle
    logits = torch.full((count, kinds), -5.0)
    masks = torch.full((count, *GRID), -8.0)
    boxes = torch.tensor([[8.0, 8.0, 12.0, 12.0]]).repeat(count, 1)
    embeddings = torch.randn(count, SIZE, generator=random)
    colours = torch.full((count, 3), torch.nan)
    rows, columns = torch.arange(GRID[0])[:, None] + 0.5, torch.arange(GRID[1])[None] + 0.5
    for place, thing in enumerate(things):
        logits[place, thing.kind] = torch.tensor(thing.score).logit()
        boxes[place] = torch.tensor([thing.x, thing.y, thing.x, thing.y])
        boxes[place] += thing.half * torch.tensor([-1.0, -1.0, 1.0, 1.0]) + torch.randn(4, generator=random)
        inside = ((columns * PIXELS - thing.x).abs() < thing.half) & ((rows * PIXELS - thing.y).abs() < thing.half)
        masks[place][inside] = 8.0
        colours[place] = torch.tensor(thing.colour)
        look = (1 - thing.hidden) * LOOKS[thing.look] + thing.hidden * LOOKS[OTHER]
        embeddings[place] = look + 0.1 * torch.randn(SIZE, generator=random)
    order = torch.randperm(count, generator=random)
    return FrameCandidates(logits, boxes, masks, embeddings, colours=colours).chosen(order)


def track(tracker: GleeTracker, video: Sequence[Sequence[Thing]], seed: int = 0) -> list[dict[int, int]]:
    """For each frame: place of the thing in its list -> number of the track on it."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for things in video:
        frame = candidates(things, random)
        middles = (frame.boxes[:, :2] + frame.boxes[:, 2:]) / 2
        numbers = {}
        for thing in tracker.update(frame):
            far = [torch.dist(middles[thing.candidate], torch.tensor([t.x, t.y])) for t in things]
            assert min(far) < 5, "a query that stands for nothing was handed out"
            numbers[far.index(min(far))] = thing.track_id
        found.append(numbers)
    return found


def test_crossing_things_keep_their_numbers():
    """One hides the other for a while; they are of one kind."""
    video = []
    for time in range(40):
        front, behind = Thing(20 + 3 * time, 50, look=1), Thing(140 - 3 * time, 52, look=2)
        video.append([front] if abs(front.x - behind.x) < 18 else [front, behind])
    found = track(GleeTracker(), video)
    assert all(len(numbers) == len(things) for numbers, things in zip(found, video))
    assert len({numbers[0] for numbers in found}) == 1
    assert len({numbers[1] for numbers in found if 1 in numbers}) == 1


def test_twins_are_told_by_their_ways():
    """Two that look the same pass each other closely."""
    video = [[Thing(20 + 3 * time, 40, look=1), Thing(140 - 3 * time, 56, look=1)] for time in range(40)]
    found = track(GleeTracker(), video)
    assert len({tuple(numbers.items()) for numbers in (dict(sorted(n.items())) for n in found)}) == 1


RED, BLUE = (1.5, -1.0, -1.0), (-1.0, -0.5, 1.5)


def turning_back(time: int, **colours: tuple[float, float, float]) -> list[Thing]:
    """Two of one look meet, hide each other, and each goes back to where it came from."""
    left = Thing(74 - 3 * abs(time - 20), 50, look=1, colour=colours["left"])
    right = Thing(86 + 3 * abs(time - 20), 50, look=1, colour=colours["right"])
    return [] if 14 <= time < 27 else [left, right]


def test_twins_are_told_by_their_colours():
    """Where their ways would have them pass each other."""
    told = track(GleeTracker(), [turning_back(time, left=RED, right=BLUE) for time in range(40)])
    assert told[-1] == told[27] == told[0] and len(told[0]) == 2
    alike = track(GleeTracker(), [turning_back(time, left=RED, right=RED) for time in range(40)])
    passed = {0: alike[0][1], 1: alike[0][0]}
    assert alike[-1] == passed, "nothing but their ways tells them"
    unknown = track(GleeTracker(), [turning_back(time, left=RED, right=(torch.nan,) * 3) for time in range(40)])
    assert unknown[-1] == passed
    unused = GleeTracker(settings=TrackerSettings(match=MatchPolicy(colour_weight=0)))
    assert track(unused, [turning_back(time, left=RED, right=BLUE) for time in range(40)])[-1] == passed


def test_a_colour_is_learned_as_soon_as_it_is_known():
    video = [turning_back(time, left=RED, right=BLUE) for time in range(40)]
    video[:8] = [[replace(thing, colour=(torch.nan,) * 3) for thing in things] for things in video[:8]]
    found = track(GleeTracker(), video)
    assert found[-1] == found[0] and len(found[0]) == 2


def test_another_colour_at_some_times_does_not_make_it_another():
    """In a shadow, or in the light."""
    video = [[Thing(20 + 3 * time, 50, look=1, colour=BLUE if time % 7 == 3 else RED)] for time in range(30)]
    assert {numbers[0] for numbers in track(GleeTracker(), video)} == {1}


@pytest.mark.parametrize("absent", [3, 25])
def test_what_leaves_and_returns_is_known_again(absent):
    """It comes back somewhere else, while another stays."""
    there = [[Thing(20 + time, 30, look=1), Thing(120, 60, look=2)] for time in range(10)]
    gone = [[Thing(120, 60, look=2)]] * absent
    back = [[Thing(34 + time, 40, look=1), Thing(120, 60, look=2)] for time in range(10)]
    video = [*there, *[[things[0]] for things in gone], *back]
    found = track(GleeTracker(), video)
    assert found[0][0] == found[-1][0] and found[0][1] == found[-1][1]
    assert found[15 if absent > 5 else 11] == {0: found[0][1]}
    forgotten = track(GleeTracker(settings=TrackerSettings(LifetimePolicy(memory_frames=2))), video)
    assert forgotten[-1][0] != forgotten[0][0] and forgotten[-1][1] == forgotten[0][1]


def test_a_stranger_in_the_same_place_is_somebody_else():
    there = [[Thing(60, 40, look=1)]] * 10
    found = track(GleeTracker(), [*there, [], [], *[[Thing(60, 40, look=3, kind=1)]] * 5])
    assert found[-1][0] != found[0][0]


def reappearing(time: int, first: int = 10, last: int = 22) -> Thing:
    """It is hidden at once, nearly all of it, and comes out by and by."""
    hidden = 0.9 * (last - time) / (last - first) if first <= time < last else 0.0
    return Thing(20 + 3 * time, 40, look=1, score=0.9 - 0.5 * hidden, hidden=hidden)


def test_what_comes_out_by_and_by_is_known_again():
    """It looks like somebody else at first, who gets a number; when it looks like itself again the two are one."""
    video = [[reappearing(time), Thing(100, 80, look=2)] for time in range(30)]
    found = track(GleeTracker(), video)
    assert found[29] == found[17] == found[9] and found[12][0] != found[9][0]
    assert all(numbers[1] == found[0][1] for numbers in found)
    never = track(GleeTracker(settings=TrackerSettings(reidentify=ReidentifyPolicy(merge_frames=1))), video)
    assert never[17][0] == never[12][0] != never[9][0], "what it looks like most is the track that followed it"


def test_a_piece_is_given_up_for_the_whole():
    """What is seen of an object becomes a piece in its place; the rest, beside it, looks strange at first."""
    video = []
    for time in range(30):
        whole = reappearing(time)
        piece = replace(whole, hidden=0.4, score=0.4, half=5)
        video.append([replace(whole, y=66), piece] if 10 <= time < 16 else [whole])
    found = track(GleeTracker(), video)
    assert found[12][1] == found[9][0] and found[29] == found[9]


def test_a_half_hidden_thing_is_known_by_its_place():
    def video(x: int) -> list[list[Thing]]:
        return [[Thing(60, 40, look=1)]] * 10 + [[Thing(x, 40, look=1, score=0.5, hidden=0.65)]] * 4

    assert {numbers[0] for numbers in track(GleeTracker(), video(62))} == {1}
    assert track(GleeTracker(), video(100))[-1] == {0: 2}, "somewhere else it is somebody else"


def test_a_twin_of_what_is_still_seen_is_somebody_else():
    video = [[Thing(60, 40, look=1)]] * 10 + [[Thing(60, 40, look=1), Thing(120, 60, look=1)]] * 5
    found = track(GleeTracker(), video)
    assert found[-1] == {0: 1, 1: 2}


def test_birth():
    """At once in the first frame or when sure; else after a second look; a flash never, nor what is too weak."""
    stays = Thing(100, 60, look=1)
    sure, unsure = Thing(30, 30, look=2), Thing(30, 30, look=2, score=0.4)
    settings = TrackerSettings(LifetimePolicy(birth_score=0.35, sure_score=0.6, birth_frames=2))

    def seen(*frames: list[Thing]) -> list[bool]:
        video = [[stays, *things] for things in frames]
        return [1 in numbers for numbers in track(GleeTracker(settings=settings), video)]

    assert seen([unsure], [unsure]) == [True, True]
    assert seen([], [sure], [sure]) == [False, True, True]
    assert seen([], [unsure], [unsure]) == [False, False, True]
    assert seen([], [unsure], [], [unsure], []) == [False] * 5
    weak = replace(unsure, score=0.3)
    assert seen([weak], [weak], [weak]) == [False] * 3
    assert seen([sure], [weak], [weak]) == [True] * 3, "what is known may become weak"


def test_one_thing_with_two_labels_is_one_track():
    """Two queries show the same, one of them under another label: the better one is handed out."""
    video = [[Thing(60, 40, look=1), Thing(60, 40, kind=1, look=1, score=0.5)]] * 5
    found = track(GleeTracker(), video)
    assert all(len(numbers) == 1 for numbers in found)


def test_a_label_is_that_of_most_frames():
    random, tracker = torch.Generator().manual_seed(1), GleeTracker()
    labels = [
        tracker.update(candidates([Thing(60, 40, kind=2 if time in (4, 7, 8) else 1)], random))[0].label
        for time in range(12)
    ]
    assert labels == [1] * 12


def test_order_of_candidates_does_not_matter():
    random = torch.Generator().manual_seed(3)
    first, second = GleeTracker(), GleeTracker()
    for time in range(15):
        frame = candidates([Thing(20 + 4 * time, 30, look=1), Thing(90 - 2 * time, 34 + time, 1, 2, 0.8)], random)
        order = torch.randperm(len(frame), generator=random)
        found, other = first.update(frame), second.update(frame.chosen(order))
        assert [(t.track_id, t.label, t.candidate) for t in found] == [
            (t.track_id, t.label, int(order[t.candidate])) for t in other
        ]


def test_frames_are_not_kept_nor_changed():
    random, tracker, other = torch.Generator().manual_seed(3), GleeTracker(), GleeTracker()
    for time in range(6):
        frame = candidates([Thing(20 + 4 * time, 30, look=1), Thing(90, 70, look=2)], random)
        copy = FrameCandidates(
            frame.logits.clone(), frame.boxes.clone(), frame.masks.clone(), frame.embeddings.clone()
        )
        assert tracker.update(frame) == other.update(copy)
        assert torch.equal(frame.embeddings, copy.embeddings) and torch.equal(frame.boxes, copy.boxes)
        for name in ("logits", "boxes", "masks", "embeddings"):
            getattr(frame, name).fill_(float("nan"))


def elements(memory: TrackMemory) -> int:
    return sum(getattr(memory.tracks, field.name).numel() for field in fields(memory.tracks))


def test_state_is_constant_however_many_come_and_go():
    """Others in each of 500 frames, as in hours of a street: at most 12 tracks are remembered; numbers only rise."""
    random = torch.Generator().manual_seed(5)
    memory, numbers, sizes = TrackMemory(TrackerSettings(LifetimePolicy(memory_frames=20, max_tracks=12))), [], []
    for time in range(500):
        lot = torch.randint(0, 40, (2,), generator=torch.Generator().manual_seed(time)).tolist()
        things = [Thing(20 + 3 * look, 20 + 50 * place, look=look) for place, look in enumerate(lot)]
        tracks, _ = memory.update(candidates(things, random, idle=2))
        numbers += tracks.ids.tolist()
        sizes.append(elements(memory))
    assert max(sizes) == sizes[-1] == 12 * (SIZE + 4 + 2 + KINDS + 3 + 8), "other than of the most tracks"
    assert len(set(numbers)) > 400, "hardly anything came and went"
    first = list(dict.fromkeys(numbers))
    assert first == sorted(first)


def test_empty_frames():
    random, tracker = torch.Generator().manual_seed(0), GleeTracker()
    nothing = candidates([], random, idle=0)
    assert tracker.update(nothing) == []
    (found,) = tracker.update(candidates([Thing(60, 40)], random))
    assert tracker.update(nothing) == [] == tracker.update(candidates([], random))
    (again,) = tracker.update(candidates([Thing(60, 40)], random))
    assert again.track_id == found.track_id


def test_numbers_that_are_not_finite_are_no_candidates():
    frame = candidates([Thing(60, 40), Thing(120, 70, look=1)], torch.Generator().manual_seed(0))
    for name in ("logits", "boxes", "embeddings"):
        values = getattr(frame, name).clone()
        best = int(frame.logits.amax(dim=1).argmax())
        values[best] = float("nan")
        found = GleeTracker().update(replace(frame, **{name: values}))
        assert len(found) == 1 and found[0].candidate != best


def test_trackers_share_numbers():
    random, ids = torch.Generator().manual_seed(0), itertools.count(7)
    one, other = GleeTracker(ids=ids), GleeTracker(ids=ids)
    numbers = [t.track_id for tracker in (one, other) for t in tracker.update(candidates([Thing(60, 40)], random))]
    assert numbers == [7, 8]


def test_half_precision():
    random, tracker = torch.Generator().manual_seed(0), GleeTracker()
    numbers = set()
    for time in range(5):
        frame = candidates([Thing(60 + time, 40)], random)
        fields = {name: getattr(frame, name).bfloat16() for name in ("masks", "embeddings")}
        numbers |= {t.track_id for t in tracker.update(replace(frame, **fields))}
    assert numbers == {1}


# MinVIS


def test_alignment_is_the_best_of_all_orders():
    """Against every permutation of six queries, by cosine with the mean of the last three aligned frames."""
    random = torch.Generator().manual_seed(0)
    alignment, aligned = QueryAlignment(), []
    for number in range(6):
        embeddings = torch.randn(6, SIZE, generator=random)
        order = alignment.align(embeddings)
        if number == 0:
            assert order.tolist() == list(range(6))
        else:
            memory = torch.stack(aligned[-3:]).mean(dim=0)
            cosine = torch.nn.functional.cosine_similarity(memory[:, None], embeddings[None], dim=-1)
            places = torch.arange(6)
            best = max(
                itertools.permutations(range(6)), key=lambda p: float(cosine[places, torch.tensor(p)].double().sum())
            )
            assert order.tolist() == list(best)
        aligned.append(embeddings[order])


def test_minvis_tracks_every_query():
    """Queries change their order from frame to frame; a track's score is that of its mean logits."""
    random, tracker = torch.Generator().manual_seed(0), GleeTracker("minvis", threshold=0.0)
    things = [Thing(20 + 20 * look, 40, kind=look % KINDS, look=look) for look in range(6)]
    logits, places = [], None
    for _ in range(8):
        frame = candidates(things, random, idle=0)
        frame = replace(frame, logits=frame.logits + torch.randn(frame.logits.shape, generator=random))
        found = {t.track_id: t for t in tracker.update(frame)}
        assert sorted(found) == [1, 2, 3, 4, 5, 6]
        order = torch.tensor([found[number].candidate for number in sorted(found)])
        logits.append(frame.logits[order])
        scores, labels = torch.stack(logits).mean(dim=0).sigmoid().max(dim=1)
        assert torch.allclose(torch.tensor([found[n].score for n in sorted(found)]), scores, atol=1e-5)
        assert [found[n].label for n in sorted(found)] == labels.tolist()
        now = ((frame.boxes[order, 0] + frame.boxes[order, 2]) / 2 / 20).round().tolist()
        assert places is None or now == places
        places = now
    assert len(GleeTracker("minvis", threshold=0.5).update(frame)) == int((frame.logits.amax(dim=1) >= 0).sum())


# Whatever cannot be used


def test_bad_arguments():
    for arguments, name in (({"mode": "sort"}, "mode"), ({"threshold": 2}, "threshold")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            GleeTracker(**arguments)
    with pytest.raises(ValueError, match="`threshold`"):
        ObjectFollower(threshold=-1)
    for policy, settings, what in (
        (LifetimePolicy, {"birth_score": 2}, "a number from 0 to 1, not 2"),
        (LifetimePolicy, {"sure_score": float("nan")}, "a number from 0 to 1, not nan"),
        (LifetimePolicy, {"memory_frames": 0}, "a whole number of at least 1, not 0"),
        (LifetimePolicy, {"max_tracks": 2.5}, "a whole number of at least 1, not 2.5"),
        (MatchPolicy, {"appearance_weight": -1}, "a number of at least 0, not -1"),
        (MatchPolicy, {"colour_weight": -1}, "a number of at least 0, not -1"),
        (MatchPolicy, {"motion_half_life": 0}, "a number of at least 1, not 0"),
        (MatchPolicy, {"min_cosine": -2}, "a number from -1 to 1, not -2"),
        (MatchPolicy, {"appearance_weight": 0, "motion_weight": 0, "class_weight": 0}, "all 0"),
        (ReidentifyPolicy, {"near_frames": -1}, "a whole number of at least 0, not -1"),
        (ReidentifyPolicy, {"merge_cosine": "high"}, "a number from -1 to 1, not 'high'"),
    ):
        with pytest.raises(ValueError, match=rf"`{next(iter(settings))}`.* of {policy.__name__} .*{what}"):
            policy(**settings)


def test_every_setting_of_the_tracker_is_documented_and_checked():
    """One line each with its range; no value that is no number at all is taken."""
    for policy in (LifetimePolicy, MatchPolicy, ReidentifyPolicy):
        for field in fields(policy):
            assert re.search(rf"^ +{field.name}: .*(>= \d|in \[-?\d, \d\])", policy.__doc__, re.MULTILINE), field.name
            with pytest.raises(ValueError, match=f"`{field.name}` of {policy.__name__}"):
                policy(**{field.name: None})


def test_frames_that_do_not_fit():
    random = torch.Generator().manual_seed(0)
    frame = candidates([Thing(60, 40)], random)
    for name, value in (("boxes", frame.boxes[:, :3]), ("masks", frame.masks[:2]), ("embeddings", frame.logits[0])):
        with pytest.raises(ValueError, match=f"`{name}`"):
            GleeTracker().update(replace(frame, **{name: value}))
    with pytest.raises(ValueError, match="`colours`"):
        GleeTracker().update(replace(frame, colours=frame.boxes))
    tracker = GleeTracker()
    tracker.update(frame)
    with pytest.raises(ValueError, match="2 labels"):
        tracker.update(candidates([Thing(60, 40)], random, kinds=2))
    tracker = GleeTracker("minvis")
    tracker.update(frame)
    with pytest.raises(ValueError, match="all queries"):
        tracker.update(candidates([], random))
    with pytest.raises(ValueError, match="not finite"):
        tracker.update(replace(frame, embeddings=frame.embeddings * float("nan")))
    with pytest.raises(ValueError, match="GleeTracker"):
        ObjectFollower().update(frame)


# One object


def follow(follower: ObjectFollower, video: Sequence[Sequence[Thing]], seed: int = 0) -> list[int | None]:
    """For each frame the place of the thing that is followed, in its list."""
    random, found = torch.Generator().manual_seed(seed), []
    for things in video:
        frame = candidates(things, random, kinds=1)
        thing = follower.update(frame)
        if thing is None:
            found.append(None)
            continue
        middle = (frame.boxes[thing.candidate, :2] + frame.boxes[thing.candidate, 2:]) / 2
        found.append(next(i for i, t in enumerate(things) if torch.dist(middle, torch.tensor([t.x, t.y])) < 5))
    return found


def test_what_was_shown_is_followed():
    """Later another answers better to the prompt, and passes by: it is not the object."""
    video = [[Thing(20 + 3 * t, 40, look=1, score=0.7), Thing(110 - 3 * t, 60, look=2, score=0.3)] for t in range(5)]
    video += [[Thing(20 + 3 * t, 40, look=1, score=0.5), Thing(110 - 3 * t, 60, look=2)] for t in range(5, 25)]
    assert follow(ObjectFollower(), video) == [0] * 25


def test_what_was_shown_is_absent_and_returns():
    other = Thing(110, 60, look=2, score=0.5)
    video = [[Thing(20 + t, 40, look=1), other] for t in range(8)]
    video += [[Thing(200, 200, look=9, score=0.1), other]] * 12
    video += [[Thing(40, 44, look=1), other]] * 4
    assert follow(ObjectFollower(), video) == [0] * 8 + [None] * 12 + [0] * 4


def test_what_hides_the_object_is_not_the_object():
    """In its place stands something else, for which the network, asked for the old place, gives an answer."""
    video = [[Thing(60, 40, look=1)]] * 6 + [[Thing(61, 41, look=5, score=0.6)]] * 6 + [[Thing(62, 40, look=1)]] * 3
    assert follow(ObjectFollower(), video) == [0] * 6 + [None] * 6 + [0] * 3


def test_a_weak_first_answer_is_taken_all_the_same():
    assert follow(ObjectFollower(), [[Thing(60, 40, score=0.1)]])[0] == 0
    assert ObjectFollower().update(candidates([], torch.Generator(), idle=0, kinds=1)) is None


def test_the_named_one_is_found_by_and_by():
    """Of two the wrong one is better at first; one bad frame later on changes nothing."""
    video = []
    for t in range(20):
        right, wrong = (0.3, 0.5) if t < 2 or t == 12 else (0.8, 0.2)
        video.append([Thing(20 + 2 * t, 30, look=1, score=right), Thing(130 - t, 70, look=2, score=wrong)])
    found = follow(ObjectFollower(shown=False), video)
    assert found[:2] == [1, 1] and found[5:] == [0] * 15


def test_the_usual_score_of_what_is_followed():
    random, follower = torch.Generator().manual_seed(0), ObjectFollower(shown=False)
    assert follower.usual_score == 0
    for score in (0.9, 0.5):
        follower.update(candidates([Thing(60, 40, score=score)], random, kinds=1))
    assert follower.usual_score == pytest.approx(0.7, abs=0.01)


def test_the_named_one_may_be_absent():
    """Nothing is handed out while it is away, nor where nothing answers well; then it is known again."""
    other = Thing(120, 70, look=2, score=0.15)
    video = [[other]] * 3 + [[other, Thing(30 + t, 30, look=1)] for t in range(8)]
    video += [[other]] * 8 + [[other, Thing(42, 30, look=1)]] * 3
    found = follow(ObjectFollower(shown=False, track_id=5), video)
    assert found[:3] == [None] * 3 and found[4:11] == [1] * 7
    assert found[11:19] == [None] * 8 and found[19:] == [1] * 3
    assert ObjectFollower(track_id=5).update(candidates([other], torch.Generator(), kinds=1)).track_id == 5
