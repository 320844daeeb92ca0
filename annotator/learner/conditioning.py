"""Bringing a posterior to what the database says: labels, withdrawals and corrections, deleted images, leases."""

from collections import Counter
from collections.abc import Iterable

import torch

from alcore.posterior import Posterior
from annotator.learner import reading
from annotator.learner.reading import Votes
from annotator.learner.state import ProjectState, fresh_posterior
from annotator.learner.targets import Key, Targets, Vote
from annotator.models import Project

MANY_CHANGES = 32  # labels taken back in one pass; beyond, building anew is cheaper and as exact


def read_everything(state: ProjectState, project: Project) -> None:
    """Compare every label, whatever was read before: the posterior is then what the database says."""
    look_up(state, project)
    bring_to(state, set(state.votes) | set(state.posterior.votes))


def look_up(state: ProjectState, project: Project) -> None:
    """Read every label, for `bring_to` to bring the posterior to them.

    The ids are read before the votes: a label that arrives in between is absorbed now and found unread next time, when
    there is nothing left to do for it. The other way round it would be lost.
    """
    ids = reading.all_ids(project)
    rows = reading.rows_of(project, ids)
    state.deleted = reading.deleted_rows(project)
    state.set_images(reading.image_ids(project, state.posterior.size))
    state.outside = {pk for pk, row in rows.items() if row >= state.posterior.size}
    state.votes = reading.current_votes(project)
    state.known = ids
    state.foreign = reading.foreign_ids(project, above=min(ids, default=0))


def read_unread(state: ProjectState, project: Project) -> None:
    """Absorb everything unread as one block; where annotations are gone (with their image), compare all of them."""
    _follow_deletions(state, project)
    unread = reading.unread_ids(project, state.known)
    if unread is None:
        read_everything(state, project)
    elif unread:
        _absorb(state, project, unread)


def _absorb(state: ProjectState, project: Project, unread: set[int]) -> None:
    rows = reading.rows_of(project, unread)
    touched = set(rows.values())
    votes = reading.current_votes(project, touched)
    state.votes = {row: held for row, held in state.votes.items() if row not in touched} | votes
    bring_to(state, touched)
    horizon = max(state.known, default=min(unread))
    state.known |= unread
    state.outside |= {pk for pk, row in rows.items() if row >= state.posterior.size}
    state.foreign |= reading.foreign_ids(project, above=horizon)


def _follow_deletions(state: ProjectState, project: Project) -> None:
    """Labels of deleted images do not count."""
    deleted = reading.deleted_rows(project)
    if deleted == state.deleted:
        return
    changed, state.deleted = deleted ^ state.deleted, deleted
    state.set_images(reading.image_ids(project, state.posterior.size))
    votes = reading.current_votes(project, changed)
    state.votes = {row: held for row, held in state.votes.items() if row not in changed} | votes
    bring_to(state, set(changed))


def bring_to(state: ProjectState, rows: set[int]) -> None:
    """Change the posterior from the votes it holds on these rows to those of the database.

    Only the difference counts, so this is safe to repeat: no label is lost or counted twice.
    """
    posterior, targets = state.posterior, state.targets
    gone: list[tuple[int, Key, Key | None]] = []  # row, label, and the label that replaces it
    added: list[tuple[int, Key]] = []
    for row in sorted(row for row in rows if row < posterior.size):
        wanted = Counter(usable_keys(targets, state.votes.get(row, []), posterior))
        held = Counter(targets.key_of(vote) for vote in posterior.votes.get(row, []))
        old, new = list((held - wanted).elements()), list((wanted - held).elements())
        gone += [(row, key, new[place] if place < len(new) else None) for place, key in enumerate(old)]
        added += [(row, key) for key in new[len(old) :]]
    if len(gone) > MANY_CHANGES:
        _build_anew(state)
        return
    for row, key, other in gone:
        if other is None:
            posterior.forget_(row, targets.target(key, posterior.mean))
        else:
            posterior.relabel_(row, targets.target(key, posterior.mean), targets.target(other, posterior.mean))
    _condition(posterior, targets, added)


def usable_keys(targets: Targets, votes: Iterable[Vote], posterior: Posterior) -> list[Key]:
    """Return the keys of labels, those of classes that came after the linearisation left out."""
    usable = (vote for vote in votes if targets.is_usable(vote, outputs=posterior.classes))
    return [targets.key(vote, posterior.mean) for vote in usable]


def usable_votes(state: ProjectState) -> dict[int, list[Key]]:
    """Return the keys of the labels that the posterior takes in, by row: those that were read, in it already or not."""
    keys = {
        row: usable_keys(state.targets, votes, state.posterior)
        for row, votes in state.votes.items()
        if row < state.posterior.size
    }
    return {row: held for row, held in keys.items() if held}


def _build_anew(state: ProjectState) -> None:
    """Leases are not pending in the new posterior: they are held after the labels, in every pass."""
    state.posterior = fresh_posterior(state.arrays, ridge=state.posterior.ridge)
    condition(state.posterior, state.targets, state.votes)


def condition(posterior: Posterior, targets: Targets, votes: Votes) -> None:
    """Absorb votes as one block; labels of images and classes that came after the linearisation are left out."""
    rows = [row for row in sorted(votes) if row < posterior.size]
    _condition(posterior, targets, [(row, key) for row in rows for key in usable_keys(targets, votes[row], posterior)])


def _condition(posterior: Posterior, targets: Targets, labels: list[tuple[int, Key]]) -> None:
    if labels:
        wanted = torch.stack([targets.target(key, posterior.mean) for _, key in labels])
        posterior.condition_([row for row, _ in labels], wanted)


def hold_leases(state: ProjectState, rows: set[int]) -> None:
    """Let exactly the images out on a lease be pending."""
    rows = {row for row in rows if row < state.posterior.size}
    pending = set(state.posterior.pending)
    state.posterior.cancel_(*pending - rows)
    state.posterior.pend_(*sorted(rows - pending))
