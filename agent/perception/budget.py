"""The latency budget: what a frame may cost, and which work is left out so that it does not cost more.

Policy only: it is told what the steps took and what there is to do, and says what may be done. It knows no clock, no
engine and no face. The ladder, from the least loss to the greatest:

====  ==========================================================================================================
rung  what is left out
====  ==========================================================================================================
0     nothing
1     looks for the expression's sake: one run of the face network gives embedding and expression, and five runs
      a second are for the expression; an identity is content with one
2     looks for the identity of decided tracks, but for one in five seconds: no verdict goes unchecked for longer
3     more than one look a frame: the face that has waited longest has its turn, the largest first
4     detail: faces are sought in a picture of half the width and height, so that those far away are missed
5     detection in some frames: faces are predicted ("coasting") there
====  ==========================================================================================================

A track about which nothing is decided yet is looked at on every rung.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import dataclass, field

from agent.config import Budget as Settings
from agent.config import Tracking

TOP = 5
"""The highest rung."""

ALLOWED = 0.004
"""Share of frames that the plan lets miss their deadline. Less than half of the 1 % that users are promised: what is
planned with is an estimate from 256 frames, and half of such estimates err to the wrong side."""

_ONE_LOOK = 3  # rung from which there is one look a frame …
_COARSE = 4  # … and from which faces are sought in a small picture

_REFRESH_S = (0.0, 1.0, 5.0, 5.0, 5.0, 5.0)
"""By rung, the least time between two looks at a decided track; ``tracking.refresh_s`` where that is longer."""

_COVER = 0.95
"""Share of its recent costs that the time left must cover before a look is begun that may as well wait."""

_UNDECIDED_WAIT_S = 0.1
"""So long may the look at an undecided track be put off while a dear detection leaves too little time."""

_SHAPE = 256  # newest costs of a step that are remembered: nine seconds of detections at 30 frames a second …
_MEMORY_S = 30.0  # … and none older than this: what is no longer done must not stay dear for ever …
_FEWEST = 9  # … but so many, as long as one of them is not too old

_FLUKES = 2
"""So many of the remembered detections may have been too long without a consequence: a machine hiccups now and then,
and doing less does not help against that."""

_PACE = 9  # newest detections whose median is the pace: five in a row move it, two slow ones do not

_FALLEN = 0.6
"""A pace below this share of an earlier one has clearly fallen: a neighbour has gone. Chance does that to a median of
nine every half minute where single costs vary by a third; so what was learned is given up for it only when eight of the
nine are below."""

_FRESH_S = 5.0
"""When the pace has clearly fallen, nothing older counts: an uneven start, say, of which more than this has passed in
overload, tells less about the machine after it than a try does."""

_BLIND = 0.7
"""Share of the time after which a track is lost for which it may go unlooked-for: what is left of that time is for the
detector to find the face at a second or third try."""

_COMFORT = 0.85
"""Share of the budget in which a lower rung must fit before it is taken: between this and 1 nothing changes."""

_HOLD_S = 2.0
"""A rung is held for so long before a lower one is tried."""

_SHORTER = 0.25
"""Share of that time to wait where the pace has clearly fallen."""

_LONGEST_HOLD_S = 64.0
"""Each time a lower rung proves too low, the next try waits twice as long, up to this: as senders on a network double
their wait after each loss (Jacobson, "Congestion avoidance and control", SIGCOMM 1988)."""


class _Shape:
    """The newest costs of a step as multiples of the pace, in order of size."""

    def __init__(self) -> None:
        self._newest: deque[_Cost] = deque()
        self._sorted: list[float] = []

    def add(self, cost: "_Cost") -> None:
        """Remember one, and forget what is too much or too old."""
        self._newest.append(cost)
        insort(self._sorted, cost.multiple)
        self.age(cost.at)

    def age(self, now: float) -> None:
        """Forget what is too much or too old ``now``, seconds."""
        while (count := len(self._newest)) > _FEWEST and (
            count > _SHAPE or self._newest[0].at < now - _MEMORY_S
        ):
            del self._sorted[bisect_left(self._sorted, self._newest.popleft().multiple)]
        if self._newest and self._newest[-1].at < now - _MEMORY_S:
            self._keep([])

    def keep_only(self, pace: float, since: float) -> None:
        """Forget what was measured at a higher pace, or earlier; but for the usual where nothing else is known.

        The costs of a busy machine differ more than those of a quiet one.
        """
        self._keep([each for each in self._newest if each.pace <= pace and each.at >= since])

    def _keep(self, costs: "list[_Cost]") -> None:
        """Forget all others, but for the usual one where there are none."""
        usual = [each for each in self._newest if each.multiple == self._sorted[len(self._sorted) // 2]][:1]
        self._newest = deque(costs or usual)
        self._sorted = sorted(each.multiple for each in self._newest)

    def over(self, multiple: float, flukes: int) -> float:
        """Share of those above ``multiple``, of which so many do not count; 0 while nothing is remembered."""
        count = len(self._sorted)
        return max(0, count - bisect_right(self._sorted, multiple) - flukes) / count if count else 0.0

    @property
    def dear(self) -> float:
        """What ``_COVER`` of them stay below, where the worst one passes for a fluke; 0 while nothing is remembered."""
        if not self._sorted:
            return 0.0
        rank = min(math.ceil(_COVER * len(self._sorted)), len(self._sorted) - 1)
        return self._sorted[max(0, rank - 1)]


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a step took.

    Attributes:
        multiple: of the pace.
        pace: of that time, milliseconds.
        at: that time, seconds.
    """

    multiple: float
    pace: float
    at: float


@dataclass(slots=True)
class _Found:
    """One detection: what it cost, and the looks up to the next one."""

    ms: float
    coarse: bool
    pace: float
    looks: list[float] = field(default_factory=list)


class Costs:
    """What the steps that matter cost: finding the faces of a frame, fully or coarsely, and a look at one.

    A busy neighbour slows every step alike. So costs are kept as multiples of the *pace*, the median of the newest nine
    detections: when that rises, the cost of a look rises with it before a look has been tried; when the neighbour has
    gone, nothing dear has to be forgotten first. A cost is divided by the median of the four detections before it and
    the four after it: running medians of odd length keep an edge where it is (Tukey, "Exploratory Data Analysis",
    1977), so that a jump of the pace leaves no false multiples behind.

    The pace is that of full detections. A coarse one counts for as much as it took beside full ones when it was tried.
    """

    def __init__(self) -> None:
        self._newest: deque[_Found] = deque(maxlen=_PACE)
        self._finds = {False: _Shape(), True: _Shape()}
        self._looks = _Shape()
        self._tries: list[float] = []
        self._ratios: list[float] = []  # of the tries to the full detections of the same frames
        self._coarse = 0.0
        self._pace = 0.0
        self._dearest = 0.0  # pace since it last fell clearly

    @property
    def pace_ms(self) -> float:
        """What a full detection takes just now; 0 until it is known."""
        return self._pace

    @property
    def knows_coarse(self) -> bool:
        """What a coarse detection costs is known."""
        return self._coarse > 0

    def tried(self, ms: float) -> None:
        """A coarse detection, beside the full one of the same frame, took ``ms`` milliseconds."""
        self._tries.append(ms)

    def found(self, ms: float, at: float, *, coarse: bool) -> None:
        """A detection in the frame captured ``at`` took ``ms`` milliseconds, all around it included."""
        self._newest.append(_Found(ms, coarse, ms / self._coarse if coarse else ms))
        if len(self._ratios) < len(self._tries) and ms > 0:
            self._ratios.append(self._tries[-1] / ms)
        paces = sorted(each.pace for each in self._newest)
        self._pace = pace = _median(paces)
        if len(self._newest) < _PACE or pace <= 0:
            return
        self._dearest = max(self._dearest, pace)
        if paces[-2] < _FALLEN * self._dearest:
            self._dearest = pace
            for shape in (*self._finds.values(), self._looks):
                shape.keep_only(pace / _FALLEN, at - _FRESH_S)
        middle = self._newest[_PACE // 2]
        self._finds[middle.coarse].add(_Cost(middle.ms / pace, pace, at))
        for look in middle.looks:
            self._looks.add(_Cost(look / pace, pace, at))
        if len(self._ratios) >= _PACE:
            self._coarse = _median(sorted(self._ratios))
            for each in self._tries:
                self._finds[True].add(_Cost(each / pace, pace, at))
            self._tries.clear()
            self._ratios.clear()
        for shape in self._finds.values():
            shape.age(at)

    def looked(self, ms: float) -> None:
        """A look took ``ms`` milliseconds."""
        if self._newest:
            self._newest[-1].looks.append(ms)

    @property
    def look_ms(self) -> float:
        """What nineteen looks in twenty stay below; 0 until it is known."""
        return self._pace * self._looks.dear

    def over(self, ms: float, *, coarse: bool, flukes: int = 0) -> float:
        """Share of such detections that take longer than ``ms``, 0 to 1; so many ``flukes`` do not count."""
        return self._finds[coarse].over(ms / self._pace, flukes) if self._pace > 0 else 0.0


def _median(rising: list[float]) -> float:
    return rising[len(rising) // 2]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one frame may do.

    Attributes:
        rung: the step of the ladder in force.
        detect: find the faces; otherwise they coast.
        coarse: find them in a small picture.
        try_coarse: do that as well, for no other purpose than to learn what it costs.
        looks: most faces to look at.
        refresh_s: age from which a decided track is due for a look, seconds.
        free: whatever it costs.
    """

    rung: int
    detect: bool
    looks: float
    refresh_s: float
    coarse: bool = False
    try_coarse: bool = False
    free: bool = False


@dataclass(slots=True)
class _Camera:
    """How far one camera's frames have come."""

    captured: float = float("-inf")
    period: float = 0.0
    detected: float = float("-inf")
    coasted: int = 0


@dataclass(slots=True)
class _Ladder:
    """The rung, and the patience before a lower one is tried."""

    rung: int = 0
    calm_since: float = 0.0
    lowered: float = float("-inf")
    hold: float = _HOLD_S
    strain: float = 0.0  # the highest pace at which the rung was needed

    def move(self, now: float, pace: float, wanted: int, comfortable: int) -> None:
        """Go up to ``wanted`` at once; go down when ``comfortable`` has been lower for long enough.

        That is one rung after ``hold`` seconds. But where the pace has clearly fallen since the rung was needed, it is
        another machine that lower rungs proved too low for, and it is all the way, after a part of that time.
        """
        if now - self.lowered > _LONGEST_HOLD_S:
            self.hold = _HOLD_S
        fallen = pace < _FALLEN * self.strain
        if wanted > self.rung:
            if now - self.lowered <= self.hold:  # the last step down was a mistake
                self.hold = min(2 * self.hold, _LONGEST_HOLD_S)
                self.strain = pace
            self.rung, self.calm_since = wanted, now
        elif comfortable < self.rung:
            if now - self.calm_since >= (max(_HOLD_S, _SHORTER * self.hold) if fallen else self.hold):
                self.rung = comfortable if fallen else self.rung - 1
                self.lowered = self.calm_since = now
            return
        self.calm_since = now
        self.strain = max(self.strain, pace) if self.rung else 0.0


class Budget:
    """One budget for all cameras: they share the time of one thread."""

    def __init__(self, settings: Settings, tracking: Tracking, *, has_coarse: bool) -> None:
        """A budget that knows no costs yet: until it does, everything is allowed.

        Args:
            settings: the budget's.
            tracking: when a track is lost, and how often it is looked at when there is time.
            has_coarse: faces can be sought in a small picture.
        """
        self._has_coarse = has_coarse
        self.costs = Costs()
        self.deadline_ms = 0.0
        self._share = 1.0
        self._ladder = _Ladder()
        self._cameras: dict[str, _Camera] = {}
        self.reconfigure(settings, tracking)

    def reconfigure(self, settings: Settings, tracking: Tracking) -> None:
        """Go by these settings from the next frame on; what was tried under another deadline counts no more."""
        deadline_ms = settings.frame_ms or float("inf")
        if deadline_ms != self.deadline_ms:
            self.deadline_ms, self._ladder = deadline_ms, _Ladder()
        self._tracking = tracking
        self._longest_blind_s = _BLIND * tracking.lost_s

    def ease(self, share: float) -> None:
        """Plan with this share of the budget (0 to 1, more than 0) from now on; the deadline stays where it is."""
        self._share = share

    @property
    def _allowed_ms(self) -> float:
        return self._share * self.deadline_ms

    def plan(
        self,
        camera: str,
        captured: float,
        undecided: int,
        decided: int,
        *,
        unseen_s: float,
        put_aside: bool,
        everything: bool = False,
    ) -> Plan:
        """What the next frame of ``camera`` may do.

        Args:
            camera: whose frame it is.
            captured: when it was captured, seconds; must not run backwards for a camera.
            undecided: tracks of this camera about which nothing is decided.
            decided: its other tracks.
            unseen_s: for how long at most one of them has not been seen.
            put_aside: a chip of its last frame waits for a look that this frame must make room for.
            everything: nothing may be left out of this frame, whatever it costs.
        """
        seen = self._cameras.setdefault(camera, _Camera())
        if math.isfinite(seen.captured):
            seen.period = captured - seen.captured
        seen.captured = captured
        if everything:
            seen.detected, seen.coasted = captured, 0
            return Plan(0, detect=True, looks=float("inf"), refresh_s=0.0, free=True)
        self._ladder.move(
            captured,
            self.costs.pace_ms,
            self._fitting(self._allowed_ms, undecided, decided, seen.period),
            self._fitting(_COMFORT * self._allowed_ms, undecided, decided, seen.period),
        )
        rung = self._ladder.rung
        coarse = rung >= _COARSE and self.costs.knows_coarse
        detect = rung < TOP or (not put_aside and self._may_detect(seen, unseen_s, coarse=coarse))
        if detect:
            seen.detected, seen.coasted = captured, 0
        else:
            seen.coasted += 1
        looks = float("inf") if rung < _ONE_LOOK else 1
        learn = (
            self._has_coarse and not self.costs.knows_coarse and detect and math.isfinite(self.deadline_ms)
        )
        return Plan(rung, detect, looks, self._refresh_s(rung), coarse, try_coarse=learn)

    def may_look(self, plan: Plan, spent_ms: float, waited_s: float, *, decided: bool) -> bool:
        """A look at a track that is due for one may be begun ``spent_ms`` milliseconds after the frame.

        What does not fit waits for a frame that leaves more time, but not for ever: on the rungs below the highest,
        where whole frames fit as a rule, a look that has waited for too long is begun in any case. On the highest the
        next frame makes room for it.

        Args:
            plan: of this frame.
            spent_ms: time spent on this frame so far.
            waited_s: time since the last look at the track; before the first, since the track began.
            decided: the track's identity is.
        """
        if plan.free or spent_ms + self.costs.look_ms <= self._allowed_ms:
            return True
        return plan.rung < TOP and waited_s >= (2 * plan.refresh_s if decided else _UNDECIDED_WAIT_S)

    def _refresh_s(self, rung: int) -> float:
        return max(self._tracking.refresh_s, _REFRESH_S[rung])

    def _may_detect(self, seen: _Camera, unseen_s: float, *, coarse: bool) -> bool:
        """On the highest rung: detect so seldom that, of all frames, no more than ``ALLOWED`` miss their deadline.

        A detection that misses with probability p is run in every n-th frame, n = p / ``ALLOWED``. But whatever
        that costs, faces are looked for before a track is lost and often enough to see newcomers.
        """
        blind_s = max(unseen_s, seen.captured - seen.detected)
        if blind_s + seen.period > self._longest_blind_s:
            return True
        return seen.coasted + 1 >= self.costs.over(self._allowed_ms, coarse=coarse) / ALLOWED

    def _fitting(self, allowed_ms: float, undecided: int, decided: int, period: float) -> int:
        """The lowest rung on which no more than ``ALLOWED`` of the frames would take longer than ``allowed_ms``."""
        for rung in range(TOP):
            coarse = rung >= _COARSE
            if coarse and not self.costs.knows_coarse:
                continue
            looks = 1 if rung >= _ONE_LOOK else max(1, undecided)
            with_look = 1.0 if undecided else min(1.0, decided * period / max(self._refresh_s(rung), 1e-9))
            left_ms = allowed_ms - looks * self.costs.look_ms
            late = with_look * self.costs.over(left_ms, coarse=coarse, flukes=_FLUKES)
            late += (1 - with_look) * self.costs.over(allowed_ms, coarse=coarse, flukes=_FLUKES)
            if late <= ALLOWED:
                return rung
        return TOP
