"""Why an image is shown, in words: by which strategy, or what serves in its place."""

from annotator.models import Job, Linearization, Project, Query
from annotator.models.id_ranges import contains
from annotator.models.scale import plain
from annotator.models.strategies import Strategy, title
from annotator.queries.strategies import computing, missing_part

STRATEGY_WORDS = {
    Strategy.EMOC: "Expected change: over all the answers it could get, this label would change the predictions most.",
    Strategy.ERROR_REDUCTION: "Expected error reduction: this label should save the most wrong predictions.",
    Strategy.VARIANCE_REDUCTION: "Variance reduction: whatever the answer is, it makes the model surest of the pool.",
    Strategy.EPIG: "Information about the pool: this answer tells most of the other images' answers.",
    Strategy.MARGIN: "Margin: the model hesitates most between its two likeliest classes here.",
    Strategy.ENTROPY: "Entropy: the model is least sure of this one.",
    Strategy.LEAST_CONFIDENCE: "Least confidence: of all images, the model believes least in its likeliest class here.",
    Strategy.BALD: "BALD: networks with units dropped disagree most about this one.",
    Strategy.LL4AL: "Learned loss: the model expects to be wrong here more than elsewhere.",
    Strategy.MAX_DET: "Largest variance: of all images that are left, the model is least sure of this one's number.",
    Strategy.CORE_SET: "Core-set: of all images, this one looks least like those that have a label.",
    Strategy.BADGE: "BADGE: drawn by chance among images that would change the last layer much, and each differently.",
    Strategy.TYPICLUST: "TypiClust: the most typical image of the largest group that has the fewest labels.",
    Strategy.PROB_COVER: "ProbCover: the most images that no label stands for yet are close to this one.",
    Strategy.MAX_HERDING: "MaxHerding: with this one the labelled images resemble the whole pool most.",
    Strategy.UNCERTAINTY_HERDING: "Uncertainty Herding: this one stands for the most images the model is unsure of.",
    Strategy.LCMD: "LCMD: the farthest image of the largest group around one label, as the network tells them apart.",
    Strategy.RANDOM: "Random: drawn by chance, as this project's strategy says.",
}
RESERVE_WORDS = "From the reserve: laid aside before the connection failed, with the predictions of that moment."
FALLBACK_WORDS = {
    "present": "From the last ranking: the one for your answer was not ready yet.",
    "cold_start": "From the order of diversity: no ranking is ready yet.",
    "random": "Drawn at random: no ranking is ready yet.",
    "reserve": "Somebody keeps this one for the time without a connection: nothing else is left.",
}


def reason(project: Project, query: Query, live: Linearization | None) -> str:
    """Say why this image; also that another strategy serves until what the project's looks at is there."""
    if query.kind == Query.Kind.AUDIT:
        return "Audit: drawn at random, to measure how accurate the model is."
    if query.kind == Query.Kind.COLD_START:
        return "Cold start: unlike the images before it, while no network has been trained yet."
    if query.kind == Query.Kind.UNDO:
        return _undo_reason(query, live)
    if query.kind == Query.Kind.RESERVE:
        return RESERVE_WORDS
    if query.kind == Query.Kind.FALLBACK:
        return FALLBACK_WORDS[query.source]
    return f"{_strategy_reason(project, query)} {_until_then(project, query, live)}".strip()


def _strategy_reason(project: Project, query: Query) -> str:
    if query.strategy == Strategy.LOOKAHEAD:
        return _certainty_reason(query) if project.is_regression else f"Look-ahead: {_effects(query)}"
    if query.strategy == Strategy.LOOKAHEAD_NETWORK:
        return f"Look-ahead against the network: {_effects(query)}"
    if query.strategy == Strategy.LOOKAHEAD_SQUARES:
        return f"Look-ahead by squares: {_effects(query)}"
    flipped = query.flipped if query.flipped is not None else round(query.score or 0)  # its score is their number
    if query.strategy == Strategy.FLIPS and flipped:
        return f"Flips: this label would turn {_predictions(flipped)} to another class."
    if query.strategy == Strategy.FLIPS:
        return "Flips: of the images it rated, none would turn a prediction to another class; this is one of them."
    words = STRATEGY_WORDS.get(Strategy(query.strategy)) if query.strategy in Strategy.values else None
    return words or f"Chosen by {title(query.strategy)}."


def _until_then(project: Project, query: Query, live: Linearization | None) -> str:
    if query.strategy == project.strategy or missing_part(project, live) is None:
        return ""
    job = computing(project)
    if job is not None and job.state == Job.State.FAILED:
        return f"{title(project.strategy)} could not begin: an admin sees why on the project's page."
    return f"{title(project.strategy)} begins as soon as what it looks at is computed."


def _effects(query: Query) -> str:
    """An image whose outputs move a little may change class, and one whose outputs move a lot may not: two counts."""
    effects = []
    if query.moved:
        effects.append(f"move {_predictions(query.moved)}")
    if query.flipped:
        count = f"{query.flipped:,}" if effects else _predictions(query.flipped)
        effects.append(f"turn {count} to another class")
    return f"this label would {' and '.join(effects) or 'change the predictions the most'}."


def _certainty_reason(query: Query) -> str:
    """Of a number it is known beforehand how much surer it makes the model, whatever it will be."""
    if query.score is None:
        return "Look-ahead: whatever its number is, it would make the model surest of all images."
    share = plain(float(f"{100 * query.score:.2g}"))
    return f"Look-ahead: whatever its number is, it takes away {share} % of the model's uncertainty over all images."


def _predictions(count: int) -> str:
    return f"{count:,} prediction{'' if count == 1 else 's'}"


def _undo_reason(query: Query, live: Linearization | None) -> str:
    words = "Back after undo: your answer and its effect on the model are taken back."
    if live and query.follows_id and contains(live.network_version.label_ids, query.follows_id):
        number = live.network_version.number
        words += f" Network {number} was trained with it: its weights keep it until the next training."
    return words
