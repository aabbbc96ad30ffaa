"""The reader of dlib's format: what is written comes back, and what is damaged is refused, never a crash."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.sources.archives import FACE_RESNET
from engines.sources.dlib_format import Affine, Convolution, DlibFormatError, FullyConnected, read_layers
from engines.sources.dlib_resnet import face_network


def integer(value):
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def string(text):
    return integer(len(text)) + text


def tensor(*dims, values):
    return integer(2) + b"".join(map(integer, dims)) + values.astype("<f4").tobytes()


def written(layer):
    match layer:
        case Convolution(weight, bias, stride, padding):
            filters, _, side, _ = weight.shape
            numbers = (filters, side, side, stride, stride, padding, padding)
            flat = np.concatenate([weight.ravel(), bias])
            return (
                string(b"con_4") + tensor(flat.size, 1, 1, 1, values=flat) + b"".join(map(integer, numbers))
            )
        case Affine(scale, shift):
            flat = np.concatenate([scale, shift])
            return string(b"affine_") + tensor(1, flat.size, 1, 1, values=flat)
        case FullyConnected(weight):
            inputs, outputs = weight.shape
            return (
                string(b"fc_2")
                + integer(outputs)
                + integer(inputs)
                + tensor(inputs, outputs, 1, 1, values=weight)
            )


def floats(*shape):
    """Any bits at all: what a weight means is not the reader's business."""
    size = int(np.prod(shape))
    return st.binary(min_size=4 * size, max_size=4 * size).map(
        lambda b: np.frombuffer(b, "<f4").reshape(shape)
    )


sides = st.integers(1, 3)
layers = st.one_of(
    st.tuples(sides, sides, sides).flatmap(
        lambda s: st.builds(
            Convolution,
            floats(s[0], s[1], s[2], s[2]),
            floats(s[0]),
            st.integers(1, 300),
            st.integers(0, 70_000),
        )
    ),
    st.integers(1, 9).flatmap(lambda n: st.builds(Affine, floats(n), floats(n))),
    st.tuples(st.integers(1, 9), st.integers(1, 300)).flatmap(
        lambda s: st.builds(FullyConnected, floats(*s))
    ),
)
# What dlib writes between the layers that carry weights: layers without any, learning rates, sizes.
between = st.sampled_from(
    [b"", string(b"relu_"), string(b"max_pool_2") + integer(3), string(b"add_prev_"), b"\x01"]
)
networks = st.lists(st.tuples(between, layers), min_size=1, max_size=5)


def file_of(network):
    return b"".join(filler + written(layer) for filler, layer in network) + string(b"input_rgb_image_sized")


def same(a, b):
    return type(a) is type(b) and all(
        x.shape == y.shape and x.tobytes() == y.tobytes() if isinstance(x, np.ndarray) else x == y
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


@given(networks)
def test_every_layer_comes_back_bit_by_bit(network):
    read = read_layers(file_of(network))
    assert len(read) == len(network)
    assert all(same(a, b) for a, (_, b) in zip(read, network, strict=True))


@given(networks, st.data())
def test_a_file_cut_short_gives_its_first_layers_or_an_error(network, data):
    whole = file_of(network)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        read = read_layers(cut)
    except DlibFormatError:
        return
    assert all(same(a, b) for a, (_, b) in zip(read, network, strict=False))


@given(networks, st.data())
def test_a_flipped_bit_is_never_worse_than_an_error(network, data):
    damaged = bytearray(file_of(network))
    for _ in range(data.draw(st.integers(1, 4))):
        bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
        damaged[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(DlibFormatError):
        read_layers(bytes(damaged))


@given(st.binary(max_size=300), st.sampled_from([b"con_4", b"affine_", b"fc_2"]))
def test_any_bytes_after_a_layers_name_are_never_worse_than_an_error(rest, name):
    with contextlib.suppress(DlibFormatError):
        read_layers(string(name) + rest)


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused_before_memory_is_taken():
    with pytest.raises(DlibFormatError, match="past the end"):
        read_layers(string(b"affine_") + integer(2) + integer(2**40) * 3 + integer(1) + bytes(64))


def test_what_is_no_network_is_refused():
    with pytest.raises(DlibFormatError, match="no layer"):
        read_layers(b"\x89PNG\r\n" * 100)


def test_the_published_file_cut_anywhere_makes_no_network(sources):
    published = sources[FACE_RESNET].read_bytes()
    for fraction in (0.001, 0.1, 0.5, 0.9, 0.999):
        with pytest.raises(DlibFormatError):
            face_network(read_layers(published[: int(fraction * len(published))]))
