"""Words for people."""


def counted(number: int, one: str, many: str = "") -> str:
    """``number`` with what is counted: ``1 sample``, ``2 samples``; ``many`` where that is not ``one`` and an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
