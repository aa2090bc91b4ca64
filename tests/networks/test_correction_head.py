"""The correction head: shapes, silence at the root and before training, rows apart."""

import pytest
import torch

from specpolicy.networks.correction_head import CorrectionHead

HORIZON, ACTION_DIM, STEPS, WINDOW, BATCH = 4, 3, 20, 6, 5


@pytest.fixture
def head():
    """A head whose changes are not zero."""
    torch.manual_seed(0)
    head = CorrectionHead(HORIZON, ACTION_DIM, cond_dim=7, train_steps=STEPS, width=16)
    torch.nn.init.normal_(head.out.weight)
    torch.nn.init.normal_(head.out.bias)
    return head.eval()


def inputs(batch=BATCH):
    """Roots, their x0, timesteps, timesteps below, conditions of two axes."""
    generator = torch.Generator().manual_seed(1)
    root, x0 = (torch.randn(batch, HORIZON, ACTION_DIM, generator=generator) for _ in range(2))
    start = torch.randint(WINDOW, STEPS, (batch,), generator=generator)
    return root, x0, start, start[:, None] - torch.arange(WINDOW), torch.randn(batch, 1, 7, generator=generator)


def test_one_change_for_each_timestep_and_none_at_the_root(head):
    change = head(*inputs())
    assert change.shape == (BATCH, WINDOW, HORIZON, ACTION_DIM)
    assert change[:, 0].eq(0).all() and change[:, 1:].ne(0).all()


def test_before_training_it_is_silent():
    assert CorrectionHead(HORIZON, ACTION_DIM, 7, STEPS)(*inputs()).eq(0).all()


def test_rows_and_timesteps_do_not_know_of_each_other(head):
    root, x0, start, timesteps, cond = inputs()
    together = head(root, x0, start, timesteps, cond)
    for row in range(BATCH):
        for place in range(WINDOW):
            one = [part[row : row + 1] for part in (root, x0, start)]
            alone = head(*one, timesteps[row : row + 1, place : place + 1], cond[row : row + 1])
            torch.testing.assert_close(alone[0, 0], together[row, place], rtol=1e-4, atol=1e-5)


def test_it_reads_all_it_is_given(head):
    given = inputs()
    change = head(*given)
    for place in (0, 1, 4):
        moved = [part + 1 if at == place else part for at, part in enumerate(given)]
        assert not torch.allclose(head(*moved)[:, 1:], change[:, 1:])


def test_a_network_without_conditions_and_an_empty_window():
    head = CorrectionHead(HORIZON, ACTION_DIM, cond_dim=0, train_steps=STEPS, width=16)
    root, x0, start, timesteps, _ = inputs()
    assert head(root, x0, start, timesteps, None).shape == (BATCH, WINDOW, HORIZON, ACTION_DIM)
    assert head(root, x0, start, timesteps[:, :0], None).shape == (BATCH, 0, HORIZON, ACTION_DIM)
