"""The audit: what trained a model, was it validated, who approved, can it be rebuilt, was any byte altered, and what
does something touch. See docs/audit.md."""

from tasks.audit.data import data_sources, data_verdict, whereabouts
from tasks.audit.everything import audit_everything
from tasks.audit.model import audit
from tasks.audit.rebuild import rebuild
from tasks.audit.records import QUESTIONS, AuditReport, HistoryReport, Question, RebuildReport, TouchedReport
from tasks.audit.touched import touched_by

__all__ = [
    "QUESTIONS", "AuditReport", "HistoryReport", "Question", "RebuildReport", "TouchedReport", "audit",
    "audit_everything", "data_sources", "data_verdict", "rebuild", "touched_by", "whereabouts",
]  # fmt: skip
