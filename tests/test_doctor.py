"""The technician's screen: each finding on a line, each failure with its remedy, and an exit status to act on."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.doctor import Camera, Facts, Gate, Node, OpenCV, Plan, Wish, report
from agent.gallery.store import Gallery
from agent.gallery.types import Calibration
from agent.inspection import inspect
from engines.pack import MANIFEST, encode_manifest
from engines.plans import Plan as WholePlan
from engines.plans import PlanKey, write_plan
from engines.probe import CudaProbe, Device, LibraryProbe, probe_cuda

NOTHING = {
    "tensorrt": LibraryProbe(problem="not installed"),
    "tensorrt-rtx": LibraryProbe(problem="not installed"),
}
DESKTOP = Facts(
    agent="0.1.0",
    python="3.12.1",
    opencv=OpenCV("4.11.0"),
    wish=Wish((Camera("cabin", "/dev/video0"),)),
    videos=(Node("/dev/video0", "USB camera", allowed=True),),
    cuda=CudaProbe(problem="no CUDA driver"),
    libraries=NOTHING,
    people=2,
    pack="default",
    backends={"onnxruntime": "1.23"},
    disk_mb=50_000,
)
ORIN = msgspec.structs.replace(
    DESKTOP,
    board="NVIDIA Jetson Orin Nano",
    l4t="36.4.0",
    opencv=OpenCV("4.8.0", gstreamer=True),
    cuda=CudaProbe(Device("Orin", "8.7", 7620, "12.6")),
    libraries=NOTHING | {"tensorrt": LibraryProbe("10.3.0")},
    pycuda=True,
    jtop=True,
    jtop_socket=Node("/run/jtop.sock", "jtop.sock", allowed=True),
    gpio_chips=(Node("/dev/gpiochip0", "gpiochip0", allowed=True),),
    gpio_library=True,
    systemd=True,
    unit=True,
    wish=Wish((Camera("cabin", "/dev/video0"),), "tensorrt", "fp16"),
    plans=(Plan("tensorrt-fp16/face"), Plan("tensorrt-fp16/detector")),
    gates=(Gate("tensorrt", "fp16", asked=True),),
)


def line(facts: Facts, subject: str):
    """The line about a subject."""
    (found,) = [each for each in report(facts).lines if each.subject == subject]
    return found


def changed(facts: Facts, **fields: object) -> Facts:
    return msgspec.structs.replace(facts, **fields)


@pytest.mark.parametrize("facts", [DESKTOP, ORIN], ids=["desktop", "orin"])
def test_a_healthy_box_has_nothing_but_good_lines(facts):
    found = report(facts)
    assert found.usable
    assert {each.state for each in found.lines} == {"ok"}
    assert not any(each.remedy for each in found.lines)


FAILURES = {
    "OpenCV": {"opencv": OpenCV(problem="libGL.so.1: cannot open shared object file")},
    "configuration": {"wish": None, "config_problem": "x.toml: not valid TOML: line 3"},
    "camera cabin": {"videos": ()},
    "CUDA": {"cuda": CudaProbe(problem="the probe was ended by SIGSEGV")},
    "TensorRT": {"libraries": NOTHING},
    "pycuda": {"pycuda": False},
    "pack": {"pack_problem": "face.onnx: SHA-256 is other; `cabinsense models fetch --force` makes it anew"},
    "gallery": {"gallery_problem": "gallery.db is damaged (quick_check); move it away or restore a backup"},
    "disk": {"disk_mb": 20},
    "plan tensorrt-fp16/face": {
        "plans": (Plan("tensorrt-fp16/face", "face.plan: has 3 of 9 bytes; build it"),)
    },
    "gate tensorrt fp16": {
        "gates": (Gate("tensorrt", "fp16", True, "did not pass the gate: drift; calibrate anew"),)
    },
}


@pytest.mark.parametrize("subject", FAILURES)
def test_what_keeps_the_agent_from_its_work_fails_with_a_remedy(subject):
    facts = changed(ORIN, **FAILURES[subject])
    found = line(facts, subject)
    assert found.state == "fail"
    assert found.remedy
    assert not report(facts).usable


WARNINGS = {
    "OpenCV": {"opencv": OpenCV("4.11.0", gstreamer=False)},
    "cameras": {"wish": Wish(backend="tensorrt", precision="fp16")},
    "jtop": {"jtop_socket": None},
    "GPIO": {"gpio_chips": (Node("/dev/gpiochip0", "gpiochip0", allowed=False),)},
    "systemd": {"unit": False},
    "disk": {"disk_mb": 500},
    "adaptation": {"adaptation_problem": "p: the pack has no norm bank; fetch it again"},
    "threshold": {"threshold": "0.9446, from the pack", "threshold_outgrown": True},
    "agent": {"daemon_problem": "the daemon did not answer within 3 s; look at its log"},
    "plan tensorrt-int8/face": {"plans": (Plan("tensorrt-int8/face", "built from another model"),)},
    "gate openvino fp32": {"gates": (Gate("openvino", "fp32", False, "did not pass the gate"),)},
}


@pytest.mark.parametrize("subject", WARNINGS)
def test_what_somebody_may_miss_is_a_warning_with_a_remedy(subject):
    facts = changed(ORIN, **WARNINGS[subject])
    found = line(facts, subject)
    assert found.state == "warn"
    assert found.remedy
    assert report(facts).usable


def test_what_nobody_asked_for_is_no_fault():
    """A desktop without CUDA, TensorRT, jtop and GPIO runs the agent on its processor."""
    assert "processor" in line(DESKTOP, "CUDA").detail
    assert line(DESKTOP, "TensorRT").state == "ok"
    asked = changed(DESKTOP, wish=Wish((Camera("cabin", "/dev/video0"),), cuda=True))
    assert line(asked, "CUDA").state == "fail"


def test_a_backend_that_is_not_installed_names_its_extra():
    found = line(changed(DESKTOP, wish=Wish(backend="openvino")), "engines")
    assert found.state == "fail"
    assert "cabinsense[openvino]" in found.remedy


def test_a_camera_that_may_not_be_used_names_the_group():
    closed = changed(DESKTOP, videos=(Node("/dev/video0", "USB camera", allowed=False),))
    assert "usermod -aG video" in line(closed, "camera cabin").remedy
    numbered = changed(closed, wish=Wish((Camera("cabin", "0"),)))
    assert line(numbered, "camera cabin").state == "fail"


def tree(root: Path) -> Path:
    """An Orin's /dev, /proc, /sys, /run and /etc, as far as doctor reads them."""
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64\n",
        "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010\n",
        "sys/class/video4linux/video10/name": "USB camera\n",
        "dev/video0": "",
        "dev/video10": "",
        "dev/gpiochip0": "",
        "dev/gpiochip1": "",
        "etc/systemd/system/cabinsense.service": "[Unit]\n",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "run/systemd/system").mkdir(parents=True)
    return root


@pytest.fixture
def box(tmp_path, pack, monkeypatch) -> Path:
    """A folder of data and a configuration on a box of its own."""
    monkeypatch.setenv("CABINSENSE_DATA", str(tmp_path))
    (tmp_path / "config.toml").write_text(
        f'pack = "{pack.path}"\n[control]\nendpoint = "ipc://{tmp_path}/c"\n'
        '[[cameras]]\nname = "cabin"\nsource = "/dev/video0"\n'
    )
    return tmp_path


def test_the_tree_of_an_orin_is_read(box):
    facts = inspect(box / "config.toml", tree(box / "root"), {"NOTIFY_SOCKET": "/run/systemd/notify"})
    assert facts.board == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit"
    assert facts.l4t == "36.4.0"
    assert [(v.path, v.name) for v in facts.videos] == [
        ("/dev/video0", "vi-output, imx219 9-0010"),
        ("/dev/video10", "USB camera"),
    ]
    assert [chip.path for chip in facts.gpio_chips] == ["/dev/gpiochip0", "/dev/gpiochip1"]
    assert (facts.systemd, facts.notify, facts.unit) == (True, True, True)
    assert facts.jtop_socket is None
    assert facts.pack_problem == facts.gallery_problem == facts.config_problem == ""


def test_an_empty_tree_is_a_box_with_nothing(box):
    (box / "root").mkdir()
    facts = inspect(box / "config.toml", box / "root", {})
    assert (facts.board, facts.l4t, facts.videos, facts.gpio_chips) == ("", "", (), ())
    assert (facts.systemd, facts.notify, facts.unit) == (False, False, False)
    assert line(facts, "camera cabin").state == "fail"


def test_a_pi_has_a_device_tree_and_is_no_jetson(box):
    (box / "root/proc/device-tree").mkdir(parents=True)
    (box / "root/proc/device-tree/model").write_bytes(b"Raspberry Pi 5 Model B\0")
    assert inspect(box / "config.toml", box / "root", {}).board == ""


def test_a_gallery_is_opened_and_a_damaged_one_told(box):
    Gallery.open(box / "gallery.db").close()
    assert inspect(box / "config.toml", box, {}).people == 0
    (box / "gallery.db").write_bytes(b"no database" * 100)
    facts = inspect(box / "config.toml", box, {})
    assert facts.people is None
    assert line(facts, "gallery").state == "fail"


def test_what_adaptation_lacks_is_told_where_it_is_asked_for(box, pack):
    file = box / "config.toml"
    assert line(inspect(file, box, {}), "adaptation").detail == "off"
    file.write_text(file.read_text() + '[adaptation]\ntier = "statistics"\n')
    assert line(inspect(file, box, {}), "adaptation").detail == "statistics"
    bare = shutil.copytree(pack.path, box / "bare")
    (bare / MANIFEST).write_bytes(
        encode_manifest(msgspec.structs.replace(pack.manifest, adaptation=msgspec.UNSET))
    )
    file.write_text(file.read_text().replace(str(pack.path), str(bare)))
    found = line(inspect(file, box, {}), "adaptation")
    assert found.state == "warn"
    assert "no norm bank" in found.detail
    assert "cabinsense models fetch --force" in found.remedy


def test_the_threshold_in_force_for_the_gallery_is_told(box, pack):
    with Gallery.open(box / "gallery.db") as gallery:
        rates = 1e-3, 9e-4, 0.97, (0.96, 0.98)
        gallery.store_calibration(
            Calibration(pack.manifest.digest, 0.9123, *rates, "a test", steps=((7, 0.9123),))
        )
    found = line(inspect(box / "config.toml", box, {}), "threshold")
    assert (found.state, found.detail) == (
        "ok",
        "0.9123, measured for this gallery, chosen for at most 7 enrolled",
    )


def test_plans_and_gate_reports_in_the_pack_are_found_and_judged(box, pack):
    shutil.copytree(pack.path, box / "pack")
    (box / "config.toml").write_text(f'pack = "{box}/pack"\n[engine]\nbackend = "openvino"\n')
    key = PlanKey(
        onnx=pack.manifest.face.sha256,
        library="tensorrt",
        version="10.3.0",
        device="Orin",
        capability="8.7",
        precision="fp16",
        dims={"N": 1},
    )
    folder = box / "pack" / "plans" / "tensorrt-fp16"
    write_plan(folder / "face.plan", WholePlan(key, b"payload"))
    write_plan(folder / "detector.plan", WholePlan(key, b"payload"))
    with (folder / "detector.plan").open("r+b") as stream:
        stream.truncate(100)
    write_plan(folder / "old.plan", WholePlan(msgspec.structs.replace(key, onnx="0" * 64), b"payload"))
    (box / "pack" / "gates").mkdir()
    (box / "pack" / "gates" / "openvino-fp32.json").write_text('{"passed": false, "reasons": ["drift"]}')
    facts = inspect(box / "config.toml", box, {})
    problems = {plan.name: plan.problem for plan in facts.plans}
    assert "bytes" in problems["tensorrt-fp16/detector"]
    assert problems["tensorrt-fp16/old"] == "built from another model"
    if probe_cuda().device is None:
        assert "no GPU" in problems["tensorrt-fp16/face"]
    gate = next(each for each in facts.gates if each.backend == "openvino")
    assert gate.asked
    assert gate.problem
    assert line(facts, "gate openvino fp32").state == "fail"


def doctor(box: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", "doctor", "--config", str(box / "config.toml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


def test_the_exit_status_says_whether_the_agent_can_work(box):
    (box / "config.toml").write_text((box / "config.toml").read_text().replace("/dev/video0", "clip.mp4"))
    told = doctor(box, "--json")
    found = json.loads(told.stdout)
    failing = [each for each in found["lines"] if each["state"] == "fail"]
    assert (told.returncode, found["usable"], failing) == (0, True, [])
    (box / "config.toml").write_text("colour = 1")
    told = doctor(box, "--json")
    assert told.returncode == 1
    assert any("colour" in each["detail"] for each in json.loads(told.stdout)["lines"])


def test_one_screen_says_it_all(box):
    told = doctor(box)
    assert len(told.stdout.splitlines()) < 40
    for subject in (
        "OpenCV",
        "camera cabin",
        "CUDA",
        "TensorRT",
        "pack",
        "gallery",
        "disk",
        "engines",
        "agent",
    ):
        assert subject in told.stdout
    assert "→" in told.stdout


def test_a_socket_that_nobody_answers_is_told(box):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(box / "c"))
        silent.listen()
        facts = inspect(box / "config.toml", box, {})
    assert "did not answer" in facts.daemon_problem
    assert line(facts, "agent").state == "warn"


def test_a_health_check_is_one_question(box):
    told = doctor(box, "--running")
    assert told.returncode == 1
    assert "no daemon answers" in told.stderr
