"""A network that is a table: logits by state, few positions and tokens, so that its distributions can be enumerated.

The states are evaluated row by row, so a row has the same logits, bit for bit, in every batch.
"""

import itertools

import torch


class ToyNetwork:
    """Seeded random logits for each of the (V + 1)^L states, and an offset for each of `chunks` observations; `ties`
    makes many of them equal."""

    def __init__(self, length=3, vocabulary=3, seed=0, scale=1.5, shared=1.5, ties=False, chunks=0):
        generator = torch.Generator().manual_seed(seed)
        self.length, self.vocabulary = length, vocabulary
        states = (vocabulary + 1) ** length
        own = scale * torch.randn(states, length, vocabulary, generator=generator)
        # A part that hardly depends on the state, as in a trained network: it is what makes drafts succeed.
        self.table = own + shared * torch.randn(length, vocabulary, generator=generator)
        self.seen = torch.randn(chunks, length, vocabulary, generator=generator) if chunks else None
        if ties:
            self.table = self.table.round()
            self.seen = None if self.seen is None else self.seen.round()
        self.weights = (vocabulary + 1) ** torch.arange(length)

    def __call__(self, states, owner):
        logits = self.table[(states * self.weights).sum(dim=1)]
        return logits if self.seen is None else logits + self.seen[owner]


def any_order_distribution(network):
    """Exact distribution (V^L,) of revealing one position at a time in an order that is drawn uniformly."""
    length, vocabulary = network.length, network.vocabulary
    total = torch.zeros((vocabulary,) * length, dtype=torch.float64)
    for order in itertools.permutations(range(length)):
        for tokens in itertools.product(range(vocabulary), repeat=length):
            state, probability = torch.full((1, length), vocabulary), 1.0
            for position in order:
                logits = network.table[(state * network.weights).sum(dim=1)][0, position].double()
                probability *= float(logits.softmax(dim=0)[tokens[position]])
                state[0, position] = tokens[position]
            total[tokens] += probability
    return (total / total.sum()).flatten()


def confidence_distribution(network):
    """Exact distribution (V^L,) of revealing the most confident position first, one at a time."""
    length, vocabulary = network.length, network.vocabulary
    total = torch.zeros((vocabulary,) * length, dtype=torch.float64)

    def walk(state, probability):
        masked = (state == vocabulary).nonzero().flatten()
        if not len(masked):
            total[tuple(state.tolist())] += probability
            return
        chances = network.table[int((state * network.weights).sum())].double().softmax(dim=-1)
        position = int(masked[chances[masked].amax(dim=1).argmax()])
        for token in range(vocabulary):
            walk(state.index_fill(0, torch.tensor([position]), token), probability * float(chances[position, token]))

    walk(torch.full((length,), vocabulary), 1.0)
    return total.flatten()


def uniform_source(batch, seed):
    """What `Rule.draw_noise` draws from."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.rand(batch, *shape, generator=generator, dtype=torch.float64)
