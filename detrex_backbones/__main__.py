"""`python -m detrex_backbones` is `detrex-backbones`."""

from detrex_backbones.cli import command

raise SystemExit(command())
