"""Labels in the database are the truth; every array on disk is a cache that can be rebuilt from them."""

from annotator.models.annotation import Annotation, Query
from annotator.models.batch import Batch, BatchImage
from annotator.models.job import Job, WorkerHeartbeat
from annotator.models.learner import AuditDraw, ColdStart, Linearization, NetworkVersion, Ownership, Ranking
from annotator.models.pool import Image, LabelClass
from annotator.models.project import Membership, Project
from annotator.models.session import AnnotationSession

__all__ = [
    "Annotation",
    "AnnotationSession",
    "AuditDraw",
    "Batch",
    "BatchImage",
    "ColdStart",
    "Image",
    "Job",
    "LabelClass",
    "Linearization",
    "Membership",
    "NetworkVersion",
    "Ownership",
    "Project",
    "Query",
    "Ranking",
    "WorkerHeartbeat",
]
