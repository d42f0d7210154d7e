"""``axolotl sftkey recipe``: write a shipped recipe for another model, data set, place or setting."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path

import click

from sftkey.datasets.registry import DATASETS
from sftkey.recipes.catalogue import shipped_recipe
from sftkey.recipes.keys import KEYS
from sftkey.recipes.writing import WrittenRecipe, write_recipe
from sftkey.util.errors import UserError


@click.command("recipe")
@click.argument("name")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dataset", "dataset_name", type=click.Choice(DATASETS), help="The data set to train on.")
@click.option("--model-id", metavar="ID", help="The base model: a name on the Hub or a folder.")
@click.option("--output-root", metavar="DIR", help="Where outputs go, in place of outputs.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write this file, and beside it the recipes of the stages before; default: print this one.",
)
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def recipe_command(
    name: str,
    overrides: tuple[str, ...],
    dataset_name: str | None,
    model_id: str | None,
    output_root: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Write the shipped recipe NAME, changed as asked, with its comments.

    The recipe stands alone: it needs this package and nothing else from here. A second stage names the recipe of the
    first one; with -o both are written, otherwise the command for the other one is shown. KEY=VALUE sets any key of
    Axolotl's or of this plugin's, in every stage: learning_rate=1e-5, datasets.0.split=train[:100].
    """
    written = write_recipe(
        shipped_recipe(name),
        dataset_name=dataset_name,
        model_id=model_id,
        output_root=output_root,
        overrides=overrides,
        file_name=output.name if output else None,
        known_keys=_known_keys,
    )
    if output is None:
        _cut_banner()
        click.echo(written.text, nl=False)
        for earlier in written.chain[:-1]:
            click.echo(f"note: starts from {earlier.file_name}, in the same folder:\n  {_shell(earlier)}", err=True)
    else:
        _save(written, output.parent, force)
    for note in written.notes:
        click.echo(f"note: {note}", err=True)


def _cut_banner() -> None:
    """Keep Axolotl's banner out of ``> my.yml``.

    Axolotl writes it to stdout before any code of a plugin's command runs. From a file it is cut off again; what went
    into a pipe can't be taken back, which is said.
    """
    art = sys.modules.get("axolotl.cli.art")
    if not getattr(art, "HAS_PRINTED_LOGO", False) or sys.stdout.isatty():
        return
    try:
        sys.stdout.flush()
        output = sys.stdout.fileno()
    except (OSError, io.UnsupportedOperation):
        return  # not the process's own output
    banner = f"{getattr(art, 'AXOLOTL_LOGO', '')}\n".encode()
    status = os.fstat(output)
    if not stat.S_ISREG(status.st_mode):
        click.echo("note: Axolotl's banner stands above the recipe in this pipe; use > FILE or -o FILE", err=True)
        return
    start = status.st_size - len(banner)
    if start >= 0 and _read_from(output, start) in (banner, None if start == 0 else banner):
        os.ftruncate(output, start)
        os.lseek(output, start, os.SEEK_SET)


def _read_from(descriptor: int, start: int) -> bytes | None:
    """The end of a file that may be open for writing only; ``None`` where the system has no way to read it."""
    try:
        with open(f"/proc/self/fd/{descriptor}", "rb") as file:
            file.seek(start)
            return file.read()
    except OSError:
        return None


def _shell(written: WrittenRecipe) -> str:
    return f"{written.command} > {written.file_name}"


def _save(written: WrittenRecipe, folder: Path, force: bool) -> None:
    files = [(folder / recipe.file_name, recipe) for recipe in written.chain]
    existing = [str(path) for path, recipe in files if path.exists() and path.read_text("utf-8") != recipe.text]
    if existing and not force:
        raise UserError(f"{', '.join(existing)} exists; give another -o, or --force to overwrite")
    for path, recipe in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(recipe.text, encoding="utf-8")
        click.echo(f"wrote {path}", err=True)


def _known_keys() -> set[str]:
    from axolotl.utils.schemas.config import AxolotlInputConfig

    return {*AxolotlInputConfig.model_fields, *KEYS}
