"""Multi-head attention with its projections laid open: torch's own forward hides them."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from alcore.sketch.layers.linear import linear_rows, refuse_derived

if TYPE_CHECKING:
    from alcore.sketch.capture import GradientCapture


def multi_head_attention(
    capture: "GradientCapture",
    func: object,
    query: Tensor,  # (T, images, E)
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,  # noqa: ARG001 - torch's signature
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,  # noqa: ARG001 - then there is a mask, too
) -> tuple[Tensor, Tensor | None]:
    """torch.nn.functional.multi_head_attention_forward, which torch.nn.MultiheadAttention calls in eval mode."""
    packed = (in_proj_weight, in_proj_bias, out_proj_weight, out_proj_bias)
    parts = (q_proj_weight, k_proj_weight, v_proj_weight)
    refuse_derived(capture, func, **{str(place): weight for place, weight in enumerate((*packed, *parts))})
    refuse_derived(capture, func, query=query, key=key, value=value)
    if query.ndim != 3:
        raise capture.unsupported(func, (*packed, *parts), f"queries of shape {tuple(query.shape)} have no image axis")
    extra = [item for item in (bias_k, bias_v, static_k, static_v) if item is not None]
    if extra or add_zero_attn or (training and dropout_p > 0):
        raise capture.unsupported(func, (*packed, *parts, *extra), "bias_k, bias_v, static keys, zero keys or dropout")
    weights = list(parts) if use_separate_proj_weight else [in_proj_weight] * 3
    projected = _project(capture, (query, key, value), weights, in_proj_bias, use_separate_proj_weight)
    heads = [
        tensor.view(*tensor.shape[:2], num_heads, -1).transpose(1, 2) for tensor in projected
    ]  # (images, heads, T, E / h)
    mask = _mask(attn_mask, key_padding_mask, heads[0])
    mixed, shares = _attend(heads, mask, need_weights=need_weights)
    output = linear_rows(capture, mixed.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias)
    if shares is not None and average_attn_weights:
        shares = shares.mean(1)
    return output.transpose(0, 1), shares


def _project(
    capture: "GradientCapture",
    inputs: tuple[Tensor, Tensor, Tensor],
    weights: list[Tensor | None],
    bias: Tensor | None,
    separate: bool,
) -> list[Tensor]:  # three of (images, T, E)
    """Queries, keys and values; one product where all three are made of the same input by one weight."""
    by_image = [tensor.transpose(0, 1) for tensor in inputs]
    if not separate and inputs[0] is inputs[1] is inputs[2] and weights[0] is not None:
        return list(linear_rows(capture, by_image[0], weights[0], bias).chunk(3, dim=2))
    projected = []
    for place, (tensor, weight) in enumerate(zip(by_image, weights, strict=True)):
        if weight is None:
            raise capture.unsupported("attention", weights, "one of its projections is missing")
        width = len(weight) if separate else len(weight) // 3
        rows = slice(place * width, (place + 1) * width)
        weight_rows = slice(None) if separate else rows  # separate weights still share one bias
        projected.append(linear_rows(capture, tensor, weight, bias, rows=weight_rows, bias_rows=rows))
    return projected


def _mask(attention: Tensor | None, padding: Tensor | None, query: Tensor) -> Tensor | None:
    """What is added to the scores: -inf where a boolean mask hides; padding hides keys."""
    total: Any = None
    if attention is not None:
        added = _additive(attention, query)
        total = added.view(-1, query.shape[1], *added.shape[1:]) if added.ndim == 3 else added
    if padding is not None:
        hidden = _additive(padding, query)[:, None, None, :]
        total = hidden if total is None else total + hidden
    return None if total is None else torch.as_tensor(total)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -torch.inf)


def _attend(heads: list[Tensor], mask: Tensor | None, *, need_weights: bool) -> tuple[Tensor, Tensor | None]:
    query, key, value = heads
    if not need_weights:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask), None
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    shares = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    return shares @ value, shares
