"""manage.py worker_health KIND: whether this machine's worker of a kind is alive, as an exit code for a container."""

import socket
from datetime import timedelta

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from annotator.models import WorkerHeartbeat


class Command(BaseCommand):
    help = "Say when this machine's worker was last seen; fails when that is too long ago. For health checks."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("kind", choices=WorkerHeartbeat.Kind.values)

    def handle(self, *_args: object, kind: str, **_options: object) -> None:
        here = WorkerHeartbeat.objects.filter(kind=kind, name__startswith=f"{kind}@{socket.gethostname()}.")
        newest = here.order_by("-seen_at").first()
        if newest is None:
            raise CommandError(f"No {kind} worker of this machine has been seen.")
        silent = timezone.now() - newest.seen_at
        if silent > timedelta(seconds=settings.WORKER_STALE_SECONDS):
            raise CommandError(f"The {kind} worker was last seen {int(silent.total_seconds())} seconds ago.")
        self.stdout.write(f"The {kind} worker was seen {int(silent.total_seconds())} seconds ago.")
