"""``cabinsense events``: print what the daemon publishes."""

from enum import Enum
from typing import Annotated

import typer

from agent.commands.config import FileOption


class Topic(str, Enum):
    """The topics, for the command line; a test compares them with ``agent.events.TOPICS``."""

    FACE = "face"
    IDENTITY = "identity"
    EMOTION = "emotion"
    DRIVER = "driver"
    ENROLLMENT = "enrollment"
    ADAPTATION = "adaptation"
    HEALTH = "health"


def events(
    topic: Annotated[
        list[Topic] | None,
        typer.Option("--topic", "-t", help="Only this topic; may be repeated.", show_default=False),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", "-e", help="ZeroMQ address; else that of the configuration.", show_default=False
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="End after so many events.", min=1, show_default=False)
    ] = None,
    config: FileOption = None,
) -> None:
    """Print events as JSON, one a line, until Ctrl-C. Says on stderr when some were missed or none come."""
    from itertools import islice

    from agent.config import load
    from agent.listening import listen

    settings = load(config)
    topics = [each.value for each in topic or ()]
    heard = listen(
        endpoint or settings.events_endpoint,
        topics,
        lambda text: typer.echo(text, err=True),
        settings.curve,
    )
    try:
        for line in islice(heard, count):
            typer.echo(line)  # echo flushes: who reads the lines gets each at once
    except KeyboardInterrupt:
        pass  # the usual way to end it
    finally:
        heard.close()
