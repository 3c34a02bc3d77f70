"""`python -m cssl_cli`, and the console script `cssl`."""

from cssl_cli.cli import app


def main() -> None:
    app(prog_name="cssl")


if __name__ == "__main__":
    main()
