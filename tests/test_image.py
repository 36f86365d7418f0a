"""What the Dockerfile makes, as far as no engine and no network is needed."""

from __future__ import annotations

import os
import sys

from benchmarks.image import compiled, instructions


def compiles(rest: str) -> bool:
    """Tell whether a RUN compiles, and for good: nothing changes in an image."""
    return "compileall -q --invalidation-mode unchecked-hash" in rest


def test_the_dockerfile_compiles_all_that_it_has():
    """What is copied is compiled behind it, and on the base the library is."""
    words = instructions()
    final = max(n for n, (word, _) in enumerate(words) if word == "FROM")
    copies = [n for n, (word, _) in enumerate(words[:final]) if word == "COPY"]
    builder = [
        n for n in range(final) if words[n][0] == "RUN" and compiles(words[n][1])
    ]
    assert builder
    assert builder[-1] > copies[-1]
    assert words[builder[-1]][1].endswith(" .")

    base = [rest for word, rest in words[final:] if word == "RUN" and compiles(rest)]
    assert len(base) == 1
    assert 'get_path("stdlib")' in base[0]
    # Nothing comes behind it but what the builder has compiled.
    late = [rest for word, rest in words[final:] if word == "COPY"]
    assert late == ["--from=builder /app /app"]


def test_what_is_compiled_is_seen(tmp_path):
    """A module without byte code is named, and one with it is not."""
    (tmp_path / "slow.py").write_text("WORDS = 'compiled'\n")
    environ = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(tmp_path)}
    closed = environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-v", "-c", "import slow"]

    assert str(tmp_path / "slow.py") in compiled(argv, closed)
    compiled(argv, environ)
    assert str(tmp_path / "slow.py") not in compiled(argv, closed)
