"""The process for foreign files, forked before it is needed instead of started.

A started one imports transformers, which costs a second and a half.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

IMPORTED = (
    "convo_cli.text.bounded.trial",
    "convo_cli.text.spiece.agreement",
    "transformers.utils.chat_template_utils",
)
"""What the process imports late."""


def fork_bounded_process() -> None:
    """Fork the process, which waits for requests; the client of this process will use it.

    If a request ends it, the next one is started.
    """
    from convo_cli.text.bounded import client, process

    requests, answers = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.environ.update(client._ONE_THREAD)
        os.dup2(requests[0], 0)
        os.dup2(answers[1], 1)
        for file in (*requests, *answers):
            os.close(file)
        # The process bans torch; with a `sys` of its own, it does not ban what is already imported.
        process.sys = SimpleNamespace(platform=sys.platform, modules={})  # type: ignore[assignment]
        process.main()
        os._exit(0)
    os.close(requests[0])
    os.close(answers[1])

    class Forked(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            client.subprocess = subprocess
            self.args, self.pid, self.returncode = [], pid, None
            self.stdin, self.stdout = os.fdopen(requests[1], "wb"), os.fdopen(answers[0], "rb")
            self.stderr = self._input = None
            self._child_created, self._communication_started = True, False
            self._waitpid_lock, self._sigint_wait_secs = threading.Lock(), 0

    client.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=Forked, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )
