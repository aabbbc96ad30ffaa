"""Keys of the network: kept for their owner alone, never overwritten, and readable by ZeroMQ's other tools."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from agent import curve_keys
from agent.curve_keys import KeysError, Pair
from agent.doorkeeper import ClientList


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_daemons_key_is_made_at_first_and_then_stays(tmp_path):
    folder = tmp_path / "deep" / "curve"
    pair = curve_keys.server_pair(folder)
    assert curve_keys.server_pair(folder) == pair
    assert mode(folder) == 0o700
    assert mode(folder / "server.key_secret") == 0o600
    assert curve_keys.read(folder / "server.key") == Pair(pair.public)
    assert {path.name for path in folder.iterdir()} == {"server.key", "server.key_secret"}


def test_threads_that_make_it_at_once_get_the_same(tmp_path):
    pairs: list[Pair] = []
    together = threading.Barrier(8)

    def make() -> None:
        together.wait()
        pairs.append(curve_keys.server_pair(tmp_path / "curve"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(pairs) == 8
    assert len(set(pairs)) == 1


def test_a_killed_maker_leaves_a_whole_key_or_none(tmp_path):
    """Killed while it makes keys as fast as it can: what bears a key's name is a key."""
    code = (
        "import sys; from pathlib import Path; from agent import curve_keys\n"
        "for i in range(10**6): curve_keys.create(Path(sys.argv[1]), f'n{i}'); print(i, flush=True)"
    )
    maker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    for _ in range(20):
        maker.stdout.readline()
    maker.kill()
    maker.communicate()
    found = [path for path in tmp_path.iterdir() if path.suffix in (".key", ".key_secret")]
    assert len(found) >= 40
    for path in found:
        assert curve_keys.read(path).public


def test_other_tools_read_our_files_and_we_read_theirs(tmp_path):
    public, secret = curve_keys.create(tmp_path, "ours")
    pair = curve_keys.read_secret(secret)
    assert zmq.auth.load_certificate(secret) == (pair.public.encode(), pair.secret.encode())
    assert zmq.auth.load_certificate(public) == (pair.public.encode(), None)
    theirs = zmq.auth.create_certificates(tmp_path, "theirs", metadata={"public-key-of": "nobody"})[1]
    Path(theirs).chmod(0o600)
    read = curve_keys.read_secret(Path(theirs))
    assert (read.public.encode(), read.secret.encode()) == zmq.auth.load_certificate(theirs)


def test_no_key_is_ever_overwritten(tmp_path):
    _, secret = curve_keys.create(tmp_path, "tablet")
    before = secret.read_bytes()
    with pytest.raises(KeysError, match=r"tablet\.key exists"):
        curve_keys.create(tmp_path, "tablet")
    assert secret.read_bytes() == before


def test_a_secret_that_others_may_read_is_not_used(tmp_path):
    _, secret = curve_keys.create(tmp_path, "tablet")
    secret.chmod(0o640)
    with pytest.raises(KeysError, match="others may read this secret"):
        curve_keys.read_secret(secret)


def test_a_secret_is_never_shown():
    pair = curve_keys.new_pair()
    assert pair.secret not in repr(pair)


def test_clients_are_allowed_and_revoked_by_name(tmp_path):
    one, two = curve_keys.new_pair().public, curve_keys.new_pair().public
    curve_keys.allow(tmp_path, "tablet", one)
    curve_keys.allow(tmp_path, "tablet", one)  # again, and that is fine
    curve_keys.allow(tmp_path, "phone", two)
    assert curve_keys.allowed(tmp_path).names == {one: "tablet", two: "phone"}
    assert mode(tmp_path / "allowed") == 0o700
    with pytest.raises(KeysError, match="tablet has another key"):
        curve_keys.allow(tmp_path, "tablet", curve_keys.new_pair().public)
    with pytest.raises(KeysError, match="this key is tablet's already"):
        curve_keys.allow(tmp_path, "copy", one)
    curve_keys.revoke(tmp_path, "tablet")
    assert curve_keys.allowed(tmp_path).names == {two: "phone"}
    with pytest.raises(KeysError, match="no client is called tablet; those that are let in: phone"):
        curve_keys.revoke(tmp_path, "tablet")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../server", "a/b", "a\0b", "x" * 33, "-n", "Ada Lovelace", "ä"]
)
def test_a_name_that_cannot_be_a_files_is_refused(tmp_path, name):
    for act in (
        lambda: curve_keys.create(tmp_path, name),
        lambda: curve_keys.allow(tmp_path, name, curve_keys.new_pair().public),
        lambda: curve_keys.revoke(tmp_path, name),
    ):
        with pytest.raises(KeysError, match="no name for a key"):
            act()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "short", "x" * 39, "x" * 41, "%" * 40, "~" * 40, "é" * 40, '"' * 40])
def test_what_is_no_key_is_never_let_in(tmp_path, key):
    with pytest.raises(KeysError, match="no public key"):
        curve_keys.allow(tmp_path, "tablet", key)
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "tablet.key").write_text(f'curve\n    public-key = "{key}"\n')
    found = curve_keys.allowed(tmp_path)
    assert not found.names
    assert "no public key" in found.problems[0]


def test_halves_that_are_no_pair_are_told(tmp_path):
    file = tmp_path / "mixed.key_secret"
    file.write_text(
        f'curve\n    public-key = "{curve_keys.new_pair().public}"\n'
        f'    secret-key = "{curve_keys.new_pair().secret}"\n'
    )
    with pytest.raises(KeysError, match="no pair"):
        curve_keys.read(file)


def test_the_file_with_the_public_half_is_not_taken_for_the_other(tmp_path):
    public, _ = curve_keys.create(tmp_path, "tablet")
    with pytest.raises(KeysError, match=r"ends in \.key_secret"):
        curve_keys.read_secret(public)
    with pytest.raises(KeysError, match="No such file"):
        curve_keys.read(tmp_path / "none.key")


@given(content=st.binary(max_size=300))
def test_no_file_crashes_the_reader(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.key"
    file.write_bytes(content)
    with pytest.raises(KeysError):
        curve_keys.read(file)


def test_the_list_follows_the_folder(tmp_path):
    clients = ClientList(tmp_path)
    assert clients.now().names == {}
    one, two = curve_keys.new_pair().public, curve_keys.new_pair().public
    curve_keys.allow(tmp_path, "tablet", one)
    assert clients.now().names == {one: "tablet"}
    assert clients.now() is clients.now()  # read only when it has changed
    file = tmp_path / "allowed" / "tablet.key"
    before = file.stat()
    file.write_text(file.read_text().replace(one, two))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert clients.now().names == {two: "tablet"}
    (tmp_path / "allowed").rename(tmp_path / "elsewhere")
    assert clients.now().names == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_folders_owner(tmp_path):
    folder = tmp_path / "curve"
    folder.mkdir(mode=0o700)
    os.chown(folder, 1234, 1234)
    curve_keys.server_pair(folder)
    curve_keys.allow(folder, "tablet", curve_keys.new_pair().public)
    for path in (folder / "server.key_secret", folder / "allowed", folder / "allowed" / "tablet.key"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1234)
