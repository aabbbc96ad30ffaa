"""A tablet on the network: let in by its key, served like a program on the machine, and out when it is revoked."""

import json

import pytest


@pytest.fixture
def network(agent, free_port) -> None:
    """The agent's sockets are TCP ports."""
    agent.network = (f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}")


@pytest.fixture
def tablet(agent, network):
    """The command line somewhere else: it has nothing of the daemon's but its address and its public key."""
    folder = agent.folder / "tablet"
    folder.mkdir()
    other = type(agent)(folder, folder / "config.toml", network=agent.network)
    assert other.run("keys", "new", "tablet", "--folder", str(folder)).returncode == 0
    server = json.loads(agent.run("keys", "list", "--json").stdout)["server"]
    other.configure(more=f"[curve]\nclient_key = '{folder}/tablet.key_secret'\nserver_key = '{server}'")
    return other


def test_a_tablet_is_let_in_records_somebody_and_is_revoked(agent, tablet, daemon):
    process = daemon()
    listening = tablet.start("events", "--topic", "health", "--count", "1")
    key = str(tablet.folder / "tablet.key")
    allowed = agent.run("keys", "allow", key)
    assert (allowed.returncode, allowed.stdout) == (0, "tablet is let in\n"), allowed.stderr
    event = json.loads(listening.stdout.readlines()[-1])
    assert (event["topic"], event["problems"]) == ("health", [])

    recorded = tablet.run("record", "Ada", "--seconds", "2")
    assert recorded.returncode == 0, recorded.stderr
    assert "Ada" in agent.run("gallery", "list").stdout
    here = agent.run("doctor", "--running")  # on the daemon's machine no key is named
    assert here.returncode == 0, here.stderr

    listening = tablet.start("events", "--topic", "identity")
    assert "identity" in listening.stdout.readline()  # at once, though Ada has been known for a while
    assert agent.run("keys", "revoke", "tablet").returncode == 0
    for line in listening.stdout:
        if "does not let us in" in line:
            break
    listening.kill()
    listening.communicate()
    refused = tablet.run("record", "Eve", "--seconds", "1")
    assert (refused.returncode, "does not let us in" in refused.stderr) == (1, True), refused.stderr
    assert process.poll() is None


def test_who_insists_on_an_open_door_is_told_so_in_every_health_event(agent, network, daemon, subscribe):
    subscriber = subscribe("health")
    daemon(more="[curve]\ninsecure = true")
    problems = subscriber.wait_for(topic="health")["problems"]
    assert [problem.split(" ")[0] for problem in problems] == list(agent.network)
    assert all("lets in everybody" in problem and "cabinsense keys" in problem for problem in problems)


def test_without_keys_and_without_insisting_nobody_hears_anything(agent, network, daemon, subscribe):
    subscriber = subscribe("")
    assert agent.run("keys", "list").returncode == 0
    daemon()
    assert agent.run("events", "--count", "3").returncode == 0
    assert list(subscriber.events(1)) == []
