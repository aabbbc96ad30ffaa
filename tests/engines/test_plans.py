"""A plan is used as it was built, for what it was built, or not at all."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.build import Model, build_plan, choose_target
from engines.plans import Plan, PlanError, PlanKey, check_key, decode, encode, read_plan, remedy, write_plan
from engines.probe import probe_library

KEY = PlanKey(
    onnx="a" * 64,
    library="tensorrt",
    version="10.3.0.30",
    device="Orin",
    capability="8.7",
    precision="fp16",
    dims={"H": 256, "W": 320},
    refittable=("norm.stem.scale",),
    flags=("strongly_typed",),
)
PLAN = Plan(KEY, bytes(range(256)) * 8)
OTHERS = {
    "onnx": "b" * 64,
    "library": "tensorrt-rtx",
    "version": "10.16.0.1",
    "device": "NVIDIA H100",
    "capability": "9.0",
    "precision": "int8",
    "dims": {"H": 320, "W": 320},
    "flags": (),
}


@pytest.fixture(scope="module")
def real(pack, tmp_path_factory) -> bytes:
    """A file with a plan that TensorRT for RTX has built of the detector."""
    library = probe_library("tensorrt-rtx")
    if library.problem:
        pytest.skip(library.problem)
    folder = tmp_path_factory.mktemp("real")
    shutil.copy(pack.detector, folder)
    model = Model(folder / pack.detector.name, {"H": 128, "W": 160})
    plan = build_plan(model, choose_target("tensorrt-rtx", "8.6", None), "fp16", folder / "timings")
    return encode(plan)


def test_a_plan_comes_back_as_it_was_written(tmp_path):
    write_plan(tmp_path / "new" / "face.plan", PLAN)
    assert read_plan(tmp_path / "new" / "face.plan") == PLAN


def test_a_real_plan_comes_back_as_it_was_written(real):
    plan = decode(real, "real")
    assert plan.key.library == "tensorrt-rtx"
    assert encode(plan) == real


def test_200_damaged_plans_are_all_refused_by_name(real):
    """Cut short, or with one to three bits flipped: none is taken for whole, none brings the process down."""
    chance = random.Random(7)  # noqa: S311
    troubles = set()
    for number in range(200):
        damaged = bytearray(real)
        if number % 2:
            # Half of the places in the first kilobyte, where magic, lengths, digest and key are.
            reach = 1024 if number % 4 == 1 else len(real)
            for _ in range(chance.randint(1, 3)):
                damaged[chance.randrange(reach)] ^= 1 << chance.randrange(8)
        else:
            reach = 1024 if number % 4 == 0 else len(real)
            del damaged[chance.randrange(reach) :]
        if damaged == real:
            continue  # two flips of one bit
        with pytest.raises(PlanError, match=r"detector\.plan") as caught:
            decode(bytes(damaged), "detector.plan")
        troubles.add(caught.value.trouble)
    assert troubles == {"not_a_plan", "truncated", "damaged"}


@given(st.binary(max_size=300))
def test_no_bytes_are_taken_for_a_plan(data):
    with pytest.raises(PlanError):
        decode(data, "x")


@given(st.binary(max_size=300))
def test_nothing_after_a_good_beginning_is_taken_for_a_plan(data):
    with pytest.raises(PlanError):
        decode(encode(PLAN)[:20] + data, "x")


def test_more_bytes_than_were_written_are_damage():
    with pytest.raises(PlanError) as caught:
        decode(encode(PLAN) + b"\0", "x")
    assert caught.value.trouble == "damaged"


def test_a_key_of_a_newer_version_is_refused():
    newer = msgspec.json.encode({**msgspec.to_builtins(KEY), "colour": "red"})

    class Raw(msgspec.Struct):
        key: msgspec.Raw
        payload: bytes

    with pytest.raises(PlanError, match="colour") as caught:
        decode(encode(Raw(msgspec.Raw(newer), b"x")), "x")
    assert caught.value.trouble == "not_a_plan"


def test_what_the_plan_was_made_for_is_what_is_wanted():
    check_key(KEY, KEY, "face.plan")
    check_key(KEY, msgspec.structs.replace(KEY, refittable=()), "face.plan")


@pytest.mark.parametrize("field", OTHERS)
def test_a_plan_for_something_else_is_refused_and_both_are_named(field):
    wanted = msgspec.structs.replace(KEY, **{field: OTHERS[field]})
    with pytest.raises(PlanError, match=rf"face\.plan.*{field} is") as caught:
        check_key(KEY, wanted, "face.plan")
    assert caught.value.trouble == "other"
    assert caught.value.differences == {field: (getattr(KEY, field), OTHERS[field])}


def test_a_plan_built_ahead_of_time_serves_every_gpu_of_its_capability():
    ahead = msgspec.structs.replace(KEY, device="")
    check_key(ahead, KEY, "face.plan")
    with pytest.raises(PlanError, match="capability"):
        check_key(ahead, msgspec.structs.replace(KEY, capability="8.9"), "face.plan")


def test_a_missing_plan_names_the_remedy(tmp_path):
    with pytest.raises(PlanError, match="cabinsense models build") as caught:
        read_plan(tmp_path / "face.plan")
    assert caught.value.trouble == "missing"


def test_a_folder_in_the_place_of_a_plan_is_told(tmp_path):
    with pytest.raises(PlanError) as caught:
        read_plan(tmp_path)
    assert caught.value.trouble == "unreadable"


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_plan(tmp_path):
    file = tmp_path / "face.plan"
    write_plan(file, PLAN)
    code = (
        "import sys, msgspec\n"
        "from pathlib import Path\n"
        "from engines.plans import read_plan, write_plan, Plan\n"
        "file = Path(sys.argv[1]); plan = read_plan(file)\n"
        "print('ready', flush=True)\n"
        "while True: write_plan(file, Plan(plan.key, plan.payload * 2000))\n"
    )
    for number in range(5):
        write_plan(file, PLAN)
        child = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
        child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.01 * number)
        child.kill()
        child.communicate()
        assert read_plan(file).key == KEY


@pytest.mark.parametrize(
    ("trouble", "can_build", "rebuilt", "done"),
    [
        ("missing", True, False, "rebuild"),
        ("damaged", True, False, "rebuild"),
        ("truncated", True, False, "rebuild"),
        ("not_a_plan", True, False, "rebuild"),
        ("other", True, False, "rebuild"),
        ("refused", True, False, "rebuild"),
        ("refused", True, True, "report"),
        ("damaged", True, True, "report"),
        ("other", False, False, "report"),
        ("unreadable", True, False, "report"),
    ],
)
def test_a_bad_plan_is_built_anew_once_where_that_can_help(trouble, can_build, rebuilt, done):
    assert remedy(trouble, can_build=can_build, rebuilt=rebuilt) == done


def test_a_full_disk_leaves_the_old_plan(tmp_path):
    file = tmp_path / "face.plan"
    write_plan(file, PLAN)
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / ".face.plan.partial").symlink_to("/dev/full")
    with pytest.raises(PlanError, match="No space left") as caught:
        write_plan(file, Plan(KEY, b"other"))
    assert caught.value.trouble == "unreadable"
    assert read_plan(file) == PLAN
