"""What a worker says is checked before it is believed."""

import socket
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adaptation.messages import (
    Beat,
    Decided,
    Failed,
    Inbox,
    MessageError,
    Values,
    decided,
    figures_of,
    frame,
    from_worker,
    norms_of,
)
from agent.adaptation.types import Proposal

SOURCE = {"norm.a.scale": np.ones(4, np.float32), "norm.a.shift": np.zeros(4, np.float32)}


def proposed(name: str = "norm.a.scale", value: np.ndarray | None = None) -> Decided:
    values = np.arange(4, dtype=np.float32) if value is None else value
    return decided(Proposal(True, {name: values}, "better", {"gain": 1.5}, 0.125), 3, 0.25)


def received(*pieces: bytes, longest: int = 1 << 20) -> list[bytes]:
    inbox, (ours, theirs) = Inbox(longest), socket.socketpair()
    with ours, theirs:
        bodies = []
        for piece in pieces:
            theirs.sendall(piece)
            assert inbox.receive(ours)
            bodies += inbox.bodies()
        theirs.close()
        assert not inbox.receive(ours)
    return bodies


def test_a_proposal_arrives_as_it_was_made():
    (body,) = received(frame(proposed()))
    message = from_worker(body)
    assert (message.epoch, message.accepted, message.reason, message.seconds) == (3, True, "better", 0.25)
    assert message.rise == 0.125
    norms = norms_of(message, SOURCE)
    assert list(norms) == ["norm.a.scale"]
    assert norms["norm.a.scale"].tolist() == [0, 1, 2, 3]
    assert norms["norm.a.scale"].dtype == np.float32
    assert figures_of(message) == {"gain": 1.5}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_messages_come_through_in_whatever_pieces(counts, data):
    messages = [Beat(float(count), True) for count in counts]
    stream = b"".join(map(frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if b > a]
    assert [from_worker(body) for body in received(*pieces)] == messages


@given(st.binary(max_size=200))
def test_noise_is_refused_or_is_a_message_and_nothing_else(noise):
    try:
        message = from_worker(noise)
    except MessageError:
        return
    assert isinstance(message, Beat | Decided | Failed)


def test_a_message_that_is_too_long_is_refused_before_it_is_here():
    with pytest.raises(MessageError, match="4294967295 bytes"):
        received(struct.pack("<I", 0xFFFFFFFF) + b"x")


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (proposed("norm.b.scale"), "no norm parameter 'norm.b.scale'"),
        (proposed(value=np.ones(5, np.float32)), "4 channels"),
        (proposed(value=np.array([1, 2, np.nan, 4], np.float32)), "not finite"),
        (proposed(value=np.array([1, 2, -np.inf, 4], np.float32)), "not finite"),
        (Decided(0, True, "better", 0.0, {"norm.a.scale": Values((4,), b"abc")}), "in 3 bytes"),
        (Decided(0, True, "better", 0.0, {"norm.a.scale": Values((1 << 20,) * 4, b"")}), "4 channels"),
    ],
)
def test_norms_that_cannot_be_are_refused(message, match):
    (body,) = received(frame(message))
    with pytest.raises(MessageError, match=match):
        norms_of(from_worker(body), SOURCE)


@pytest.mark.parametrize(
    "message",
    [
        Decided(0, True, "Better, I say", 0.0),
        Decided(0, True, "x" * 65, 0.0),
        Decided(0, True, "better", -1.0),
        Decided(0, True, "better", 0.0, figures={str(i): 0.0 for i in range(201)}),
        Decided(0, True, "better", 0.0, rise=-0.1),
        Decided(0, True, "better", 0.0, rise=1.0),
        Decided(0, True, "better", 0.0, rise=float("nan")),
        Failed("x" * 2001),
        Beat(-1.0, True),
    ],
)
def test_words_that_are_none_are_refused(message):
    (body,) = received(frame(message))
    with pytest.raises(MessageError):
        from_worker(body)


def test_figures_that_are_no_numbers_are_left_out():
    message = decided(Proposal(False, {}, "drift", {"a": float("nan"), "b": 1 / 3}), 0, 0.1)
    assert figures_of(message) == {"b": 0.333333}
