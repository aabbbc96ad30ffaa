"""Mend the published type stubs of TensorRT in the folder given: they were generated and are not valid Python.

Some parameters are called ``in``, one without a default follows others that have one, and the data type that TensorRT
calls ``bool`` hides Python's.
"""

import re
import sys
from pathlib import Path

_MENDS = (
    (re.compile(r"\bin: "), "in_: "),
    (re.compile(r"(, channel_axis: int)\)"), r"\1 = ...)"),
    (re.compile(r"(-> |: |\[|\| )bool\b"), r"\1_python.bool"),
)
_CODE = re.compile(r"\s*(def |\w+: )")

for file in Path(sys.argv[1]).glob("tensorrt*/**/*.pyi"):
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines):
        if _CODE.match(line):
            for fault, cure in _MENDS:
                lines[number] = fault.sub(cure, lines[number])
    future = "from __future__ import annotations\n"
    text = "".join(lines).replace(future, f"{future}import builtins as _python\n", 1)
    file.write_text(text, encoding="utf-8")
