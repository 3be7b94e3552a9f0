"""`label`: what people answered becomes labels. `import_labels` adds answers, `label_status` tells what is still out,
`was_it_worth_it` compares a batch with its control, and `verdict` says
what that comes to."""

from poolscore.jobs.label.importing import Imported, import_labels
from poolscore.jobs.label.status import Status, label_status
from poolscore.jobs.label.verdict import verdict
from poolscore.jobs.label.worth import Worth, was_it_worth_it

__all__ = ["Imported", "Status", "Worth", "import_labels", "label_status", "verdict", "was_it_worth_it"]
