"""The annotator's page: one card, its answer, and the next one in the same response."""

from functools import partial
from uuid import UUID, uuid4

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import reswap, retarget

from annotator import access, metrics
from annotator.actions import labelling, leasing
from annotator.actions.labelling import LabellingError, NothingToUndoError, QueryClosedError
from annotator.forms.labelling import AnswerForm, CorrectionForm, UndoForm, first_error
from annotator.models import Annotation, AnnotationSession
from annotator.queries import batches
from annotator.queries import labelling as queries
from annotator.queries.cards import Card, answer_words

CONFLICT, UNPROCESSABLE = 409, 422


@require_GET
def annotate(request: HttpRequest, slug: str) -> HttpResponse:
    """Open a session for this tab; its id in the address makes a reload show the same card."""
    found = access.for_member(request.user, slug)
    device = request.headers.get("User-Agent", "")
    session = leasing.open_session(user=found.user, project=found.project, device=device)
    return redirect("annotate-session", slug, session.pk)


@require_GET
@never_cache
@vary_on_headers("HX-Request")
def annotate_session(request: HttpRequest, slug: str, session_id: UUID) -> HttpResponse:
    """Show the tab's card; 204 to a page that waits for an image and would be told what it shows already."""
    session = access.own_session(request.user, session_id, slug=slug)
    card = leasing.current_card(session=session)
    if card.empty and request.GET.get("waiting") == card.empty.kind:
        return HttpResponse(status=204)
    return show(request, card)


@require_POST
def annotate_answer(request: HttpRequest, slug: str, session_id: UUID) -> HttpResponse:
    """Record the answer and show the next card."""
    session = access.own_session(request.user, session_id, slug=slug)
    form = AnswerForm(request.POST, unit=session.project.unit)
    if not form.is_valid():
        return refuse(request, session, first_error(form))
    try:
        card = labelling.record_annotation(
            session=session,
            query_id=form.cleaned_data["query"],
            answer=form.as_answer(),
            client_key=form.cleaned_data["client_key"],
            newest=form.cleaned_data["newest"],
        )
    except QueryClosedError as error:
        return show(request, error.card, message=str(error), status=CONFLICT)
    except LabellingError as error:
        return refuse(request, session, str(error))
    metrics.next_card(request, card, interface="page")
    return follow(request, card, spoken=spoken_answer(card))


@require_POST
def annotate_undo(request: HttpRequest, slug: str, session_id: UUID) -> HttpResponse:
    """Take the last answer back and show its image again."""
    session = access.own_session(request.user, session_id, slug=slug)
    form = UndoForm(request.POST)
    if not form.is_valid():
        return refuse(request, session, first_error(form))
    try:
        card = labelling.undo(session=session, client_key=form.cleaned_data["client_key"])
    except NothingToUndoError as error:
        return refuse(request, session, str(error))
    return follow(request, card, spoken="Answer taken back.")


@require_http_methods(["GET", "POST"])
@never_cache
@vary_on_headers("HX-Request")
def annotate_correct(request: HttpRequest, slug: str, session_id: UUID, annotation_id: int) -> HttpResponse:
    """Ask for, and take, an amendment of an earlier answer; the card on screen stays."""
    session = access.own_session(request.user, session_id, slug=slug)
    if request.method == "GET":
        return ask_for_correction(request, session, annotation_id)
    form = CorrectionForm(request.POST, unit=session.project.unit)
    if not form.is_valid():
        return refuse(request, session, first_error(form))
    try:
        labelling.correct(
            user=session.user,
            project=session.project,
            annotation_id=annotation_id,
            answer=form.as_answer(),
            client_key=form.cleaned_data["client_key"],
        )
    except LabellingError as error:
        return refuse(request, session, str(error))
    return follow(request, leasing.current_card(session=session), spoken="Answer corrected.")


def ask_for_correction(request: HttpRequest, session: AnnotationSession, annotation_id: int) -> HttpResponse:
    """Show the form for one of the last answers, or say that it does not stand any more."""
    card = leasing.current_card(session=session)
    correction = queries.standing_answer(session, annotation_id)
    if correction is None:
        words = "This answer was corrected or taken back meanwhile."
        return reswap(retarget(show(request, card, message=words, status=CONFLICT), "#card"), "outerHTML")
    return show(request, card, correction=correction)


@require_POST
def annotate_heartbeat(request: HttpRequest, slug: str, session_id: UUID) -> HttpResponse:
    """Prolong the tab's lease; 410 when it has none any more, and the page asks for its card again."""
    session = access.own_session(request.user, session_id, slug=slug, classes=False)
    return HttpResponse(status=204 if leasing.renew(session=session) else 410)


@require_POST
def annotate_leave(request: HttpRequest, slug: str, session_id: UUID) -> HttpResponse:
    """Let the lease end soon: the tab was closed or left."""
    session = access.own_session(request.user, session_id, slug=slug, classes=False)
    leasing.shorten(session=session)
    return HttpResponse(status=204)


@require_GET
@never_cache
def annotate_preload(request: HttpRequest, slug: str, session_id: UUID, query_id: UUID) -> HttpResponse:
    """Name the images that could follow each answer; 204 while they are not known yet."""
    session = access.own_session(request.user, session_id, slug=slug, classes=False)
    images = queries.preload_images(session=session, query_id=query_id)
    if not images:
        return HttpResponse(status=204)
    return render(request, "annotator/annotate.html#preload", {"images": images})


def show(
    request: HttpRequest,
    card: Card,
    *,
    message: str = "",
    spoken: str = "",
    status: int = 200,
    correction: Annotation | None = None,
) -> HttpResponse:
    """Render the whole page, or for htmx the card with what changes around it, or the correction alone."""
    project = card.session.project
    context = {
        "access": partial(access.for_member, request.user, project.slug),  # the fragments seldom ask
        "project": project,
        "card": card,
        "message": message,
        "spoken": spoken,
        "correction": correction,
        "keys": [str(uuid4()) for _ in range(2)],
        "many_classes": len(card.classes) > 10,
        "long_names": any(len(item.label_class.name) > 4 for item in card.classes),
        "lease_seconds": settings.LEASE_SECONDS,
        "most_answers": queries.RECENT,
        "open_batches": partial(batches.open_lines, project),  # the whole page and an empty card ask alone
    }
    fragment = "#correction" if correction else "#swap"
    template = "annotator/annotate.html" + (fragment if request.headers.get("HX-Request") else "")
    return render(request, template, context, status=status)


def follow(request: HttpRequest, card: Card, *, spoken: str) -> HttpResponse:
    """After a change: the fragments for htmx; a redirect for a plain form, so that a reload sends nothing twice."""
    if request.headers.get("HX-Request"):
        return show(request, card, spoken=spoken)
    return redirect("annotate-session", card.session.project.slug, card.session.pk)


def refuse(request: HttpRequest, session: AnnotationSession, message: str) -> HttpResponse:
    return show(request, leasing.current_card(session=session), message=message, status=UNPROCESSABLE)


def spoken_answer(card: Card) -> str:
    """Say what was recorded and which image is on screen now."""
    last = card.recent[0] if card.recent else None
    if last is None:
        return ""
    words = answer_words(last, card.session.project)
    done = f"Labelled {words}." if last.kind == Annotation.Kind.LABEL else f"{words.capitalize()}."
    return f"{done} Image {card.query.number}." if card.query else done
