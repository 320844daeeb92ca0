"""Estimates from the labels alone, against really leaving each label out."""

import pytest
import torch
from hypothesis import given, settings

from alcore.estimates import EstimateError, leave_one_out_accuracy, mean_votes, suspicious_labels
from alcore.posterior import make_posterior
from tests.alcore import reference
from tests.alcore.posteriors import FORMS, absorb, labelled_pools


def slow_predictions(pool, labels) -> dict[int, torch.Tensor]:
    """Each labelled image's mean under the labels of all the others."""
    rows = sorted({row for row, _ in labels})
    return {
        row: reference.posterior(pool.kernel, pool.outputs, [own for own in labels if own[0] != row], pool.ridge)[0][
            row
        ]
        for row in rows
    }


def clear(predictions, votes) -> bool:
    """No two classes are equal to rounding, before or after."""
    tops = torch.stack([*predictions.values(), *votes]).topk(2, dim=1).values
    return bool((tops[:, 0] - tops[:, 1]).min() > 1e-7)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(min_labels=1))
def test_accuracy_and_suspects_are_those_of_really_leaving_labels_out(form, drawn):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    predictions = slow_predictions(pool, labels)
    votes = mean_votes(posterior, list(predictions))
    if not clear(predictions, votes):
        return
    wrong = [
        (-float((vote - predictions[row]).norm()), row, int(vote.argmax()), int(predictions[row].argmax()))
        for row, vote in zip(predictions, votes, strict=True)
        if int(vote.argmax()) != int(predictions[row].argmax())
    ]
    assert leave_one_out_accuracy(posterior) == pytest.approx(1 - len(wrong) / len(predictions))
    found = suspicious_labels(posterior, top=100)
    assert {(label.row, label.given, label.predicted) for label in found} == {entry[1:] for entry in wrong}
    assert [-label.residual for label in found] == pytest.approx([entry[0] for entry in sorted(wrong)], abs=1e-6)


def test_a_wrong_label_among_right_ones_is_the_first_suspect():
    generator = torch.Generator().manual_seed(0)
    features = torch.cat(
        [torch.randn(20, 6, generator=generator) * 0.1 + 1, torch.randn(20, 6, generator=generator) * 0.1 - 1]
    )
    posterior = make_posterior(features=features, outputs=torch.zeros(40, 2), ridge=0.1)
    classes = [0] * 20 + [1] * 20
    classes[7] = 1
    posterior.condition_(range(40), torch.eye(2)[classes])
    [suspect] = suspicious_labels(posterior, top=5)
    assert (suspect.row, suspect.given, suspect.predicted) == (7, 1, 0)
    assert leave_one_out_accuracy(posterior) == pytest.approx(39 / 40)
    assert suspicious_labels(posterior, top=1) == (suspect,)


def test_without_labels_there_is_no_accuracy_and_no_suspect():
    posterior = make_posterior(features=torch.eye(3), outputs=torch.zeros(3, 2), ridge=0.1)
    assert leave_one_out_accuracy(posterior) is None
    assert suspicious_labels(posterior, top=5) == ()
    assert mean_votes(posterior, []).shape == (0, 2)


def test_what_has_no_meaning_is_refused():
    posterior = make_posterior(features=torch.eye(3), outputs=torch.zeros(3, 1), ridge=0.1)
    with pytest.raises(EstimateError, match="1 output has none"):
        leave_one_out_accuracy(posterior)
    two = make_posterior(features=torch.eye(3), outputs=torch.zeros(3, 2), ridge=0.1)
    with pytest.raises(EstimateError, match="0 suspicious labels"):
        suspicious_labels(two, top=0)
    with pytest.raises(EstimateError, match=r"rows \[1\]"):
        mean_votes(two, [1])
