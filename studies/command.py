"""Studies as commands: an error that the user can mend is one line and exit status 2, as for ``dse``."""

import sys
from collections.abc import Callable

from dse.cli import user_message


def run(main: Callable[[], None]) -> None:
    """Run a study's ``main`` and exit."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"{sys.modules[main.__module__].COMMAND.split()[-1]}: {message}", file=sys.stderr)
        sys.exit(2)
