"""The command line, ``dse``: arguments here, the work behind lazy imports."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def _subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="resnet8, mobilenet, vit, FILE.onnx, or your own as package.module:factory")
    parser.add_argument("--data", help="digits (default) or fashion-mnist")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the IDX files of fashion-mnist")


def _device(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument("--device", required=required, metavar="NAME", help="FPGA to fold a dataflow pipeline for, such as zu7ev")
    parser.add_argument("--fps", type=float, metavar="RATE", help="samples a second that it must keep, with least area")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SHARE",
        help="share of the device to keep within (default: 1); without --fps the highest rate",
    )
    parser.add_argument("--clock", type=float, metavar="MHZ", help="clock (default: what is assumed for the device)")


def _search(parser: argparse.ArgumentParser) -> None:
    _subject(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with any of these options; flags win")
    parser.add_argument("--out", metavar="DIR", help="folder of the results; a search found there goes on")
    parser.add_argument("--formats", metavar="A,B,…", help="formats for weights and activations")
    parser.add_argument("--weight-formats", metavar="A,B,…", help="formats for weights alone")
    parser.add_argument("--activation-formats", metavar="A,B,…", help="formats for activations alone")
    parser.add_argument("--objectives", metavar="A,B,…", help="kl, accuracy, lut, bops, weight_bits, … (default: kl,lut)")
    parser.add_argument("--constraint", action="append", metavar="BOUND", help="a bound such as lut<=20000; may be repeated")
    parser.add_argument("--trials", type=int, help="trials in all, those already in DIR counted (default: 200)")
    parser.add_argument("--seed", type=int, help="seed of the sampler (default: 0)")
    parser.add_argument("--sampler", help="front (default: ours, from sensitivities), tpe, nsga2, gp or random")
    parser.add_argument(
        "--sensitivity", metavar="METHOD", help="how front scores options: solo (default), gradient or gradient-diagonal"
    )
    parser.add_argument(
        "--network-steps", metavar="A,B,…", help="rows of steps on the float network to choose from, such as none,equalize+smooth"
    )
    parser.add_argument(
        "--layer-steps", metavar="A,B,…", help="rows of steps on a layer's weight to choose from, such as none,gptq+correct_bias"
    )
    parser.add_argument(
        "--tie",
        action="append",
        metavar="REGEX",
        help="layers whose names match, with equal groups, share formats; may be repeated",
    )
    parser.add_argument("--ties", metavar="auto|none", help="whether layers that read one tensor share formats (default: auto)")
    parser.add_argument(
        "--rungs", metavar="N,M,…", help="samples on which poor assignments are dropped early, or none (default: 16,64 with front)"
    )
    parser.add_argument(
        "--storage", metavar="URL", help="database of the trials for many workers, such as postgresql://… (default: a file in DIR)"
    )
    parser.add_argument("--study", metavar="NAME", help="name of the search in that database (default: search)")
    parser.add_argument(
        "--cycles", type=int, help="clock cycles for a sample, which sets how many units lut counts (default: 1024)"
    )
    _device(parser)
    parser.add_argument(
        "--batch", type=int, metavar="N", help="samples at a time on a GPU, for objectives such as latency_us@h100 (default: 1)"
    )
    parser.add_argument("--choose", metavar="BOUND", help="take the cheapest point with, say, accuracy>=0.97 (default: the knee)")


def _worker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage", required=True, metavar="URL", help="database of the search: postgresql://… or sqlite:///DIR/ledger.sqlite"
    )
    parser.add_argument("--study", default="search", metavar="NAME", help="name of the search there (default: %(default)s)")


def _assignment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--assignment", type=Path, metavar="FILE", help="JSON or TOML file with every layer's quantizers")
    parser.add_argument(
        "--weights", metavar="QUANTIZER", help="without a file: this for every weight, such as int4 or int4:channel:mse"
    )
    parser.add_argument(
        "--activations", metavar="QUANTIZER", help="without a file: this for every activation, unsigned where it can be"
    )
    parser.add_argument(
        "--network-steps", metavar="A+B", help="without a file: steps that the float network goes through first, such as equalize"
    )
    parser.add_argument(
        "--layer-steps", metavar="A+B", help="without a file: steps that prepare every weight, such as gptq+correct_bias"
    )
    _subject(parser)
    parser.add_argument("--cycles", type=int, default=1024, help="clock cycles for a sample, for lut (default: %(default)s)")
    parser.add_argument(
        "--gpu", action="append", metavar="NAME", help="print time and energy on a GPU too, such as h100; may be repeated"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="samples at a time on a GPU (default: %(default)s)")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _assignment(parser)
    _device(parser)
    parser.add_argument(
        "--split",
        choices=("train", "calibration", "validation", "test"),
        default="validation",
        help="samples to measure on (default: %(default)s)",
    )
    parser.add_argument(
        "--arithmetic",
        choices=("float", "exact"),
        default="float",
        help="float: layers compute in float32 on quantized operands; exact: whole numbers throughout, with the accumulators and "
        "requantizers of hardware, and a table of where that differs (default: %(default)s)",
    )
    parser.add_argument("--differences", type=Path, metavar="FILE", help="with --arithmetic exact: write that table as CSV too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV too")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the assignment, with its figures, to edit and run again")


def _cost(parser: argparse.ArgumentParser) -> None:
    _assignment(parser)
    _device(parser, required=True)
    parser.add_argument(
        "--style",
        choices=("folded", "unrolled"),
        default="folded",
        help="folded: units that take turns; unrolled: weights wired into adder graphs, by da4ml (default: %(default)s)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV too")


def _calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        choices=("fpga", "gpu"),
        help="fpga: generate, prove and synthesise multiply-accumulate units; gpu: time kernels on this machine's GPU",
    )
    parser.add_argument("--weights", metavar="A,B,…", help="weight formats (default: those of the shipped table)")
    parser.add_argument("--activations", metavar="A,B,…", help="activation formats (default: those of the shipped table)")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE|DIR",
        help="fpga: table to extend; gpu: folder of the table (default: the cache folder, used beside what is shipped)",
    )
    parser.add_argument("--minutes", type=float, metavar="N", help="gpu: time to spend (default: 10); what is left is said")


def _rtl(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weight", required=True, metavar="FORMAT", help="format of the weights, such as e2m1")
    parser.add_argument("--activation", required=True, metavar="FORMAT", help="format of the activations, such as int8")
    parser.add_argument(
        "--accumulator", default="exact", metavar="KIND", help="exact (default), fixed:20 (saturating) or fixed:20:wrap"
    )
    parser.add_argument("--dot-length", type=int, default=1024, metavar="N", help="products in a sum (default: %(default)s)")
    parser.add_argument("--lanes", type=int, default=4, metavar="N", help="products in a clock cycle (default: %(default)s)")
    parser.add_argument("--recipe", metavar="NAME", help="architecture (default: the smallest by the table of synthesised units)")
    parser.add_argument("--output", metavar="FORMAT", help="add a requantizer from the accumulator to codes of this format")
    parser.add_argument(
        "--requantizer",
        metavar="KIND",
        help="search (default), thresholds, normalise, shift, multiplier-single or multiplier-double",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")


def _inspect(parser: argparse.ArgumentParser) -> None:
    _assignment(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the table as CSV, and a figure")
    parser.add_argument(
        "--samples", type=int, default=256, metavar="N", help="validation samples to look at (default: %(default)s)"
    )


def _export(parser: argparse.ArgumentParser) -> None:
    _assignment(parser)
    parser.add_argument(
        "--target",
        default="qdq,codebook",
        metavar="A,B,…",
        help="each operand is written by the first of these that can (default: %(default)s). qdq: QuantizeLinear and "
        "DequantizeLinear in the narrowest ONNX type that holds the values exactly (e2m1 in half units as INT8); codebook: codes "
        "and tables for any format, in functions named after it; qonnx: QONNX's operators, for hls4ml and FINN; fp4: e2m1 as "
        "FLOAT4E2M1, which onnxruntime does not run yet; integer, alone: a graph of whole numbers from the input's codes on",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ONNX file to write")


def _import_onnx(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("onnx", type=Path, metavar="MODEL.onnx", help="quantized model: QONNX, QDQ, or an export of this program")
    parser.add_argument("--data", help="digits (default) or fashion-mnist")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the IDX files of fashion-mnist")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for assignment.json and layers.csv")
    parser.add_argument("--cycles", type=int, default=1024, help="clock cycles for a sample, for lut (default: %(default)s)")


def _flow(parser: argparse.ArgumentParser) -> None:
    flows = parser.add_subparsers(dest="flow", required=True, metavar="FLOW")
    summary = "write an HLS project by hls4ml, compiled by g++ and compared with the emulator; scales must be powers of two"
    _flow_hls4ml(flows.add_parser("hls4ml", help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False))
    summary = "estimate a dataflow pipeline by finn-plus, in an environment of its own; integers and binary only"
    _flow_finn(flows.add_parser("finn", help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False))


def _flow_finn(parser: argparse.ArgumentParser) -> None:
    _assignment(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of FINN's reports, its folding, and ours")
    parser.add_argument("--fps", type=float, metavar="RATE", help="samples a second to fold for (default: nothing is folded)")
    parser.add_argument("--device", default="zu7ev", metavar="NAME", help="FPGA, as in dse cost (default: %(default)s)")
    parser.add_argument("--clock", type=float, metavar="MHZ", help="clock (default: what is assumed for the device)")
    parser.add_argument(
        "--python",
        type=Path,
        metavar="PATH",
        help="Python of FINN's environment (default: the one that python -m dse.flows.finn_environment makes)",
    )


def _flow_hls4ml(parser: argparse.ArgumentParser) -> None:
    _assignment(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the project and its report")
    parser.add_argument(
        "--backend",
        choices=("Vitis", "Vivado", "Catapult", "Quartus"),
        default="Vitis",
        help="tools that the project is for; only for the first two is it bit-exact (default: %(default)s)",
    )
    parser.add_argument(
        "--io",
        choices=("io_parallel", "io_stream"),
        default="io_parallel",
        help="whole arrays at a time, or streams of pixels (default: %(default)s)",
    )
    parser.add_argument("--part", metavar="NAME", help="FPGA by the vendor's name, such as xczu7ev-ffvc1156-2-e")
    parser.add_argument(
        "--reuse-factor", type=int, default=1, metavar="N", help="products that share a multiplier (default: %(default)s)"
    )
    parser.add_argument(
        "--samples", type=int, default=100, metavar="N", help="validation samples to compare on (default: %(default)s)"
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="write the project alone, without running it")


def _formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="print this format's codes and values")


#: subcommand: function of dse.commands, help line, what fills its parser
COMMANDS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "search": ("search", "search formats for every layer; leaves a Pareto front and the chosen model", _search),
    "evaluate": ("evaluate", "print accuracy, KL and costs of an assignment, for each layer and in total", _evaluate),
    "worker": ("worker", "join a search that goes on elsewhere, from any process or machine", _worker),
    "inspect": ("inspect", "print the quantization error of every layer: signal-to-noise ratios, zeros, clipped values", _inspect),
    "cost": ("cost", "print what an assignment takes on an FPGA, for each layer and in total", _cost),
    "calibrate": ("calibrate", "measure what cost models are made of; goes on where it was cut off", _calibrate),
    "rtl": ("rtl", "write a multiply-accumulate unit as Verilog with a test bench, proved equal to the emulator", _rtl),
    "export": ("export", "write an assignment as ONNX, checked against the emulator by onnxruntime", _export),
    "import-onnx": ("import_onnx", "read a quantized ONNX model made elsewhere as an assignment, checked against it", _import_onnx),
    "flow": ("flow", "hand an assignment to another program's flow to hardware", _flow),
    "formats": ("list_formats", "list number formats, or the codes of one", _formats),
    "models": ("list_models", "list the networks of the zoo with their measured float accuracy", lambda parser: None),
}


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    made = argparse.ArgumentParser(prog="dse", description="Which number format for which layer? Search, measure, export.")
    subparsers = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary, fill) in COMMANDS.items():
        fill(subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return 0, 2 for an error of the user's to mend, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if "" in (sys.argv[1:] if arguments is None else arguments):
        print("dse: an argument must have a value, not be empty", file=sys.stderr)
        return 2
    try:
        from dse import commands

        getattr(commands, COMMANDS[options.command][0])(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on; nothing to say
        return 141
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"dse: {message}", file=sys.stderr)
        return 2
    return 0


def user_message(error: Exception) -> str | None:
    """Return one line for an error that the user can mend; None for a defect, which keeps its traceback."""
    from formats.errors import BitatlasError

    if isinstance(error, BitatlasError):
        return " ".join(str(error).split("\n"))
    if isinstance(error, OSError) and error.errno is not None:
        cause = "disk must have room, not be full"
        if error.errno not in DISK_FULL:
            cause = f"file must be usable, not fail ({error.strerror or error})"
        return f"{cause}: {error.filename}" if error.filename else cause
    if type(error).__module__.startswith(("sqlite3", "sqlalchemy")):
        return f"database must be usable, not fail ({str(error).splitlines()[0]})"
    return None


if __name__ == "__main__":
    sys.exit(main())
