"""Makes the C library two files that any build takes in, irs.c and irs.h.

    python amalgamate.py FOLDER

The irs.c beside this script includes all sources of the library. Here, every such include is
replaced by the file that it names. Nothing else changes: frames are the same.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIST = HERE / "irs.c"
HEADER = HERE / "include" / "irs.h"
HEAD = """\
/* SPDX-License-Identifier: Apache-2.0
 *
 * irsplit: the whole C library in one file, made by amalgamate.py. Its manual is irs.h.
 */
#define IRS_ONE_FILE 1

#include "irs.h"
"""
_INCLUDE = re.compile(r'#include "([^"]+)"')
_GUARD = re.compile(r"^#ifndef (IRS_\w+_H)\n#define \1\n", re.MULTILINE)


def amalgamate() -> str:
    """The text of an irs.c that includes nothing of the library but irs.h."""
    sources = _INCLUDE.findall(LIST.read_text(encoding="utf-8"))
    present = {HEADER}
    return HEAD + "".join(_expanded(HERE / source, present, certain=True) for source in sources)


def _expanded(path: Path, present: set[Path], certain: bool) -> str:
    """The text of a file with its includes replaced, under a line that names it.

    `present` are the files with a guard that every build has seen by now, which are not repeated.
    A file that is included for some machines only is not `certain`, nor is what it includes.
    """
    if path in present:
        return ""

    text = path.read_text(encoding="utf-8")
    guards = len(_GUARD.findall(text))
    if guards and certain:
        present.add(path)

    lines: list[str] = [f"\n/* ==== {path.relative_to(HERE).as_posix()} ==== */\n\n"]
    conditions = -guards
    for line in text.splitlines(keepends=True):
        include = _INCLUDE.match(line)
        if include is None:
            conditions += line.startswith("#if")
            conditions -= line.startswith("#endif")
            lines.append(line)
        elif include[1] != HEADER.name:
            included = (path.parent / include[1]).resolve()
            lines.append(_expanded(included, present, certain and conditions == 0))
    return "".join(lines)


def write(folder: Path) -> None:
    """Writes irs.c and irs.h into a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "irs.c").write_text(amalgamate(), encoding="utf-8")
    (folder / "irs.h").write_bytes(HEADER.read_bytes())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: amalgamate.py FOLDER")
    write(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: irs.c and irs.h")
