"""`sftkey doctor` without Axolotl and without an installation: torch, transformers and accelerate are enough.

    python tests/gpu/run.py --json out.json

README.md beside this file says what is tried and what the exit codes are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins"))

from sftkey.recipes.measurement import to_measure
from sftkey.training.doctor.checks import chosen
from sftkey.training.doctor.run import BUDGET, examine
from sftkey.training.doctor.sizes import SIZES
from sftkey.training.doctor.tables import text
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from sftkey.util.text import visible


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, after every check")
    parser.add_argument("--only", metavar="NAMES", help="these checks, separated by commas")
    parser.add_argument("--list", action="store_true", help="list the checks and run none")
    parser.add_argument("--size", choices=list(SIZES), help="size of the model; default: the largest for this GPU")
    parser.add_argument("--recipe", action="append", default=[], help="measure this recipe's memory; may be repeated")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything (default %(default).0f)")
    options = parser.parse_args()
    try:
        checks = chosen(options.only)
        if options.list:
            print("\n".join(f"{check.name:14} {check.what} ({check.needs})" for check in checks))
            return 0
        report = examine(
            checks,
            size=options.size,
            budget=options.budget,
            recipes=to_measure(options.recipe),
            progress=lambda line: print(line, file=sys.stderr, flush=True),
            save=lambda report: write_atomically(options.json, report) if options.json else None,
        )
    except UserError as error:
        print(f"Error: {visible(str(error))}", file=sys.stderr)
        return 1
    print(visible(text(report)))
    return int(report["verdict"]["code"])


if __name__ == "__main__":
    sys.exit(main())
