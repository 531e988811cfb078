"""Kernels compiled ahead of time, for a GPU that need not be there: what became of them in its machine language.

Compilation runs in a process of its own, in which kernels are not interpreted whatever they are in this one.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from formats.errors import BitatlasError, InvalidValueError

#: compute capability by the name of the architecture
ARCHITECTURES = {"sm_80": 80, "sm_86": 86, "sm_89": 89, "sm_90a": 90}
_OPTIONS = ("num_warps", "num_stages", "num_ctas", "enable_fp_fusion")
#: pointers that torch allocates, and whole numbers that are said to be, can be divided by this
_DIVISOR = 16


@dataclass(frozen=True, kw_only=True)
class Request:
    """A kernel, the types of its arguments, and what it is specialised to."""

    #: ``module:function``
    kernel: str
    #: type of each argument that is no constant: ``*fp16``, ``*bf16``, ``*fp32``, ``*i32``, ``*u8``, ``i32``, …
    signature: Mapping[str, str]
    #: constants by name, and what Triton itself takes: ``num_warps``, ``num_stages``, ``num_ctas``, ``enable_fp_fusion``
    constants: Mapping[str, Any]
    #: whole numbers that are multiples of 16
    divisible: Sequence[str] = ()
    architecture: str = "sm_90a"


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What a kernel has been compiled to."""

    #: assembly of the virtual machine, and of the device
    ptx: str = field(repr=False)
    sass: str = field(repr=False)
    #: registers of a thread
    registers: int
    #: bytes of a thread's registers and arrays that were moved to memory: 0 where all fits
    spills: int
    #: bytes of shared memory of a program
    shared: int


def compile_for(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    divisible: Sequence[str] = (),
    arch: str = "sm_90a",
) -> Compiled:
    """Compile one kernel, a function decorated by ``triton.jit`` at the top of its module; see ``compile_all`` for many."""
    return compile_all([request(kernel, signature, constants, divisible, arch)])[0]


def request(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    divisible: Sequence[str] = (),
    arch: str = "sm_90a",
) -> Request:
    """Return the request for a kernel; ``ValueError`` for an unknown architecture and for arguments left out."""
    if arch not in ARCHITECTURES:
        raise InvalidValueError(f"architecture to compile for must be {', '.join(ARCHITECTURES)}, not {arch}")
    missing = [name for name in kernel.arg_names if name not in signature and name not in constants]
    if missing:
        raise InvalidValueError(
            f"arguments of {kernel.fn.__name__} must have a type or be constant, not neither: {', '.join(missing)}"
        )
    name = f"{kernel.fn.__module__}:{kernel.fn.__name__}"
    return Request(kernel=name, signature=signature, constants=constants, divisible=divisible, architecture=arch)


def compile_all(requests: Sequence[Request]) -> list[Compiled]:
    """Compile kernels one after the other in one process; ``BitatlasError`` with its last line where that fails."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "requests.json"), Path(folder, "compiled.json")
        given.write_text(json.dumps([asdict(each) for each in requests]), encoding="utf-8")
        command = [sys.executable, "-m", "hwmodels.gpu.kernels.compiling", str(given), str(made)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise BitatlasError(f"kernel must compile, not fail: {lines[-1]}")
        return [Compiled(**each) for each in json.loads(made.read_text(encoding="utf-8"))]


def _compile(wanted: Request) -> Compiled:
    """Compile one kernel here, where nothing is interpreted."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name = wanted.kernel.split(":")
    kernel = getattr(import_module(module), name)
    constants = {key: value for key, value in wanted.constants.items() if key not in _OPTIONS}
    options = {key: value for key, value in wanted.constants.items() if key in _OPTIONS}
    signature = {each: "constexpr" if each in constants else wanted.signature[each] for each in kernel.arg_names}
    aligned = [place for place, (each, kind) in enumerate(signature.items()) if kind[0] == "*" or each in wanted.divisible]
    attributes = {(place,): [["tt.divisibility", _DIVISOR]] for place in aligned}
    source = ASTSource(kernel, signature, constants, attributes)
    made = triton.compile(source, target=GPUTarget("cuda", ARCHITECTURES[wanted.architecture], 32), options=options)
    registers, spills = _resources(made.asm["cubin"])
    shared = int(made.metadata.shared)
    return Compiled(ptx=made.asm["ptx"], sass=made.asm["sass"], registers=registers, spills=spills, shared=shared)


def _resources(binary: bytes) -> tuple[int, int]:
    """Return the registers and the bytes of local memory that each thread of a compiled kernel takes."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        listed = subprocess.run([str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", listed.stdout + listed.stderr)
    if found is None:
        raise BitatlasError(f"resources of a compiled kernel must be listed, not missing: {tool}")
    registers, stack, local = map(int, found.groups())
    return registers, stack + local


def main(given: str, made: str) -> None:
    """Compile the requests of one file and write what they became to the other."""
    requests = [Request(**each) for each in json.loads(Path(given).read_text(encoding="utf-8"))]
    Path(made).write_text(json.dumps([asdict(_compile(each)) for each in requests]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
