"""`detrex-backbones match`: what a load would do, without allocating the model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import (
    add_command,
    add_config_argument,
    add_container_argument,
    add_json_argument,
    add_overrides_argument,
    add_source_argument,
    check_writable,
    load_config,
    parse_renaming,
    write_output,
)
from detrex_backbones.cli.terminal import print_json, say
from detrex_backbones.errors import ConfigKeyError, DetrexBackbonesError
from detrex_backbones.text import visible

if TYPE_CHECKING:
    from detrex_backbones.checkpoint.report import LoadReport

EXAMPLES = """\
examples:
  detrex-backbones match resnet/resnet50.py resnet50.pth
  detrex-backbones match my_config.py detector.pkl --prefix backbone.bottom_up
  detrex-backbones match resnet/resnet50.py resnet50.pth --json \\
      model.backbone.stages.depth=101
  detrex-backbones match resnet/resnet50.py resnet50.pth --html report.html
  detrex-backbones match my_config.py own.pth --rename '^encoder\\.='
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "match",
        run,
        summary="report which tensor of a checkpoint would be loaded where",
        about="Match a checkpoint with a config's model, and print the load report, without\n"
        "allocating the model. The exit status is 1 if the load would be refused.",
        examples=EXAMPLES,
    )
    add_config_argument(parser)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="path, URL, or name of known weights")
    add_overrides_argument(parser)
    add_source_argument(parser, "--source")
    parser.add_argument("--prefix", metavar="P", help="prefix of the keys in the file (default: found automatically)")
    parser.add_argument("--scope", metavar="PATH", help="submodule of the model to load (default: found automatically)")
    add_container_argument(parser)
    parser.add_argument(
        "--rename",
        metavar="OLD=NEW",
        action="append",
        type=parse_renaming,
        help="rename a key of the file, or what a regular expression matches in all keys; may be repeated",
    )
    parser.add_argument("--all", action="store_true", help="print every key, not only the summary")
    parser.add_argument("--html", metavar="FILE", help="also write the report as a searchable web page")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Print the report of a dry run, and raise where the load would."""
    from detrex_backbones.checkpoint.files import load_values, open_checkpoint
    from detrex_backbones.checkpoint.load import plan_load
    from detrex_backbones.checkpoint.match.refusals import check_report
    from detrex_backbones.checkpoint.match.traits import check_traits, traits_of
    from detrex_backbones.zoo import build_on_meta, load_options
    from detrex_backbones.zoo.infer.refused import name_the_network

    if args.html:
        check_writable(args.html, "--html")
    cfg = load_config(args)
    if "model" not in cfg:
        raise ConfigKeyError(f"the config has no 'model' to match. It has: {', '.join(map(str, cfg)) or 'nothing'}.")
    given = {
        name: getattr(args, name)
        for name in ("source", "prefix", "scope", "container", "rename")
        if getattr(args, name) is not None
    }
    options = load_options(cfg, **given)
    model = build_on_meta(cfg.model)
    with open_checkpoint(args.checkpoint, options.container) as checkpoint:
        attempt = plan_load(model, model.state_dict(), checkpoint, options)
        load_values(checkpoint, attempt.values, owned=False)  # a wrong checksum shows only where values are read
    report = attempt.report
    if args.json:
        print_json(report.to_dict())
    else:
        print_report(report, every_key=args.all)
    # On the meta device the numbers of the preprocessing have no values: the config has them.
    stated = {name: cfg.model[name] for name in ("pixel_mean", "pixel_std", "input_format") if name in cfg.model}
    try:
        with name_the_network(cfg, args.checkpoint, options):
            check_report(report, options.allow_missing, options.allow_unused)
        traits = {**traits_of(model, report.scope), **stated}
        check_traits(traits, report, options.check_preprocessing, options.source)
    except DetrexBackbonesError as error:
        _write_page(args, report, str(error))
        raise
    _write_page(args, report)


def _write_page(args: argparse.Namespace, report: LoadReport, refusal: str = "") -> None:
    if args.html:
        from detrex_backbones.view import report_page

        page = report_page(report, refusal).encode("utf-8", "backslashreplace")
        write_output("--html", args.html, lambda file: file.write(page))


def print_report(report: LoadReport, every_key: bool) -> None:
    """The summary and, if wanted, a line for every key."""
    say(report)
    if every_key:
        say()
        for item in report.loaded:
            say(f"{visible(item.checkpoint_key)} -> {visible(item.model_key)} {item.shape} ({item.rule})")
        for key, why in report.left_over.items():
            say(f"{visible(key)}: {visible(why)}")
