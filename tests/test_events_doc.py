"""The event reference is complete, current and true."""

import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
import zmq

from agent.commands.events import Topic
from agent.events import TOPICS, AnyEvent
from agent.events_doc import EXAMPLES, document

DOCS = Path(__file__).parent.parent / "docs" / "events.md"


def test_the_reference_in_the_docs_is_current():
    """`python -m agent.events_doc > docs/events.md` makes it anew."""
    made = subprocess.run(
        [sys.executable, "-m", "agent.events_doc"], capture_output=True, text=True, check=True
    )
    assert DOCS.read_text() == made.stdout


def test_every_field_of_every_topic_is_described():
    text = document()
    for topic, event in TOPICS.items():
        assert f"## `{topic}`" in text
        for field in msgspec.structs.fields(event):
            assert f"| `{field.name}` |" in text
    for line in text.splitlines():
        if line.startswith("| `"):
            assert len(line.split(" | ")[-1].strip(" |")) > 8, line


@pytest.mark.parametrize("topic", TOPICS)
def test_every_example_is_an_event_of_its_topic(topic):
    data = msgspec.json.encode(EXAMPLES[topic])
    decoded = msgspec.json.decode(data, type=AnyEvent)
    assert decoded == EXAMPLES[topic]
    assert msgspec.json.decode(data)["topic"] == topic


def test_the_command_line_knows_every_topic():
    assert [topic.value for topic in Topic] == list(TOPICS)


def test_the_python_lines_in_the_docs_receive_events(tmp_path):
    """What the reference shows to a newcomer is run as it stands, but for the address."""
    lines = DOCS.read_text().split("```python\n")[1].split("```")[0]
    address = f"ipc://{tmp_path}/e"
    assert "ipc:///run/cabinsense/events.sock" in lines
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.linger = 0
        socket.bind(address)
        reader = subprocess.Popen(
            [sys.executable, "-u", "-c", lines.replace("ipc:///run/cabinsense/events.sock", address)],
            stdout=subprocess.PIPE,
        )
        done = threading.Event()

        def publish() -> None:
            while not done.wait(0.02):
                for topic, event in EXAMPLES.items():
                    socket.send_multipart([topic.encode(), msgspec.json.encode(event)])

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            assert b"'change': 'confirmed', 'person': 'Ada'" in reader.stdout.readline()
        finally:
            done.set()
            publisher.join()
            reader.kill()
            reader.communicate()
