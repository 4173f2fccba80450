"""Do two versions of the project compute the same numbers? A refactoring runs this before and after each step.

    python -m tests.same_numbers REF          compare the working tree with the commit REF, bit for bit
    python -m tests.same_numbers REF -k table      the cells whose names contain a text
    python -m tests.same_numbers REF --keep FOLDER      leave the runs of both there

Both compute the same cells, one thread each, side by side. Compared are the numbers of every result.json, every
tensor and every column that a stage stored, tables of pages, and what the functions of the library return. Names
and versions of stages, keys, seconds and texts are not. Settings and labels that were renamed since REF are
translated by `RENAMINGS`, which also lists numbers that are meant to differ, each with its reason.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UNCOMPARED = (  # fields of result.json: names, places and times, not numbers that a stage has computed
    "config", "versions", "overrides", "keys", "reused", "seconds", "report_seconds", "verdict", "reason",
)  # fmt: skip
LIBRARY = "library"  # the cell of the functions that a notebook calls

SMALL = [
    "data.train_size=90", "data.validation_size=30", "data.test_size=40", "model.hidden=[8]", "train.epochs=3",
    "evaluation.checked=10", "evaluation.attacks.pgd.steps=2", "evaluation.attacks.apgd_t.steps=2",
]  # fmt: skip
DIGITS = ["data=digits", *SMALL]
MOONS = ["data=moons", *SMALL]
TABLE = ["data=table", "data.path=inputs/table.csv", "data.target=income", "data.sensitive=sex", *SMALL]
REPAIRED = [*TABLE, "task=repair", "objective=demographic_parity"]
TEXT = [
    "data=text", "data.path=inputs/train.tsv", "data.test_path=inputs/test.tsv", "data.tokenizer=inputs/encoder",
    "data.length=10", "data.validation_size=20", "model=lora", "model.layers=1", "model.adapted=1",
    "train.epochs=1", "task=repair", "objective=utility",
]  # fmt: skip
SCORERS = {
    "lissa": ["scorer.iterations=5"],
    "influence_function": ["scorer.iterations=5"],
    "ip_ensemble": ["scorer.count=3"],
    "ip_gaussian": ["scorer.count=2"],
    "confident_learning": ["scorer.folds=2"],
    "own": ["scorer._target_=inputs.my_parts.alignment", "objective._target_=inputs.my_parts.margin"],
    "file": ["scorer.path=inputs/scores.csv"],
}
ATTACKS = {
    "fgsm": [], "pgd": [], "apgd_ce": [], "apgd_t": [], "fab_t": [], "square": ["attack.queries=20"], "cw": [],
    "deepfool": [], "autoattack": ["attack.queries=20"], "pma": [],
    "own": ["attack._target_=inputs.my_parts.ascent"],
}  # fmt: skip
ALL_ATTACKS = [
    f"+evaluation.attacks.{name}={{name: {name}, steps: 2, queries: 20, restarts: 2}}"
    for name in ATTACKS
    if name not in ("fgsm", "pgd", "apgd_t", "pma", "own")
]
FEW_STEPS = [f"evaluation.attacks.{name}.steps=2" for name in ("apgd_ce", "pma")]
SPEED = [
    "+scorer@speed.scorers.datainf=datainf", "speed.works=[[16, 8]]", "speed.rounds=1", "speed.peers=[]",
    "speed.seconds=0.1", "objective=utility", "fabric.accelerator=cpu",
]  # fmt: skip


def cells() -> dict[str, list[str]]:
    """Return the arguments of every cell by name, in the settings of the working tree."""
    scorers = sorted(file.stem for file in (ROOT / "conf/scorer").glob("*.yaml"))
    found = {
        f"scorer-{name}": [*DIGITS, "task=detect", f"scorer={name}", *SCORERS.get(name, [])] for name in scorers
    }
    for name, words in ATTACKS.items():
        found[f"attack-{name}"] = [*DIGITS, "task=detect", f"attack={name}", "attack.steps=2", *words]
    for name in ("remove", "relabel", "reweight"):
        found[f"treatment-{name}"] = [*DIGITS, f"treatment={name}"]
    found["treatment-own"] = [*DIGITS, "treatment=own", "treatment._target_=inputs.my_parts.correct_or_drop"]
    more = ["treatment=optimize", "treatment.rounds=2", "data.validation_size=50"]
    found["treatment-optimize"] = [*DIGITS, *more]
    for name in ("standard", "adversarial", "fast", "trades"):
        words = [f"train={name}", "train.attack_steps=2", "train.crop=1", "train.flip=true"]
        found[f"recipe-{name}"] = [*DIGITS, "task=detect", "scorer=loss", *words]
    found["recipe-none"] = [*DIGITS, "task=detect", "train=none", "model.weights=inputs/mlp.safetensors"]
    for name in ("none", "symmetric", "pair", "trigger", "boundary", "poison", "hypocritical"):
        found[f"harm-{name}"] = [*DIGITS, f"data.harm={name}", "data.harm_rate=0.1", "evaluation.checked=0"]
    return found | {
        "attacks-all": [*DIGITS, "data.test_size=20", "model=cnn", "~model.hidden", *ALL_ATTACKS],
        "suite-fast": [*DIGITS, "data.test_size=20", "evaluation=fast", *FEW_STEPS],
        "attacks-l2": [*DIGITS, "threat.norm=L2", "threat.eps=0.5"],
        "auto": [*DIGITS, "treatment.budget=auto", "treatment.budgets=[0.1]", "treatment.names=[remove,reweight]"],
        "averaged": [*DIGITS, "task=detect", "train.ema=0.5", "train.keep=clean"],
        "balanced": [*DIGITS, "treatment.balance=class", "evaluation.checked=0"],
        "below-a-threshold": [*DIGITS, "treatment.threshold=-0.4", "evaluation.checked=0"],
        "proxy": [*DIGITS, "scorer.proxy=fast", "scorer.seeds=2"],
        "attacked-train": [*DIGITS, "task=detect", "scorer.attacked_train=true", "scorer.parameters='*weight'"],
        "weighted": [*DIGITS, "task=detect", "objective=weighted"],
        "bfloat16": [*DIGITS, "task=detect", "fabric.precision=bf16-mixed"],
        "converged": [*MOONS, "~model.hidden", "model=logistic", "train=converged", "train.epochs=50"],
        "moons": [*MOONS, "evaluation.checked=0"],
        "blobs": [*MOONS, "data=blobs", "task=detect"],
        "halves": [*DIGITS, "task=faithfulness", "faithfulness.count=4", "faithfulness.targets=2"],
        "left-out": [
            *MOONS,
            "task=faithfulness",
            "faithfulness.subsets=leave_one_out",
            "faithfulness.count=3",
            "scorer=datainf",
        ],
        "evade": [*MOONS, "task=evade", "evade.shares=[0.1,0.3]"],
        "order": [*MOONS, "task=order", "scorer=datainf", "order.dampings=[0.1,1]"],
        "order-cg": [*DIGITS, "task=order", "order.reference=cg", "order.dampings=[0.1]", "scorer.iterations=5"],
        "speed": [*DIGITS, "task=speed", *SPEED],
        "table": [*TABLE, "threat.eps=0.05", "data.harm=symmetric"],
        "repair-table": REPAIRED,
        "repair-opportunity": [*REPAIRED, "objective=equal_opportunity", "treatment=relabel"],
        "pictures": [
            "data=npz", "data.path=inputs/pictures.npz", "data.validation_size=20", "model=resnet18",
            "train.epochs=1", "task=detect", "data.train_labels=train_y_noisy",
        ],
        "text": TEXT,
        "text-given": [
            *TEXT, "data.given_path=inputs/given.json", "data.given_key=sst2", "data.given_text=[sentence]",
        ],
        "sweep": ["-m", *DIGITS, "evaluation.checked=0", "scorer=ip,random", "seed=1,2"],
    }  # fmt: skip


@dataclass(frozen=True)
class Renaming:
    """Names and numbers that differ in every commit up to and including `last`, beside the working tree."""

    last: str
    # each by a regular expression of the name of today
    overrides: dict[str, str] = field(default_factory=dict)  # the word of before
    names: dict[str, str] = field(default_factory=dict)  # of a number: that of before
    differ: dict[str, str] = field(default_factory=dict)  # of a number, as cell/name: why it may differ


UNSEEING = r"scorer-(\w*loss|random|oracle|self_influence|confident\w+)"  # cells that look at no objective
RENAMINGS = [
    Renaming(
        "df2ee47",
        names={r"^([^/]+)/control(?=[_/])": r"\1/treat_control"},
        differ={
            r".*per_sample\.parquet/name": "samples have names since, beside their ids",
            r".*tables/cells\.csv/\d+/label": "the table of cells has the labels of the page since",
            rf"({UNSEEING}|recipe-\w+)/\./attack_val.*": "validation is attacked only if something looks at it",
        },
    ),
    Renaming(
        "9fe007c",
        overrides={
            "attack=pma": "attack=pgd",
            "evaluation=fast": "evaluation=standard",
            r"evaluation\.attacks\.pma\.steps=2": "seed=0",
        },
        differ={
            "(attack-pma|suite-fast)/.*": "there was no such attack",
            "attack-fab_t/.*": "fab_t ends at the first mistake within eps, not at the nearest one",
            r"attacks-l2/\./check_.*/samples/rise": "small directions in L2 are scaled, lest they be 0",
        },
    ),
    Renaming(
        "fd2c26c",
        overrides={"scorer=metagradient": "scorer=ip", "data.harm=hypocritical": "data.harm=none"},
        differ={
            "scorer-metagradient/.*": "there was no such scorer",
            "harm-hypocritical/.*": "there was no such harm",
            r".*trusted.*": "the trusted arm is new",
            r".*per_sample\.parquet/.*": "the trusted arm has rows of its own",
            r"(halves|left-out)/.*(faithfulness|retrain).*": "validation is attacked anew at each retrained model",
        },
    ),
    Renaming(
        "a1e8ec3",
        differ={
            r"scorer-metagradient/.*(smoothness|record\.csv).*": "smoothness is that of the whole training since"
        },
    ),
    Renaming(
        "638a172",
        overrides={"treatment=optimize": "treatment=remove", r"treatment\.rounds=2": "seed=0"},
        differ={"treatment-optimize/.*": "there was no such treatment"},
    ),
    Renaming(
        "d16a3a1",
        differ={
            "treatment-optimize/.*/fall.*": "a descent was not compared with no treatment",
        },
    ),
    Renaming(
        "7831fdb",
        differ={
            r".*tables/(arms|candidates|descent|health|highest|lowest|record|selection|stages)\.csv/.*": (
                "the page of a run had no tables of its own"
            ),
        },
    ),
    Renaming(
        "6ae8e00",
        overrides={
            "scorer=(own|file)": "scorer=ip",
            "attack=own": "attack=pgd",
            "treatment=own": "treatment=remove",
            "train=none": "train=standard",
            r"model\.weights=.*": "seed=0",
            r"\w+\.(_target_|path)=inputs[./](my_parts|scores)\..*": "seed=0",
        },
        differ={"(scorer-own|scorer-file|attack-own|treatment-own|recipe-none)/.*": "there was no such choice"},
    ),
]


def main() -> None:
    """Compare the working tree with a commit: 0 if all is equal, 1 if not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ref")
    parser.add_argument("-k", default="", metavar="TEXT")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--compute", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compute:
        compute(options.compute, json.loads(sys.stdin.read()))
        return
    with tempfile.TemporaryDirectory() as temporary:
        different = compared(options.ref, options.k, (options.keep or Path(temporary)).resolve())
    sys.exit(1 if different else 0)


def compared(ref: str, text: str, folder: Path) -> bool:
    """Print what differs between REF and the working tree, and return whether anything does."""
    known = [each for each in RENAMINGS if git("merge-base", "--is-ancestor", ref, each.last) == 0]
    chosen = {name: words for name, words in (cells() | {LIBRARY: []}).items() if text in name}
    older = {name: [translated(word, known, "overrides") for word in words] for name, words in chosen.items()}
    for side in ("before", "now"):
        write_inputs(folder / side / "inputs")
        write_texts(folder / side / "inputs")
    tree = folder / "tree"
    git("worktree", "add", "--detach", "--force", str(tree), ref, check=True)
    try:
        with ThreadPoolExecutor(2) as pool:
            before = pool.submit(computed, tree, folder / "before", older)
            now = pool.submit(computed, ROOT, folder / "now", chosen)
        return differences(now.result(), before.result(), known)
    finally:
        git("worktree", "remove", "--force", str(tree))


def git(*words: str, check: bool = False) -> int:
    """Run git in the project and return its exit code."""
    return subprocess.run(["git", *words], cwd=ROOT, check=check, capture_output=True).returncode


def translated(text: str, known: list[Renaming], kind: str) -> str:
    """Return a word or name of the working tree as it was before all of these renamings."""
    for each in reversed(known):
        for now, before in getattr(each, kind).items():
            text = re.sub(now, before, text)
    return text


def computed(tree: Path, folder: Path, chosen: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """Return the numbers of every cell by name, as the code in `tree` computes them in `folder`."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "-", "--compute", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=json.dumps(chosen), text=True, capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"{tree}:\n{done.stderr}")
    found: dict[str, dict[str, str]] = json.loads((folder / "numbers.json").read_text("utf-8"))
    return found


def differences(now: dict[str, dict[str, str]], before: dict[str, dict[str, str]], known: list[Renaming]) -> bool:
    """Print every number that differs, and return whether one does that no renaming gives a reason for."""
    excused: dict[str, int] = {}
    bad, total = 0, 0
    for cell, numbers in now.items():
        own = {translated(name, known, "names"): value for name, value in numbers.items()}
        for name in sorted(own.keys() | before[cell].keys()):
            total += 1
            mine, theirs = own.get(name), before[cell].get(name)
            if mine == theirs and (name != "exit" or mine == "0"):
                continue
            full = f"{cell}/{name}"
            reasons = [why for each in known for which, why in each.differ.items() if re.fullmatch(which, full)]
            if reasons:
                excused[reasons[0]] = excused.get(reasons[0], 0) + 1
            else:
                bad += 1
                print(f"{full}: {theirs} before, {mine} now")
    for reason, count in excused.items():
        print(f"{count} numbers differ: {reason}")
    print(f"{len(now)} cells, {total} numbers: {bad} differ without a reason")
    return bad > 0


def write_inputs(folder: Path) -> None:
    """Write a small table, pictures, functions of a user, and scores and weights for digits into `folder`."""
    import numpy as np
    import pandas as pd
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    shutil.copy(ROOT / "examples/my_parts.py", folder)
    pd.DataFrame({"id": range(1797), "score": np.arange(1797) * 7 % 1797}).to_csv(
        folder / "scores.csv", index=False
    )
    rng = np.random.default_rng(0)
    shapes = {"0.mean": (1, 1, 1), "0.std": (1, 1, 1), "2.weight": (8, 64), "2.bias": (8,), "5.weight": (10, 8)}
    drawn = np.random.default_rng(1)
    weights = {name: drawn.uniform(0.1, 0.5, shape) for name, shape in {**shapes, "5.bias": (10,)}.items()}
    save_file({name: x.astype(np.float32) for name, x in weights.items()}, folder / "mlp.safetensors")
    rows = 200
    age, hours = rng.integers(18, 70, rows), rng.normal(40, 9, rows).round(1)
    rich = age + hours + rng.normal(0, 12, rows) > 85
    columns = {"age": age, "hours": hours, "job": rng.choice(["clerk", "smith", "nurse"], rows)}
    named = {"sex": rng.choice(["f", "m"], rows), "income": np.where(rich, "high", "low")}
    pd.DataFrame(columns | named).to_csv(folder / "table.csv", index=False)
    train_y, test_y = np.arange(60) % 3, np.arange(30) % 3
    np.savez(
        folder / "pictures.npz",
        train_x=rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        train_y=train_y,
        train_y_noisy=(train_y + (np.arange(60) < 12)) % 3,
        test_x=rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8),
        test_y=test_y,
    )


def write_texts(folder: Path) -> None:
    """Write texts and the folder of an encoder into `folder`."""
    from tests.texts import tiny_encoder, write_given, write_reviews

    write_reviews(folder / "train.tsv", 60)
    write_reviews(folder / "test.tsv", 30, seed=1)
    write_given(folder / "given.json", 20)
    tiny_encoder(folder / "encoder")


def compute(folder: Path, chosen: dict[str, list[str]]) -> None:
    """Compute the cells with the `defense` on the path, each in a process of its own, and write their numbers.

    Everything is imported once, before the processes are forked.
    """
    import defense

    for module in pkgutil.walk_packages(defense.__path__, "defense."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    numbers = {}
    for name, words in chosen.items():
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            in_child(folder, name, words)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        numbers[name] = {"exit": str(code)} | dict(numbers_of(folder, name))
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")


def in_child(folder: Path, name: str, words: list[str]) -> None:
    """Run one cell, its output in a log beside its folder, and end the process."""
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = 1
    try:
        if name == LIBRARY:
            (folder / f"{name}.json").write_text(json.dumps(library()), encoding="utf-8")
            code = 0
        else:
            from defense.__main__ import main as command

            where = "hydra.sweep.dir" if "-m" in words else "hydra.run.dir"
            sys.argv = ["defense", *words, f"{where}={name}", "store=store"]
            command()
            code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        print(repr(error))
    finally:
        sys.stdout.flush()
        os._exit(code)


def library() -> dict[str, str]:
    """Return what the functions of the package return for a small network."""
    import numpy as np
    import torch

    import defense

    def scores(*given: Any, **named: Any) -> str:
        return of_tensor(torch.as_tensor(np.asarray(defense.score(*given, **named))))

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    train, test = ((torch.rand(n, 1, 4, 4), torch.arange(n) % 3) for n in (30, 12))
    attacked = defense.attack(model, test, norm="Linf", eps=0.1)
    found = {"attack": of_tensor(attacked)}
    for scorer in ("ip", "ip_ensemble", "influence_function", "ekfac", "datainf", "hessian", "self_influence"):
        found[f"score/{scorer}"] = scores(model, train, test, scorer=scorer)
    found["score/robustness"] = scores(model, train, (attacked, test[1]), objective="robustness")
    evaluated = defense.evaluate(model, test, norm="Linf", eps=0.1)
    return found | {f"evaluate/{name}": value for name, value in flat(evaluated)}


def numbers_of(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield every number of a cell by name: of its results, what its stages stored, and tables of its pages."""
    if name == LIBRARY and (folder / f"{name}.json").exists():
        yield from json.loads((folder / f"{name}.json").read_text("utf-8")).items()
    for file in sorted((folder / name).rglob("result.json")):
        own = file.parent.relative_to(folder / name).as_posix()
        result = json.loads(file.read_text("utf-8"))
        for label, entry in result["keys"].items():
            if label == "pages":  # what they show is compared below
                continue
            yield from ((f"{own}/{label}/{what}", value) for what, value in of_entry(folder / "store" / entry))
        compared = {key: value for key, value in result.items() if key not in UNCOMPARED}
        yield from ((f"{own}/result/{what}", value) for what, value in flat(compared) if timeless(what))
    for file in sorted((folder / name).rglob("per_sample.parquet")):
        own = file.relative_to(folder / name).as_posix()
        yield from ((f"{own}/{what}", value) for what, value in of_table(file))
    for file in sorted((folder / name).rglob("tables/*.csv")):
        own = file.relative_to(folder / name).as_posix()
        with file.open(encoding="utf-8", newline="") as opened:
            for number, row in enumerate(csv.DictReader(opened)):
                found = {name: text for name, text in row.items() if re.search(r"\d", text) and timeless(name)}
                yield from ((f"{own}/{number}/{name}", text) for name, text in found.items())


def timeless(name: str) -> bool:
    """Return whether a number is no measurement of time."""
    return not re.search(r"second|factor|times|rounds|load|stages", name)


def flat(content: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the numbers of nested results by their names joined by slashes; texts are left out."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from flat(value, f"{name}/{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from flat(value, f"{name}/{number}")
    elif not isinstance(content, str):
        yield name, repr(content)


def of_entry(entry: Path) -> Iterator[tuple[str, str]]:
    """Yield the digest of every tensor and column of an entry of the store."""
    from safetensors.torch import load_file

    for file in sorted(entry.glob("*.safetensors")):
        for key, tensor in sorted(load_file(file).items()):
            yield f"{file.stem}/{key}", of_tensor(tensor)
    for file in sorted(entry.glob("*.parquet")):
        yield from ((f"{file.stem}/{what}", value) for what, value in of_table(file))


def of_table(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the digest of every column of a table by name."""
    import pandas as pd

    table = pd.read_parquet(file)
    for column in table.columns:
        values = table[column]
        content = values.to_numpy().tobytes() if values.dtype.kind in "biuf" else repr(values.tolist()).encode()
        yield column, f"{values.dtype} ({len(values)}) {hashlib.sha256(content).hexdigest()[:12]}"


def of_tensor(tensor: Any) -> str:
    """Return dtype, shape and digest of a tensor."""
    import torch

    content = tensor.detach().cpu().contiguous().view(torch.uint8) if tensor.ndim else tensor.cpu().reshape(1)
    digest = hashlib.sha256(content.numpy().tobytes()).hexdigest()[:12]
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} {digest}"


if __name__ == "__main__":
    main()
