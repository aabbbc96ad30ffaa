"""``python -m agent`` is ``cabinsense``."""

from agent.cli import main

if __name__ == "__main__":
    main()
