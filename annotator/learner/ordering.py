"""Which strategy is in force: the project's, as soon as what it looks at is there; until then the one before it."""

import logging

from alcore.store import StoreError
from annotator.learner.ownership import owned
from annotator.learner.parts import PartError, read_part
from annotator.learner.selecting import WITH_STATE, FixedOrder, Order, selection
from annotator.learner.standing import DEAR, LARGE, StandingOrder
from annotator.learner.state import ProjectState
from annotator.models import Linearization, Project, Ranking
from annotator.models.strategies import Part, Strategy, part_of
from annotator.queries.strategies import missing_part

log = logging.getLogger(__name__)

FIXED = (Strategy.BALD, Strategy.LL4AL)
ONE_ORDER = (*WITH_STATE, *FIXED)


def settle(state: ProjectState, project: Project) -> None:
    """Put the project's strategy in force, or, while what it looks at is missing, the one before it or look-ahead.

    An order that is the same for every answer is brought up to date.
    """
    before = state.strategy or _served(project)
    for strategy in (project.strategy, before, Strategy.LOOKAHEAD.value):
        if _is_there(state, project, strategy) and _made(state, project, strategy):
            state.strategy = strategy
            break
    if state.order is not None:
        state.order.follow(state, project)


def _served(project: Project) -> str:
    """The strategy of the last ranking, also where another process made it."""
    return Ranking.objects.filter(project=project, image=None).values_list("strategy", flat=True).first() or ""


def _is_there(state: ProjectState, project: Project, strategy: str) -> bool:
    allowed = Project.STRATEGIES[Project.LabelType(project.label_type)]
    return strategy in allowed and missing_part(project, state.linearization, strategy) is None


def _made(state: ProjectState, project: Project, strategy: str) -> bool:
    """Make the order where it is one for every answer; False where what it looks at cannot be read."""
    standing = strategy in DEAR and state.posterior.size > LARGE
    if state.network_number == 0 or not (standing or strategy in ONE_ORDER):
        state.order = None
        return True
    part = part_of(strategy, pretrained=project.is_pretrained)
    name = state.linearization.part_files[part.name] if part else ""
    made_of = (strategy, state.linearization.pk, name)
    if state.order is not None and state.order.made_of == made_of and not state.order.used_up:
        return True
    if standing:
        state.order = StandingOrder(strategy, made_of)
        return True
    try:
        state.order = _order(state, project, strategy, part, name, made_of)
    except (StoreError, PartError) as error:
        log.error("project %s: %s cannot be used: %s", project.pk, name, error)
        _give_up(state, part, name)
        return False
    return True


def _order(
    state: ProjectState, project: Project, strategy: str, part: Part | None, name: str, made_of: object
) -> Order:
    values = read_part(part, name, images=state.posterior.size) if part else None
    if strategy in FIXED and values is not None:
        return FixedOrder(strategy, made_of, values)
    return selection(state, project, strategy, values, made_of=made_of)


def _give_up(state: ProjectState, part: Part | None, name: str) -> None:
    """The file is a cache: without its name it is missing, and is computed again."""
    if part is None:
        return
    with owned(state.claim):
        held = Linearization.objects.select_for_update(no_key=True).get(pk=state.linearization.pk)
        held.part_files = {other: file for other, file in held.part_files.items() if file != name}
        held.save(update_fields=["part_files"])
    state.linearization.part_files = held.part_files
