"""Stories of a frame's time: what is left out when it runs short, and when it comes back. No clock, no engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import Budget as Settings
from agent.config import Tracking
from agent.perception.budget import TOP, Budget

PERIOD = 1 / 30
FIND, LOOK = 7.0, 5.0  # milliseconds on a quiet machine
COARSE = 1 / 3  # what a coarse detection takes of a full one
DEADLINE = 20.0
VOTES = 3  # looks that decide a track


@dataclass
class Occupant:
    """A face, and what is known of it."""

    since: float
    looks: list[float] = field(default_factory=list)

    @property
    def decided(self) -> bool:
        return len(self.looks) >= VOTES

    @property
    def looked(self) -> float:
        return self.looks[-1] if self.looks else self.since


@dataclass(frozen=True)
class Told:
    """One frame as it went."""

    at: float
    rung: int
    ms: float
    detected: bool
    coarse: bool
    looks: int


def new_budget(frame_ms: float = DEADLINE, *, has_coarse: bool = True) -> Budget:
    return Budget(Settings(frame_ms=frame_ms), Tracking(), has_coarse=has_coarse)


class Cabin:
    """Plays the chain: spends time as the budget allows, in front of one camera."""

    def __init__(
        self, budget: Budget | None = None, faces: int = 1, decided: bool = True, camera: str = "cabin"
    ) -> None:
        self.camera = camera
        self.budget = budget or new_budget()
        self.now = self.detected = 0.0
        self.faces = [Occupant(0.0, [0.0] * VOTES * decided) for _ in range(faces)]
        self.aside: Occupant | None = None

    def frame(self, find: float = FIND, look: float = LOOK, coarse: float = COARSE) -> Told:
        """One frame, in which a detection and a look cost so much, and a coarse detection a share of the first."""
        budget, spent, looks = self.budget, 0.0, 0
        self.now += PERIOD
        decided = sum(face.decided for face in self.faces)
        plan = budget.plan(
            self.camera,
            self.now,
            len(self.faces) - decided,
            decided,
            unseen_s=self.now - self.detected,
            put_aside=self.aside is not None,
        )
        aside, self.aside = self.aside, None
        if plan.detect:
            self.detected = self.now
            if plan.try_coarse:
                budget.costs.tried(find * coarse)
            spent += find * (coarse if plan.coarse else 1)
            budget.costs.found(spent, self.now, coarse=plan.coarse)
            due = [
                face
                for face in self.faces
                if not face.decided or self.now - face.looked >= plan.refresh_s - 1e-9
            ]
            for face in sorted(due, key=lambda face: face.looked):
                if looks < plan.looks and budget.may_look(
                    plan, spent, self.now - face.looked, decided=face.decided
                ):
                    spent, looks = self._look(face, spent, look), looks + 1
                elif plan.rung == TOP and not looks and self.aside is None:
                    self.aside = face
        elif aside is not None:
            spent, looks = self._look(aside, spent, look), 1
        return Told(self.now, plan.rung, spent, plan.detect, plan.coarse, looks)

    def _look(self, face: Occupant, spent: float, ms: float) -> float:
        face.looks.append(self.now)
        self.budget.costs.looked(ms)
        return spent + ms

    def drive(self, seconds: float, slower: Callable[[], float] = lambda: 1.0) -> list[Told]:
        """Frames for so long, on a machine that is ``slower`` by that factor, asked anew for each step."""
        return [self.frame(FIND * slower(), LOOK * slower()) for _ in range(round(seconds / PERIOD))]


def missed(frames: list[Told], deadline: float = DEADLINE) -> float:
    return sum(frame.ms > deadline for frame in frames) / len(frames)


def rungs(frames: list[Told]) -> set[int]:
    return {frame.rung for frame in frames}


def changes(frames: list[Told]) -> int:
    return sum(a.rung != b.rung for a, b in pairwise(frames))


def lumps(mean: float, seed: int = 0) -> Callable[[], float]:
    """A scheduler that takes the processor away in slices: now one fewer, now one more, one time in ten another."""
    chance = np.random.default_rng(seed)
    return lambda: mean * (0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0, 1.1, 1.1, 1.4)[chance.integers(10)]


def test_with_time_to_spare_everything_is_done_in_every_frame():
    cabin = Cabin(faces=2)
    frames = cabin.drive(30)
    assert rungs(frames) == {0}
    assert missed(frames) == 0
    assert all(frame.detected for frame in frames)
    assert sum(frame.looks for frame in frames) == pytest.approx(2 * 30 * 5, abs=4)


def test_without_a_budget_nothing_is_ever_left_out():
    cabin = Cabin(new_budget(0), faces=3)
    frames = cabin.drive(10, lambda: 50)
    assert rungs(frames) == {0}
    assert all(frame.detected for frame in frames)


@pytest.mark.parametrize("slower", [2.0, 2.5])
def test_a_machine_twice_as_slow_sheds_looks_and_still_finds_every_face(slower):
    cabin = Cabin()
    cabin.drive(3)
    cabin.drive(2, lambda: slower)
    frames = cabin.drive(30, lambda: slower)
    assert missed(frames) <= 0.01
    assert all(frame.detected and not frame.coarse for frame in frames if frame.rung < 4)
    assert sum(frame.detected for frame in frames) >= 0.98 * len(frames)
    assert min(rungs(frames)) >= 1


@pytest.mark.parametrize(("quiet_frames", "has_coarse"), [(3, False), (3, True), (2, True), (1.5, True)])
def test_a_machine_four_times_as_slow_misses_no_more_than_one_frame_in_a_hundred(quiet_frames, has_coarse):
    """The budget is so many times what a frame with a look takes on the quiet machine."""
    budget = new_budget(quiet_frames * (FIND + LOOK), has_coarse=has_coarse)
    cabin = Cabin(budget)
    cabin.drive(3, lumps(1))
    cabin.drive(2, lumps(4))
    frames = cabin.drive(60, lumps(4, seed=1))
    assert missed(frames, budget.deadline_ms) <= 0.01


def test_work_is_shed_before_the_first_look_misses_its_deadline():
    cabin = Cabin()
    cabin.drive(3)
    frames = cabin.drive(3, lambda: 2.0)
    # The detections alone tell that the looks have become dear: what misses is looks of the first frames at most.
    assert sum(frame.ms > DEADLINE for frame in frames) <= 2


def test_where_full_detection_is_too_long_faces_are_found_in_a_small_picture():
    cabin = Cabin()
    cabin.drive(3)
    cabin.drive(2, lambda: 4.0)
    frames = cabin.drive(30, lambda: 4.0)
    assert all(frame.coarse for frame in frames if frame.detected)
    assert sum(frame.detected for frame in frames) >= 0.98 * len(frames)
    assert missed(frames) <= 0.01


@pytest.mark.parametrize("has_coarse", [True, False])
@pytest.mark.parametrize("quiet_frames", [3, 2])
@pytest.mark.parametrize("slower", [2.0, 2.5, 4.0, 15.0])
def test_what_was_shed_comes_back_within_ten_seconds_when_the_neighbour_has_gone(
    slower, quiet_frames, has_coarse
):
    cabin = Cabin(new_budget(quiet_frames * (FIND + LOOK), has_coarse=has_coarse))
    cabin.drive(3, lumps(1))
    cabin.drive(30, lumps(slower, seed=1))
    cabin.drive(10, lumps(1, seed=2))
    assert rungs(cabin.drive(20, lumps(1, seed=3))) == {0}


def test_it_comes_back_even_after_lower_rungs_have_proved_too_low_again_and_again():
    cabin = Cabin()
    cabin.drive(3)
    for _ in range(6):
        cabin.drive(1, lambda: 4.0)
        cabin.drive(3)
    cabin.drive(10, lambda: 4.0)
    assert cabin.drive(18)[-1].rung == 0


def test_a_neighbour_who_comes_and_goes_is_not_followed_for_ever():
    for on, off in ((1.0, 4.0), (2.5, 2.5), (4.0, 4.0)):
        cabin = Cabin()
        cabin.drive(3)
        frames: list[Told] = []
        while len(frames) < 120 / PERIOD:
            frames += cabin.drive(on, lambda: 4.0) + cabin.drive(off)
        assert changes(frames[-1800:]) <= 12
        assert missed(frames[-1800:]) <= 0.01


def test_hiccups_that_come_together_shed_work_for_a_moment_and_not_for_ever():
    cabin = Cabin()
    cabin.drive(10)
    for _ in range(4):
        cabin.frame(find=80)
        cabin.drive(0.5)
    assert cabin.drive(1)[-1].rung > 0
    # What is no longer done is not measured anew: its costs are forgotten instead.
    cabin.drive(40)
    assert rungs(cabin.drive(5)) == {0}


def test_a_bad_start_before_an_overload_is_forgotten_too():
    cabin = Cabin()
    for _ in range(6):
        for find in (FIND, FIND, 4 * FIND):
            cabin.frame(find=find)
    cabin.drive(30, lambda: 4.0)
    cabin.drive(35)
    assert rungs(cabin.drive(5)) == {0}


@pytest.mark.parametrize("dear", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("seconds", [0.4, 0.7, 1.3, 3.0])
def test_after_an_overload_an_uneven_start_before_it_delays_nothing(seconds, dear):
    """A share of the first frames takes three times as long; then come an overload, and a quiet machine."""
    for seed in range(5):
        chance = np.random.default_rng(seed)
        cabin = Cabin(new_budget(2 * (FIND + LOOK)), decided=False)
        for _ in range(round(seconds / PERIOD)):
            slower = 3.0 if chance.random() < dear else 1.0
            cabin.frame(find=FIND * slower, look=LOOK * slower)
        frames = cabin.drive(22, lumps(4, seed))
        assert missed(frames[60:], cabin.budget.deadline_ms) <= 0.01
        frames = cabin.drive(12, lambda chance=chance: chance.uniform(0.95, 1.1))
        assert next(count for count, frame in enumerate(frames) if frame.rung == 0) * PERIOD <= 6


def test_a_hiccup_while_the_small_picture_is_tried_teaches_nothing_wrong():
    for slow in range(9):
        cabin = Cabin()
        for count in range(9):
            # A neighbour for some frames: both detections of a frame are slowed alike.
            cabin.frame(*((FIND, LOOK) if count < slow else (6 * FIND, 6 * LOOK)))
        assert cabin.budget.costs.knows_coarse
        cabin.drive(10, lambda: 4.0)
        cabin.drive(10)
        assert cabin.drive(1)[-1].rung == 0


def test_two_hiccups_are_no_overload():
    cabin = Cabin()
    cabin.drive(10)
    cabin.frame(find=80)
    frames = cabin.drive(1)
    cabin.frame(find=80)
    assert rungs(frames + cabin.drive(10)) == {0}


def test_a_single_slow_frame_sheds_nothing():
    cabin = Cabin()
    cabin.drive(10)
    cabin.frame(find=80)
    frames = cabin.drive(10)
    assert rungs(frames) == {0}
    assert missed(frames) == 0


def test_a_slow_first_frame_sheds_nothing():
    cabin = Cabin(decided=False)
    cabin.frame(find=300, look=200)
    assert rungs(cabin.drive(20)) == {0}


def test_a_face_nobody_has_decided_about_is_looked_at_on_every_rung():
    for slower, has_coarse in product((1.0, 2.0, 2.5, 4.0, 8.0), (False, True)):
        cabin = Cabin(new_budget(has_coarse=has_coarse))
        cabin.drive(10, lambda slower=slower: slower)
        cabin.faces.append(Occupant(cabin.now))
        cabin.drive(3, lambda slower=slower: slower)
        assert cabin.faces[-1].decided, f"undecided for three seconds on a machine {slower} times as slow"


def test_who_is_undecided_is_looked_at_without_missing_the_deadline_by_pausing_detection():
    cabin = Cabin(new_budget(has_coarse=False))  # a detection fits, a look fits, both do not
    cabin.drive(5, lambda: 2.5)
    cabin.faces.append(Occupant(cabin.now))
    frames = cabin.drive(2, lambda: 2.5)
    assert cabin.faces[-1].decided
    assert missed(frames) <= 0.02
    assert any(not frame.detected and frame.looks for frame in frames)


def test_many_new_faces_at_once_are_looked_at_in_turn():
    cabin = Cabin(faces=8, decided=False)
    frames = cabin.drive(5)
    assert all(face.decided for face in cabin.faces)
    assert missed(frames[30:]) == 0


def test_no_verdict_goes_unchecked_for_long_on_any_rung():
    for slower in (2.0, 2.5, 4.0):
        cabin = Cabin(faces=2)
        cabin.drive(3)
        cabin.drive(60, lambda slower=slower: slower)
        for face in cabin.faces:
            assert max(b - a for a, b in pairwise(face.looks)) < 11


def test_faces_are_looked_for_before_they_are_lost_even_where_that_alone_misses_the_deadline():
    cabin = Cabin()
    cabin.drive(3)
    frames = [frame for frame in cabin.drive(30, lambda: 20.0) if frame.detected]
    gaps = [b.at - a.at for a, b in pairwise(frames)]
    assert max(gaps) <= 0.7 * Tracking().lost_s + PERIOD
    assert len(frames) <= 30 * 1.8 + 40  # and hardly more often than it must


def test_while_recording_nothing_is_shed():
    budget = new_budget()
    cabin = Cabin(budget)
    cabin.drive(10, lambda: 4.0)
    plan = budget.plan("cabin", cabin.now + PERIOD, 1, 1, unseen_s=0.0, put_aside=False, everything=True)
    assert (plan.rung, plan.detect) == (0, True)
    assert budget.may_look(plan, 500.0, 0.0, decided=True)


def test_a_hot_board_gets_less_to_do_and_its_deadline_stays():
    cabin = Cabin()
    cabin.drive(5)
    cabin.budget.ease(0.5)
    frames = cabin.drive(10)
    assert max(frame.ms for frame in frames[60:]) <= 0.5 * DEADLINE
    assert cabin.budget.deadline_ms == DEADLINE
    cabin.budget.ease(1.0)
    assert cabin.drive(15)[-1].rung == 0


def test_another_deadline_is_gone_by_at_once():
    cabin = Cabin(new_budget(1.0))
    assert cabin.drive(10)[-1].rung == TOP
    cabin.budget.reconfigure(Settings(frame_ms=100.0), Tracking())
    assert rungs(cabin.drive(10)) == {0}
    cabin.budget.reconfigure(Settings(frame_ms=1.0), Tracking())
    assert rungs(cabin.drive(10)) == {TOP}


def test_each_camera_is_followed_by_itself():
    budget = new_budget()
    front, rear = Cabin(budget, camera="front"), Cabin(budget, camera="rear")
    for _ in range(900):
        for cabin in (front, rear):
            cabin.frame(find=FIND * 30, look=LOOK * 30)
    for cabin in (front, rear):
        late = [frame for frame in (cabin.frame(find=210, look=150) for _ in range(90)) if frame.detected]
        assert len(late) >= 5


def test_costs_are_not_known_before_there_are_some_and_then_they_are():
    budget = new_budget()
    assert (budget.costs.look_ms, budget.costs.over(1, coarse=False), budget.costs.knows_coarse) == (
        0,
        0,
        False,
    )
    Cabin(budget).drive(3)
    for coarse, ms in ((False, FIND), (True, FIND * COARSE)):
        assert budget.costs.over(ms - 0.01, coarse=coarse) == 1
        assert budget.costs.over(ms + 0.01, coarse=coarse) == 0
    assert budget.costs.look_ms == pytest.approx(LOOK)


COSTS = st.tuples(st.floats(0.5, 60), st.floats(0.5, 60))


@settings(max_examples=40)
@given(cost=COSTS, faces=st.integers(0, 4), noise=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_the_rung_does_not_flap_whatever_the_steps_cost(cost, faces, noise, seed):
    chance = np.random.default_rng(seed)
    cabin = Cabin(faces=faces)
    find, look = cost

    def steady() -> Told:
        return cabin.frame(*(each * (1 + noise * chance.uniform(-1, 1)) for each in (find, look)))

    for _ in range(10 * 30):
        steady()
    # One minute: the waits between two tries of a lower rung double from 2 s, and each try is at most four steps.
    assert changes([steady() for _ in range(60 * 30)]) <= 12


PHASE = st.tuples(
    st.floats(0.1, 20), st.sampled_from([0.3, 1.0, 3.0, 10.0, 20.0]), st.sampled_from([0, 0.1, 0.4, 1])
)
"""How much slower than when it is quiet, for how many seconds, and how much single costs scatter around that."""


@settings(max_examples=25)
@given(
    before=st.lists(PHASE, max_size=4),
    quiet_frames=st.floats(1.4, 4),
    faces=st.integers(0, 4),
    decided=st.booleans(),
    has_coarse=st.booleans(),
    learned=st.floats(0.6, 1.6),
    seed=st.integers(0, 99),
)
def test_whatever_has_been_everything_is_done_again_on_a_machine_that_has_become_quiet(
    before, quiet_frames, faces, decided, has_coarse, learned, seed
):
    """The longest it can take: 30 s to forget, 64 s of patience after misses, and two for each of the other rungs."""
    chance = np.random.default_rng(seed)
    budget = new_budget(quiet_frames * (FIND + LOOK), has_coarse=has_coarse)
    cabin = Cabin(budget, faces=faces, decided=decided)
    for _ in range(9):  # what a small picture costs is learned here, well or badly
        cabin.frame(coarse=COARSE * learned)
    for slower, seconds, scatter in before:
        cabin.drive(
            seconds, lambda slower=slower, scatter=scatter: slower * np.exp(chance.normal(0, scatter))
        )

    def quiet() -> float:
        return chance.uniform(0.95, 1.05)

    cabin.drive(30 + 64 + 4 * 2 + 2, quiet)
    frames = cabin.drive(5, quiet)
    assert rungs(frames) == {0}
    assert missed(frames, budget.deadline_ms) == 0


@settings(max_examples=40)
@given(cost=COSTS, faces=st.integers(1, 4), seed=st.integers(0, 99))
def test_nobody_starves_whatever_the_steps_cost(cost, faces, seed):
    chance = np.random.default_rng(seed)
    cabin = Cabin(faces=faces, decided=False)
    frames = [
        cabin.frame(*(each * chance.choice((0.7, 1.0, 1.0, 1.3)) for each in cost)) for _ in range(40 * 30)
    ]
    assert all(face.decided for face in cabin.faces)
    for face in cabin.faces:
        assert cabin.now - face.looked < 12
    found = [frame.at for frame in frames if frame.detected]
    assert max(b - a for a, b in pairwise(found)) <= 0.7 * Tracking().lost_s + PERIOD


@settings(max_examples=40)
@given(cost=COSTS, faces=st.integers(1, 4))
def test_a_frame_misses_its_deadline_only_where_a_single_step_is_longer_than_that(cost, faces):
    cabin = Cabin(faces=faces)
    for _ in range(5 * 30):
        cabin.frame(*cost)
    frames = [cabin.frame(*cost) for _ in range(30 * 30)]
    if max(cost) <= DEADLINE:
        assert missed(frames) <= 0.01
