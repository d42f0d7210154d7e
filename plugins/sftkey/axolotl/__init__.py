"""Everything that knows Axolotl: plugin, arguments, dataset strategy, trainer, stages, commands."""
