"""The command ``eyvan``: run, generate-registration, doctor, demo.

Exit codes: 0 done, 1 something failed (one line says what), 2 the configuration or the command line must be changed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bridge import __version__
from bridge.config import load_config
from bridge.errors import ConfigError, EyvanError
from bridge.telemetry import setup_logging

_EPILOG = """\
first steps:
  cp config.example.yaml config.yaml      fill in your homeserver and your addresses
  eyvan generate-registration -c config.yaml
                                          name the file it writes in your homeserver's configuration
  eyvan doctor -c config.yaml             a tick or a remedy for each thing that must be right
  eyvan run -c config.yaml

no homeserver at hand:
  eyvan demo                              a whole stage on this machine, with people who talk
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eyvan",
        description="Live audio stages in Matrix rooms: an application service with its own relay and page.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"eyvan {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    run = commands.add_parser("run", help="run the application service until it is stopped")
    run.set_defaults(call=_run)

    registration = commands.add_parser(
        "generate-registration",
        help="write the registration file for your homeserver, with new tokens where none are set",
    )
    registration.add_argument("-o", "--output", type=Path, default=Path("registration.yaml"), help="file to write")
    registration.add_argument("--force", action="store_true", help="replace the file if it is there")
    registration.set_defaults(call=_generate_registration)

    doctor = commands.add_parser("doctor", help="check configuration, database, homeserver, ports, clock and page")
    doctor.set_defaults(call=_doctor)

    for each in (run, registration, doctor):
        each.add_argument("-c", "--config", type=Path, default=Path("config.yaml"), help="default: config.yaml")

    demo = commands.add_parser("demo", help="a homeserver, a stage and people who talk, all on this machine")
    demo.set_defaults(call=_demo)
    from bridge.demo.run import add_arguments

    add_arguments(demo)
    return parser


def _run(args: argparse.Namespace) -> int:
    from bridge.app import run

    config = load_config(args.config, os.environ)
    setup_logging(config.logging.level, as_json=config.logging.json, secrets=config.secrets)
    asyncio.run(run(config))
    return 0


def _generate_registration(args: argparse.Namespace) -> int:
    from bridge.registration import write_registration

    config = load_config(args.config, os.environ, need_secrets=False)
    print(write_registration(config, args.output, force=args.force))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from bridge.doctor import run_doctor

    return asyncio.run(run_doctor(args.config))


def _demo(args: argparse.Namespace) -> int:
    from bridge.demo.run import run_demo

    return asyncio.run(run_demo(args))


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    call: Callable[[argparse.Namespace], int] = args.call
    try:
        return call(args)
    except ConfigError as error:
        print(f"eyvan: {error}", file=sys.stderr)
        return 2
    except EyvanError as error:
        print(f"eyvan: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
