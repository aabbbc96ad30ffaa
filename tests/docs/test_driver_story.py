"""What docs/driver.md shows is what the agent does and takes."""

import subprocess
import sys
from pathlib import Path

from agent.config import parse

DOCS = Path(__file__).parents[2] / "docs"


def test_the_picture_of_a_minute_is_what_the_policy_says_of_it():
    """`python docs/driver_story.py > docs/driver.svg` draws it anew."""
    drawn = subprocess.run(
        [sys.executable, str(DOCS / "driver_story.py")], capture_output=True, text=True, check=True
    )
    assert (DOCS / "driver.svg").read_text() == drawn.stdout


def test_the_configuration_shown_can_be_used():
    shown = (DOCS / "driver.md").read_text().split("```toml\n")[1].split("```")[0]
    driver = parse(f'[[cameras]]\nname = "cabin"\nsource = "0"\n{shown}'.encode(), "x").driver
    assert (driver.side, driver.yaw) == ("right", -12.0)
