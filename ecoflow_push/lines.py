"""The form of a line of the log, for the log and for who must do without it.

Nothing is imported at the top: a run that finds the lock taken says but one line. The
grammar is that of Python 3.6, for `start.installation`.
"""


def line(
    level: str, text: str, at: float, *, as_json: bool, traceback: str = ""
) -> str:
    """Return one event, without the line end; `at` in Unix seconds.

    As text, one event is one line: device names and server texts are other people's.
    Only a traceback goes on below.
    """
    import time

    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    moment = f"{whole}.{int(at % 1 * 1000):03d}Z"
    if as_json:
        import json

        event = {"time": moment, "level": level.lower(), "message": text}
        return json.dumps({**event, "traceback": traceback} if traceback else event)
    said = f"{moment} {level} {text if text.isprintable() else _spelled_out(text)}"
    return f"{said}\n{traceback}" if traceback else said


def _spelled_out(text: str) -> str:
    import re

    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]",
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(),
        text,
    )
