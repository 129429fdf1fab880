"""Bytes of one pass of training, forward and backward, at its largest moment. Pure.

Three moments can be the largest, and torch's own tracker finds them (benchmarks/memory.py):

    the forward pass ends     autocast's copies of all weights, and what is kept of every layer
    the output layer's turn   its gradient, in float32, and the tiles in which TRL computes log-probabilities
    a layer's turn            that layer whole, what is computed on its way back, and what is kept of the others

With sharding autocast has nothing to copy: weights are gathered in the run's dtype, a layer at a time, and a layer's
gradient is whole, in that dtype and in float32, until the processes have summed it (FSDP2 in torch).

Tied embeddings have their gradient from the output layer at hand until the embedding's own comes, at the very end.
"""

from __future__ import annotations

from selfevo_contract.sizing.architecture import Architecture

TILE_TOKENS, TILE_WORDS = 4096, 32_768
"""A tile of the output layer, in TRL 1.16: so many tokens by so much of the vocabulary."""


def pass_bytes(
    model: Architecture,
    tokens: int,
    sequence: int,
    *,
    checkpointing: bool,
    whole: bool,
    computed: int,
    gathered: int = 0,
) -> int:
    """Without the gradients that are kept from pass to pass.

    Args:
        tokens: of all sequences of the pass.
        checkpointing: a layer keeps its input only and is computed a second time.
        whole: all weights are trained; an adapter otherwise, on a base in the run's dtype.
        computed: bytes of autocast's copy of a trained weight; 0 where there is none.
        gathered: bytes of a sharded weight when it is gathered; 0 without sharding.
    """
    # Bytes of a layer's input: float32, as the embedding is, and the dtype of the base or of what was gathered.
    stream = 4 if whole and gathered != 2 else 2
    layer = model.saved_by_a_layer(sequence, autocast=gathered != 2)
    on_the_way_back = 4 * model.hidden + 4 * model.intermediate
    embedding = model.embedding
    copies = computed * model.in_layers if whole and not gathered else 0
    gradient = 4 * embedding if whole else 0
    output = tokens * (8 + 2) * model.hidden  # the last norm's input, in float32 and normed, and its result
    tile = 2 * (min(tokens, TILE_TOKENS) + model.hidden) * min(TILE_WORDS, model.vocabulary)
    if checkpointing:
        kept = tokens * stream * model.hidden * model.layers
        again = tokens * layer + copies // model.layers
        copied = 0  # they end with the forward pass
    else:
        kept, again, copied = tokens * layer * model.layers, 0, copies
    forward = copies + kept + output + tile
    head = copied + kept + output + tile + gradient + tokens * 4 * model.hidden
    back = copied + kept + again + tokens * on_the_way_back + (gradient if model.tied else 0)
    if gathered and whole:
        # The output layer's gradient comes in float32, and is kept in the dtype of what was gathered until its sum.
        head += gathered * embedding
        back -= (4 - gathered) * embedding if model.tied else 0
        back += (4 + gathered) * model.in_layers // model.layers  # a layer's, and the sum's input, in float32
    return max(forward, head, back) + (gathered_bytes(model, gathered) if gathered else 0)


def gathered_bytes(model: Architecture, each: int) -> int:
    """Of sharded weights that are whole at the same time, ``each`` bytes a number: the output layer, and three times a
    layer: the one that computes, and the next as it arrives and as it is put in place."""
    return each * (model.embedding + 3 * model.in_layers // model.layers)


def staged_bytes(model: Architecture, parts: int, adapted_in: int = 0) -> int:
    """Of a process's share on its way between CPU memory and GPU, with ``grpo.cpuOffload``: of the output layer or of a
    layer, whichever is larger, the weights as they came and the gradient as it leaves, both in float32.

    Args:
        adapted_in: bytes of a number of a base that an adapter is trained on, of which no gradient leaves.
    """
    return (adapted_in or 4 + 4) * max(model.embedding, model.in_layers // model.layers) // parts
