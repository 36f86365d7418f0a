"""Power cuts of a real disk: what was promised was flushed, and is there.

A job works on a file system in an image. What is in the image at some instant is
mounted again, as after a power cut, and the next run works there. A cut is strict if
something is at stake that nothing but the program's own flush of it can have saved: the
numbers count strict ones. Two clones, each without one flush, lose in all of them.

That journal saves more than was asked for, and needs root. So the order of the calls is
held against a disk, too, that keeps nothing but what was flushed under its very name.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cramjam
import pytest

from ecoflow_push.memory.entry import entry_named, unframed
from ecoflow_push.memory.files import read_json
from ecoflow_push.memory.folder import Folder
from ecoflow_push.simulator import faults
from tests.broker import BROKER_PASSWORD
from tests.conftest import DELTA, STREAM
from tests.delivery import DOWN
from tests.images import (
    Image,
    Job,
    clone,
    images_or_skip,
    place_in_memory,
    trace_or_skip,
    why_no_trace,
)
from tests.receiver import PATH, Receiver, decode
from tests.support import ROOT, push

Stored = dict[tuple[tuple[str, str], ...], list[tuple[int, bytes]]]
Record = tuple[str, int]

CLONES = {
    "the folder's": (
        "ecoflow_push/memory/folder.py",
        "            sync_folder(self.path)\n        except",
        "            pass\n        except",
    ),
    "the file's": (
        "ecoflow_push/memory/files.py",
        "os.fsync(file.fileno())",
        "pass",
    ),
}


class Cut(NamedTuple):
    """A copy of the image, and what was promised when it was made."""

    form: str
    file: Path
    is_strict: bool
    #: Device and time (ms) of what was stored, or sent and so had to be stored.
    promised: frozenset[Record]
    #: What the receiver held, and what the text file ever was.
    held: Stored
    texts: frozenset[str]


class History:
    """Some runs on one image, and the cuts that were made of them."""

    def __init__(
        self,
        place: Path,
        environ: Mapping[str, str],
        receiver: Receiver,
        chance: random.Random,
        tree: Path = ROOT,
    ) -> None:
        self.cuts: list[Cut] = []
        self.stops: Counter[str] = Counter()
        self._place = place
        self._receiver = receiver
        self._chance = chance
        self._tree = tree
        self._image = Image(place / "image", place / "disk")
        self._is_ahead = chance.random() < 0.8
        self._promised: set[Record] = set()
        self._texts: set[str] = set()
        self._lock = threading.Lock()
        #: What the receiver does of this run: how often it takes, loses an answer.
        self._takes = self._loses = 0.0
        self._cuts_requests = False
        self._asked, self._let_go = threading.Event(), threading.Event()
        mode = "write-ahead" if self._is_ahead else "on-failure"
        self.environ = {**environ, "SPOOL_MODE": mode, **on(self._image.folder)}

    def live(self, forms: list[str]) -> None:
        """Let there be a run of each form."""
        self._image.make()
        self._receiver.stored = {}
        self._receiver.heal()
        self._receiver.fail(PATH, self._answer)
        with self._image.mounted() as disk:
            (disk / "text").mkdir()
            Folder(str(disk)).sync()
            for number, form in enumerate(forms):
                self._run(form, self._place / f"said-{number}")
        self._receiver.heal()

    def _run(self, form: str, said: Path) -> None:
        self._takes = self._chance.choice([0.0, 0.0, 0.5, 1.0])
        self._loses = self._chance.choice([0.0, 0.0, 0.5])
        self._cuts_requests = form != "instant"
        self._asked.clear()
        self._let_go.clear()
        if form != "instant":
            self._let_go.set()
        log = said.with_suffix(".log") if form == "flush" else None
        job = Job(self.environ, said, tree=self._tree, log=log)
        try:
            if form == "flush":
                self._at_each_step(job)
            elif form == "instant":
                self._at_instants(job)
            run = job.ended()
        finally:
            job.kill()
        assert run.status in (0, 1, 75), run.stderr
        self._promise_what_is_there()
        self._cut("exit", is_strict=False)

    def _at_each_step(self, job: Job) -> None:
        """Cut behind each call that changes a folder or flushes it."""
        is_flushed = True
        for step in job.steps():
            if not step:
                return
            call, spool = step.split()[1].partition("(")[0], self._spool()
            self.stops[call] += 1
            if f"<{spool}>" in step and call == "fsync":
                self._promise_what_is_there()
                is_flushed = False
            elif call in ("fsync", "fdatasync"):
                # What this one flushed has flushed all that was before it.
                is_flushed = True
            is_strict = not is_flushed and self._is_at_stake()
            # Behind a flush anything may be durable by halves.
            is_due = is_strict or "sync" in call or self._chance.random() < 0.3
            if is_due:
                self._cut("flush", is_strict=is_strict)

    def _at_instants(self, job: Job) -> None:
        """Cut before anything was sent, and while an answer is waited for."""
        time.sleep(self._chance.uniform(0.2, 0.6))
        if job.stop():
            self._cut("instant", is_strict=False)
            job.go_on()
        while not (self._asked.wait(0.02) or job.is_over):
            pass
        for _ in range(self._chance.randint(1, 4)):
            time.sleep(self._chance.uniform(0, 0.03))
            if self._asked.is_set() and job.stop():
                self._cut("instant", is_strict=self._is_at_stake())
                job.go_on()
        self._let_go.set()

    def _answer(self, handler: Any) -> None:
        message = bytes(cramjam.snappy.decompress_raw(handler.current.body))
        samples = decode("1", message)[0]
        sent = {(s.label("device"), s.timestamp_ms) for s in samples}
        sent = {record for record in sent if record[0]}
        if self._is_ahead and sent:
            # All of it was to be stored before the first was sent.
            with self._lock:
                self._promised |= sent
            self._promise_what_is_there()
            if self._cuts_requests:
                self._cut("request", is_strict=self._is_at_stake())
            self._asked.set()
            self._let_go.wait(60)
        if sent and self._chance.random() >= self._takes:
            DOWN(handler)
            return
        answer = self._receiver.answer(handler.current)
        if self._chance.random() < self._loses:
            faults.reset()(handler)
        else:
            handler.send(answer)

    def _spool(self) -> Path:
        return next(self._image.folder.glob("state/*/spool-*"), Path("/nowhere"))

    def _promise_what_is_there(self) -> None:
        entries = [entry_named(name) for name in os.listdir(self._spool())]
        with self._lock:
            self._promised |= {(e.device, e.time_ms) for e in entries if e}

    def _is_at_stake(self) -> bool:
        return not self._promised <= taken(self._receiver.stored)

    def _cut(self, form: str, *, is_strict: bool) -> None:
        with self._lock:
            with self._receiver.lock:
                held = copy.deepcopy(self._receiver.stored)
            promised = frozenset(self._promised)
            path = self._image.folder / "text" / "ecoflow.prom"
            if path.exists():
                self._texts.add(path.read_text())
            file = self._image.copy(self._place / f"cut-{len(self.cuts)}")
            texts = frozenset(self._texts)
            self.cuts.append(Cut(form, file, is_strict, promised, held, texts))


def on(disk: Path) -> dict[str, str]:
    text = str(disk / "text" / "ecoflow.prom")
    return {"STATE_DIR": str(disk / "state"), "TEXTFILE_PATH": text}


def taken(stored: Stored) -> set[Record]:
    return {
        (dict(labels).get("device", ""), at)
        for labels, points in stored.items()
        for at, _ in points
    }


def faults_of(cut: Cut, disk: Path) -> Iterator[str]:
    """Yield what is wrong on a disk after a cut, before anybody works there."""
    there = set()
    for path in disk.glob("state/*/spool-*/*"):
        if entry := entry_named(path.name):
            try:
                unframed(path.read_bytes())
            except ValueError:
                yield f"{path.name} is torn"
            else:
                there.add((entry.device, entry.time_ms))
    for device, at in sorted(cut.promised - taken(cut.held) - there):
        yield f"{at} of {device} is lost"
    text = disk / "text" / "ecoflow.prom"
    if text.exists() and text.read_text() not in cut.texts:
        yield f"a text file that nobody wrote: {text.read_bytes()[:80]!r}"
    yield from unreadable(disk)


def unreadable(disk: Path) -> Iterator[str]:
    for path in disk.glob("state/*/*.json"):
        if read_json(str(path), 1, "all", looks=True) is None:
            yield f"{path.name} cannot be read"


def faults_of_next_run(
    cut: Cut, disk: Path, environ: Mapping[str, str], receiver: Receiver
) -> Iterator[str]:
    """Yield what is wrong with the next run, or with what it leaves."""
    receiver.stored = copy.deepcopy(cut.held)
    environ = {**environ, **on(disk)}
    for _ in range(4):
        run = push(environ)
        if run.status not in (0, 75) or "damaged" in run.stderr:
            yield f"the next run ended with {run.status}: {run.stderr}"
        if not any(map(entry_named, os.listdir(*disk.glob("state/*/spool-*")))):
            break
    else:
        yield "the spool is never empty"
    for device, at in sorted(cut.promised - taken(receiver.stored)):
        yield f"{at} of {device} never arrived"
    for labels, points in receiver.stored.items():
        times = [at for at, _ in points]
        if times != sorted(set(times)):
            yield f"{dict(labels)} twice, or out of order"
    for path in disk.glob("state/*/state.json"):
        if dropped := sum(json.loads(path.read_text())["dropped"].values()):
            yield f"{dropped} samples were dropped"


@pytest.fixture
def place(tmp_path) -> Iterator[Path]:
    images_or_skip()
    with place_in_memory(tmp_path) as made:
        yield made


@pytest.fixture
def home_of_jobs(written, cloud) -> dict[str, str]:
    cloud.devices[:] = [DELTA, STREAM]
    # Nothing but what the program writes by itself changes a folder.
    return {**written, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.drill("power")
@pytest.mark.case("S8")
def test_drill_power_images(place, home_of_jobs, receiver, drill):
    """What was promised is on the disk after any cut, and the next run delivers it."""
    wanted = drill.size(4, 240)
    chance = random.Random(drill.seed)
    forms: Counter[str] = Counter()
    stops: Counter[str] = Counter()
    strict = number = 0
    while strict < wanted:
        number += 1
        folder = place / str(number)
        folder.mkdir()
        history = History(folder, home_of_jobs, receiver, chance)
        kinds = ["request", "instant", *(() if why_no_trace() else ("flush",))]
        forms_of_runs = chance.choices(kinds, k=chance.randint(1, 3))
        history.live(forms_of_runs if drill.is_full else kinds[-1:])
        cuts = history.cuts if drill.is_full else few(history.cuts)
        disk = folder / "after"
        for each in cuts:
            with Image(each.file, disk).mounted():
                found = list(faults_of(each, disk))
                if not found and (drill.is_full or each is cuts[-1]):
                    environ = history.environ
                    found += faults_of_next_run(each, disk, environ, receiver)
            assert not found, (f"DRILL_SEED={drill.seed}", each.form, found)
            forms[f"{each.form}, strict" if each.is_strict else each.form] += 1
        strict += sum(each.is_strict for each in cuts)
        stops += history.stops
        shutil.rmtree(folder)
    print(f"{strict} strict cuts of {sum(forms.values())}: {dict(forms)}")
    print(f"{sum(stops.values())} stops: {dict(stops)}")


def few(cuts: list[Cut]) -> list[Cut]:
    """Return as many as there is time for, strict ones last."""
    strict = [each for each in cuts if each.is_strict]
    assert strict
    return [*(each for each in cuts if not each.is_strict), *strict]


@pytest.mark.drill("power")
@pytest.mark.case("S8")
@pytest.mark.parametrize("flush", CLONES)
def test_drill_power_clones(flush, place, home_of_jobs, receiver, drill):
    """A program that lacks one flush loses what it promised, in every strict cut."""
    wanted = drill.size(1, 40)
    chance = random.Random(drill.seed)
    tree = place / "tree"
    tree.mkdir()
    clone(tree, *CLONES[flush])
    strict = number = torn = 0
    while strict < wanted:
        number += 1
        folder = place / str(number)
        folder.mkdir()
        history = History(folder, home_of_jobs, receiver, chance, tree)
        history.live(["request"] if number % 2 else ["instant"])
        for each in history.cuts:
            if not each.is_strict:
                continue
            disk = folder / "after"
            with Image(each.file, disk).mounted():
                found = list(faults_of(each, disk))
                assert any("is lost" in one for one in found), (each.form, found)
                strict += 1
                if any("is torn" in one for one in found):
                    torn += 1
                    tells_of_torn(each, disk, history, receiver)
        shutil.rmtree(folder)
    print(
        f"without {flush} flush: {strict} of {strict} noticed, {torn} with a torn one"
    )
    assert bool(torn) == (flush == "the file's")


def tells_of_torn(cut: Cut, disk: Path, history: History, receiver: Receiver) -> None:
    """See that the program itself sets a torn record aside, and tells it."""
    receiver.stored = copy.deepcopy(cut.held)
    run = push({**history.environ, **on(disk)})
    assert run.status in (0, 1), run.stderr
    assert "damaged" in run.stderr
    assert list(disk.glob("state/*/spool-*/bad/*"))


class Forgetful:
    """A disk that keeps a name only if its folder was flushed, content if the file was.

    `take` is told the calls of a trace, `lacking` what is not kept of a path.
    """

    def __init__(self) -> None:
        #: What was put in a name's place before it was flushed.
        self.hasty: set[str] = set()
        #: Made since its folder was flushed, and since itself was.
        self._names: set[str] = set()
        self._contents: set[str] = set()

    def take(self, line: str) -> None:
        call = re.match(r"\d+ +(\w+)\((.*)\) += \d", line)
        if not call:
            return
        name, paths = call[1], re.findall(r'"([^"]*)"', call[2])
        if name.startswith("mkdir"):
            self._names.add(paths[0])
        elif name == "openat" and "O_CREAT" in line:
            self._names.add(paths[0])
            self._contents.add(paths[0])
        elif name.startswith("rename"):
            old, new = paths
            self._names.add(new)
            self._contents.discard(new)
            if old in self._contents:
                self._contents.add(new)
                # It may come to stand there empty.
                self.hasty.add(new)
        elif name in ("fsync", "fdatasync"):
            flushed = re.findall(r"<([^>]*)>", call[2])[0]
            self._contents.discard(flushed)
            self._names -= {n for n in self._names if os.path.dirname(n) == flushed}

    def lacking(self, path: str) -> list[str]:
        above = [path, *map(str, Path(path).parents)]
        return [each for each in above if each in self._names] + [
            f"content of {each}" for each in above[:1] if each in self._contents
        ]


@pytest.mark.drill("power")
@pytest.mark.case("S8")
@pytest.mark.parametrize("lacks", ["nothing", *CLONES])
def test_drill_power_order(lacks, home_of_jobs, drill, tmp_path):
    """Whatever is sent was flushed before, with each folder above it, name by name."""
    trace_or_skip()
    drill.size(1, 1)
    tree = ROOT
    if lacks != "nothing":
        tree = tmp_path / "tree"
        tree.mkdir()
        clone(tree, *CLONES[lacks])
    log = tmp_path / "log"
    calls = "mkdir,mkdirat,openat,rename,renameat,renameat2,fsync,fdatasync,sendto"
    traced = ["strace", "-f", "-qq", "-y", "-s", "200", "-o", str(log)]
    environ = {**home_of_jobs, "STATE_DIR": str(tmp_path / "new" / "state")}
    for _ in range(2):
        done = subprocess.run(
            [*traced, "-e", f"trace={calls}", sys.executable, tree / "push.py"],
            env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        disk, renamed, lacking, sent = Forgetful(), set[str](), set[str](), 0
        for line in log.read_text().splitlines():
            disk.take(line)
            if new := re.search(r'"(/[^"]*/spool-\w+/\d{15}\.[^"/]*)"\) += 0', line):
                renamed.add(new[1])
            elif "sendto" in line and "POST /api/v1/write" in line and renamed:
                lacking.update(each for path in renamed for each in disk.lacking(path))
                sent += 1
        # What was delivered last need not outlast anything.
        hasty = {each for each in disk.hasty if "/last/" not in each}
        assert bool(hasty) == (lacks == "the file's"), hasty
        assert len(renamed) == 2
        assert sent
        assert bool(lacking) == (lacks != "nothing"), lacking


@pytest.mark.drill("power")
@pytest.mark.case("S8")
def test_drill_power_login(place, account, fleet, drill, tmp_path):
    """What an app account has earned is whole or not there, after a cut at any step."""
    trace_or_skip()
    wanted, cuts = drill.size(1, 60), 0
    chance = random.Random(drill.seed)
    while cuts < wanted:
        folder = place / str(cuts)
        folder.mkdir()
        image = Image(folder / "image", folder / "disk")
        files: list[Path] = []
        image.make()
        with image.mounted() as disk:
            (disk / "text").mkdir()
            environ = {**account, **on(disk), "PYTHONDONTWRITEBYTECODE": "1"}
            job = Job(environ, folder / "said", log=folder / "log")
            try:
                for _ in job.steps():
                    files.append(image.copy(folder / f"cut-{len(files)}"))
                assert job.ended().status == 0, job.said.read_text()
            finally:
                job.kill()
        after, run_at = folder / "after", chance.randrange(len(files))
        for number, file in enumerate(files):
            with Image(file, after).mounted():
                assert list(unreadable(after)) == [], f"DRILL_SEED={drill.seed}"
                kept = [path.read_text() for path in after.glob("state/*/*.json")]
                if number in (run_at, len(files) - 1) and drill.is_full:
                    run = push({**environ, **on(after)})
                    assert run.status == 0, run.stderr
                    assert "damaged" not in run.stderr
        assert any(BROKER_PASSWORD in text for text in kept)
        cuts += len(files)
        shutil.rmtree(folder)
    print(f"{cuts} cuts of a run that logs in")
