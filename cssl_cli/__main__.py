"""`python -m cssl_cli`, and the console script `cssl`."""

import os
import sys


def main() -> None:
    if instruction := os.environ.get("_CSSL_COMPLETE"):  # a Tab in a shell, which waits
        from cssl_cli.cli.completion import main as complete

        sys.exit(complete(instruction))
    import signal

    wait_briefly()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C leaves no traceback of what is imported here
    from cssl_cli.cli.guard import exit_code_of
    from cssl_cli.host.signals import default_signals, end_on_signals
    from cssl_cli.host.streams import use_standard_streams

    use_standard_streams()  # first: else what libraries print could go into the pipe by which signals are noticed
    end_on_signals()
    code = exit_code_of(_run)
    default_signals()
    sys.exit(code)


def wait_briefly() -> None:
    """Let OpenMP's threads wait awake for some 20 microseconds only, unless the environment says how they wait.

    Awake, they take the core that another program could use, and then wait for it themselves: beside one busy program,
    small networks train 1.6 times as fast so, and alone as fast as before (benchmarks/threads.py). Read by libgomp when
    torch is loaded; results do not depend on it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _run() -> None:
    from cssl_cli.cli.app import app

    app(prog_name="cssl")


if __name__ == "__main__":
    main()
