"""The ledger: what was made from what, who approved it, what was promoted when. See docs/ledger.md."""

from tasks.ledger.chain import Ledger, LedgerBroken, LedgerMoved, open_ledger
from tasks.ledger.entry import GENESIS, Edge, Entry, EntryKind, Head, Recorded, Status, environment, stage_entry
from tasks.ledger.index import History

__all__ = [
    "GENESIS", "Edge", "Entry", "EntryKind", "Head", "History", "Ledger", "LedgerBroken", "LedgerMoved", "Recorded",
    "Status", "environment", "open_ledger", "stage_entry",
]  # fmt: skip
