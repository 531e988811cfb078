"""Errors that a user of the toolkit can act upon."""

import importlib


class BitatlasError(Exception):
    """Base of every error whose message is meant for the user: one line, what must be which constraint, not what it is.

    The command line prints the message alone and exits with status 2; anything else is a defect and keeps its traceback.
    """


class InvalidValueError(BitatlasError, ValueError):
    """A value that breaks a stated constraint."""


class UnknownNameError(BitatlasError, KeyError):
    """A name that nothing is registered under; the message lists the nearest valid ones."""

    def __str__(self) -> str:
        """Return the message itself (``KeyError`` would print it in quotes)."""
        return str(self.args[0])


class InvalidTypeError(BitatlasError, TypeError):
    """A value of a type or dtype that cannot be taken."""


def require(package: str, what: str, extra: str) -> None:
    """Raise ``MissingPackageError`` where the module ``package``, which ``what`` needs, cannot be imported."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # the package is there, and broken
        raise MissingPackageError(package, what, extra) from None


class MissingPackageError(BitatlasError, ImportError):
    """A package that is not installed, and that only the module being imported needs."""

    def __init__(self, package: str, module: str, extra: str) -> None:
        """Name the package, the module that needs it, and the extra that installs it."""
        super().__init__(f"{package} must be installed for {module}: pip install bitatlas[{extra}]")
