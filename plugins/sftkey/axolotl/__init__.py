"""Everything that knows Axolotl: plugin, arguments, dataset strategy, trainer, stages, commands."""

from sftkey.util.extras import extra

with extra("axolotl"):
    from axolotl import __version__ as __version__
