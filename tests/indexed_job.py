"""An Indexed Job without a cluster: a process a pod, and what Kubernetes makes of it.

What is here of Kubernetes 1.29: pods of the lowest indexes first, `parallelism` of
them at a time; the first rule of podFailurePolicy that a pod's exit status meets; tries
of an index by backoffLimitPerIndex; maxFailedIndexes, FailJob, activeDeadlineSeconds,
which stop all that still run. The ten seconds and more between two tries are not waited
for.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

# What a pod sees of the cluster even with enableServiceLinks: false.
IN_A_CLUSTER = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
}


class Pod(Protocol):
    """A process that was started, as subprocess has it."""

    returncode: int

    def communicate(self) -> tuple[str, object]:
        """Return what it said, when it has ended."""

    def terminate(self) -> None:
        """Let it end."""


class Try(NamedTuple):
    """One pod: the status it ended with, and what it said."""

    status: int
    said: str


class Ended(NamedTuple):
    """A Job that ended: the tries of each index, and why it failed, "" if it did not.

    An index that was stopped with the Job has neither succeeded nor failed.
    """

    tries: Mapping[int, Sequence[Try]]
    succeeded: frozenset[int]
    failed: frozenset[int]
    reason: str

    def statuses(self) -> dict[int, list[int]]:
        """Return what the tries of each index ended with."""
        return {i: [one.status for one in each] for i, each in self.tries.items()}


class IndexedJob:
    """A Job's `spec`; `pod` starts the process of an index with its environment."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        pod: Callable[[Mapping[str, str]], Pod],
    ) -> None:
        assert spec["completionMode"] == "Indexed"
        self._spec = spec
        self._pod = pod
        self._lock = threading.Lock()
        self._reason = ""
        self._running: set[Pod] = set()
        self._tries: dict[int, list[Try]] = {}
        self._succeeded: set[int] = set()
        self._failed: set[int] = set()

    def run(self) -> Ended:
        """Run all indexes to their end, and return how they ended."""
        indexes = range(self._spec["completions"])
        timer = threading.Timer(
            self._spec.get("activeDeadlineSeconds", threading.TIMEOUT_MAX),
            self._stop,
            ["DeadlineExceeded"],
        )
        timer.start()
        with ThreadPoolExecutor(self._spec["parallelism"]) as pool:
            list(pool.map(self._work, indexes))
        timer.cancel()
        if self._failed and not self._reason:
            self._reason = "FailedIndexes"
        return Ended(
            self._tries,
            frozenset(self._succeeded),
            frozenset(self._failed),
            self._reason,
        )

    def action_for(self, status: int) -> str:
        """Return what becomes of a pod that ended with this status."""
        for rule in self._spec.get("podFailurePolicy", {}).get("rules", ()):
            codes = rule.get("onExitCodes")
            if codes and (status in codes["values"]) is (codes["operator"] == "In"):
                return str(rule["action"])
        return "Count"

    def _work(self, index: int) -> None:
        counted = 0
        while (status := self._try(index)) is not None:
            action = self.action_for(status) if status else ""
            if action == "FailJob":
                self._stop("PodFailurePolicy")
            elif action == "Count":
                counted += 1
            over = counted > self._spec.get("backoffLimitPerIndex", counted)
            if not status or action == "FailIndex" or over:
                self._close(index, status)
                return

    def _try(self, index: int) -> int | None:
        """Return the status of one pod, None where the Job has ended."""
        with self._lock:
            if self._has_ended():
                return None
            environ = {**IN_A_CLUSTER, "JOB_COMPLETION_INDEX": str(index)}
            process = self._pod(environ)
            self._running.add(process)
        said, _ = process.communicate()
        # To Kubernetes a signal is 128 and its number.
        status = process.returncode
        status = status if status >= 0 else 128 - status
        with self._lock:
            self._running.discard(process)
            self._tries.setdefault(index, []).append(Try(status, said))
            return None if self._has_ended() and status else status

    def _has_ended(self) -> bool:
        return bool(self._reason)

    def _close(self, index: int, status: int) -> None:
        with self._lock:
            (self._failed if status else self._succeeded).add(index)
            most = self._spec.get("maxFailedIndexes", len(self._failed))
        if len(self._failed) > most:
            self._stop("MaxFailedIndexesExceeded")

    def _stop(self, reason: str) -> None:
        with self._lock:
            self._reason = self._reason or reason
            for process in self._running:
                process.terminate()


def pod_of(
    command: Sequence[str], environ: Mapping[str, str]
) -> Callable[[Mapping[str, str]], Pod]:
    """Return what starts a command with an environment, and nothing else of ours."""
    path = {"PATH": os.defpath}

    def start(engine: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env={**path, **engine, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start
