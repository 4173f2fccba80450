"""The command `defense-report`: sum up the runs of a sweep, seeds folded into means with intervals."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defense.errors import InputError
from defense.reporting.tables import ARMS, HEADER, lookup, markdown, metrics, spoken

Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a person can mend is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="defense-report", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folder of a sweep, or of runs")
    try:
        text = summary(find_results(parser.parse_args(arguments).paths))
    except InputError as error:
        print(f"defense-report: {error}", file=sys.stderr)
        sys.exit(2)
    print(text)


def find_results(paths: Sequence[Path]) -> list[Result]:
    """Return the content of every result.json below `paths`; raises InputError where there is none."""
    results = []
    for path in paths:
        if not path.is_dir():
            raise InputError(
                "PATH", path, "no such folder; expected the folder of a sweep, as in runs/<name>/<time>"
            )
        files = sorted(path.rglob("result.json"))
        if not files:
            raise InputError("PATH", path, "no result.json below it; no run has finished there")
        for file in files:
            try:
                results.append(json.loads(file.read_text()))
            except ValueError as error:
                raise InputError("PATH", file, f"not a readable result ({error})") from error
    return results


def group(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results that differ in nothing but their seed, by what they were run with.

    The same run found twice counts once: a seed is one observation however often it was repeated.
    """
    groups: dict[str, dict[str, Result]] = defaultdict(dict)
    labels: dict[str, str] = {}
    for result in results:
        settings = {
            name: value for name, value in result["config"].items() if name not in ("seed", "store", "name")
        }
        key = json.dumps([settings, result["device"]], sort_keys=True)
        labels[key] = " ".join(part for part in result["overrides"] if not part.startswith("seed=")) or "default"
        groups[key][str(result["seed"])] = result
    return {labels[key]: list(seeds.values()) for key, seeds in groups.items()}


def summary(results: Sequence[Result]) -> str:
    """Return Markdown: for every group its verdict over seeds and its table of arms."""
    from defense.reporting.statistics import judged, paired_difference  # SciPy: not for --help

    parts = []
    for label, runs in group(results).items():
        rows = []
        for metric in metrics(runs[0]["arms"]["baseline"]):
            arms = {arm: [lookup(run["arms"][arm], metric) for run in runs] for arm in ARMS}
            gain = paired_difference(arms["defended"], arms["control"])
            means = [f"{sum(values) / len(values):.1f}" for values in arms.values()]
            rows.append((spoken(metric), *means, str(gain)))
            if metric == "adaptive.worst":
                verdict = judged(gain, over=f"{len(runs)} seeds" if len(runs) > 1 else "one seed")
        parts.append(f"## {label}\n\n{verdict}\n\n{markdown(HEADER, rows)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
