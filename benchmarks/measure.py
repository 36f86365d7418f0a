"""The figures by which the house is kept (CONTRIBUTING.md), counted from the code.

    python -m benchmarks.measure [FOLDER]

FOLDER is another checkout, an older one say, to be measured the same way. Exits 1 if a
figure of this one is over its goal.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SINKS = ("pushgateway|gateway", "remote.?write|writer", "textfile", "exporter")
SOURCES = ("rest", "mqtt")
#: Products by which a line shows that it knows of models.
MODELS = re.compile(
    r"\b(DELTA|RIVER|PowerStream|PowerOcean|STREAM|GLACIER|WAVE|Smart Plug|Smart Home"
    r" Panel|Power Kits|R33\d?|HW5\d|BK\d\d|Y71)\b"
)
TEXTS = {"text", "words", "message", "reason", "said"}


class House:
    """One checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / "ecoflow_push"

    def modules(self) -> Iterator[tuple[Path, ast.Module]]:
        for path in [self.root / "push.py", *sorted(self.package.rglob("*.py"))]:
            if "simulator" not in path.parts:
                yield path, ast.parse(path.read_text())

    def tests(self) -> Iterator[Path]:
        yield from sorted((self.root / "tests").glob("*.py"))

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.root))


def classes(house: House) -> Iterator[tuple[str, ast.Module, ast.ClassDef]]:
    for path, tree in house.modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                yield f"{house.name(path)}:{node.name}", tree, node


def constructor(node: ast.ClassDef) -> int:
    """Return how many parameters making one takes; records (NamedTuple) take none."""
    if "dataclass" in " ".join(map(ast.unparse, node.decorator_list)):
        return sum(isinstance(each, ast.AnnAssign) for each in node.body)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return len(each.args.args) - 1 + len(each.args.kwonlyargs)
    return 0


def collaborators(tree: ast.Module, node: ast.ClassDef) -> set[str]:
    """Return the modules of ours whose names a class uses."""
    homes = {}
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith(
            "ecoflow"
        ):
            for alias in each.names:
                homes[alias.asname or alias.name] = each.module
    used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return {homes[name] for name in used & homes.keys()}


def words_of(node: ast.AST) -> Iterator[str]:
    """Yield the identifiers and texts of some code, its docstrings left out."""
    docs = {
        id(each.body[0].value)
        for each in ast.walk(node)
        if isinstance(each, ast.FunctionDef | ast.ClassDef)
        and isinstance(each.body[0], ast.Expr)
    }
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Attribute):
            yield each.attr
        elif isinstance(each, ast.arg):
            yield each.arg
        elif isinstance(each, ast.Constant) and id(each) not in docs:
            yield str(each.value)


def know_sinks(house: House) -> Iterator[str]:
    """Yield the functions that speak of two sinks or more."""
    for path, tree in house.modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                text = " ".join(words_of(node)).lower()
                if sum(bool(re.search(sink, text)) for sink in SINKS) > 1:
                    yield f"{house.name(path)}:{node.name}"


def know_sources(house: House) -> Iterator[str]:
    """Yield the statements that speak of two sources by their names."""
    for path, tree in house.modules():
        for node in ast.walk(tree):
            own = [
                each.value
                for each in ast.iter_child_nodes(node)
                if isinstance(each, ast.Constant)
            ]
            if sum(source in own for source in SOURCES) > 1:
                yield f"{house.name(path)}:{node.lineno}"
            elif isinstance(node, ast.Compare | ast.keyword) and set(own) & {*SOURCES}:
                # The word for a way of MQTT in an answer of EcoFlow's is no source.
                if "protocol" in ast.unparse(node):
                    continue
                yield f"{house.name(path)}:{ast.unparse(node)[:40]}"


def long_files(paths: Iterator[Path], most: int) -> Iterator[str]:
    for path in paths:
        lines = len(path.read_text().splitlines())
        if lines > most:
            yield f"{path.name} {lines}"


def searched(house: House) -> Iterator[str]:
    """Yield where words are looked for in a text for people."""
    for path, tree in house.modules():
        tables = {
            target.id: len(node.value.elts)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Compare | ast.Call):
                continue
            if isinstance(node, ast.Compare):
                if not isinstance(node.ops[0], ast.In):
                    continue
                where, what = node.comparators[0], node.left
            elif (
                isinstance(node.func, ast.Attribute) and node.func.attr == "startswith"
            ):
                where, what = node.func.value, node.args[0]
            else:
                continue
            source = ast.unparse(where)
            is_text = source in TEXTS or source.startswith("str(")
            is_text |= source.removesuffix(".lower()") in TEXTS
            is_words = isinstance(what, ast.Constant) and " " in str(what.value).strip()
            is_words |= isinstance(what, ast.Name) and what.id in ("words", "NO_DEVICE")
            is_words |= source.startswith("str(")
            if is_text and is_words:
                # Words out of a table count as the table's rows.
                rows = tables.get("CURES", 1) if ast.unparse(what) == "words" else 1
                yield from [f"{house.name(path)}:{node.lineno}"] * rows


def model_homes(house: House) -> set[str]:
    """Return the modules, and the folders of data, that know of models."""
    found = set()
    for path, tree in house.modules():
        if any(MODELS.search(word) for word in words_of(tree)):
            found.add("devices/" if "devices" in path.parts else house.name(path))
    for path in house.package.rglob("*.proto"):
        found.add("devices/" if "devices" in path.parts else house.name(path.parent))
    return found


def clocks(house: House) -> Iterator[str]:
    """Yield assertions on time in tests that start an interpreter."""
    for path in house.tests():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            text = ast.unparse(node)
            if not re.search(r"\bpush\(|subprocess|Popen|\bcheck\(", text):
                continue
            for each in ast.walk(node):
                if isinstance(each, ast.Assert):
                    said = ast.unparse(each.test)
                    if re.search(r"\.took\b|\btook\b|monotonic\(\)|perf_counter", said):
                        yield f"{path.name}:{each.lineno}"


def measured(root: Path, what: str) -> str:
    """Return what a run in `root` counts of itself."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "trace_run.py"), what],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip()[-300:]


def figures(house: House) -> list[tuple[str, int, int, str]]:
    """Return each figure: its name, what was counted, its goal, and where."""
    sizes = {name: constructor(node) for name, _, node in classes(house)}
    busy = {name: len(collaborators(tree, node)) for name, tree, node in classes(house)}
    worker = next(size for name, size in sizes.items() if name.endswith(":Worker"))
    largest, busiest = (max(each, key=each.get) for each in (sizes, busy))
    lists = [
        ("functions that know two sinks by name", 2, sorted(know_sinks(house))),
        ("places that know two sources by name", 1, sorted(know_sources(house))),
        (
            "files over 300 lines in the package",
            0,
            sorted(long_files((path for path, _ in house.modules()), 300)),
        ),
        ("test files over 700 lines", 0, sorted(long_files(house.tests(), 700))),
        ("words searched in texts to decide", 0, sorted(searched(house))),
        ("homes of what is known of models", 1, sorted(model_homes(house))),
        ("wall-clock assertions with a start", 0, sorted(clocks(house))),
    ]
    rows = [
        ("constructor parameters: Worker", worker, 8, ""),
        ("constructor parameters: any class", sizes[largest], 8, largest),
        ("collaborators of the busiest class", busy[busiest], 14, busiest),
        *((name, len(found), goal, ", ".join(found)) for name, goal, found in lists),
    ]
    for name, what, goal in (
        ("registries for 3 devices and 3 sinks", "registries", 4),
        ("forms of a value to the gateway", "gateway", 6),
        ("forms of a value to remote-write", "remote-write", 7),
    ):
        count, _, rest = measured(house.root, what).partition(" ")
        rows.append((name, int(count) if count.isdecimal() else -1, goal, rest))
    return rows


def main() -> int:
    """Print the figures, and return 1 if one of ours is over its goal."""
    other = House(Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else None
    ours = figures(House(ROOT))
    theirs = figures(other) if other else [("", 0, 0, "")] * len(ours)
    missed = False
    for (name, count, goal, where), (_, before, _, _) in zip(ours, theirs, strict=True):
        missed |= not 0 <= count <= goal
        mark = "met" if 0 <= count <= goal else "MISSED"
        was = f"{before:6}" if other else ""
        print(f"{mark:7}{name:40}{was}{count:6}   at most {goal:3}  {where[:200]}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
