"""One push is one press, whatever the contacts do."""

from hypothesis import given
from hypothesis import strategies as st

from agent.button import Button

DEBOUNCE, LONG = 0.03, 1.5

gaps = st.lists(st.floats(0.0001, DEBOUNCE * 0.99), max_size=20)
"""Times between the bounces of a contact: each shorter than the debounce time."""


def push(at: float, held: float, closing: list[float], opening: list[float]) -> list[tuple[float, bool]]:
    """The edges of a contact that bounces while it closes and while it opens, and what comes of it.

    It closes for good after the bounces, stays so for ``held`` seconds, and opens likewise.
    """
    edges = [(at, True)]
    for gap in closing[: len(closing) // 2 * 2]:
        at += gap
        edges.append((at, not edges[-1][1]))
    at += held
    edges.append((at, False))
    for gap in opening[: len(opening) // 2 * 2]:
        at += gap
        edges.append((at, not edges[-1][1]))
    return edges


def presses(edges: list[tuple[float, bool]], step: float = 0.1) -> list[str]:
    """What a button tells of these edges when it is also asked every ``step`` seconds, until long after the last."""
    button = Button(DEBOUNCE, LONG)
    told: list[str] = []
    now = edges[0][0] - 1
    for at, down in [*edges, (edges[-1][0] + 5, False)]:
        while now + step < at:
            now += step
            told += button.tick(now)
        told += button.edge(at, down=down)
    return told


@given(gaps, gaps, st.floats(DEBOUNCE * 1.01, LONG - 0.7), st.floats(0.001, 0.5))
def test_a_push_with_any_bounces_is_one_short_press(closing, opening, held, step):
    assert presses(push(10.0, held, closing, opening), step) == ["short"]


@given(gaps, gaps, st.floats(LONG * 1.01, 5), st.floats(0.001, 0.5))
def test_a_long_push_with_any_bounces_is_one_long_press(closing, opening, held, step):
    assert presses(push(10.0, held, closing, opening), step) == ["long"]


@given(
    st.lists(
        st.tuples(st.floats(DEBOUNCE * 1.01, 0.6), gaps, gaps, st.floats(DEBOUNCE * 1.01, 2)),
        min_size=1,
        max_size=8,
    )
)
def test_so_many_pushes_so_many_presses(pushes):
    edges: list[tuple[float, bool]] = []
    at = 10.0
    for held, closing, opening, rest in pushes:
        edges += push(at, held, closing, opening)
        at = edges[-1][0] + rest
    assert presses(edges) == ["short"] * len(pushes)


@given(gaps)
def test_a_glitch_is_no_press(bounces):
    """Interference that never stands for the debounce time."""
    at, edges = 10.0, [(10.0, True)]
    for gap in [0.01, *bounces]:
        at += gap
        edges.append((at, not edges[-1][1]))
    assert presses(edges if not edges[-1][1] else edges[:-1]) == []


@given(gaps, st.floats(0.05, 1.0))
def test_a_long_press_is_told_while_the_button_is_still_down(closing, step):
    button = Button(DEBOUNCE, LONG)
    edges = push(10.0, 100.0, closing, [])[:-1]
    for at, down in edges:
        assert button.edge(at, down=down) == []
    began = edges[-1][0]
    now, told = began, []
    while not told:
        now += step
        told = button.tick(now)
        assert now < began + LONG + 2 * step
    assert told == ["long"]
    assert now >= began + LONG
    assert button.edge(now + 1, down=False) == button.tick(now + 5) == []


def test_it_does_not_matter_how_late_it_is_asked():
    """As when the thread did not run for a while: the kernel has kept the edges with their times."""
    edges = push(10.0, 0.2, [0.001] * 6, [0.002] * 4) + push(11.0, 2.0, [], []) + push(14.0, 0.1, [], [])
    assert presses(edges, step=1000.0) == ["short", "long", "short"]


def test_a_button_that_is_down_to_begin_with_must_be_let_go_first():
    button = Button(DEBOUNCE, LONG, down=True)
    assert button.tick(100.0) == []
    assert button.edge(101.0, down=False) == button.tick(102.0) == []
    assert button.edge(103.0, down=True) == []
    assert button.edge(103.5, down=False) == []
    assert button.tick(104.0) == ["short"]


def test_bounces_at_the_end_of_a_short_press_do_not_make_it_long():
    """Let go just before it were a long one, and bouncing just after."""
    edges = push(10.0, LONG - 0.01, [], [0.02, 0.02])
    assert presses(edges[:2], 0.005) == ["short"]
