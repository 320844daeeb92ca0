"""One process that takes images and labels them as fast as it can, without a web server: run as a program.

    python -m tests.faults.takers SLUG NAME COUNT THREADS

Each thread is a tab of its own. It says "ready", waits for a line, and prints what was taken: [[tab, image], ...].
"""

import json
import os
import sys
import threading
from uuid import uuid4


def take(slug: str, name: str, count: int, tab: str, taken: list[tuple[str, int]], begin: threading.Event) -> None:
    from django.contrib.auth.models import User
    from django.db import connection

    from annotator.actions import labelling, leasing, reserving
    from annotator.models import Project
    from annotator.models.answer import Answer

    user, project = User.objects.get(username=name), Project.objects.get(slug=slug)
    session = leasing.open_session(user=user, project=project, device=tab)
    begin.wait()
    card = leasing.current_card(session=session)
    for number in range(count):
        if card.query is None:
            break
        taken.append((tab, card.query.image_id))
        if number % 4 == 0:
            reserving.refill(session=session)
        answer = Answer(kind="label", class_index=number % 10)
        card = labelling.record_annotation(session=session, query_id=card.query.pk, answer=answer, client_key=uuid4())
    connection.close()


def main(slug: str, name: str, count: int, threads: int) -> None:
    taken: list[tuple[str, int]] = []
    begin = threading.Event()
    tabs = [f"{name}-{os.getpid()}-{number}" for number in range(threads)]
    running = [threading.Thread(target=take, args=(slug, name, count, tab, taken, begin)) for tab in tabs]
    for thread in running:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    begin.set()
    for thread in running:
        thread.join()
    print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
