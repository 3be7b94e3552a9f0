"""`label`: what people answered becomes labels. `import_labels` adds answers, `label_status` tells what is still out,
`was_it_worth_it` compares a batch with its control."""

from poolscore.jobs.label.importing import Imported, import_labels

__all__ = ["Imported", "import_labels"]
