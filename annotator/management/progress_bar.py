"""How far a command is."""

import sys

from django.core.management.base import BaseCommand

BAR_WIDTH = 30


class Bar:
    """A progress bar on a terminal; elsewhere a line every tenth of the way."""

    def __init__(self, command: BaseCommand) -> None:
        self.out = command.stderr
        self.terminal = sys.stderr.isatty()
        self.tenth = -1

    def show(self, share: float, words: str) -> None:
        if self.terminal:
            full = round(share * BAR_WIDTH)
            self.out.write(f"\r[{'█' * full}{'·' * (BAR_WIDTH - full)}] {share:4.0%}  {words}", ending="")
        elif int(share * 10) > self.tenth:
            self.tenth = int(share * 10)
            self.out.write(f"{share:4.0%}  {words}")

    def finish(self) -> None:
        if self.terminal:
            self.out.write("")
