"""The life of an installation: a newer version over it, its key handed over by systemd, and its end."""

import json

import pytest

_INSTALL = "PIP_NO_INDEX=1 /opt/rig/systemd/install.sh --system-packages --extras gpio --wheel /opt/rig/*.whl"
_KEY = "/var/lib/cabinsense/gallery.key"
_HANDED_OVER = "/etc/cabinsense/gallery.key"
_DROP_INS = "/etc/systemd/system/cabinsense.service.d"


@pytest.fixture
def lived_in(car):
    """A service that somebody uses: a person is enrolled, a tablet let in, the configuration edited."""
    if "Ada" not in car.disk()["people"]:
        car.enrol("Ada")
        car.run(
            "cd $(mktemp --directory) && cabinsense keys new tablet && cabinsense keys allow tablet.key && "
            "echo '# mine' >>/etc/cabinsense/config.toml"
        )
    return car


def belongings(car) -> list[str]:
    """Configuration and keys: what is in them, whose they are, and who may read them."""
    found = car.run(
        f"find /etc/cabinsense {_KEY} /var/lib/cabinsense/curve -type f -printf '%p %u %g %m ' "
        "-execdir sha256sum {} ';'"
    )
    return sorted(found.splitlines())


def test_a_newer_version_leaves_gallery_configuration_keys_and_journal_as_they_are(lived_in):
    car = lived_in
    people, kept, pid = car.disk()["people"], belongings(car), car.service("MainPID")["MainPID"]
    assert len(kept) >= 3
    journal = "journalctl --no-pager --quiet --unit cabinsense"
    told = car.run(journal)
    car.run(_INSTALL)
    car.wait_for("the service", car.is_ready)
    assert car.service("MainPID") != {"MainPID": pid}
    assert car.disk()["people"] == people
    assert belongings(car) == kept
    assert told
    assert car.run(journal).startswith(told)


@pytest.fixture
def handed_over(lived_in):
    """The service with the drop-in for the key, as docs/gallery.md tells; taken back afterwards."""
    lived_in.run(
        f"install --mode 0600 {_KEY} {_HANDED_OVER} && mkdir -p {_DROP_INS} && "
        f"cp /opt/rig/systemd/drop-ins/gallery-key.conf {_DROP_INS} && systemctl daemon-reload && "
        f"systemctl restart cabinsense && mv {_KEY} /root/"
    )
    lived_in.wait_for("the service", lived_in.is_ready)
    yield lived_in
    lived_in.run(
        f"mv /root/gallery.key {_KEY}; rm {_DROP_INS}/gallery-key.conf {_HANDED_OVER}; "
        "systemctl daemon-reload && systemctl restart cabinsense"
    )


def test_systemd_hands_over_the_key_which_the_services_user_cannot_read_from_the_disk(handed_over):
    car = handed_over
    car.run("systemctl restart cabinsense")  # now that the key is nowhere else
    car.enrol("Grace")
    assert car.machine.try_to(f"runuser --user cabinsense -- cat {_HANDED_OVER}").status
    told = car.run(
        f"systemd-run --quiet --pipe --wait --uid cabinsense -p LoadCredential=cabinsense-gallery-key:{_HANDED_OVER} "
        f"{car.interpreter.replace('env', '/usr/bin/env', 1)} /opt/rig/inside/check.py"
    )
    assert {"Ada", "Grace"} <= json.loads(told)["people"].keys()
    assert car.machine.try_to(f"test -e {_KEY}").status


@pytest.fixture
def about_to_go(lived_in):
    """The environment, which cannot be made in the guest, is kept aside, and all is made as it was afterwards."""
    lived_in.run("cp --archive --link /opt/cabinsense/venv /root/")
    yield lived_in
    lived_in.run(
        "systemctl stop cabinsense; rm -rf /opt/cabinsense /etc/cabinsense /var/lib/cabinsense && "
        f"mkdir /opt/cabinsense && mv /root/venv /opt/cabinsense/ && {_INSTALL} && sh /opt/rig/inside/set-up.sh"
    )


def test_uninstalling_leaves_the_data_and_purging_leaves_nothing(about_to_go):
    car = about_to_go
    people, kept = car.disk()["people"], belongings(car)
    car.run("/opt/cabinsense/uninstall.sh")
    assert car.machine.try_to("systemctl is-active cabinsense").output == "inactive\n"
    assert car.service("LoadState") == {"LoadState": "not-found"}
    assert belongings(car) == kept
    assert car.machine.try_to("test -e /opt/cabinsense -o -e /usr/local/bin/cabinsense").status == 1

    car.run(f"mkdir /opt/cabinsense && cp --archive --link /root/venv /opt/cabinsense/ && {_INSTALL}")
    car.run("systemctl start --no-block cabinsense")
    car.wait_for("the service", car.is_ready)
    assert car.disk()["people"] == people

    car.run("/opt/cabinsense/uninstall.sh --purge")
    folders = "/opt/cabinsense /etc/cabinsense /var/lib/cabinsense /run/cabinsense"
    assert car.run(f"ls -d {folders} 2>/dev/null; getent passwd cabinsense; true") == ""
