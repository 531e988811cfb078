"""FINN in a virtual environment of its own: it asks for older versions of packages than this project.

    python -m dse.flows.finn_environment [DIR]

makes one, by default in the cache folder, where ``dse flow finn`` looks for it.
"""

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from formats.errors import BitatlasError
from hwmodels.files import cache_directory

FINN = "finn-plus==1.6.1"
COMMAND = "python -m dse.flows.finn_environment"
_HERE = Path(__file__).parent


def default_folder() -> Path:
    """Return where the environment lies unless it is told otherwise."""
    return cache_directory() / "finn"


def environment(folder: Path) -> Path:
    """Return the Python of FINN's environment in ``folder``, which is made where it is not there."""
    made = ready(folder)
    if made is not None:
        return made
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        raise BitatlasError(f"FINN's folder must be a virtual environment, a folder to be made or an empty one, not {folder}")
    print(f"installing {FINN} and what it needs into {folder}: a minute or two, once", flush=True)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for arguments in (["--requirement", str(_HERE / "finn_requirements.txt")], ["--no-deps", FINN]):
        if subprocess.run([*pip, *arguments]).returncode != 0:
            raise BitatlasError(f"pip must install {arguments[-1]} into {folder}, not fail: its message is above")
    (folder / "finished").write_text(FINN)
    return python


def ready(folder: Path) -> Path | None:
    """Return the Python of an environment that is there and whole, else None."""
    done = folder / "finished"
    return folder / "bin" / "python" if done.is_file() and done.read_text() == FINN else None


def run_steps(python: Path, requests: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Let FINN answer the requests (see ``finn_steps``); ``folder`` is for files on the way."""
    asked, answered = folder / "requests.json", folder / "replies.json"
    asked.write_text(json.dumps(list(requests)))
    answered.unlink(missing_ok=True)
    try:
        # -P: the script's own folder holds modules of this project, which must not be found in place of FINN's
        command = [str(python), "-P", str(_HERE / "finn_steps.py"), str(asked), str(answered)]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    except OSError as error:
        raise BitatlasError(f"FINN's Python must be a program, not fail ({error.strerror}): {python}") from None
    if ran.returncode != 0 or not answered.is_file():
        said = (ran.stderr.strip() or "no message").splitlines()[-1][:300]
        raise BitatlasError(f"FINN's steps must run in its environment, not fail ({said}): {python}")
    replies: list[dict[str, Any]] = json.loads(answered.read_text())
    return replies


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the environment."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="folder of the environment")
    options = parser.parse_args(arguments)
    try:
        print(environment(options.folder or default_folder()))
    except BitatlasError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
