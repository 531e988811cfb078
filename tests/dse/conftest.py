"""Trials and outcomes made by hand; a database server for many workers."""

import getpass
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dse import report
from dse.assignment import Assignment, LayerAssignment, parse_quantizer
from dse.objectives import MEASURED, Bound, Objective
from dse.report import Outcome
from dse.search import Evaluated

ACCURACY, KL = MEASURED
LUT = Objective(name="lut", unit="LUT", model="finn-formula", by_layer=True)

MakeTrial = Callable[..., Evaluated]
MakeOutcome = Callable[..., Outcome]


def assignment(pairs: Mapping[str, str], model: str = "net") -> Assignment:
    """Return an assignment for pairs such as ``int4/uint8`` by layer."""
    layers = {}
    for name, pair in pairs.items():
        weight, activation, *steps = pair.split("/")
        layers[name] = LayerAssignment(
            weight=parse_quantizer(weight, "weight"), activation=parse_quantizer(activation, "activation"), steps=tuple(steps)
        )
    return Assignment(model=model, data="digits", layers=layers)


@pytest.fixture(scope="session")
def make_trial() -> MakeTrial:
    """Make a trial of two layers; ``pair`` for both makes it uniform unless it has another origin."""

    def make(
        number: int,
        pairs: str | Mapping[str, str],
        kl: float,
        lut: float,
        *,
        origin: str = "",
        dropped: str = "",
        model: str = "net",
    ) -> Evaluated:
        given = {"first": pairs, "second": pairs} if isinstance(pairs, str) else pairs
        figures = {"kl": kl, "lut": lut} if dropped else {"accuracy": max(0.0, 1 - kl), "kl": kl, "lut": lut}
        return Evaluated(
            number=number,
            ledger_number=number,
            origin=origin or (f"uniform {pairs}" if isinstance(pairs, str) else "tpe"),
            assignment=assignment(given, model),
            figures=figures,
            dropped=dropped,
        )

    return make


@pytest.fixture(scope="session")
def make_outcome() -> MakeOutcome:
    """Make an outcome of trials, by default for KL and LUTs."""

    def make(*trials: Evaluated, objectives: tuple[Objective, ...] = (KL, LUT), bounds: tuple[Bound, ...] = ()) -> Outcome:
        return report.outcome(trials, objectives, bounds)

    return make


@dataclass(frozen=True, kw_only=True)
class Server:
    """A PostgreSQL server on loopback with a folder and a port of its own."""

    binaries: Path
    folder: Path
    port: int
    databases: list[str] = field(default_factory=list)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        self.databases.append(f"database{len(self.databases)}")
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "bitatlas", self.databases[-1])
        return f"postgresql://bitatlas:secret@127.0.0.1:{self.port}/{self.databases[-1]}"

    def control(self, *arguments: str) -> None:
        """Run ``pg_ctl``, waiting for what it does."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -F"
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-o", options, "-l", str(self.folder / "log"), *arguments)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs, as the user that Debian's package makes for it: the server refuses to run as root."""
        as_user = ["/usr/sbin/runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
        command = [*as_user, str(self.binaries / program), *arguments]
        # into a file: the server that is started keeps what it is given open
        with tempfile.TemporaryFile() as said:
            ended = subprocess.run(command, stdout=said, stderr=said, cwd="/", timeout=60, stdin=subprocess.DEVNULL)
            said.seek(0)
            assert ended.returncode == 0, said.read().decode()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Start a PostgreSQL server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL's server is not installed (Debian's package postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="bitatlas-postgresql-"))  # short, for the socket's path; not below root's own folders
    if getpass.getuser() == "root":
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    made = Server(binaries=found[-1].parent, folder=folder, port=port)
    made.run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "bitatlas", "--no-sync")
    made.control("start")
    try:
        yield made
    finally:
        made.control("-m", "immediate", "stop")
        shutil.rmtree(folder)
