"""Licences of what is installed with bkcodec: python scripts/licences.py [EXTRA ...].

Prints a table of everything that bkcodec needs, directly and indirectly, and of what the extras
need besides, as far as it is installed here. docs/licences.md has one.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LONGEST = 100  # characters of a licence's name; what is longer is a text
NO_NAME = re.compile("copyright|agreement|unknown|^=+$", re.IGNORECASE)


def needs(name: str, extras: set[str]) -> list[Requirement]:
    """What a package requires on this machine, with some of its extras."""
    chosen = []
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            chosen.append(requirement)
    return chosen


def closure(extras: set[str]) -> set[str]:
    """Names of all packages that are needed."""
    found: set[str] = set()
    waiting = [("bkcodec", frozenset(extras))]
    seen = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        try:
            requirements = needs(name, set(wanted))
        except PackageNotFoundError:
            print(f"not installed: {name}", file=sys.stderr)
            continue
        found.add(name)
        for requirement in requirements:
            entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if entry not in seen:
                seen.add(entry)
                waiting.append(entry)
    return found - {"bkcodec"}


def licence(name: str) -> str:
    """As its metadata has it."""
    metadata = distribution(name).metadata
    expression = metadata["License-Expression"]
    classified = [
        c.rpartition(" :: ")[2]
        for c in metadata.get_all("Classifier") or []
        if c.startswith("License :: ")
    ]
    free = (metadata["License"] or "").strip().splitlines()
    if expression:
        return str(expression)
    if free and len(free[0]) <= LONGEST and not NO_NAME.search(free[0]):
        return str(free[0])
    return ", ".join(classified) or "see its distribution"


def table(names: set[str]) -> None:
    print("| package | licence |\n|---|---|")
    for name in sorted(names):
        print(f"| {name} | {licence(name)} |")


def main() -> None:
    plain = closure(set())
    print("## bkcodec\n")
    table(plain)
    done = set(plain)
    for extra in sys.argv[1:]:
        more = closure({extra}) - done
        done |= more
        if more:
            print(f"\n## Besides, with `{extra}`\n")
            table(more)


if __name__ == "__main__":
    main()
