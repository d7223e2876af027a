"""Runs schemathesis against a server of its own: run.py SERVER SECONDS

The server has an empty SQLite database and open registration. Fails on an answer that is a server error, has a status
or content type that /openapi.json does not name, or has a body or header of another form.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


def main(server, seconds):
    here = pathlib.Path(__file__).parent
    with tempfile.TemporaryDirectory() as place:
        running, log = start(server, place)
        try:
            base = running.stdout.readline().decode().strip().removeprefix("listening on ")
            if not base.startswith("http://"):
                print("the server did not start:", *log, sep="\n")
                return 1
            status = subprocess.run(
                [
                    pathlib.Path(sys.executable).parent / "schemathesis",
                    "run",
                    f"{base}/openapi.json",
                    f"--checks={','.join(CHECKS)}",
                    "--phases=examples,coverage,fuzzing",
                    f"--max-time={seconds}",
                    # These answer when something happens.
                    '--exclude-by=/x-service == "Waits"',
                    "--request-timeout=40",
                    "--generation-database=none",
                    "--continue-on-failure",
                    "--warnings=off",
                    "--no-color",
                ],
                cwd=place,
                env=os.environ
                | {
                    "SCHEMATHESIS_HOOKS": "hooks",
                    "PYTHONPATH": str(here.resolve()),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "BLIND_RELAY_API": base,
                },
            ).returncode
        finally:
            running.terminate()
            running.wait()
        if status:
            print("what the server logged last:", *log[-40:], sep="\n")
        return status


def start(server, place):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BLIND_RELAY_")}
    settings = {
        "LISTEN": "127.0.0.1:0",
        "ADMIN_LISTEN": "127.0.0.1:0",
        "REGISTRATION": "open",
        "DATA_DIR": f"{place}/data",
        "RATE_LIMITS": "off",
    }
    environment |= {f"BLIND_RELAY_{name}": value for name, value in settings.items()}
    running = subprocess.Popen(
        [server], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    log = []

    def keep():
        for line in running.stderr:
            log.append(line.decode(errors="replace").rstrip())

    threading.Thread(target=keep, daemon=True).start()
    return running, log


if __name__ == "__main__":
    sys.exit(main(os.path.realpath(sys.argv[1]), int(sys.argv[2])))
