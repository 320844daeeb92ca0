"""What a server's database holds, as JSON: run as a program with that server's environment, whatever its database.

python -m tests.faults.stored

It reads a project's slug a line and answers with a line: what is stored, or {"error": "..."} while it cannot be read.
"check SLUG" is answered with the words of `manage.py rebuild_posterior --check`, and with an error where that fails.
"""

import io
import json
import os
import sys
from typing import Any


def what_is_stored(slug: str) -> dict[str, Any]:
    """Return every annotation of a project and its leases; Django is set up and no row is changed."""
    from annotator.models import Annotation, Job, Linearization, Ownership, Project, Query

    project = Project.objects.get(slug=slug)
    annotations = Annotation.objects.filter(project=project).order_by("pk")
    queries = Query.objects.filter(project=project).order_by("leased_at")
    owner = Ownership.objects.filter(project=project).first()
    live = Linearization.objects.filter(project=project, state=Linearization.State.LIVE).first()
    return {
        "annotations": [
            {
                "id": annotation.pk,
                "client_key": str(annotation.client_key),
                "user": annotation.user.username,
                "query": str(annotation.query_id),
                "image": annotation.image_id,
                "kind": annotation.kind,
                "class_index": annotation.label_class.index if annotation.label_class else None,
                "late": annotation.late,
            }
            for annotation in annotations.select_related("user", "label_class")
        ],
        "queries": [
            {
                "id": str(query.pk),
                "image": query.image_id,
                "user": query.session.user.username,
                "state": query.state,
                "kind": query.kind,
                "source": query.source,
                "labels_behind": query.labels_behind,
                "network": query.network_number,
            }
            for query in queries.select_related("session__user")
        ],
        "images": project.images.filter(deleted_at=None).count(),
        "network": live.network_version.number if live else None,
        "posterior_file": live.posterior_file if live else "",
        "features_file": live.features_file if live else "",
        "weights_file": live.network_version.weights_file if live else "",
        "ready": Linearization.objects.filter(project=project, state=Linearization.State.READY).count(),
        "training": Job.objects.filter(project=project, kind=Job.Kind.TRAIN, state=Job.State.RUNNING).count(),
        "owner": owner.worker if owner else "",
        "token": owner.token if owner else 0,
        "label_count": live.label_count if live else 0,
    }


def compare_posterior(slug: str) -> dict[str, Any]:
    """Compare the files and what was served with a rebuild from the labels, in this process: torch is loaded once."""
    from django.core.management import CommandError, call_command

    words = io.StringIO()
    try:
        call_command("rebuild_posterior", slug, check=True, stdout=words)
    except CommandError as error:
        return {"words": words.getvalue(), "error": str(error)}
    return {"words": words.getvalue()}


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    from django.db import Error, connections

    for line in sys.stdin:
        *check, slug = line.split()
        try:
            found = compare_posterior(slug) if check else what_is_stored(slug)
        except Error as error:
            found = {"error": str(error)}
        connections.close_all()
        print(json.dumps(found), flush=True)
