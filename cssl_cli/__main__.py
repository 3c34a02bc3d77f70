"""`python -m cssl_cli`, and the console script `cssl`."""

import sys

from cssl_cli.signals import default_signals, end_on_signals
from cssl_cli.streams import use_standard_streams


def main() -> None:
    end_on_signals()  # before anything that takes time
    use_standard_streams()
    from cssl_cli.guard import exit_code_of

    code = exit_code_of(_run)
    default_signals()
    sys.exit(code)


def _run() -> None:
    from cssl_cli.cli import app

    app(prog_name="cssl")


if __name__ == "__main__":
    main()
