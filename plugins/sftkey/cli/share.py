"""``sftkey share``: bundle what others need to run a finished stage again."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from sftkey.cli.console import echo, note


@click.command("share")
@click.argument("output_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to write the bundle; default: OUTPUT_DIR/share, and nowhere with --push-to-hub.",
)
@click.option(
    "--push-to-hub", metavar="REPO", help="Upload it to this model repository, as the account of `hf auth login`."
)
@click.option("--public", is_flag=True, help="Make a new repository public; default: private.")
@click.option("--weights", is_flag=True, help="Include the weights, config and tokenizer of OUTPUT_DIR.")
@click.option("--dry-run", is_flag=True, help="Show what would be shared; write and upload nothing.")
def share_command(
    output_dir: Path, output: Path | None, push_to_hub: str | None, public: bool, weights: bool, dry_run: bool
) -> None:
    """Bundle what others need to run the finished stage in OUTPUT_DIR again.

    The recipes of every stage as run, package versions, data set revisions and row counts, and a model card with the
    method, the settings and, once evaluated, the scores. Refused if anything in it looks like a secret. Weights are left
    out unless --weights is given, also with --push-to-hub.
    """
    from sftkey.stages.bundle import push_bundle, save_bundle
    from sftkey.stages.share import make_bundle

    bundle = make_bundle(output_dir, weights)
    for text in bundle.notes:
        note(text)
    if not weights:
        note("the weights are not included (--weights)")
    if dry_run:
        for name, size in bundle.files:
            echo(f"{size:>15,}  {name}")
        echo(f"\n{bundle.texts['README.md']}")
        where = f"{push_to_hub} ({'public' if public else 'private'}, if new)" if push_to_hub else ""
        echo(f"would go to {where or output or output_dir / 'share'}; nothing was written", err=True)
        return
    with TemporaryDirectory() as temporary:
        folder = output or (output_dir / "share" if push_to_hub is None else Path(temporary) / "bundle")
        save_bundle(bundle, folder)
        if output is not None or push_to_hub is None:
            echo(str(folder))
        if push_to_hub is not None:
            echo(push_bundle(folder, push_to_hub, private=not public))
