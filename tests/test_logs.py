"""Where the log goes, and what each entry carries."""

import logging
import os
import subprocess
import sys
import threading

from agent.logs import JournalHandler, PriorityFormatter, is_journal

LOG = (
    "import logging; from agent import logs; logs.configure('info'); logging.getLogger('x').warning('a\\nb')"
)


def test_an_entry_of_the_journal_names_stage_camera_and_priority_and_holds_no_arguments():
    entries: list[tuple[str, dict]] = []
    handler = JournalHandler(lambda message, **fields: entries.append((message, fields)))
    log = logging.getLogger("test_logs")
    log.addHandler(handler)
    try:
        speaker = threading.Thread(
            name="camera cabin (may hang)", target=lambda: log.warning("gone", extra={"camera": "cabin"})
        )
        speaker.start()
        speaker.join()
        log.error("somebody %s", "else", extra={"stage": "control"})
        log.critical("from the main thread")
    finally:
        log.removeHandler(handler)
    (_, first), (message, second), (_, third) = entries
    assert (first["STAGE"], first["CAMERA"], first["PRIORITY"]) == ("camera cabin", "cabin", 4)
    assert (message, second["STAGE"], second["PRIORITY"]) == ("somebody else", "control", 3)
    assert "CAMERA" not in second
    assert ("STAGE" in third, third["PRIORITY"], third["SYSLOG_IDENTIFIER"]) == (False, 2, "cabinsense")
    assert not {"args", "ARGS", "CODE_ARGS"} & second.keys()


def test_without_systemd_python_each_line_has_its_priority_before_it():
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "one\ntwo", (), None)
    assert PriorityFormatter().format(record) == "<4>one\n<4>two"


def test_the_journal_is_known_by_device_and_inode(tmp_path):
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        found = os.fstat(journal.fileno())
        environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(journal, environment)
        assert not is_journal(other, environment)
        assert not is_journal(journal, {})
    assert not is_journal(journal, environment)  # closed


def test_a_process_writes_for_people_where_nobody_said_journal():
    done = subprocess.run([sys.executable, "-c", LOG], capture_output=True, text=True, check=True)
    assert "WARNING" in done.stderr
    assert "<4>" not in done.stderr
