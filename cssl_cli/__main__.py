"""`python -m cssl_cli`, and the console script `cssl`."""

import os
import sys


def main() -> None:
    if instruction := os.environ.get("_CSSL_COMPLETE"):  # a Tab in a shell, which waits
        from cssl_cli.cli.completion import main as complete

        sys.exit(complete(instruction))
    import signal

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C leaves no traceback of what is imported here
    from cssl_cli.cli.guard import exit_code_of
    from cssl_cli.host.signals import default_signals, end_on_signals
    from cssl_cli.host.streams import use_standard_streams

    end_on_signals()
    use_standard_streams()
    code = exit_code_of(_run)
    default_signals()
    sys.exit(code)


def _run() -> None:
    from cssl_cli.cli.app import app

    app(prog_name="cssl")


if __name__ == "__main__":
    main()
