"""Runs verbs one after the other and prints, as JSON, each attempt of theirs to reach another program or machine.

Usage: quiet_verbs.py FILE, with a list of the verbs' arguments as JSON. A program of its own, because an audit hook
stays for good and packages are imported once.
"""

import json
import sys
from pathlib import Path

# Opening a socket of any kind, asking for an address, starting a process that could.
WATCHED = ("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
STARTED = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec")
seen, current = [], "import"


def watch(event, arguments):
    if event in WATCHED or event in STARTED:
        seen.append([current, event, repr(arguments)[:200]])


sys.addaudithook(watch)

if __name__ == "__main__":
    from specpolicy.cli import main

    codes = {}
    for verb in json.loads(Path(sys.argv[1]).read_text()):
        current = " ".join(verb[:2])
        codes[current] = main(verb)
    print("\n" + json.dumps({"seen": seen, "codes": codes}))
