"""systemd/install.sh into a folder: what lies where, what a second time changes, what uninstalling leaves."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "systemd"
INSTALLED = {
    "opt/cabinsense/uninstall.sh": 0o755,
    "usr/local/bin/cabinsense": 0o755,
    "usr/local/lib/modules-load.d/cabinsense.conf": 0o644,
    "usr/local/lib/systemd/system/cabinsense.service": 0o644,
    "usr/local/lib/sysusers.d/cabinsense.conf": 0o644,
    "usr/local/lib/tmpfiles.d/cabinsense.conf": 0o644,
    "usr/local/lib/udev/rules.d/70-cabinsense.rules": 0o644,
}
CONFIG = "etc/cabinsense/config.toml"
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def wheel_that_says(words: str, folder: Path) -> Path:
    """A wheel of the agent's name and form; a real one would need the packages that it depends on."""
    folder.mkdir()
    about = "cabinsense-0.1.0.dist-info"
    files = {
        "agent/__init__.py": "",
        "agent/cli.py": f"def main():\n    print({words!r})\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: cabinsense\nVersion: 0.1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": "[console_scripts]\ncabinsense = agent.cli:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    path = folder / "cabinsense-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in (files | {f"{about}/RECORD": record}).items():
            wheel.writestr(name, text)
    return path


def run(script: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FOLDER / script, "--root", root, *arguments],
        env=ENVIRONMENT | {"PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def install(root: Path, wheel: Path, *arguments: str) -> None:
    done = run("install.sh", root, "--python", sys.executable, "--wheel", str(wheel), *arguments)
    assert done.returncode == 0, done.stderr


def files_in(root: Path) -> dict[str, int]:
    """Files and their modes, but for those of the environment."""
    return {
        str(path.relative_to(root)): path.stat().st_mode & 0o777
        for path in root.rglob("*")
        if path.is_file() and "venv" not in path.parts
    }


def says(root: Path) -> str:
    """What the installed command says, from where it lies now."""
    venv = root / "opt/cabinsense/venv"
    code = (venv / "bin/cabinsense").read_text()
    return subprocess.run(
        [venv / "bin/python", "-I", "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> Path:
    """Installed once, edited, used, and installed again as a newer version."""
    folder = tmp_path_factory.mktemp("board")
    root = folder / "root"
    install(root, wheel_that_says("old", folder / "old"))
    assert says(root) == "old"
    assert files_in(root) == INSTALLED | {CONFIG: 0o640}
    (root / CONFIG).write_text("# mine")
    gallery = root / "var/lib/cabinsense/gallery.db"
    gallery.parent.mkdir(parents=True)
    gallery.write_text("faces")
    install(root, wheel_that_says("new", folder / "new"), "--with", "network", "--with", "jtop")
    return root


def test_a_newer_version_takes_the_place_of_the_old_one_though_it_has_the_same_number(life):
    assert says(life) == "new"


def test_configuration_and_gallery_stay_as_they_are(life):
    assert (life / CONFIG).read_text() == "# mine"
    assert (life / "var/lib/cabinsense/gallery.db").read_text() == "faces"


def test_drop_ins_that_were_asked_for_lie_where_systemd_looks(life):
    folder = life / "etc/systemd/system/cabinsense.service.d"
    assert sorted(path.name for path in folder.iterdir()) == ["jtop.conf", "network.conf"]


def test_what_is_installed_does_not_know_the_folder_that_it_was_staged_in(life):
    venv = life / "opt/cabinsense/venv"
    scripts = [path for path in [*(venv / "bin").iterdir(), venv / "pyvenv.cfg"] if not path.is_symlink()]
    assert scripts
    assert not [path for path in scripts if os.fsencode(life) in path.read_bytes()]
    assert (venv / "bin/cabinsense").read_text().startswith("#!/opt/cabinsense/venv/bin/python")


def test_the_installed_command_line_works_on_the_files_of_the_service(life):
    """As far as text goes: its paths are absolute."""
    unit = (life / "usr/local/lib/systemd/system/cabinsense.service").read_text()
    command = (life / "usr/local/bin/cabinsense").read_text()
    (state,) = re.findall(r"^StateDirectory=(.*)$", unit, flags=re.MULTILINE)
    (runtime,) = re.findall(r"^RuntimeDirectory=(.*)$", unit, flags=re.MULTILINE)
    assert f"CABINSENSE_DATA=/var/lib/{state}}}" in command
    assert f"RUNTIME_DIRECTORY=/run/{runtime}}}" in command


def test_the_unit_starts_the_program_that_is_installed(life):
    unit = (life / "usr/local/lib/systemd/system/cabinsense.service").read_text()
    (program,) = re.findall(r"^ExecStart=(\S+)", unit, flags=re.MULTILINE)
    assert os.access(life / program.lstrip("/"), os.X_OK)


def test_uninstalling_leaves_configuration_and_gallery_and_purging_leaves_nothing(life):
    """Last, for it takes away what the other tests look at."""
    done = run("uninstall.sh", life)
    assert done.returncode == 0, done.stderr
    assert files_in(life).keys() == {
        CONFIG,
        "var/lib/cabinsense/gallery.db",
        "etc/systemd/system/cabinsense.service.d/jtop.conf",
        "etc/systemd/system/cabinsense.service.d/network.conf",
    }
    assert not (life / "opt/cabinsense").exists()
    done = run("uninstall.sh", life, "--purge")
    assert done.returncode == 0, done.stderr
    assert not files_in(life)


def test_from_a_checkout_it_takes_what_is_there_now_and_leaves_nothing_in_it(tmp_path):
    """pip builds in place: root's files would stay, and those of an earlier build find their way into the next."""
    checkout, root = tmp_path / "checkout", tmp_path / "root"
    for name in ("agent", "calibration", "engines", "trainer", "systemd"):
        shutil.copytree(FOLDER.parent / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(FOLDER.parent / name, checkout)
    (checkout / "build/lib/agent").mkdir(parents=True)
    (checkout / "build/lib/agent/of_last_year.py").touch()
    before = sorted(checkout.rglob("*"))
    done = subprocess.run(
        [checkout / "systemd/install.sh", "--root", root, "--python", sys.executable],
        env=ENVIRONMENT | {"PIP_NO_DEPS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (agent,) = root.glob("opt/cabinsense/venv/lib/python*/site-packages/agent")
    assert (agent / "cli.py").read_text() == (FOLDER.parent / "agent/cli.py").read_text()
    assert not (agent / "of_last_year.py").exists()
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("target", ["install", "uninstall"])
def test_who_is_not_root_is_told_so_and_nothing_is_done(target):
    def as_nobody(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd="/",
            user=65534,
            group=65534,
            extra_groups=[],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )

    if as_nobody("test", "-x", FOLDER / "install.sh").returncode:
        pytest.skip("this checkout is for root alone")
    done = as_nobody("make", "--directory", FOLDER.parent, target)
    assert done.returncode
    assert "error: this needs root" in done.stderr


@pytest.mark.parametrize("path", [*INSTALLED, CONFIG], ids=lambda path: Path(path).name)
def test_the_documentation_says_where_each_file_lies(path):
    assert f"`/{path}`" in (FOLDER.parent / "docs/service.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--with", "everything"), "there is no drop-ins/everything.conf"),
        (("--quickly",), "--quickly is no option"),
        (("--wheel",), "--wheel needs a value"),
    ],
)
def test_what_it_does_not_understand_it_says_before_it_does_anything(arguments, told, tmp_path):
    done = run("install.sh", tmp_path / "root", *arguments)
    assert done.returncode == 1
    assert told in done.stderr
    assert not (tmp_path / "root" / "opt").exists()


def test_help_lists_every_option():
    told = subprocess.run([FOLDER / "install.sh", "--help"], capture_output=True, text=True, check=True)
    for option in ("--with", "--extras", "--wheel", "--python", "--system-packages", "--root"):
        assert re.search(rf"^ +{option} ", told.stdout, flags=re.MULTILINE), option
