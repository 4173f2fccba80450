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
from defense.reporting.tables import ARMS, HEADER, RIVALS, lookup, markdown, metrics, spoken

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
                results.append(read_result(file))
            except (ValueError, KeyError) as error:
                raise InputError("PATH", file, f"not a result of this version of defense ({error!r})") from error
    return results


def read_result(file: Path) -> Result:
    """Return the content of a result.json; raises KeyError or ValueError where it is not one."""
    result: Result = json.loads(file.read_text())
    for field in ("config", "seed", "arms", "overrides", "versions", "device"):
        result[field]
    return result


def group(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Return the results that differ in nothing but their seed, under what they were run with.

    The same run found twice counts once: a seed is one observation however often it was repeated. Runs that
    differ in versions or device are apart, and say so where their command was the same.
    """
    groups: dict[str, dict[str, Result]] = defaultdict(dict)
    for result in results:
        settings = {
            name: value for name, value in result["config"].items() if name not in ("seed", "store", "name")
        }
        key = json.dumps([settings, result["device"], result["versions"]], sort_keys=True)
        groups[key][str(result["seed"])] = result
    labels = [label(next(iter(seeds.values()))) for seeds in groups.values()]
    numbered = [
        f"{name} ({labels[:i].count(name) + 1})" if labels.count(name) > 1 else name
        for i, name in enumerate(labels)
    ]
    return [(name, list(seeds.values())) for name, seeds in zip(numbered, groups.values(), strict=True)]


def label(result: Result) -> str:
    """Return the overrides that a run was started with, without its seed."""
    return " ".join(part for part in result["overrides"] if not part.startswith("seed=")) or "default"


def summary(results: Sequence[Result]) -> str:
    """Return Markdown: for every group its verdict over seeds and its table of arms."""
    from defense.reporting.statistics import judged, paired_difference  # SciPy: not for --help

    parts = []
    for name, runs in group(results):
        rows = []
        for metric in metrics(runs[0]["arms"]["baseline"]):
            arms = {arm: [lookup(run["arms"][arm], metric) for run in runs] for arm in ARMS}
            gain = paired_difference(arms["defended"], arms["control"])
            means = [f"{sum(values) / len(values):.1f}" for values in arms.values()]
            rows.append((spoken(metric), *means, str(gain)))
            if metric == "adaptive.worst":
                verdict = judged(gain, rival=RIVALS[runs[0]["config"]["treatment"]["name"]])
        parts.append(f"## {name}\n\n{verdict}\n\n{markdown(HEADER, rows)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
